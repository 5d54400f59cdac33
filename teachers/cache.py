"""What teachers said, remembered on disk: the same picture and label are never looked up twice, by any run.

That is sound because a teacher's answer depends on its own question alone (rule 2 in teachers/__init__.py).
One answer is one file, and its name is the question:

    FOLDER/3f/3fa9...     name: digest of  identity \\0 role \\0 picture \\0 label or box
                          content: digest of the rest (16 bytes), then a compressed numpy array

    identity   who was asked: class, checkpoint, thresholds. A checkpoint that is changed in place keeps its
               name, so put a new one into a new folder.
    array      detector (N, 5): x1, y1, x2, y2, score; segmenter: the mask's bits; pointer (N, 2): x, y

Several processes may share the folder: files are written whole or not at all. One that was damaged does not
match its own digest, does not count, and is written again. A full disk costs time, never the run.

Run:   python argos.py photo.jpg QUESTION RESPONSE --detector owlv2 --teacher_cache out/teachers     # twice
Read:  before, teachers/names.py; next, argos.py
"""
import hashlib
import io
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from runs.errors import BadInput, first_line, warn
from runs.files import write_atomically
from teachers.loading import image_digest
from verifier.coordinates import Box

DIGEST_BYTES = 16


class Cached:
    """A Detector, Segmenter or Pointer whose answers are kept in a folder. BadInput: it cannot be used."""

    def __init__(self, teacher, folder):
        self.teacher = teacher
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"--teacher_cache {folder}: cannot be used ({first_line(error)}); "
                           "name a folder that can be written") from error
        self.identity = getattr(teacher, "identity", type(teacher).__name__)

    def detect(self, image, labels):
        def ask(missing):
            found = self.teacher.detect(image, missing)
            return [_rows_of(boxes) for boxes in found]

        def fits(rows):
            return rows.ndim == 2 and rows.shape[1] == 5

        result = []
        for label, rows in zip(labels, self._answers("detect", image, labels, ask, fits)):
            result.append([Box(*row, label) for row in rows.tolist()])
        return result

    def segment(self, image, boxes):
        def ask(missing):
            masks = self.teacher.segment(image, missing)
            return [np.packbits(mask) for mask in masks]  # eight pixels per byte

        height, width = image.height, image.width

        def fits(bits):
            return bits.dtype == np.uint8 and bits.shape == (math.ceil(height * width / 8),)

        places = [replace(box, score=1.0, label="") for box in boxes]  # a mask depends on the place alone
        masks = np.zeros((len(boxes), height, width), bool)
        for mask, bits in zip(masks, self._answers("segment", image, places, ask, fits)):
            mask[:] = np.unpackbits(bits, count=height * width).reshape(height, width)
        return masks

    def point(self, image, label):
        def ask(missing):
            return [np.array(self.teacher.point(image, label), float).reshape(-1, 2)]

        def fits(rows):
            return rows.ndim == 2 and rows.shape[1] == 2

        rows, = self._answers("point", image, [label], ask, fits)
        return [tuple(row) for row in rows.tolist()]

    def _answers(self, role, image, questions, ask, fits):
        """One array per question, read from the folder where it is there.

        ask(missing): asks the teacher those questions that are not -> one array each. Equal questions are
        asked once. fits(array): has it the form of an answer?
        """
        about = f"{self.identity}\0{role}\0{image_digest(image)}\0"
        paths = {question: self._path(about + str(question)) for question in questions}
        answers = {question: _read(path) for question, path in paths.items()}
        missing = [question for question, answer in answers.items() if answer is None or not fits(answer)]
        if missing:
            for question, answer in zip(missing, ask(missing), strict=True):
                answers[question] = answer
                self._write(paths[question], answer)
        return [answers[question] for question in questions]

    def _path(self, question):
        key = hashlib.blake2b(question.encode("utf-8", "replace"), digest_size=DIGEST_BYTES).hexdigest()
        return self.folder / key[:2] / key  # 256 folders: one folder of millions of files is slow

    def _write(self, path, answer):
        file = io.BytesIO()
        np.save(file, answer, allow_pickle=False)
        data = zlib.compress(file.getvalue(), level=1)
        try:
            write_atomically(path, _digest(data) + data)
        except (OSError, BadInput) as error:
            warn(f"--teacher_cache {self.folder}: an answer was not kept ({error}); make room")


def _rows_of(boxes):
    """Boxes -> (N, 5), also for N = 0."""
    rows = [(box.x1, box.y1, box.x2, box.y2, box.score) for box in boxes]
    return np.array(rows, float).reshape(-1, 5)


def _digest(data):
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def _read(path):
    """-> the array, or None where there is none or it was damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if _digest(data) != digest:
        return None
    try:
        return np.load(io.BytesIO(zlib.decompress(data)), allow_pickle=False)
    except Exception:  # written by something else: zlib and numpy raise many kinds
        return None
