"""Answers as they are stored, and what asking and reporting share.

answers.jsonl has one row per answer: who was asked what and how, the whole response, what was read in it, and
whether that is right. A row holds all that scoring needs, so `--rescore` opens no other file. Numbers need
little of a row (`slim`); the long texts stay on disk until the page of failures asks for them.

Before: tasks.py (what an Item is). Next: run.py (asks, and writes the rows), report.py (tables and the page)
"""
import hashlib
import sys
from collections import defaultdict

from runs.errors import BadMedia
from runs.files import read_jsonl
from runs.settings import pixel_budget
from verifier.media import load_media

ITEM_FIELDS = ("id", "question", "answer", "options", "groups", "scorer")  # what a row keeps of its Item
WHOLE_FIELDS = {"benchmark", "model", *ITEM_FIELDS, "response", "finished", "grounding", "stamp", "extracted",
                "correct"}
SLIM_FIELDS = ("id", "groups", "correct", "grounding", "finished", "stamp")


# ---- 1. Rows -----------------------------------------------------------------------------------------------
def is_whole(row):
    """Is this a whole answer?

    A line that a kill tore is none, nor is one that evaluate.py wrote without --benchmark.
    """
    return isinstance(row, dict) and WHOLE_FIELDS <= row.keys()


def stored_rows(log):
    """Yield the rows of answers.jsonl that are whole answers."""
    for _, row in read_jsonl(log, torn=True):
        if is_whole(row):
            yield row


def slim(row):
    """What numbers need of a row. "outcome" is runs/statistics.py's word for "correct"."""
    kept = {name: row[name] for name in SLIM_FIELDS}
    kept["outcome"] = row["correct"]
    kept["read"] = row["extracted"] is not None
    return kept


def read_answers(log, stamps):
    """Read the answers that need not be asked for again.

    stamps: {(model, benchmark): how this model is asked now}; a row counts only if it was asked in the same
    way.
    -> {(model, folder, benchmark): {id: slim row}}, a defaultdict
    """
    have = defaultdict(dict)
    if not log.exists():
        return have
    for row in stored_rows(log):
        model, benchmark, stamp = row["model"], row["benchmark"], row["stamp"]
        if stamps.get((model, benchmark)) == stamp:
            folder = stamp[0]
            have[model, folder, benchmark][row["id"]] = slim(row)
    return have


# ---- 2. Chance, and pictures -------------------------------------------------------------------------------
def ticket(seed, name):
    """Chance that is the same on every machine: 32 bytes, to sort by or to seed with."""
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def usable(items, cfg, report):
    """Load what the policy sees.

    Yields (Item, [Media]); what cannot be shown goes to report(reason, where, detail).
    """
    for item in items:
        try:
            media = [load_media(source, **pixel_budget(cfg)) for _, source in item.media]
            for (kind, _), loaded in zip(item.media, media):
                if kind == "image" and len(loaded.frames) > 1:
                    raise BadMedia("a clip in place of a picture")
        except BadMedia as error:
            print(f"left out: {item.id}: {error}", file=sys.stderr)
            report("damaged media", item.id, str(error))
        else:
            yield item, media
