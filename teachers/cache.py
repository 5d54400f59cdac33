"""What teachers said, remembered on disk."""
import hashlib
import io
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from runs.errors import BadInput
from runs.files import write_atomically
from teachers.loading import image_digest
from verifier.coordinates import Box


class Cached:
    """A detector, segmenter or pointer whose answers are kept in a folder, which several processes may share.

    An answer is one file, named by picture, question and teacher.identity (class, checkpoint, thresholds); a checkpoint that is
    changed in place keeps its name, so name a new folder for it. A file begins with the digest of the rest: one that was
    damaged does not count and is written again.
    """

    def __init__(self, teacher, folder):
        self.teacher, self.folder = teacher, Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"--teacher_cache {folder}: cannot be used ({error}); name a folder that can be written") from error
        self.identity = getattr(teacher, "identity", type(teacher).__name__)

    def detect(self, image, labels):
        def ask(missing):
            return [np.array([(b.x1, b.y1, b.x2, b.y2, b.score) for b in boxes], float).reshape(-1, 5)
                    for boxes in self.teacher.detect(image, missing)]
        return [[Box(*row, label) for row in rows.tolist()] for label, rows in zip(labels, self._answers("detect", image, labels, ask))]

    def segment(self, image, boxes):
        def ask(missing):
            return [np.packbits(mask) for mask in self.teacher.segment(image, missing)]
        shape = (image.height, image.width)
        packed = self._answers("segment", image, [replace(b, score=1.0, label="") for b in boxes], ask)
        return np.array([np.unpackbits(p, count=shape[0] * shape[1]).reshape(shape) for p in packed], bool).reshape(-1, *shape)

    def point(self, image, label):
        rows, = self._answers("point", image, [label], lambda _: [np.array(self.teacher.point(image, label), float).reshape(-1, 2)])
        return [tuple(row) for row in rows.tolist()]

    def _answers(self, role, image, questions, ask):
        """One array for each question: from the folder, or from ask(those that are missing), each of them once."""
        about, known = f"{self.identity}\0{role}\0{image_digest(image)}\0", {}
        for question in questions:
            key = hashlib.blake2b((about + str(question)).encode("utf-8", "replace"), digest_size=16).hexdigest()
            known[question] = self.folder / key[:2] / key, None
        for question, (path, _) in known.items():
            known[question] = path, self._read(path)
        missing = [question for question, (_, answer) in known.items() if answer is None]
        for question, answer in zip(missing, ask(missing) if missing else [], strict=True):
            known[question] = known[question][0], answer
            self._write(known[question][0], answer)
        return [known[question][1] for question in questions]

    @staticmethod
    def _read(path):
        try:
            data = path.read_bytes()
            good = hashlib.blake2b(data[16:], digest_size=16).digest() == data[:16]
            return np.load(io.BytesIO(zlib.decompress(data[16:])), allow_pickle=False) if good else None
        except OSError:
            return None

    def _write(self, path, answer):
        file = io.BytesIO()
        np.save(file, answer, allow_pickle=False)
        data = zlib.compress(file.getvalue(), 1)
        try:
            write_atomically(path, hashlib.blake2b(data, digest_size=16).digest() + data)
        except OSError as error:  # a full disk costs time, never the run
            print(f"--teacher_cache {self.folder}: an answer was not kept ({error}); make room", file=sys.stderr)
