"""The whole of Argos on the embedded world, by the same scripts and flags a person would type. Each command is printed.

    python -m tiny                 # draw data, curate, SFT, GRPO with both rewards side by side, evaluate, figure
    python -m tiny --out out2 --seed 1

Nothing here but the order of seven commands: read it as a table of contents.
"""
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from runs.errors import BadInput, run_main
from runs.settings import parse_config


@dataclass
class Config:
    out: str = field(default="out", metadata={"help": "folder for everything that is written"})
    seed: int = field(default=0, metadata={"help": "seed of data, curation and training"})
    resume: bool = field(default=False, metadata={"help": "continue a run that was stopped"})
    ood: bool = field(default=False, metadata={"help": "evaluate out of domain too (about two minutes more)"})


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(*chains):
    """Run chains of commands side by side, the cores shared among them; within a chain one after the other. Stop when one failed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # this Python, activated or not
    env = dict(os.environ, PATH=path, OMP_NUM_THREADS=str(max(1, CORES // len(chains))), TOKENIZERS_PARALLELISM="false")

    def follow(chain):
        for command in chain:
            print(f"\n$ {command}", flush=True)
            code = subprocess.run(command, shell=True, env=env).returncode
            if code:
                print(f"\nfailed: {command}", file=sys.stderr, flush=True)
                return code if code > 0 else 1  # a process that was killed has a negative code
        return 0

    clock = time.time()
    with ThreadPoolExecutor(len(chains)) as pool:
        codes = list(pool.map(follow, chains))
    if any(codes):
        sys.exit(max(codes))
    print(f"[{time.time() - clock:.0f} s]", flush=True)


def main():
    cfg = parse_config(Config, __doc__)
    if Path(cfg.out, "curated").exists() and not cfg.resume:
        raise BadInput(f"{cfg.out}: holds a run already; continue it with --resume, or name another --out")
    o, more = shlex.quote(cfg.out), f"--seed {cfg.seed}" + (" --resume" if cfg.resume else "")
    clock = time.time()
    if not (cfg.resume and Path(cfg.out, "data/ood-clips.jsonl").exists()):
        run([f"python -m tiny.world --out {o}/data --seed {cfg.seed}"])
    # Several processes use several cores better than several threads do; a GPU is one process's.
    several = sys.platform == "linux" and CORES > 1 and not torch.cuda.is_available()
    python = f"ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node {min(CORES, 8)}" if several else "python"
    run([f"{python} curate.py --data {o}/data/curate.jsonl --out {o}/curated {more}"])
    run([f"python train_sft.py --data {o}/curated/sft.jsonl --out {o}/sft {more}"])
    grpo = f"python train_grpo.py --policy {o}/sft/merged --data {o}/data/rl.jsonl --val {o}/data/val.jsonl {more}"
    sets = " ".join(f"{o}/data/{s}.jsonl" for s in ("val", *(("ood-objects", "ood-pairs", "ood-clips") if cfg.ood else ())))
    ask = f"python evaluate.py --data {sets} --out {o}/eval --models"
    start = f"base:direct=tiny/base sft-greedy:greedy={o}/sft/merged sft={o}/sft/merged"
    # Answer-only RL asks no judge and is done first. Its core goes on to the models that are there; what they answer is kept.
    Path(cfg.out, "eval").mkdir(exist_ok=True)
    run([f"{grpo} --reward argos --out {o}/grpo-argos"],
        [f"{grpo} --reward outcome --out {o}/grpo-outcome", f"{ask} {start} outcome={o}/grpo-outcome/merged --pages 0 > {o}/eval/early.txt"])
    run([f"{ask} {start} argos={o}/grpo-argos/merged outcome={o}/grpo-outcome/merged --curves argos={o}/grpo-argos outcome={o}/grpo-outcome"])
    print(f"\nAll of it in {(time.time() - clock) / 60:.1f} minutes. Look at:\n  {o}/eval/curves.png       the paper's figure 4, by your "
          f"machine\n  {o}/eval/page/index.html where the models differ\n  {o}/curated/overlays      what the teacher read\n"
          f"  {o}/grpo-argos/cards      verdicts during training")


if __name__ == "__main__":
    run_main(main)
