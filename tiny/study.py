"""The longer experiments behind the README's tables: three seeds, a sweep over step size, and the reward's terms one by one.

    python -m tiny.study seeds    # both rewards, and Argos without R_rq, from one SFT checkpoint with three seeds: table and figure
    python -m tiny.study sweep    # both rewards at several step sizes and lengths: where answer-only training collapses

Both start from the checkpoint that `python -m tiny` leaves in out/sft/merged, run two training processes side by side, skip
runs that are complete, and write to out/study/. Every run is the same `train_grpo.py` command a person would type; the tables
are printed by `evaluate.py`.
"""
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from runs.curves import COLORS, read_curve
from runs.errors import BadInput, run_main
from runs.files import claim_run, read_jsonl, save_figure, write_atomically
from runs.settings import parse_config


@dataclass
class Config:
    study: str = field(default="seeds", metadata={"help": "seeds or sweep"})
    out: str = field(default="out", metadata={"help": "folder of `python -m tiny`"})
    name: str = field(default="study", metadata={"help": "results go to OUT/NAME; other --flags need another name"})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "seeds of the seeds study"})
    rewards: list[str] = field(default_factory=lambda: ["argos", "outcome", "no-rq"], metadata={"help": "rewards of the seeds study"})
    settings: list[str] = field(default_factory=lambda: ["6e-4:80", "1e-3:40", "1.4e-3:80", "1.4e-3:160", "2e-3:40", "2e-3:120"], metadata={
        "help": "the sweep: peak learning rate:steps"})
    flags: str = field(default="", metadata={"help": "more flags for every train_grpo.py"})


def run(jobs):
    """Run (command, folder) jobs, two at a time with one thread each; each one's output goes to FOLDER/log.txt."""
    env = dict(os.environ, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

    def one(job):
        command, folder = job
        print(f"$ {command}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "log.txt", "a") as log:
            return subprocess.run([sys.executable] + shlex.split(command)[1:], env=env, stderr=log, stdout=log).returncode
    with ThreadPoolExecutor(2) as pool:
        failed = [str(folder) for code, (_, folder) in zip(pool.map(one, jobs), jobs) if code]
    if failed:
        sys.exit(f"failed: see log.txt in {', '.join(failed)}")


def train(jobs):
    """Training runs: those that are finished are skipped, those that were stopped continue."""
    run([(command + " --resume" * (folder / "metrics.jsonl").exists(), folder) for command, folder in jobs if not (folder / "merged").exists()])


def seeds(cfg, out, grpo):
    folders = {(r, s): out / f"{r}-seed{s}" for s in cfg.seeds for r in cfg.rewards}
    for reward in ("argos", "outcome"):  # `python -m tiny` has trained one seed of these, by the same command
        done = Path(cfg.out) / f"grpo-{reward}"
        if (done / "merged").exists() and not cfg.flags:
            seed = next(read_jsonl(done / "metrics.jsonl"))[1]["seed"]
            folders.update({(reward, seed): done} if (reward, seed) in folders else {})
    train([(f"{grpo} --reward {r} --seed {s} --out {shlex.quote(str(f))}", f) for (r, s), f in folders.items()])
    models = [f"sft={cfg.out}/sft/merged"] + [f"{r}={f}/merged" for (r, _), f in folders.items()]
    curves = [f"{r}={f}" for (r, _), f in folders.items() if r in ("argos", "outcome")]
    ask = lambda name, sets, more: (shlex.join(
        ["python", "evaluate.py", "--models", *models, "--data", *(f"{cfg.out}/data/{s}.jsonl" for s in sets), "--out", str(out / name), *more]), out / name)
    run([ask("seeds", ["val"], ["--curves", *curves]), ask("ood", ["ood-objects", "ood-pairs", "ood-clips"], ["--pages", "0"])])
    print((out / "seeds/table.md").read_text(), (out / "ood/table.md").read_text(), f"wrote {out}/seeds and {out}/ood", sep="\n")


def sweep(cfg, out, grpo):
    try:
        settings = [(float(lr), int(steps)) for lr, _, steps in (word.partition(":") for word in cfg.settings)]
    except ValueError:
        raise BadInput(f"--settings {' '.join(cfg.settings)}: write learning rate:steps, such as 1e-3:40") from None
    folders = {(lr, steps, r): out / f"{r}-lr{lr:g}-steps{steps}" for lr, steps in settings for r in ("argos", "outcome")}
    train([(f"{grpo} --reward {r} --lr {lr:g} --steps {steps} --eval_every {max(1, min(20, steps // 4))} --out {shlex.quote(str(f))}", f)
           for (lr, steps, r), f in folders.items()])
    lines = ["| step size | steps | reward | answers start | answers end | R_vg start | R_vg end | R_vg lowest |", "|---" * 8 + "|"]
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
    for (lr, steps, reward), folder in folders.items():
        done, answers, grounding = read_curve(folder)
        lines.append(f"| {lr:g} | {steps} | {reward} | {answers[0]:.3f} | {answers[-1]:.3f} | {grounding[0]:.3f} | {grounding[-1]:.3f} | "
                     f"{min(grounding):.3f} |")
        for axis, values in zip(axes, (grounding, answers)):
            axis.plot(done, values, "-o", markersize=3, color=COLORS[reward], alpha=.75)
            axis.annotate(f" {lr:g}", (done[-1], values[-1]), color=COLORS[reward], fontsize=8, va="center")
    for axis, title in zip(axes, ("visual grounding $R_{vg}$, held out", "answer accuracy, held out")):
        axis.set(title=title, xlabel="GRPO step (at each curve's end: its peak learning rate)", ylim=(0, 1))
        axis.grid(alpha=.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend([plt.Line2D([], [], color=COLORS[r]) for r in ("argos", "outcome")], ["reward: argos", "reward: outcome"], frameon=False)
    figure.tight_layout()
    save_figure(figure, out / "sweep.png")
    write_atomically(out / "sweep.md", "\n".join(lines) + "\n")
    print("\n".join(lines), f"\nwrote {out}/sweep.png and {out}/sweep.md")


def main():
    arguments = ["--study"] + sys.argv[1:] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else sys.argv[1:]
    cfg = parse_config(Config, __doc__, arguments)
    if cfg.study not in ("seeds", "sweep"):
        raise BadInput(f"--study {cfg.study}: choose seeds or sweep")
    out = Path(cfg.out) / cfg.name
    out.mkdir(parents=True, exist_ok=True)
    claim_run(out / f"{cfg.study}.jsonl", dict(flags=cfg.flags, resume=True))  # folders name reward, seed, step size and steps only
    folder = shlex.quote(cfg.out)
    grpo = (f"python train_grpo.py --policy {folder}/sft/merged --data {folder}/data/rl.jsonl --val {folder}/data/val.jsonl "
            f"{cfg.flags}").strip()
    (seeds if cfg.study == "seeds" else sweep)(cfg, out, grpo)


if __name__ == "__main__":
    run_main(main)
