"""The whole of Argos on the embedded world, by the same scripts and flags a person would type. Each command is printed.

    python -m tiny                 # draw data, curate, SFT, GRPO with both rewards side by side, evaluate, figure
    python -m tiny --out out2 --seed 1

Nothing here but the order of six commands: read it as a table of contents.
"""
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import argos


@dataclass
class Config:
    out: str = field(default="out", metadata={"help": "folder for everything that is written"})
    seed: int = field(default=0, metadata={"help": "seed of data, curation and training"})
    resume: bool = field(default=False, metadata={"help": "continue a run that was stopped"})
    ood: bool = field(default=False, metadata={"help": "evaluate out of domain too (about two minutes more)"})


def start(command, threads):
    print(f"\n$ {command}", flush=True)
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false")
    return subprocess.Popen([sys.executable] + shlex.split(command)[1:], env=env)


def run(*commands):
    """Run commands side by side, the cores shared among them; stop when one has failed."""
    threads = max(1, (os.cpu_count() or 1) // len(commands))
    clock, running = time.time(), [start(c, threads) for c in commands]
    codes = [p.wait() for p in running]
    if any(codes):
        sys.exit(next((c for c in codes if c > 0), 1))  # a process that was killed has a negative code
    print(f"[{time.time() - clock:.0f} s]", flush=True)


def main():
    cfg = argos.parse_config(Config, __doc__)
    if Path(cfg.out, "curated").exists() and not cfg.resume:
        raise argos.BadInput(f"{cfg.out}: holds a run already; continue it with --resume, or name another --out")
    o, more = shlex.quote(cfg.out), f"--seed {cfg.seed}" + (" --resume" if cfg.resume else "")
    clock = time.time()
    if not (cfg.resume and Path(cfg.out, "data/ood-clips.jsonl").exists()):
        run(f"python -m tiny.world --out {o}/data --seed {cfg.seed}")
    run(f"python curate.py --data {o}/data/curate.jsonl --out {o}/curated {more}")
    run(f"python train_sft.py --data {o}/curated/sft.jsonl --out {o}/sft {more}")
    grpo = f"python train_grpo.py --policy {o}/sft/merged --data {o}/data/rl.jsonl --val {o}/data/val.jsonl {more}"
    run(f"{grpo} --reward argos --out {o}/grpo-argos", f"{grpo} --reward outcome --out {o}/grpo-outcome")
    sets = " ".join(f"{o}/data/{s}.jsonl" for s in ("val", *(("ood-objects", "ood-pairs", "ood-clips") if cfg.ood else ())))
    run(f"python evaluate.py --models base:direct=tiny/base sft-greedy:greedy={o}/sft/merged sft={o}/sft/merged argos={o}/grpo-argos/merged "
        f"outcome={o}/grpo-outcome/merged --data {sets} --curves argos={o}/grpo-argos outcome={o}/grpo-outcome --out {o}/eval")
    print(f"\nAll of it in {(time.time() - clock) / 60:.1f} minutes. Look at:\n  {o}/eval/curves.png       the paper's figure 4, by your "
          f"machine\n  {o}/eval/page/index.html where the models differ\n  {o}/curated/overlays      what the teacher read\n"
          f"  {o}/grpo-argos/cards      verdicts during training")


if __name__ == "__main__":
    argos.run_main(main)
