"""Video-R1 and PixMo-Count -> curate.jsonl, rl.jsonl and val.jsonl: three sets of questions that share no picture and no video.

The paper (app. C.4) curates about 85K SFT samples from both, and takes 4.5K for RL from Video-R1's full file; figure 4 is measured on
1.5K questions of its CoT file. Which ones is not said. Here chance decides, file by file: every picture and video draws a ticket, a hash
of the seed and its name, and the sets are filled in the order of the tickets, with all questions about one file in one set. So the
mixture of the sources stays as it is published, the sets are the same on every machine, and the first n rows of a set are a random
sample of it.

What is simplified: a file counts as itself by its place in Video-R1 or by its sha256 in PixMo-Count; the same picture stored
twice is not noticed.

Run:    python -m benchmarks.prepare --video_r1 DIR --pixmo DIR --out out/data         # either one alone will do
Reads:  DIR/Video-R1-COT-165k.json, DIR/Video-R1-260k.json and the folders of media beside them;
        DIR/data/train-*.parquet and DIR/images (sources.py). Media stay where they are; rows name them by a relative path.
Writes: under --out, curate.jsonl, rl.jsonl and val.jsonl; unusable.jsonl, every row left out with its reason; prepare.json, counts.
Next:   curate.py --data out/data/curate.jsonl; the paper kept 3.1 % of the rollouts
"""
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from runs.errors import BadInput, run_main
from runs.files import write_atomically
from runs.settings import parse_config
from benchmarks import sources


@dataclass
class Config:
    video_r1: str = field(default="", metadata={"help": "folder of Video-R1-data"})
    pixmo: str = field(default="", metadata={"help": "folder of pixmo-count, with the pictures in images/"})
    out: str = field(default="out/data", metadata={"help": "folder to write"})
    sft: int = field(default=85_000, metadata={"help": "samples to curate for SFT, at most (the paper's 85K are what was left after curation)"})
    rl: int = field(default=4_500, metadata={"help": "samples for GRPO, at most (paper: about 4.5K)"})
    val: int = field(default=1_500, metadata={"help": "held-out samples, at most (paper, figure 4: 1.5K)"})
    seed: int = field(default=0, metadata={"help": "seed of the tickets"})


SETS = ("val", "rl", "curate")  # in this order a file is offered to them: the small ones first


def eligible(files, video_r1):
    """Which sets may take a question, by the files that it stands in (app. C.4, figure 4). Without Video-R1, PixMo-Count serves all."""
    sets = {sources.COT: {"val", "curate"}, sources.FULL: {"rl", "curate"}, "pixmo": {"curate"} if video_r1 else set(SETS)}
    return set().union(*(sets[name] for name in files))


def deal(questions, sizes, seed):
    """Deal questions to sets -> {set: [index of a question, ...]}, in the order of the tickets.

    questions: [(name of the media file, sets that may take it), ...]; sizes: {set: at most so many}. No file is in two sets.
    """
    about, dealt = defaultdict(list), {name: [] for name in sizes}
    for i, (media, _) in enumerate(questions):
        about[media].append(i)
    for media in sorted(about, key=lambda media: hashlib.sha256(f"{seed} {media}".encode()).digest()):
        for name, size in sizes.items():
            mine = [i for i in about[media] if name in questions[i][1]][:size - len(dealt[name])]
            if mine:
                dealt[name] += mine
                break
    return dealt


def main():
    cfg = parse_config(Config, __doc__)
    sizes = {"val": cfg.val, "rl": cfg.rl, "curate": cfg.sft}
    if min(sizes.values()) < 0 or not (cfg.video_r1 or cfg.pixmo):
        raise BadInput("give --video_r1 DIR, --pixmo DIR or both, and sizes of 0 or more")
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    left_out, unusable = Counter(), []

    def leave_out(reason, where, detail):
        left_out[reason] += 1
        unusable.append(json.dumps({"where": where, "reason": reason, "detail": detail}))

    # The rows wait on disk, in a file without a name; memory holds a line's worth of facts about each.
    with tempfile.TemporaryFile(dir=out) as waiting:
        questions, offsets, first = [], [], {}
        given = [(sources.video_r1, cfg.video_r1), (sources.pixmo_count, cfg.pixmo)]
        rows = (row for load, folder in given if folder for row in load(folder, leave_out))
        for row in tqdm(rows, desc="read", unit="row"):
            media, sets, asked = row.pop("media"), eligible(row.pop("files"), cfg.video_r1), row.pop("asked")
            if asked in first:  # in both files of Video-R1: one question, which either file's sets may take
                questions[first[asked]][1].update(sets)
                continue
            first[asked] = len(questions)
            questions.append((media, sets))
            offsets.append(waiting.tell())
            waiting.write(json.dumps(row).encode() + b"\n")

        dealt = deal(questions, sizes, cfg.seed)
        empty = [name for name in SETS if sizes[name] and not dealt[name]]
        write_atomically(out / "unusable.jsonl", "".join(line + "\n" for line in unusable))
        if empty:
            raise BadInput(f"no question is left for {empty[0]}.jsonl ({len(questions)} usable, {left_out.total()} left out: "
                                 f"{out}/unusable.jsonl); give more data, or --{'sft' if empty[0] == 'curate' else empty[0]} 0")
        table = {"usable questions": len(questions), "their files": len({media for media, _ in questions})}
        for name, chosen in dealt.items():
            table[name] = write_set(out / f"{name}.jsonl", name, (read_at(waiting, offsets[i]) for i in chosen))
    table["left out"] = dict(left_out.most_common())
    write_atomically(out / "prepare.json", json.dumps({"seed": cfg.seed} | table, indent=2))
    print(json.dumps(table, indent=2))
    for name, size in sizes.items():
        if len(dealt[name]) < size:
            print(f"{name}.jsonl: {len(dealt[name])} of the {size} asked for; there are no more", file=sys.stderr)
    print(f"wrote {', '.join(f'{name}.jsonl' for name in sizes)} to {out}; every row left out is in {out}/unusable.jsonl")


def read_at(file, offset):
    file.seek(offset)
    return json.loads(file.readline())


def write_set(path, name, rows):
    """Write one set, complete or absent, with media paths relative to it -> counts by source and by kind."""
    counts, aside = {"samples": 0, "by source": Counter(), "by kind": Counter()}, path.with_name(f".{path.name}.tmp")
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
