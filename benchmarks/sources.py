"""Video-R1 and PixMo-Count as published -> rows of our own schema (argos.Sample), one at a time.

Files and fields were taken from the data sets' cards; the media stay where they are and are never loaded
here. A row that cannot be used is handed to `leave_out(reason, name, detail)`, and nothing is averaged or
skipped in silence; a file that is not what it should be ends in one BadInput line.

What a loader yields: {"id", "question", "answer", "kind", "task", "source", "image" or "video": absolute
path, ...}, with three keys for prepare.py, which are not written: "media" (a name of the file that is the
same on every machine), "files" (where the row was found) and "asked" (the same for the same question about
the same file).

Next: prepare.py
"""
import hashlib
import json
import os
import re
from pathlib import Path

from tqdm import tqdm

from runs.errors import BadInput
from verifier.answers import check_truth

# ---- 1. Video-R1 (Feng et al. 2025): 263,071 questions, about 165K with a reasoning ------------------------
KINDS = {"multiple choice": "choice", "numerical": "number", "OCR": "ocr", "free-form": "free",
         "regression": "regression"}  # their problem_type -> our kind
# Folders of drawn pictures: there the pointing model prompts the segmenter (paper 3.1; which folders: our
# choice).
DRAWN = ("Chart", "Math")
COT = "Video-R1-COT-165k.json"  # the questions with a reasoning
FULL = "Video-R1-260k.json"     # all
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.S)
_PLACEHOLDER = re.compile(r"<(?:image|video)>\s?")


def video_r1(folder, leave_out):
    """Yield the rows of both files in `folder`, the ones with a reasoning first.

    Most questions stand in both files. The second copy is yielded again with the same "asked", so that
    prepare.py knows it to be one question of both. A file that is missing is read as empty; BadInput when
    both are, or when one is not a JSON list.
    """
    folder = Path(folder).resolve()
    files = [folder / name for name in (COT, FULL) if (folder / name).is_file()]
    if not files:
        raise BadInput(f"{folder}: holds neither {COT} nor {FULL}; "
                       "give the folder that Video-R1-data was downloaded to")
    for file in files:
        seen = set()
        for number, row in json_list(file):
            where = f"{file.name} row {number}"
            try:
                made = _video_r1_row(row, folder, file.name)
                if made["id"] in seen:
                    raise Unusable("problem_id used before", made["id"])
                if made["asked"] in seen:
                    raise Unusable("question asked before", made["id"])
                seen |= {made["id"], made["asked"]}
            except Unusable as why:
                leave_out(f"Video-R1: {why.args[0]}", where, why.args[1])
            else:
                yield made


def _video_r1_row(row, folder, file):
    """One row of a file -> a row of ours. Raises Unusable."""
    if not isinstance(row, dict):
        raise Unusable("not an object")
    text = {}
    for name in ("problem", "data_type", "problem_type", "solution", "path", "process"):
        text[name] = row[name] if isinstance(row.get(name), str) else ""
    if row.get("problem_id") is None or not text["problem"].strip():
        raise Unusable("problem or problem_id missing")
    if text["problem_type"] not in KINDS:
        raise Unusable("unknown problem_type", text["problem_type"])
    if text["data_type"] not in ("image", "video"):
        raise Unusable("data_type is neither image nor video", text["data_type"])
    answers = _ANSWER.findall(text["solution"])
    if len(answers) != 1:
        raise Unusable("solution is not one <answer>..</answer>", text["solution"])
    answer = answers[0].strip()
    place = _place_inside(folder, text["path"])

    # Our prompts add their own instructions (policy.PROMPTS), so Video-R1's template is not used: the
    # question and its options.
    kind = KINDS[text["problem_type"]]
    question = _PLACEHOLDER.sub("", text["problem"]).strip()
    extra = {}
    options = row.get("options") or []
    if kind == "choice" and options:
        listed = isinstance(options, list) and len(options) >= 2
        if not listed or not all(isinstance(option, str) for option in options):
            raise Unusable("options are not two or more texts", options)
        question = "\n".join([question, *options])
        extra["options"] = options
    _check(answer, kind, options or None)
    if place.parts[0] in DRAWN:
        extra["drawn"] = True
    if text["process"].strip():
        extra["raw"] = text["process"].strip()
    return {"id": f"{file.removesuffix('.json')}-{row['problem_id']}", "question": question, "answer": answer,
            "kind": kind, "task": text["problem_type"], "source": f"Video-R1 {place.parts[0]}",
            text["data_type"]: str(folder / place), **extra,
            "media": f"Video-R1/{place}", "files": {file}, "asked": _digest(place, question)}


def _place_inside(folder, path):
    """A path in a data file

    -> where it lies, relative to the folder. It is data: its dots may not lead out.
    """
    media = Path(os.path.normpath(folder / path))
    if folder not in media.parents:
        raise Unusable("path missing, or outside the folder", path)
    try:
        there = media.is_file()
    except (OSError, ValueError):  # longer than a path may be, or with a NUL
        there = False
    if not there:
        raise Unusable("media file missing", path)
    return media.relative_to(folder)


def json_list(path):
    """(row number, row) of a JSON list too large to hold: it is parsed as it is read."""
    import ijson  # here, not above: only these files need it
    with open(path, "rb") as file:
        try:
            yield from enumerate(ijson.items(file, "item", use_float=True), 1)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            why = str(error).splitlines()[0][:80]
            raise BadInput(f"{path}: is not a whole JSON list ({why}); download it again") from None


# ---- 2. PixMo-Count (Deitke et al. 2024): 36,916 photographs, how many of something, and where each is -----
def pixmo_count(folder, leave_out):
    """Yield the training rows in `folder`: train-*.parquet, there or in data/, and the pictures in images/.

    The data set is published as links. A picture is known by its sha256 alone, so every file under images/ is
    hashed once, whatever it is called: dead links and links that now lead to something else are both missing.
    (Validation and test are a benchmark and stay one.) Raises BadInput where there is no such file, or one
    cannot be read.
    """
    import pyarrow  # here, not above: only parquet files need it
    import pyarrow.parquet
    columns = ["image_url", "image_sha256", "count", "points", "label"]
    folder = Path(folder).resolve()
    files = sorted([*folder.glob("train-*.parquet"), *folder.glob("data/train-*.parquet")])
    if not files:
        raise BadInput(f"{folder}: holds no train-*.parquet; "
                       "give the folder that pixmo-count was downloaded to")
    if not (folder / "images").is_dir():
        raise BadInput(f"{folder}: holds no images/; "
                       "download the pictures of image_url there, under any names")
    at = by_sha256(folder / "images")
    seen = set()
    number = 0
    for file in files:
        try:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(1024, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    try:
                        made = _pixmo_row(row, number, at)
                        if made["asked"] in seen:
                            raise Unusable("question asked before", row["label"])
                        seen.add(made["asked"])
                    except Unusable as why:
                        leave_out(f"PixMo-Count: {why.args[0]}", f"{file.name} row {number}", why.args[1])
                    else:
                        yield made
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            why = str(error).splitlines()[0][:80]
            raise BadInput(f"{file}: not a parquet file with the columns {', '.join(columns)} ({why}); "
                           "download it again") from None


def by_sha256(folder):
    """{sha256 of its bytes: path} of every file under `folder`."""
    at = {}
    for path in tqdm(sorted(folder.rglob("*")), desc="hash", unit="file"):
        if path.is_file():
            with open(path, "rb") as file:
                at.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), path)
    return at


def _pixmo_row(row, number, at):
    """A row, and its number in all files -> a row of ours. at: {sha256: path}. Raises Unusable."""
    missing = []
    for name, value in row.items():
        blank_label = name == "label" and not str(value).strip()
        if value is None or blank_label:
            missing.append(name)
    if missing:
        raise Unusable("field missing", ", ".join(missing))
    path = at.get(row["image_sha256"])
    if path is None:
        raise Unusable("no picture with this sha256 (a dead or changed link)", row["image_url"])
    points = row["points"]
    if isinstance(points, dict):  # a struct of lists; else it is a list of structs
        points = points["x"]
    how_many = len(points or ())
    if row["count"] != how_many:
        raise Unusable("count and points disagree", f"{row['count']} and {how_many}")
    # The data set has no questions (this wording: our choice).
    question = f"How many {str(row['label']).strip()} are there in the image?"
    extra = {}
    if row["count"] == 0:
        extra["grounding"] = False  # nothing to point at: R_vg would be 0 for a right answer
    return {"id": f"PixMo-Count-{number}", "question": question, "answer": str(row["count"]), "kind": "count",
            "task": "count", "source": "PixMo-Count", "image": str(path), **extra,
            "media": f"PixMo-Count/{row['image_sha256']}", "files": {"pixmo"},
            "asked": _digest(row["image_sha256"], question)}


# ---- 3. What both need -------------------------------------------------------------------------------------
class Unusable(Exception):
    """Why a row is left out: (reason, one of few; detail, shortened)."""

    def __init__(self, reason, detail=""):
        super().__init__(reason, str(detail)[:200])


def existing_folder(flag, path):
    """A folder that a flag names. BadInput where there is none.

    >>> existing_folder("data", "no/such")
    Traceback (most recent call last):
    runs.errors.BadInput: --data no/such: there is no such folder; check the spelling
    """
    folder = Path(path)
    try:
        there = folder.is_dir()
        a_file = folder.is_file()
    except OSError:  # longer than a path may be
        there = a_file = False
    if a_file:
        raise BadInput(f"--{flag} {path}: is a file; give the folder that holds it")
    if not there:
        raise BadInput(f"--{flag} {path}: there is no such folder; check the spelling")
    return folder


def _check(answer, kind, options):
    """Unusable where no answer could ever be right."""
    try:
        check_truth(answer, kind, options)
    except BadInput as error:
        raise Unusable(f"answer does not fit a {kind} question", error) from None


def _digest(*parts):
    """16 bytes that stand for these parts."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()[:16]
