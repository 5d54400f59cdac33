"""The whole of Argos on the embedded world, by the scripts and flags a person would type, each printed.

    python -m tiny                 # draw data, curate, SFT, GRPO with both rewards side by side, evaluate, figure
    python -m tiny --out out2 --seed 1

Nothing here but the order of seven commands: read it as a table of contents. At the end it says where the time
went.

Before:  README.md
Next:    tiny/README.md (what came out), tiny/study.py (the same with more seeds and step sizes)
"""
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from runs.errors import BadInput, run_main
from runs.files import alone, read_jsonl
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
    """Run chains of commands side by side, the cores shared among them; within a chain one after the other. ->
    seconds.

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
    seconds = time.time() - clock
    print(f"[{seconds:.0f} s]", flush=True)
    return seconds


# ---- Where the time goes -----------------------------------------------------------------------------------
@dataclass
class Phase:
    """A row of the last table."""
    name: str
    seconds: float
    skipped: bool = False  # it was there, or done, before


def phase(name, logs, *chains):
    """Run chains of commands as one phase, which writes these logs. -> Phase: done before, where no log grew."""
    before = written(logs)
    seconds = run(*chains)
    return Phase(name, seconds, skipped=written(logs) == before)


def written(logs):
    """Bytes of all these files together; one that is not there has none."""
    return sum(Path(log).stat().st_size for log in logs if Path(log).exists())


PARTS = ("sample", "verify", "update", "evaluate")  # of a GRPO run, as its log names them


def spent(log):
    """What a GRPO run spent its seconds on, by its log -> Counter of PARTS."""
    seconds = Counter()
    if Path(log).exists():
        for _, row in read_jsonl(log, torn=True):
            seconds.update(row.get("seconds", {}))
    return seconds


def time_table(phases, total):
    """Phases as lines of text, each with its share of all seconds. An arm's parts are indented: both run at once.

    >>> phases = [Phase("data", 1, skipped=True), Phase("SFT", 30), Phase("  argos: sample", 15)]
    >>> print(time_table(phases, total=60))
    phase                         seconds  share
    data                                1     2 %  skipped: done before
    SFT                                30    50 %
      argos: sample                    15    25 %
    """
    lines = ["phase                         seconds  share"]
    for one in phases:
        note = "  skipped: done before" if one.skipped else ""
        lines.append(f"{one.name:30}{one.seconds:7.0f}{100 * one.seconds / total:6.0f} %{note}")
    return "\n".join(lines)


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
    phases = []

    # 1. Draw the data.
    last_drawn = Path(cfg.out, "data/ood-clips.jsonl")
    if cfg.resume and last_drawn.exists():
        phases.append(Phase("data", 0, skipped=True))
    else:
        phases.append(phase("data", [last_drawn], [f"python -m tiny.world --out {o}/data --seed {cfg.seed}"]))

    # 2. Curate. Several processes use several cores better than several threads do; a GPU is one process's.
    python = "python"
    if sys.platform == "linux" and CORES > 1 and not torch.cuda.is_available():
        processes = min(CORES, 8)
        python = f"ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node {processes}"
    curate = f"{python} curate.py --data {o}/data/curate.jsonl --out {o}/curated {judge} {more}"
    phases.append(phase("curation", [Path(cfg.out, "curated/rollouts.jsonl")], [curate]))

    # 3. The cold start.
    sft = f"python train_sft.py --data {o}/curated/sft.jsonl --out {o}/sft {more}"
    phases.append(phase("SFT", [Path(cfg.out, "sft/metrics.jsonl")], [sft]))

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
    logs = {arm: Path(cfg.out, f"grpo-{arm}/metrics.jsonl") for arm in ("argos", "outcome")}
    before = {arm: spent(log) for arm, log in logs.items()}
    phases.append(phase("GRPO, both arms at once", logs.values(),
                        [f"{grpo} --reward argos --out {argos}"],
                        [f"{grpo} --reward outcome --out {outcome}",
                         f"{ask} {start} outcome={outcome}/merged --pages 0 > {o}/eval/early.txt"]))
    for arm, log in logs.items():
        seconds = spent(log) - before[arm]  # of a resumed run what it did now
        phases += [Phase(f"  {arm}: {part}", seconds[part]) for part in PARTS if seconds[part]]

    # 5. Evaluate all, with the learning curves.
    models = f"{start} argos={argos}/merged outcome={outcome}/merged"
    phases.append(phase("evaluation", [Path(cfg.out, "eval/answers.jsonl")],
                        [f"{ask} {models} --curves argos={argos} outcome={outcome} --curated {o}/curated"]))
    total = time.time() - clock
    print("\n" + time_table(phases, total))
    print(f"\nAll of it in {total / 60:.1f} minutes. Look at:\n"
          f"  {o}/eval/curves.png        the paper's figure 4, by your machine\n"
          f"  {o}/eval/page.html         where the models differ\n"
          f"  {o}/curated/overlays       what the teacher read\n"
          f"  {o}/grpo-argos/cards       verdicts during training")


if __name__ == "__main__":
    run_main(main)
