"""Rollouts from elsewhere: rows and responses come as JSON, results go back as JSON.

Another trainer (EasyR1, verl, TRL) samples the responses; serve.py and rewards.py carry them here. Nothing
about them is trusted: a row may be wrong, name a file that is none of its business, or break the verifier.
Each gets its reason, and spoils no other.

    {"row": as in rl.jsonl, "response": text}
 -> {"reward", "outcome", "grounding", "reasoning": 0..1 or null,
     "reasons": the verdict in words, a list of lines, "not_scored": {term: why}}
 or {"error": what is wrong with the row}

Before: argos.py. Next: serve.py (who calls this)
"""
import json
import os
from pathlib import Path

from runs.errors import BadInput, first_line, printable, warn
from verifier.samples import Sample

SCORES = ("reward", "outcome", "grounding", "reasoning")


def verify_rollouts(verifier, rollouts, folders, batch=128):
    """-> one result a rollout, in order (see above). Equal rows are one group, wherever they stand.

    verifier: an argos.Argos; folders: where the rows' files lie; batch: about how many rollouts are verified
    together, in whole groups. Their pictures and masks are in memory at once.
    """
    results = [{"error": 'send {"row": {...}, "response": "..."}'}] * len(rollouts)
    groups = {}  # a row as JSON -> where its rollouts stand
    for i, rollout in enumerate(rollouts):
        row = row_as_json(rollout)
        if row is not None:
            groups.setdefault(row, []).append(i)

    for rows in batches(groups, batch):
        loaded = []  # of (sample, its media, the responses), and in `places` where they stand
        places = []
        for row in rows:
            try:
                sample, media = load(verifier, json.loads(row), folders)
            except BadInput as error:
                verifier.failures["wrong row"] += len(groups[row])
                for i in groups[row]:
                    results[i] = {"error": printable(error)}
            else:
                loaded.append((sample, media, [rollouts[i]["response"] for i in groups[row]]))
                places.append(groups[row])
        for where, found in zip(places, verify_together(verifier, loaded)):
            for i, result in zip(where, found):
                results[i] = result
    return results


def row_as_json(rollout):
    """The row, equal for equal rows; None where this is no rollout."""
    if not (isinstance(rollout, dict) and isinstance(rollout.get("row"), dict)):
        return None
    if not isinstance(rollout.get("response"), str):
        return None
    try:
        return json.dumps(rollout["row"], sort_keys=True)
    except RecursionError:  # lists in lists in lists
        return None


def batches(groups, size):
    """Lists of rows that have at most `size` rollouts together; a row that has more stands alone.

    >>> list(batches({"a": [0, 3], "b": [1], "c": [2, 4, 5]}, 3))
    [['a', 'b'], ['c']]
    """
    together = []
    count = 0
    for row, places in groups.items():
        if together and count + len(places) > size:
            yield together
            together = []
            count = 0
        together.append(row)
        count += len(places)
    if together:
        yield together


def load(verifier, row, folders):
    """-> (Sample, its Media). Raises BadInput for whatever is wrong with a row or its file."""
    where = f"row {str(row.get('id', 'without an id'))[:200]}"
    try:
        sample = read_row(row, folders, where)
        return sample, verifier.load(sample)
    except BadInput:
        raise
    except Exception as error:  # what no rule foresaw is this row's fault, and no other's
        raise BadInput(f"{where}: cannot be read ({type(error).__name__}: {first_line(error)})") from None


def read_row(row, folders, where="row"):
    """A row as in rl.jsonl -> Sample, whose file lies in one of the folders: links are followed, then looked at.

    Raises BadInput, which begins with `where`, for any other file, there or not, and for what Sample.from_row
    refuses.
    """
    name = row.get("image") or row.get("video")
    for folder in folders:
        try:
            path = Path(os.path.realpath(Path(folder, name)))
            inside = path.is_relative_to(os.path.realpath(folder)) and path.is_file()
        except (TypeError, ValueError, OSError):  # no text, or one that is no name of a file
            inside = False
        if inside:
            return Sample.from_row(row, folder, where)
    raise BadInput(f"{where}: {str(name)[:200]!r} is no file in the folders of --data; correct the row, or name "
                   "the folder where it really lies, too")


def verify_together(verifier, groups):
    """Results of each group. Where all at once fail, each alone: one that breaks it spoils no other.

    groups: of (sample, its media, responses). A group that fails alone is not scored: no response of it is at
    fault.
    """
    samples = [sample for sample, _, _ in groups]
    media = [seen for _, seen, _ in groups]
    responses = [texts for _, _, texts in groups]
    try:
        verdicts = verifier.verify_groups(samples, responses, media)
        return [[as_json(verdict) for verdict in group] for group in verdicts]
    except Exception as error:  # a full GPU, a mistake in a setting, or a bug
        reason = f"the verifier failed ({type(error).__name__}: {first_line(error)})"
        verifier.failures[f"verifier: {type(error).__name__}"] += 1
        warn(reason)
    if len(groups) > 1:
        return [verify_together(verifier, [group])[0] for group in groups]
    nothing = dict.fromkeys(SCORES) | {"not_scored": {"outcome": reason}, "reasons": [reason]}
    return [[nothing] * len(texts) for texts in responses]


def as_json(verdict):
    scores = {name: getattr(verdict, name) for name in SCORES}
    return scores | {"not_scored": verdict.not_scored, "reasons": verdict.explain().split("\n")}
