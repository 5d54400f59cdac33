"""Rows of a JSONL file become Samples, or an error that names file, row and cure.

Run: pytest tests/test_samples.py
"""
import json
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from runs.errors import BadInput  # noqa: E402
from verifier.samples import Sample, read_samples  # noqa: E402
from verifier.texts import normalise  # noqa: E402


def test_rows_are_checked(tmp_path):
    Image.new("RGB", (84, 84)).save(tmp_path / "a.png")
    good = {"id": "1", "question": "?", "answer": 2, "kind": "count", "image": "a.png", "more": "ignored"}
    (tmp_path / "d.jsonl").write_text(json.dumps(good) + "\n\n" + json.dumps(good | {"id": "2", "drawn": True}) + "\n")
    one, two = read_samples(tmp_path / "d.jsonl")
    assert (one.answer, one.media, one.drawn, two.drawn, Path(one.path).is_file()) == ("2", "image", False, True, True)
    bad = [{"image": "b.png"}, {"video": "a.png"}, {"kind": "colour"}, {"answer": "red"}, {"question": " "},
           {"answer": None}, {"answer": True}, {"answer": float("nan")}, {"answer": float("inf")}, {"answer": {"a": 1}},
           {"answer": [2]}, {"task": None}, {"task": ["a"]}, {"raw": None}, {"id": None}, {"id": True}, {"id": ["2"]}, {"id": " "},
           {"id": float("nan")}, {"image": "x" * 5000 + ".png"}, {"image": "a.png\0"}, {"image": "\ud800.png"}, {"image": "."},
           {"options": "AB"}, {"drawn": 1},
           {"kind": "choice", "options": ["a", "b"], "answer": "c"}]
    # the last is good by itself, but repeats an id
    rows = [good | {"id": "2"} | change for change in bad] + [[], good]
    for row in rows:
        (tmp_path / "e.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
        with pytest.raises(BadInput, match="e.jsonl row 2") as error:
            read_samples(tmp_path / "e.jsonl")
        assert "\n" not in str(error.value) and len(str(error.value)) < 600
    for text in ("{", "[" * 100_000, "1" * 10_000):
        (tmp_path / "f.jsonl").write_text(text)
        with pytest.raises(BadInput, match="f.jsonl row 1"):
            read_samples(tmp_path / "f.jsonl")
    for path in ("missing.jsonl", "a.png"):
        with pytest.raises(BadInput, match=path):
            read_samples(tmp_path / path)


def free_rows(truths):
    return [dict(id=str(i), image="a.png", question="What?", answer=truth, kind="free") for i, truth in enumerate(truths)]


def written(folder, rows):
    Image.new("RGB", (84, 84)).save(folder / "a.png")
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_samples(folder / "d.jsonl")


def test_foils_are_other_truths_of_the_file(tmp_path):
    truths = [f"a {color} {shape}" for color in ("red", "green", "blue") for shape in ("square", "cross", "disk", "star")]
    rows = free_rows(truths + ["The red square!"])
    count = dict(id="n", image="a.png", question="How many?", answer="2", kind="count")
    samples = written(tmp_path, rows + [count])
    for sample in samples[:-1]:
        named = [normalise(foil) for foil in sample.foils]
        assert len(named) == len(set(named)) == 8 and normalise(sample.answer) not in named
        assert set(sample.foils) <= {"The red square!", *truths} - {"a red square"}  # one spelling, always the same
    assert samples[-1].foils is None and len({tuple(sample.foils) for sample in samples[:-1]}) > 8  # drawn by the id
    again = written(tmp_path, list(reversed(rows)))
    assert {s.id: s.foils for s in again} == {s.id: s.foils for s in samples[:-1]}  # the order of rows plays no part
    assert samples[0].foils[:3] == ["a red star", "a blue square", "a green cross"]   # nor does the process
    assert written(tmp_path, rows[:1])[0].foils == []
    assert [s.foils for s in written(tmp_path, rows[:2])] == [["a red cross"], ["a red square"]]


def test_a_row_may_bring_its_own_foils(tmp_path):
    rows = free_rows(["a red square", "a green cross"])
    own = rows[0] | {"foils": ["a crimson cross"], "objects": ["square"]}
    first, second = written(tmp_path, [own, rows[1]])
    assert (first.foils, first.objects, second.foils) == (["a crimson cross"], ["square"], ["a red square"])
    assert written(tmp_path, [rows[0] | {"foils": []}, rows[1]])[0].foils == []  # this row wants none
    assert written(tmp_path, [rows[0], rows[1] | {"answer": "z" * 301}])[0].foils == []  # too long for a foil
    for bad in ({"foils": ["z" * 301]}, {"source": 3}, {"task": ["a"]}, {"foils": "blue"}, {"foils": [3]}, {"foils": [" "]}, {"foils": ["blue", "The red square."]}, {"objects": [1]}):
        with pytest.raises(BadInput, match="row 1"):
            written(tmp_path, [rows[0] | bad])


def test_a_row_may_ship_its_own_reasoning(tmp_path):
    Image.new("RGB", (84, 84)).save(tmp_path / "a.png")
    row = dict(image="a.png", question="How many?", answer="2", kind="count", raw="I count two.")
    assert Sample.from_row(row, tmp_path).raw == "I count two."
    with pytest.raises(BadInput, match='"raw" must be a text'):
        Sample.from_row(row | {"raw": 3}, tmp_path)


LONG = 20_001


@pytest.mark.parametrize("change, name", [
    (dict(question="x" * 1_000_000), "question"), (dict(answer="x " * LONG), "answer"), (dict(raw="x" * LONG), "raw"),
    (dict(options=["x" * LONG, "b"]), "options"), (dict(options=["a", "b"] * LONG), "options"),
    (dict(objects=["x"] * LONG), "objects"), (dict(answer=int("9" * 4_000)), None)])
def test_a_text_without_end_is_named_at_once(tmp_path, change, name):
    """A question of 10^6 characters took minutes and GB before anything was learned from it."""
    Image.new("RGB", (84, 84)).save(tmp_path / "a.png")
    row = dict(image="a.png", question="How many?", answer="a", kind="phrase") | change
    start = time.process_time()
    if name is None:
        Sample.from_row(row, tmp_path)
    else:
        with pytest.raises(BadInput, match=f'^d.jsonl row 3: "{name}" has .* characters; at most 20,000: shorten it'):
            Sample.from_row(row, tmp_path, "d.jsonl row 3")
    assert time.process_time() - start < .2
    assert Sample.from_row(row | dict(question="x" * (LONG - 1), answer="a", options=None, raw="", objects=[]), tmp_path)
