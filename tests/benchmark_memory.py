"""Memory and seconds of real training steps of the 7B's architecture, predicted beside measured. It needs a GPU.

A script, not a test. Every setting runs in a process of its own: train_sft.py or train_grpo.py as they are,
two steps, on random weights of Qwen2.5-VL-7B's shapes that are drawn on the GPU (no checkpoint, no network),
under a cap of the card that it is meant for. Rollouts are sampled to their full length, the worst case.
Random weights write noise, so the verifier gets written responses of that length in their place, half of them
right: every phase has all of its work. The teachers are the pixel rules, which cost no GPU memory; judge,
reference and policy are one model.

Run:   python tests/benchmark_memory.py                 # about 15 minutes on one large GPU; prints a Markdown table
       python tests/benchmark_memory.py --only "GRPO, 4 bits, pictures"
       python tests/benchmark_memory.py --tiny          # tiny and on a CPU: nothing is measured, but all of it runs
       python tests/benchmark_memory.py --cpu           # one small GRPO step of the 7B on a CPU with 24 GB
Before: runs/ledger.py, tests/benchmark_models.py (the model and the data)
"""
import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from runs import ledger  # noqa: E402
from runs.files import read_jsonl  # noqa: E402
from runs.settings import parse_config, preset_arguments, vision_tokens  # noqa: E402
from benchmark_models import build, write_data, write_responses  # noqa: E402
import train_grpo  # noqa: E402
import train_sft  # noqa: E402

PICTURES = "--video_pixels 401408"  # a clip gets no more tokens than a picture
SETTINGS = {  # name: (GB of the card, script, pictures or clips, flags)
    "SFT, 4 bits, pictures": (24, train_sft, "image", "--preset 7b --micro_batch 1"),
    "GRPO, 4 bits, pictures": (24, train_grpo, "image", f"--preset 7b {PICTURES}"),
    "GRPO, 4 bits, clips": (24, train_grpo, "video", "--preset 7b"),
    "GRPO, 4 bits, long": (40, train_grpo, "image", f"--preset 7b {PICTURES} --max_new_tokens 2048"),
    "SFT, bfloat16, clips": (40, train_sft, "video", "--preset 7b-bf16 --micro_batch 2"),
    "GRPO, bfloat16, clips": (40, train_grpo, "video", "--preset 7b-bf16"),
    "GRPO, bfloat16, whole groups": (80, train_grpo, "image",
                                     f"--preset 7b-bf16 {PICTURES} --micro_batch 8 --sample_batch 56"),
}
COMMON = "--detector pixels --segmenter pixels --eval_every 0 --merge False --batch 4 --epochs 2"
FEW = ("--lora_rank 4 --prompts 1 --group_size 2 --sample_batch 2 --max_new_tokens 80 --image_pixels 12544 "
       "--video_pixels 56448")
# A measured phase, and the predicted ones that it holds.
PHASES = {"sample": ("encode", "prefill", "decode"), "verify": ("verify",), "update": ("encode", "loss", "backward")}


# ---- 1. One setting ----------------------------------------------------------------------------------------
def settings(name, tiny, few, folder):
    """The command line of a setting, only with flags that its script has. -> words, cfg."""
    _, script, _, flags = SETTINGS[name]
    words = flags.split()
    if tiny or few:
        words += FEW.split()
    if tiny and importlib.util.find_spec("bitsandbytes") is None:
        words += ["--dtype", "float32"]
    words += COMMON.split() + ["--steps", "1" if few else "2"]
    known = []
    for flag, value in zip(words[::2], words[1::2]):
        if flag.removeprefix("--") in script.Config.__dataclass_fields__:
            known += [flag, value]
    known += ["--out", f"{folder}/out"]
    if script is train_grpo:
        known += ["--data", f"{folder}/rl.jsonl", "--val", f"{folder}/rl.jsonl"]
    else:
        known += ["--data", f"{folder}/sft.jsonl"]
    cfg = parse_config(script.Config, "", preset_arguments(script.__name__, script.Config, known))
    return known, cfg


def one(name, tiny, few):
    """Run one setting here; its last line of output is a JSON object. few: the 7B, but few tokens and rollouts."""
    card, script, kind, _ = SETTINGS[name]
    tokenizer = build("tiny" if tiny else "7b")
    if torch.cuda.is_available():
        fraction = card * 1e9 / torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1., fraction))
    with tempfile.TemporaryDirectory() as folder:
        words, cfg = settings(name, tiny, few, folder)
        right = write_data(Path(folder), cfg, tokenizer, kind)
        write_responses(right)
        sys.argv = [script.__name__, *words]
        script.main()
        rows = [row for _, row in read_jsonl(f"{folder}/out/metrics.jsonl") if row["kind"] == "train"]

    columns = {phase: sum(parts.values()) / 1e9 for phase, parts in ledger.phases(cfg).items()}
    predicted, measured = {}, {}
    for phase in rows[0]["seconds"]:
        predicted[phase] = max(columns[part] for part in PHASES[phase] if part in columns)
        if rows[0]["memory_gb"]:
            measured[phase] = max(row["memory_gb"][phase] for row in rows)
        if few:  # a CPU knows the peak of the whole process alone
            measured[phase] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    picture, clip = vision_tokens(cfg)
    print(json.dumps(dict(name=name, card=card, tokens=max(picture, clip) if kind == "video" else picture,
                          seconds=rows[-1]["seconds"], measured=measured, updated=rows[-1]["grad_norm"],
                          predicted=predicted)))


# ---- 2. All settings ---------------------------------------------------------------------------------------
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SETTINGS, help="one setting instead of all")
    parser.add_argument("--tiny", action="store_true", help="a tiny model; a CPU will do")
    parser.add_argument("--cpu", action="store_true",
                        help="the 7B's architecture on a CPU, one small step (measured: the process's peak)")
    parser.add_argument("--here", action="store_true", help="run --only in this process (the script calls itself so)")
    args = parser.parse_args()
    if not (args.tiny or args.cpu or torch.cuda.is_available()):
        sys.exit("This measures a GPU and there is none. "
                 "To see it run on a CPU: python tests/benchmark_memory.py --tiny, or --cpu")
    if args.cpu and not args.only:
        args.only = "GRPO, bfloat16, whole groups"
    if args.here:
        one(args.only, args.tiny, args.cpu)
        return

    if torch.cuda.is_available():
        where = torch.cuda.get_device_name()
    else:
        where = "CPU, tiny model: nothing is measured" if args.tiny else "CPU"
    print(f"{where}, torch {torch.__version__}\n")
    print("| setting | card, GB | phase | predicted, GB | measured, GB | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in [args.only] if args.only else SETTINGS:
        command = [sys.executable, __file__, "--here", "--only", name]
        if args.tiny:
            command.append("--tiny")
        if args.cpu:
            command.append("--cpu")
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1][:120]
            print(f"| {name} | {SETTINGS[name][0]} | failed: {why} | | | |", flush=True)
            continue
        row = json.loads(done.stdout.strip().splitlines()[-1])
        for phase, seconds in row["seconds"].items():
            measured = f"{row['measured'][phase]:.1f}" if row["measured"] else "-"
            predicted = f"{row['predicted'][phase]:.1f}"
            print(f"| {name}, {row['tokens']} vision tokens | {row['card']} | {phase} | {predicted} | {measured} | "
                  f"{seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
