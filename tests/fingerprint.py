"""Hash what this tree computes, item by item, so that a change that should change nothing can be held against the tree before it.

    python tests/fingerprint.py out/fingerprint        # about three minutes on one core; prints one line per item

The items: how a thousand mangled responses are read, the verdicts of all rollouts of a small curation run, its SFT data, two
SFT and two GRPO steps (weights and metrics), a benchmark asked and then scored again. Same machine, same packages: rounding
differs between machines.
"""
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from argos import Argos, outcome_score, parse  # noqa: E402
from teachers.names import load_judge, load_teachers  # noqa: E402
from verifier.answers import KINDS, normalise, number, option_list  # noqa: E402
from verifier.claims import canonical  # noqa: E402
from verifier.extraction import read_claims  # noqa: E402
from verifier.samples import read_samples  # noqa: E402


def digest(data):
    if isinstance(data, str):
        data = data.encode("utf-8", "backslashreplace")
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def show(name, data):
    print(f"{digest(data)}  {name}", flush=True)


def run(*words):
    """One of the project's commands, on one thread, so that sums are added in one order."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
    subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, env=environment, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def without_time(jsonl):
    """A log without what a clock or a file name put into it."""
    rows = []
    for line in Path(jsonl).read_text().splitlines():
        row = json.loads(line)
        if row.get("kind") == "config":
            continue
        for name in ("seconds", "memory_gb", "folder", "stamp"):
            row.pop(name, None)
        rows.append(json.dumps(row, sort_keys=True))
    return "\n".join(rows)


PIECES = """<think> </think> <answer> </answer> <answer>2</answer> <answer>A or B</answer> 1,200 45% 3/4 twenty-one 2.5_seconds
<point_x1="44"_y1="28"_alt="red_square">red_square</point> <point_x1="4"_y1="8"_x2="9"_y2="1">blue_cross</point>
<points_x1="1e9"_y1="-3"_alt='a_<b'>x</points> <point>none</point> <point_x1="5"> (10,_20)_in_frame_3_(1.5_seconds)
the_red_square_is_at_(40,_60)_in_frame_2_(0.5_seconds). in_frame_1_(0.2_seconds)_the_cross_is_gone. at_2.5_seconds
from_0.5_seconds_to_1.2_seconds_the_square_moves_left. from_3_to_1_seconds it_waits. in_frame_9 B (b) B._red the_answer_is_B
yes no none red_or_blue 12345678 1.2.3 nan -7 $5 10^2 \u00bd \u212a \u202e \x00 <|im_end|> "}" {"frame_claims":[]} .""".split()


def mangled(seed, count):
    """Responses put together at random from good and bad pieces, then cut, doubled and crossed."""
    rng = random.Random(seed)
    for _ in range(count):
        words = [rng.choice(PIECES).replace("_", " ") for _ in range(rng.randint(1, 14))]
        text = " ".join(words)
        if rng.random() < .6:
            text = f"<think>{text}</think><answer>{rng.choice(PIECES).replace('_', ' ')}</answer>"
        if rng.random() < .3:
            i = rng.randrange(len(text))
            text = text[:i] + rng.choice("<>/\"'=. \n") + text[i + rng.randint(0, 4):]
        yield text


def read_responses():
    texts = list(mangled(0, 1500))
    lines = []
    for text in texts:
        for media in ("image", "video"):
            parsed = parse(text, media)
            lines.append(repr((parsed.think, parsed.answer, parsed.no_answer, list(parsed.points), list(parsed.frame_claims),
                               list(parsed.segment_claims), parsed.dropped_reasons, canonical(text, media))))
    show("1500 mangled responses, parsed and rewritten", "\n".join(lines))
    lines = []
    for text in texts:
        parsed = parse(text, "video")
        read_claims('{"frame_claims": [{"frame": 1, "seconds": 0.2, "claim": "the cross is gone"}], "points": [{"x": 10, "y": 20, '
                    '"label": "red square", "frame": 3, "seconds": 1.5}]}' if len(text) % 3 else text, parsed)
        lines.append(repr((list(parsed.points), list(parsed.frame_claims), parsed.dropped_reasons)))
    show("the same, read by a judge's JSON", "\n".join(lines))
    truths = {"choice": ("B", ["red", "blue"]), "number": ("21", None), "count": ("2", None), "phrase": ("red square", None),
              "ocr": ("the red square", None), "regression": ("2.5", None), "free": ("yes", None)}
    lines = [repr((t, number(t), normalise(t), option_list(t),
                   [outcome_score(t, truths[k][0], k, truths[k][1]) for k in KINDS])) for t in texts + [p.replace("_", " ") for p in PIECES]]
    show("the same as answers to seven kinds of question", "\n".join(lines))


def verdicts(data, rollouts):
    """Every rollout of a curation run verified again: the explanation, the numbers and the masks."""
    torch.set_num_threads(1)
    verifier = Argos(*load_teachers(), load_judge(str(ROOT / "tiny/teacher")), video_pixels=32 * 7056)
    samples = {s.id: s for s in read_samples(data)}
    lines, masks = [], hashlib.blake2b(digest_size=8)
    for line in Path(rollouts).read_text().splitlines():
        row = json.loads(line)
        for v in verifier.verify_group(samples[row["id"]], [r["text"] for r in row["rollouts"]]):
            lines.append(f"{row['id']} {v.reward!r} {v.outcome!r} {v.grounding!r} {v.reasoning!r}\n{v.explain()}")
            for key in sorted(v.masks):
                masks.update(repr(key).encode() + np.ascontiguousarray(v.masks[key]).tobytes())
    show(f"{len(lines)} verdicts of a curation run", "\n".join(lines))
    print(f"{masks.hexdigest()}  their masks", flush=True)


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/fingerprint").resolve()
    read_responses()
    if not (out / "data" / "val.jsonl").exists():
        run("-m", "tiny.world", "--out", out / "data")
    for name in ("curate", "rl", "val"):
        rows = (out / "data" / f"{name}.jsonl").read_text().splitlines(keepends=True)
        few = rows[::max(1, len(rows) // 48)][:48]
        (out / "data" / f"few-{name}.jsonl").write_text("".join(few))
        show(f"data: {name}", "".join(rows))
    run("curate.py", "--data", out / "data/few-curate.jsonl", "--out", out / "curated", "--pictures", 4)
    show("curation: rollouts", (out / "curated/rollouts.jsonl").read_text())
    show("curation: report", (out / "curated/report.json").read_text())
    show("curation: SFT data", (out / "curated/sft.jsonl").read_text())
    for folder in ("overlays", "best", "worst"):
        show(f"curation: {folder}", b"".join(p.read_bytes() for p in sorted((out / "curated" / folder).glob("*.png"))))
    verdicts(out / "data/few-curate.jsonl", out / "curated/rollouts.jsonl")
    examples = len((out / "curated/sft.jsonl").read_text().splitlines())
    run("train_sft.py", "--data", out / "curated/sft.jsonl", "--out", out / "sft", "--batch", examples // 2)
    show("SFT: two steps", without_time(out / "sft/metrics.jsonl"))
    show("SFT: weights", (out / "sft/merged/model.safetensors").read_bytes())
    for reward in ("argos", "outcome"):
        run("train_grpo.py", "--reward", reward, "--policy", "tiny/teacher", "--data", out / "data/few-rl.jsonl", "--val",
            out / "data/few-val.jsonl", "--out", out / reward, "--steps", 2, "--prompts", 12, "--warmup", 1, "--beta", .01,
            "--updates", 2, "--micro_batch", 12, "--eval_every", 2)
        show(f"GRPO, {reward}: two steps", without_time(out / reward / "metrics.jsonl"))
        show(f"GRPO, {reward}: weights", (out / reward / "merged/model.safetensors").read_bytes())
        show(f"GRPO, {reward}: cards", b"".join(p.read_bytes() for p in sorted((out / reward / "cards").glob("*.png"))))
    run("evaluate.py", "--models", "base:direct=tiny/base", f"sft={out}/sft/merged", "--data", out / "data/few-val.jsonl", "--out",
        out / "eval", "--pages", 3)
    show("evaluation: table", (out / "eval/table.md").read_text())
    benchmark = ("evaluate.py", "--benchmark", "easy-vqa", "--limit", 48, "--out", out / "benchmark")
    run(*benchmark, "--models", "base:direct=tiny/base", "teacher=tiny/teacher")
    tables = sorted(p for p in (out / "benchmark").rglob("*") if p.suffix in (".md", ".csv"))
    for path in tables:
        path.unlink()
    run(*benchmark, "--rescore")
    for path in tables:
        show(f"a benchmark, scored again: {path.name}", path.read_text())


if __name__ == "__main__":
    main()
