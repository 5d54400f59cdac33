"""Video-R1 and PixMo-Count as published -> rows of our own schema (argos.Sample), one at a time.

Files and fields were taken from the data sets' cards; the media stay where they are and are never loaded here. A row that cannot
be used is handed to `leave_out(reason, name, detail)`, and nothing is averaged or skipped in silence; a file that is not what it
should be ends in one BadInput line.

What a loader yields: {"id", "question", "answer", "kind", "task", "source", "image" or "video": absolute path, ...}, with three
keys for prepare.py, which are not written: "media" (a name of the file that is the same on every machine), "files" (where the row
was found) and "asked" (the same for the same question about the same file).

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

# ---- 1. Video-R1 (Feng et al. 2025): 263,071 questions about pictures and videos, about 165K with a reasoning ---------------
KINDS = {"multiple choice": "choice", "numerical": "number", "OCR": "ocr", "free-form": "free", "regression": "regression"}
DRAWN = ("Chart", "Math")  # folders of drawn pictures: there the pointing model prompts the segmenter (paper 3.1; which: our choice)
COT, FULL = "Video-R1-COT-165k.json", "Video-R1-260k.json"
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.S)
_PLACEHOLDER = re.compile(r"<(?:image|video)>\s?")


def video_r1(folder, leave_out):
    """Yield the rows of both files in `folder`, the ones with a reasoning first.

    Most questions stand in both files. The second copy is yielded again with the same "asked", so that prepare.py knows it to be
    one question of both. A file that is missing is read as empty; BadInput when both are, or when one is not a JSON list.
    """
    folder = Path(folder).resolve()
    files = [folder / name for name in (COT, FULL) if (folder / name).is_file()]
    if not files:
        raise BadInput(f"{folder}: holds neither {COT} nor {FULL}; give the folder that Video-R1-data was downloaded to")
    for file in files:
        seen = set()
        for number, row in json_list(file):
            where = f"{file.name} row {number}"
            try:
                made = _video_r1_row(row, folder, file.name)
                for key, what in ((made["id"], "problem_id used before"), (made["asked"], "question asked before")):
                    if key in seen:
                        raise Unusable(what, made["id"])
                seen |= {made["id"], made["asked"]}
            except Unusable as why:
                leave_out(f"Video-R1: {why.args[0]}", where, why.args[1])
            else:
                yield made


def _video_r1_row(row, folder, file):
    if not isinstance(row, dict):
        raise Unusable("not an object")
    text = {name: row.get(name) if isinstance(row.get(name), str) else "" for name in
            ("problem", "data_type", "problem_type", "solution", "path", "process")}
    if row.get("problem_id") is None or not text["problem"].strip():
        raise Unusable("problem or problem_id missing")
    if text["problem_type"] not in KINDS:
        raise Unusable("unknown problem_type", text["problem_type"])
    if text["data_type"] not in ("image", "video"):
        raise Unusable("data_type is neither image nor video", text["data_type"])
    answers = _ANSWER.findall(text["solution"])
    if len(answers) != 1:
        raise Unusable("solution is not one <answer>..</answer>", text["solution"])
    media = Path(os.path.normpath(folder / text["path"]))  # the path is data: its dots may not lead out of the folder
    if folder not in media.parents:
        raise Unusable("path missing, or outside the folder", text["path"])
    try:
        there = media.is_file()
    except (OSError, ValueError):  # longer than a path may be, or with a NUL
        there = False
    if not there:
        raise Unusable("media file missing", text["path"])

    # Our prompts add their own instructions (policy.PROMPTS), so Video-R1's template is not used: the question and its options.
    kind, question, extra = KINDS[text["problem_type"]], _PLACEHOLDER.sub("", text["problem"]).strip(), {}
    options = row.get("options") or []
    if kind == "choice" and options:
        if not isinstance(options, list) or len(options) < 2 or not all(isinstance(option, str) for option in options):
            raise Unusable("options are not two or more texts", options)
        question, extra = f"{question}\n" + "\n".join(options), {"options": options}
    _check(answers[0].strip(), kind, options or None)
    place = media.relative_to(folder)
    if place.parts[0] in DRAWN:
        extra["drawn"] = True
    if text["process"].strip():
        extra["raw"] = text["process"].strip()
    return {"id": f"{file.removesuffix('.json')}-{row['problem_id']}", "question": question, "answer": answers[0].strip(), "kind": kind,
            "task": text["problem_type"], "source": f"Video-R1 {place.parts[0]}", text["data_type"]: str(media), **extra,
            "media": f"Video-R1/{place}", "files": {file}, "asked": _digest(place, question)}


def json_list(path):
    """(row number, row) of a JSON list too large to hold: it is parsed as it is read."""
    import ijson
    with open(path, "rb") as file:
        try:
            yield from enumerate(ijson.items(file, "item", use_float=True), 1)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: is not a whole JSON list ({str(error).splitlines()[0][:80]}); download it again") from None


# ---- 2. PixMo-Count (Deitke et al. 2024): 36,916 photographs, how many of something, and where each is ------------------------
def pixmo_count(folder, leave_out):
    """Yield the training rows in `folder`: train-*.parquet, there or in data/, and the pictures in images/.

    The data set is published as links. A picture is known by its sha256 alone, so every file under images/ is hashed once,
    whatever it is called: dead links and links that now lead to something else are both missing. (Validation and test are a
    benchmark and stay one.) Raises BadInput where there is no such file, or one cannot be read.
    """
    import pyarrow
    import pyarrow.parquet
    folder, columns = Path(folder).resolve(), ["image_url", "image_sha256", "count", "points", "label"]
    files = sorted([*folder.glob("train-*.parquet"), *folder.glob("data/train-*.parquet")])
    if not files:
        raise BadInput(f"{folder}: holds no train-*.parquet; give the folder that pixmo-count was downloaded to")
    if not (folder / "images").is_dir():
        raise BadInput(f"{folder}: holds no images/; download the pictures of image_url there, under any names")
    at, seen, number = by_sha256(folder / "images"), set(), 0
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
            raise BadInput(f"{file}: not a parquet file with the columns {', '.join(columns)} ({str(error).splitlines()[0][:80]}); "
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
    missing = [name for name, value in row.items() if value is None or name == "label" and not str(value).strip()]
    if missing:
        raise Unusable("field missing", ", ".join(missing))
    path = at.get(row["image_sha256"])
    if path is None:
        raise Unusable("no picture with this sha256 (a dead or changed link)", row["image_url"])
    points = row["points"]["x"] if isinstance(row["points"], dict) else row["points"]  # as a struct of lists, or a list of structs
    if row["count"] != len(points or ()):
        raise Unusable("count and points disagree", f"{row['count']} and {len(points or ())}")
    question = f"How many {str(row['label']).strip()} are there in the image?"  # the data set has none (this wording: our choice)
    # Where there is nothing to count there is nothing to point at, and R_vg would be 0 for a right answer.
    extra = {} if row["count"] else {"grounding": False}
    return {"id": f"PixMo-Count-{number}", "question": question, "answer": str(row["count"]), "kind": "count", "task": "count",
            "source": "PixMo-Count", "image": str(path), **extra, "media": f"PixMo-Count/{row['image_sha256']}",
            "files": {"pixmo"}, "asked": _digest(row["image_sha256"], question)}


# ---- 3. What both need --------------------------------------------------------------------------------------------------------
class Unusable(Exception):
    """Why a row is left out: (reason, one of few; detail, shortened)."""

    def __init__(self, reason, detail=""):
        super().__init__(reason, str(detail)[:200])


def _check(answer, kind, options):
    try:
        check_truth(answer, kind, options)
    except BadInput as error:
        raise Unusable(f"answer does not fit a {kind} question", error) from None


def _digest(*parts):
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()[:16]
