"""Samples: one question each, read from a JSONL file (one JSON object per line) and checked.

    {"image": "a.png", "question": "How many mugs?", "answer": "2", "kind": "count"}

"video" instead of "image" for a clip, either a path next to the file. Optional: "id", "options" (the texts of a
multiple choice) and the last fields of Sample. A mistake is told in one line, with file, row and cure.

Before: answers.py (the kinds), foils.py. Next: argos.py.
"""
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from runs.errors import BadInput
from runs.files import read_jsonl
from verifier.answers import check_truth, number
from verifier.foils import MAX_FOIL, draw_foils
from verifier.texts import normalise

MAX_TEXT = 20_000  # characters of a question, an answer, all options ...: some 5,000 tokens. Longer ones cost
                   # minutes and GB before anything is learned, and are mistakes (our choice)


@dataclass
class Sample:
    """One question about one picture or clip."""
    id: str
    question: str
    answer: str | None      # None: not known; then there is no reward, only grounding
    kind: str               # a key of answers.KINDS
    path: str
    media: str = "image"
    options: list | None = None
    task: str = ""
    source: str = ""
    drawn: bool = False     # a chart, map or other drawing, where the pointing model replaces the detector
    grounding: bool = True  # the reasoning is asked to point
    raw: str = ""           # reasoning that the data set ships; only curation's extraction reads it (app. C.1)
    exact: bool = False     # a drawn world knows the only right text: held-out free answers count by it (watch.py)
    foils: list | None = None  # other truths, which a right answer must not mean (kind "free"); None: to be drawn
    objects: list = field(default_factory=list)  # what the question names (app. C.1); only `coverage` reads it

    @classmethod
    def from_row(cls, row, folder, where="row"):
        """Check one row of a JSONL file, whose paths are relative to `folder`. BadInput names `where`."""
        def need(good, problem):
            if not good:
                raise BadInput(f"{where}: {problem}")

        need(isinstance(row, dict), "is not a JSON object; write one {...} per line")
        one = ("image" in row) != ("video" in row)
        need(one, 'give exactly one of "image" and "video", a path next to the file')
        media = "image" if "image" in row else "video"
        for name in (media, "question", "kind"):
            given = isinstance(row.get(name), str) and row[name].strip()
            need(given, f'"{name}" is missing or empty; give a text')
        answer = row.get("answer")
        need(is_text_or_number(answer), '"answer" is missing; give a text or number')
        options = row.get("options")
        if options is not None:
            several = isinstance(options, list) and len(options) > 1
            texts = several and all(isinstance(option, str) for option in options)
            need(texts, '"options" must be a list of two or more texts')
        for name in ("question", "answer", "options", "raw", "objects"):
            length = len(str(row.get(name, "")))
            need(length <= MAX_TEXT, f'"{name}" has {length:,} characters; at most {MAX_TEXT:,}: shorten it')
        for name in ("drawn", "grounding", "exact"):
            need(isinstance(row.get(name, True), bool), f'"{name}" must be true or false')
        for name in ("raw", "task", "source"):
            need(isinstance(row.get(name, ""), str), f'"{name}" must be a text')
        try:
            answer = check_truth(answer, row["kind"], options)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        for name in ("foils", "objects"):
            texts = row.get(name, [])
            usable = isinstance(texts, list) and all(isinstance(text, str) and text.strip() for text in texts)
            need(usable, f'"{name}" must be a list of texts')
        long = [text for text in row.get("foils", []) if len(text) > MAX_FOIL]
        need(not long, f'"foils" holds a text of more than {MAX_FOIL} characters; shorten it')
        same = [text for text in row.get("foils", []) if normalise(text) == normalise(answer)]
        need(not same, f'"foils" holds the answer itself, {answer[:60]!r}; leave it out')
        path = Path(folder) / row[media]
        there = os.path.isfile(path)  # no error for a path that the system refuses: too long, or with a NUL
        need(there, f"{media} {row[media][:200]!r} does not exist beside the file; correct the path")
        optional = ("task", "source", "drawn", "grounding", "raw", "exact", "foils", "objects")
        rest = {name: row[name] for name in optional if name in row}
        name = row.get("id", where)
        need(is_text_or_number(name) and str(name).strip(), '"id" must be a text or a number')
        return cls(str(name), row["question"], answer, row["kind"], str(path), media, options, **rest)


def is_text_or_number(value):
    """true, null and lists are neither; nor are NaN and Infinity, which Python reads in JSON.

    >>> [is_text_or_number(value) for value in ("2", 2, .5, True, None, [2], float("nan"))]
    [True, True, True, False, False, False, False]
    """
    if type(value) is float:
        return math.isfinite(value)
    return type(value) in (str, int)


def read_samples(jsonl):
    """A JSONL file of rows -> list of Samples, "free" ones with foils. BadInput names file, row and cure."""
    samples = []
    row_of = {}  # id -> row number
    for i, row in read_jsonl(jsonl):
        where = f"{jsonl} row {i}"
        sample = Sample.from_row(row, Path(jsonl).parent, where)
        if sample.id in row_of:
            raise BadInput(f"{where}: id {sample.id!r} was used in row {row_of[sample.id]}; ids must differ")
        row_of[sample.id] = i
        samples.append(sample)
    if not samples:
        raise BadInput(f"{jsonl}: holds no rows; write one sample per line")
    draw_foils(samples)
    return samples


def guess_kind(answer, options):
    """The kind of question where nobody said it: choice with options, number if the answer is one, else phrase."""
    if options:
        return "choice"
    if answer and number(answer):
        return "number"
    return "phrase"
