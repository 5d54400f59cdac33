"""The whole of Argos on the embedded world, by the scripts and flags a person would type, each printed.

    python -m tiny                 # draw data, curate, SFT, GRPO with both rewards side by side, evaluate, figure
    python -m tiny --out out2 --seed 1

Nothing here but the order of seven commands: read it as a table of contents.

Before:  README.md
Next:    tiny/README.md (what came out), tiny/study.py (the same with more seeds and step sizes)
"""
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from runs.errors import BadInput, run_main
from runs.files import alone
from runs.settings import flag, parse_config


@dataclass
class Config:
    out: str = flag("out", "folder for everything that is written")
    seed: int = flag(0, "seed of data, curation and training")
    resume: bool = flag(False, "continue a run that was stopped")
    ood: bool = flag(False, "evaluate out of domain too (about two minutes more)")
    foils: int = flag(0, "0: the paper's judge, which RL can fool, to see it happen; 2: one harder to fool")


def count_cores():
    if hasattr(os, "sched_getaffinity"):  # Linux: those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


CORES = count_cores()


def run(*chains):
    """Run chains of commands side by side, the cores shared among them; within a chain one after the other.

    When a command fails its chain stops, and once the other chains are done the whole process does.
    """
    this_python = str(Path(sys.executable).parent)  # whether its environment is activated or not
    path = os.pathsep.join([this_python, os.environ.get("PATH", "")])
    threads = max(1, CORES // len(chains))
    env = dict(os.environ, PATH=path, OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false")

    def follow(chain):
        for command in chain:
            print(f"\n$ {command}", flush=True)
            code = subprocess.run(command, shell=True, env=env).returncode
            if code != 0:
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
    with alone(cfg.out):
        work(cfg)


def work(cfg):
    """The seven commands, in a folder that is this run's alone."""
    if Path(cfg.out, "curated").exists() and not cfg.resume:
        raise BadInput(f"{cfg.out}: holds a run already; continue it with --resume, or name another --out")
    o = shlex.quote(cfg.out)
    more = f"--seed {cfg.seed}"
    if cfg.resume:
        more += " --resume"
    judge = f"--foils {cfg.foils}"
    clock = time.time()

    # 1. Draw the data.
    drawn = Path(cfg.out, "data/ood-clips.jsonl").exists()  # the last file that is written
    if not (cfg.resume and drawn):
        run([f"python -m tiny.world --out {o}/data --seed {cfg.seed}"])

    # 2. Curate. Several processes use several cores better than several threads do; a GPU is one process's.
    python = "python"
    if sys.platform == "linux" and CORES > 1 and not torch.cuda.is_available():
        processes = min(CORES, 8)
        python = f"ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node {processes}"
    run([f"{python} curate.py --data {o}/data/curate.jsonl --out {o}/curated {judge} {more}"])

    # 3. The cold start.
    run([f"python train_sft.py --data {o}/curated/sft.jsonl --out {o}/sft {more}"])

    # 4. GRPO with both rewards, side by side. Answer-only RL asks for no R_rq and is done first: its core then
    # goes on to evaluate the models that are there. What they answer is kept for the last command.
    grpo = (f"python train_grpo.py --policy {o}/sft/merged --data {o}/data/rl.jsonl --val {o}/data/val.jsonl "
            f"{judge} {more}")
    names = ["val"]
    if cfg.ood:
        names += ["ood-objects", "ood-pairs", "ood-clips"]
    sets = " ".join(f"{o}/data/{name}.jsonl" for name in names)
    ask = f"python evaluate.py --data {sets} --out {o}/eval {judge} --models"
    start = f"base:direct=tiny/base sft-greedy:greedy={o}/sft/merged sft={o}/sft/merged"
    argos, outcome = f"{o}/grpo-argos", f"{o}/grpo-outcome"
    Path(cfg.out, "eval").mkdir(exist_ok=True)
    run([f"{grpo} --reward argos --out {argos}"],
        [f"{grpo} --reward outcome --out {outcome}",
         f"{ask} {start} outcome={outcome}/merged --pages 0 > {o}/eval/early.txt"])

    # 5. Evaluate all, with the learning curves.
    run([f"{ask} {start} argos={argos}/merged outcome={outcome}/merged --curves argos={argos} outcome={outcome}"])
    print(f"\nAll of it in {(time.time() - clock) / 60:.1f} minutes. Look at:\n"
          f"  {o}/eval/curves.png        the paper's figure 4, by your machine\n"
          f"  {o}/eval/page/index.html   where the models differ\n"
          f"  {o}/curated/overlays       what the teacher read\n"
          f"  {o}/grpo-argos/cards       verdicts during training")


if __name__ == "__main__":
    run_main(main)
