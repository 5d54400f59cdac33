"""Samples: one question each, read from JSONL and checked."""
from dataclasses import dataclass
from pathlib import Path

from runs.errors import BadInput
from runs.files import read_jsonl
from verifier.answers import check_truth, number


# ---- 4. Samples and files --------------------------------------------------------------------------------------------
@dataclass
class Sample:
    """One question. grounding: the reasoning is asked to point. drawn: a chart, map or other drawing (pointing model)."""
    id: str
    question: str
    answer: str | None  # None: not known; then there is no reward, only grounding
    kind: str
    path: str
    media: str = "image"
    options: list | None = None
    task: str = ""
    source: str = ""
    drawn: bool = False
    grounding: bool = True
    raw: str = ""  # reasoning that the source data set ships; only curation's extraction reads it (app. C.1)

    @classmethod
    def from_row(cls, row, folder, where="row"):
        """Check one row of a JSONL file ("image" or "video": a path relative to `folder`). BadInput names `where`."""
        def need(good, problem):
            if not good:
                raise BadInput(f"{where}: {problem}")
        need(isinstance(row, dict), "is not a JSON object; write one {...} per line")
        need(("image" in row) != ("video" in row), 'give exactly one of "image" and "video", a path next to the file')
        media = "image" if "image" in row else "video"
        for name, kind in ((media, str), ("question", str), ("kind", str)):
            need(isinstance(row.get(name), kind) and row[name].strip(), f'"{name}" is missing or empty; give a text')
        answer, options = row.get("answer"), row.get("options")
        need(type(answer) in (str, int, float), '"answer" is missing; give a text or number')
        need(options is None or isinstance(options, list) and len(options) > 1 and all(isinstance(o, str) for o in options),
             '"options" must be a list of two or more texts')
        for name in ("drawn", "grounding"):
            need(isinstance(row.get(name, True), bool), f'"{name}" must be true or false')
        need(isinstance(row.get("raw", ""), str), '"raw" must be a text')
        try:
            answer = check_truth(answer, row["kind"], options)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        path = Path(folder) / row[media]
        need(path.is_file(), f"{media} {row[media]!r} does not exist beside the file; correct the path")
        rest = {name: row[name] for name in ("task", "source", "drawn", "grounding", "raw") if name in row}
        return cls(str(row.get("id", where)), row["question"], answer, row["kind"], str(path), media, options, **rest)


def read_samples(jsonl):
    """A JSONL file of rows -> list of Samples. BadInput names file, row and cure."""
    samples, seen = [], {}
    for i, row in read_jsonl(jsonl):
        where = f"{jsonl} row {i}"
        samples.append(Sample.from_row(row, Path(jsonl).parent, where))
        first = seen.setdefault(samples[-1].id, i)
        if first != i:
            raise BadInput(f"{where}: id {samples[-1].id!r} was used in row {first}; ids must differ")
    if not samples:
        raise BadInput(f"{jsonl}: holds no rows")
    return samples


def guess_kind(answer, options):
    """The kind of question where nobody said it: choice with options, number where the answer is one, else phrase."""
    if options:
        return "choice"
    if answer and number(answer):
        return "number"
    return "phrase"
