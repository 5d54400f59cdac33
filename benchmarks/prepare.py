"""Video-R1 and PixMo-Count -> curate.jsonl, rl.jsonl and val.jsonl: three sets of questions that share no
picture and no video.

The paper (app. C.4) curates about 85K SFT samples from both, and takes 4.5K for RL from Video-R1's full file;
figure 4 is measured on 1.5K questions of its CoT file. Which ones is not said. Here chance decides, file by
file: every picture and video draws a ticket, a hash of the seed and its name, and the sets are filled in the
order of the tickets, with all questions about one file in one set. So the mixture of the sources stays as it
is published, the sets are the same on every machine, and the first n rows of a set are a random sample of it.

What is simplified: a file counts as itself by its place in Video-R1 or by its sha256 in PixMo-Count; the same
picture stored twice is not noticed.

Run:    python -m benchmarks.prepare --video_r1 DIR --pixmo DIR --out out/data    # either one alone will do
Reads:  DIR/Video-R1-COT-165k.json, DIR/Video-R1-260k.json and the folders of media beside them;
        DIR/data/train-*.parquet and DIR/images (sources.py). Media stay where they are; rows name them by a
        relative path.
Writes: under --out, curate.jsonl, rl.jsonl and val.jsonl; unusable.jsonl, every row left out with its reason;
        prepare.json, counts.
Before: sources.py. Next: curate.py --data out/data/curate.jsonl; the paper kept 3.1 % of the rollouts
"""
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from runs.errors import BadInput, run_main
from runs.files import write_atomically
from runs.settings import flag, parse_config
from benchmarks import sources


@dataclass
class Config:
    video_r1: str = flag("", "folder of Video-R1-data")
    pixmo: str = flag("", "folder of pixmo-count, with the pictures in images/")
    out: str = flag("out/data", "folder to write")
    sft: int = flag(85_000, "samples to curate for SFT, at most (the paper's 85K are what was left after "
                            "curation)")
    rl: int = flag(4_500, "samples for GRPO, at most (paper: about 4.5K)")
    val: int = flag(1_500, "held-out samples, at most (paper, figure 4: 1.5K)")
    seed: int = flag(0, "seed of the tickets")


SETS = ("val", "rl", "curate")  # in this order a file is offered to them: the small ones first


def eligible(files, video_r1):
    """Which sets may take a question, by the files that it stands in (app. C.4, figure 4).

    files: a set of sources.COT, sources.FULL, "pixmo"; video_r1: is Video-R1 given? Without it PixMo-Count
    serves all.
    """
    takers = {sources.COT: {"val", "curate"}, sources.FULL: {"rl", "curate"}}
    takers["pixmo"] = {"curate"} if video_r1 else set(SETS)
    return set().union(*(takers[name] for name in files))


def deal(questions, sizes, seed):
    """Deal questions to sets -> {set: [index of a question, ...]}, in the order of the tickets. No file is in
    two sets.

    questions: [(name of the media file, sets that may take it), ...]; sizes: {set: at most so many}
    """
    about = defaultdict(list)  # media file -> indices of the questions about it
    for i, (media, _) in enumerate(questions):
        about[media].append(i)
    dealt = {name: [] for name in sizes}
    for media in sorted(about, key=lambda media: hashlib.sha256(f"{seed} {media}".encode()).digest()):
        for name, size in sizes.items():
            room = size - len(dealt[name])
            mine = [i for i in about[media] if name in questions[i][1]][:room]
            if mine:
                dealt[name] += mine
                break
    return dealt


class Waiting:
    """Questions that wait to be dealt: the rows in a file on disk, a line's worth of facts about each in
    memory.
    """

    def __init__(self, file):
        self.file = file
        self.questions = []  # (name of the media file, sets that may take the question)
        self.offsets = []    # where its row begins in the file
        self.first = {}      # what was asked -> index of its question

    def add(self, row, video_r1):
        """A row of sources.py.

        The same question again, from Video-R1's other file: either file's sets may take it.
        """
        media, asked = row.pop("media"), row.pop("asked")
        sets = eligible(row.pop("files"), video_r1)
        if asked in self.first:
            self.questions[self.first[asked]][1].update(sets)
            return
        self.first[asked] = len(self.questions)
        self.questions.append((media, sets))
        self.offsets.append(self.file.tell())
        self.file.write(json.dumps(row).encode() + b"\n")

    def rows(self, chosen):
        """The rows of the questions with these indices."""
        for i in chosen:
            self.file.seek(self.offsets[i])
            yield json.loads(self.file.readline())


def main():
    cfg = parse_config(Config, __doc__)
    sizes = {"val": cfg.val, "rl": cfg.rl, "curate": cfg.sft}
    if min(sizes.values()) < 0 or not (cfg.video_r1 or cfg.pixmo):
        raise BadInput("give --video_r1 DIR, --pixmo DIR or both, and sizes of 0 or more")
    for name in ("video_r1", "pixmo"):  # both at once: the first takes long to read
        if getattr(cfg, name):
            sources.existing_folder(name, getattr(cfg, name))
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    left_out = Counter()  # reason -> how many rows
    unusable = []         # a line of unusable.jsonl each

    def leave_out(reason, where, detail):
        left_out[reason] += 1
        unusable.append(json.dumps({"where": where, "reason": reason, "detail": detail}))

    # The file has no name: whatever ends this process, nothing is left behind.
    with tempfile.TemporaryFile(dir=out) as file:
        waiting = Waiting(file)
        for row in tqdm(read_rows(cfg, leave_out), desc="read", unit="row"):
            waiting.add(row, cfg.video_r1)
        dealt = deal(waiting.questions, sizes, cfg.seed)
        write_atomically(out / "unusable.jsonl", "".join(line + "\n" for line in unusable))
        for name in SETS:
            if sizes[name] and not dealt[name]:
                flag = "sft" if name == "curate" else name
                raise BadInput(f"no question is left for {name}.jsonl ({len(waiting.questions)} usable, "
                               f"{left_out.total()} left out: {out}/unusable.jsonl); "
                               f"give more data, or --{flag} 0")
        table = {"usable questions": len(waiting.questions),
                 "their files": len({media for media, _ in waiting.questions})}
        for name, chosen in dealt.items():
            table[name] = write_set(out / f"{name}.jsonl", name, waiting.rows(chosen))
    table["left out"] = dict(left_out.most_common())
    write_atomically(out / "prepare.json", json.dumps({"seed": cfg.seed} | table, indent=2))
    print(json.dumps(table, indent=2))
    for name, size in sizes.items():
        if len(dealt[name]) < size:
            print(f"{name}.jsonl: {len(dealt[name])} of the {size} asked for; there are no more",
                  file=sys.stderr)
    names = ", ".join(f"{name}.jsonl" for name in sizes)
    print(f"wrote {names} to {out}; every row left out is in {out}/unusable.jsonl")


def read_rows(cfg, leave_out):
    """The rows of the data sets that were given."""
    if cfg.video_r1:
        yield from sources.video_r1(cfg.video_r1, leave_out)
    if cfg.pixmo:
        yield from sources.pixmo_count(cfg.pixmo, leave_out)


def write_set(path, name, rows):
    """Write one set, complete or absent, with media paths relative to it -> counts by source and by kind."""
    counts = {"samples": 0, "by source": Counter(), "by kind": Counter()}
    aside = path.with_name(f".{path.name}.tmp")
    with open(aside, "w", encoding="utf-8") as file:
        for row in rows:
            media = "image" if "image" in row else "video"
            row[media] = os.path.relpath(row[media], path.parent.resolve())
            if name != "curate":
                row.pop("raw", None)  # only the extraction reads it
            file.write(json.dumps(row) + "\n")
            counts["samples"] += 1
            counts["by source"][row["source"]] += 1
            counts["by kind"][row["kind"]] += 1
    os.replace(aside, path)
    return counts


if __name__ == "__main__":
    run_main(main)
