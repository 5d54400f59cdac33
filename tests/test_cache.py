"""teachers/cache.py: it answers like the teacher and asks once, whatever happens to its files."""
import io
import multiprocessing
import sys
import zlib

import numpy as np

import argos
import pytest

from runs.errors import BadInput
from teacher_fixtures import scene
from teachers.cache import Cached, _digest
from tiny.pixels import PixelDetector, PixelPointer, PixelSegmenter
from verifier.coordinates import Box


class Counting:
    """The pixel teachers, and how often they were really asked."""
    identity = "counting"

    def __init__(self):
        self.asked = []

    def detect(self, image, labels):
        self.asked += labels
        return PixelDetector().detect(image, labels)

    def segment(self, image, boxes):
        self.asked += boxes
        return PixelSegmenter().segment(image, boxes)

    def point(self, image, label):
        self.asked.append(label)
        return PixelPointer().point(image, label)


def test_the_cache_answers_like_the_teacher_and_asks_once(tmp_path):
    plain, first = Counting(), Counting()
    cached, labels = Cached(first, tmp_path), ["red square", "blue circle", "red square", "shape \ud800"]
    for _ in range(2):
        boxes = cached.detect(scene(), labels)
        assert boxes == plain.detect(scene(), labels)
        flat = [b for found in boxes for b in found] + [Box(12, 12, 12, 12, 1, "x")]
        masks = cached.segment(scene(), flat)
        assert masks.dtype == bool and (masks == plain.segment(scene(), flat)).all() and len(masks) == 7
        assert cached.segment(scene(), []).shape == (0, 84, 84)
        assert cached.point(scene(), "red square") == plain.point(scene(), "red square")
    assert [a if isinstance(a, str) else type(a) for a in first.asked] == [
        "red square", "blue circle", "shape \ud800", Box, Box, Box, "red square"]  # each once, in both rounds together
    again = Counting()
    Cached(again, tmp_path).detect(scene(), labels + ["green cross"])
    assert again.asked == ["green cross"]
    Cached(again, tmp_path).detect(scene(1), ["red square"])  # another picture
    again.identity = "another checkpoint"
    Cached(again, tmp_path).detect(scene(), ["red square"])
    assert again.asked[1:] == ["red square"] * 2


def test_damaged_entries_are_asked_again(tmp_path):
    teacher, labels = Counting(), ["red square", "blue square", "shape", "cross"]
    Cached(teacher, tmp_path).detect(scene(), labels)
    files = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    assert len(files) == 4
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[:-3])
    files[1].write_bytes(b"")
    files[2].write_bytes(bytes([files[2].read_bytes()[0] ^ 1]) + files[2].read_bytes()[1:])
    teacher.asked.clear()
    assert Cached(teacher, tmp_path).detect(scene(), labels) == PixelDetector().detect(scene(), labels)
    assert len(teacher.asked) == 3 and files[0].read_bytes() == whole
    teacher.asked.clear()
    Cached(teacher, tmp_path).detect(scene(), labels)
    assert teacher.asked == []


def test_an_entry_that_fits_its_digest_and_no_answer_is_asked_again(tmp_path):
    """Written by something else: not packed, packed without an array in it, an array of another form."""
    teacher, image = Counting(), scene()
    box = Box(12, 12, 20, 20, 1, "x")

    def ask():
        cached = Cached(teacher, tmp_path)
        return cached.detect(image, ["red square"]), cached.segment(image, [box]).tolist(), cached.point(image, "cross")
    right = ask()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3 == len(teacher.asked)
    wrong = [b"", b"not zlib", zlib.compress(b"no array")]
    for array in (np.zeros(7), np.zeros((2, 4)), np.zeros(0, np.uint8), np.float64(1)):
        file = io.BytesIO()
        np.save(file, array)
        wrong.append(zlib.compress(file.getvalue()))
    for data in wrong:
        for path in files:
            path.write_bytes(_digest(data) + data)
        teacher.asked.clear()
        assert ask() == right and len(teacher.asked) == 3
    teacher.asked.clear()
    assert ask() == right and teacher.asked == []


def test_a_full_disk_costs_the_cache_not_the_run(tmp_path, monkeypatch, capsys):
    def full(path, data):
        raise OSError(28, "No space left on device")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="--teacher_cache"):
        Cached(Counting(), tmp_path / "file")
    cached = Cached(Counting(), tmp_path / "cache")
    for name in range(256):
        (tmp_path / "cache" / f"{name:02x}").write_text("in the way")
    assert cached.detect(scene(), ["red square"]) == PixelDetector().detect(scene(), ["red square"])
    assert capsys.readouterr().err.count("an answer was not kept") == 1
    monkeypatch.setattr("teachers.cache.write_atomically", full)
    found = Cached(Counting(), tmp_path).detect(scene(), ["red square"])
    assert found == PixelDetector().detect(scene(), ["red square"])
    assert "No space left" in capsys.readouterr().err


def _work(folder, queue):
    cached = Cached(Counting(), folder)
    labels = ["red square", "shape"]
    scenes = [scene(i % 20) for i in range(60)]
    right = [cached.detect(image, labels) == PixelDetector().detect(image, labels) for image in scenes]
    queue.put((all(right), len(cached.teacher.asked)))


def test_two_processes_share_a_cache(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_work, args=(tmp_path, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert all(right for right, _ in results) and sum(n for _, n in results) >= 40
    files = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) == 40 and not any(name.startswith(".") for name in files)


def test_the_command_line_verifies_with_a_cache(tmp_path, monkeypatch, capsys):
    scene().save(tmp_path / "p.png")
    reply = '<think><point x1="12" y1="12" alt="red square">red square</point></think><answer>2</answer>'
    monkeypatch.setattr(sys, "argv", ["argos", str(tmp_path / "p.png"), "How many?", reply, "--answer", "2",
                                      "--judge", "none", "--teacher_cache", str(tmp_path / "cache")])
    argos.main()
    monkeypatch.setattr(PixelDetector, "detect", None)  # the second time nobody is asked
    first = capsys.readouterr().out
    argos.main()
    assert capsys.readouterr().out == first and "on the mask" in first
