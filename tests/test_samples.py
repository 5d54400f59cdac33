"""Rows of a JSONL file become Samples, or an error that names file, row and cure.

Run: pytest tests/test_samples.py
"""
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from runs.errors import BadInput  # noqa: E402
from verifier.samples import Sample, read_samples  # noqa: E402


def test_rows_are_checked(tmp_path):
    Image.new("RGB", (84, 84)).save(tmp_path / "a.png")
    good = {"id": "1", "question": "?", "answer": 2, "kind": "count", "image": "a.png", "more": "ignored"}
    (tmp_path / "d.jsonl").write_text(json.dumps(good) + "\n\n" + json.dumps(good | {"id": "2", "drawn": True}) + "\n")
    one, two = read_samples(tmp_path / "d.jsonl")
    assert (one.answer, one.media, one.drawn, two.drawn, Path(one.path).is_file()) == ("2", "image", False, True, True)
    bad = [{"image": "b.png"}, {"video": "a.png"}, {"kind": "colour"}, {"answer": "red"}, {"question": " "},
           {"answer": None}, {"answer": True}, {"options": "AB"}, {"drawn": 1},
           {"kind": "choice", "options": ["a", "b"], "answer": "c"}]
    # the last is good by itself, but repeats an id
    rows = [good | {"id": "2"} | change for change in bad] + [[], good]
    for row in rows:
        (tmp_path / "e.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
        with pytest.raises(BadInput, match="e.jsonl row 2"):
            read_samples(tmp_path / "e.jsonl")
    for text in ("{", "[" * 100_000, "1" * 10_000):
        (tmp_path / "f.jsonl").write_text(text)
        with pytest.raises(BadInput, match="f.jsonl row 1"):
            read_samples(tmp_path / "f.jsonl")
    for path in ("missing.jsonl", "a.png"):
        with pytest.raises(BadInput, match=path):
            read_samples(tmp_path / path)


def test_a_row_may_ship_its_own_reasoning(tmp_path):
    Image.new("RGB", (84, 84)).save(tmp_path / "a.png")
    row = dict(image="a.png", question="How many?", answer="2", kind="count", raw="I count two.")
    assert Sample.from_row(row, tmp_path).raw == "I count two."
    with pytest.raises(BadInput, match='"raw" must be a text'):
        Sample.from_row(row | {"raw": 3}, tmp_path)
