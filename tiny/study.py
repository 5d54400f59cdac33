"""The longer experiments behind tiny/README.md: three seeds, with and without R_rq, and a sweep over step size.

    python -m tiny.study seeds                           # Argos, answer only, Argos without R_rq; three seeds each
    python -m tiny.study seeds --foils 2 --name foils    # the same with a judge that is harder to fool
    python -m tiny.study sweep                           # the first two at three step sizes

All start from the checkpoint that `python -m tiny` leaves in out/sft/merged, run two processes side by side, skip
runs that are complete, and write to out/NAME/. Every run is the same `train_grpo.py` command a person would type;
the tables are printed by `evaluate.py`, sampled at 0.6 (the paper's temperature) and 1 (as RL samples) and greedy.
The paper reports one run per reward; seeds, step sizes and foils are our addition.

Before:  tiny/__main__.py (the one run that these repeat)
Next:    tiny/README.md (what came out)
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
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

from runs.curves import COLORS, read_curve  # noqa: E402
from runs.errors import BadInput, run_main  # noqa: E402
from runs.files import alone, logged_settings, save_figure, write_atomically  # noqa: E402
from runs.processes import FREE_ON_RESUME  # noqa: E402
from runs.settings import flag, parse_config  # noqa: E402
from train_grpo import Config as GRPOConfig  # noqa: E402

SETTINGS = ("6e-4:100", "1e-3:100", "1.4e-3:100")
COMPARED = ("argos", "outcome")  # the two rewards that every study compares


@dataclass
class Config:
    study: str = flag("seeds", "seeds or sweep")
    out: str = flag("out", "folder of `python -m tiny`")
    name: str = flag("study", "results go to OUT/NAME; other --flags or --foils need another name")
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "seeds of the seeds study"})
    rewards: list[str] = field(default_factory=lambda: ["argos", "outcome", "no-rq"], metadata={
        "help": "rewards of the seeds study"})
    settings: list[str] = field(default_factory=lambda: list(SETTINGS), metadata={
        "help": "the sweep: peak learning rate:steps"})
    foils: int = flag(0, "foils of the judge that rewards; 0: the paper's judge, as in `python -m tiny`")
    flags: str = flag("", "more flags for every train_grpo.py")


def run(jobs):
    """Run (command, folder) jobs, two at a time with one thread each; each one's output goes to FOLDER/log.txt."""
    env = dict(os.environ, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

    def one(job):
        command, folder = job
        print(f"$ {command}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable] + shlex.split(command)[1:]  # this Python, whatever "python" is on the path
        with open(folder / "log.txt", "a") as log:
            return subprocess.run(words, env=env, stderr=log, stdout=log).returncode

    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(one, jobs))
    failed = [str(folder) for code, (_, folder) in zip(codes, jobs) if code != 0]
    if failed:
        sys.exit(f"failed: see log.txt in {', '.join(failed)}")


def train(jobs):
    """Training runs: those that are finished are skipped, those that were stopped continue."""
    left = []
    for command, folder in jobs:
        if (folder / "merged").exists():
            if not is_run_of(command, folder):
                raise BadInput(f"{folder}: was trained with other settings; name another --name, or remove it")
            continue
        if (folder / "metrics.jsonl").exists():
            command += " --resume"
        left.append((command, folder))
    run(left)


# ---- 1. Three seeds ----------------------------------------------------------------------------------------
# What two runs of one command may differ in, beside what a log does not hold. The judge is always the shipped one.
FREE = {*FREE_ON_RESUME, "out", "resume", "judge"}


def is_run_of(command, folder):
    """Is a finished training run lying there that this command would repeat? Its log's first row has the flags."""
    if not (folder / "merged").exists():
        return False
    words = shlex.split(command)[2:]  # without "python train_grpo.py"
    wanted = vars(parse_config(GRPOConfig, "", words))
    settings = logged_settings(folder / "metrics.jsonl") or {}
    return all(settings.get(name) == value for name, value in wanted.items() if name not in FREE)


def seed_jobs(cfg, out, grpo):
    """The runs of the seeds study: {(reward, seed): (command, folder)}."""
    jobs = {}
    for seed in cfg.seeds:
        for reward in cfg.rewards:
            command = f"{grpo} --reward {reward} --seed {seed}"
            folder = out / f"{reward}-seed{seed}"
            by_the_line = Path(cfg.out) / f"grpo-{reward}"  # `python -m tiny` has trained one seed of two rewards
            if is_run_of(command, by_the_line):
                folder = by_the_line
            jobs[reward, seed] = f"{command} --out {shlex.quote(str(folder))}", folder
    return jobs


OOD_SETS = ("ood-objects", "ood-pairs", "ood-clips")


def evaluation(models, cfg, out, sets=("val",), more=("--pages", "0")):
    """The job that asks the models all samples of the sets: (command, folder)."""
    data = [f"{cfg.out}/data/{name}.jsonl" for name in sets]
    words = ["python", "evaluate.py", "--models", *models, "--data", *data, "--out", str(out),
             "--foils", str(cfg.foils), *more]
    return shlex.join(words), out


def seeds(cfg, out, grpo):
    """Train every reward with every seed, then tables: held out (at 0.6, at 1, greedy) and out of domain."""
    jobs = seed_jobs(cfg, out, grpo)
    train(list(jobs.values()))

    models = [f"sft={cfg.out}/sft/merged"]
    models += [f"{reward}={folder}/merged" for (reward, _), (_, folder) in jobs.items()]
    greedy = [model.replace("=", ":greedy=", 1) for model in models]
    curves = [f"{reward}={folder}" for (reward, _), (_, folder) in jobs.items()]
    tables = [evaluation(models, cfg, out / "seeds", more=("--curves", *curves)),
              evaluation(models, cfg, out / "seeds-t1", more=("--pages", "0", "--temperature", "1")),
              evaluation(greedy, cfg, out / "seeds-greedy"),
              evaluation(models, cfg, out / "ood", OOD_SETS)]
    run(tables)
    for _, folder in tables:
        print(f"# {folder.name}\n\n{(folder / 'table.md').read_text()}")
        print(f"wrote {folder}")


# ---- 2. The sweep ------------------------------------------------------------------------------------------
def read_settings(words):
    """["1e-3:40", ...] -> [(peak learning rate, steps), ...]."""
    settings = []
    for word in words:
        lr, _, steps = word.partition(":")
        try:
            settings.append((float(lr), int(steps)))
        except ValueError:
            raise BadInput(f"--settings {' '.join(words)}: write learning rate:steps, such as 1e-3:40") from None
    return settings


def sweep_jobs(cfg, out, grpo):
    """The runs of the sweep: {(learning rate, steps, reward): (command, folder)}."""
    jobs = {}
    for lr, steps in read_settings(cfg.settings):
        for reward in COMPARED:
            command = f"{grpo} --reward {reward} --lr {lr:g} --steps {steps}"
            folder = out / f"{reward}-lr{lr:g}-steps{steps}"
            for trained in (Path(cfg.out) / f"grpo-{reward}", out / f"{reward}-seed0"):
                if is_run_of(command, trained):  # by the line or by the seeds study
                    folder = trained
            jobs[lr, steps, reward] = f"{command} --out {shlex.quote(str(folder))}", folder
    return jobs


def sweep(cfg, out, grpo):
    """Train both rewards at every setting, then a table and a figure of how each run went."""
    jobs = sweep_jobs(cfg, out, grpo)
    train(list(jobs.values()))
    folders = {setting: folder for setting, (_, folder) in jobs.items()}

    lines = ["| step size | steps | reward | answers start | answers end | as its judge scores them "
             "| R_vg start | R_vg end | R_vg lowest |", "|---|---|---|---|---|---|---|---|---|"]
    for (lr, steps, reward), folder in folders.items():
        curve = read_curve(folder)
        answers, grounding = curve.answers, curve.grounding
        numbers = (answers[0], answers[-1], curve.judged[-1], grounding[0], grounding[-1], min(grounding))
        cells = " | ".join(f"{number:.3f}" for number in numbers)
        lines.append(f"| {lr:g} | {steps} | {reward} | {cells} |")
    draw_sweep(folders, out / "sweep.png")
    write_atomically(out / "sweep.md", "\n".join(lines) + "\n")
    print("\n".join(lines), f"\nwrote {out}/sweep.png and {out}/sweep.md")


LINES = ("-", "--", ":", "-.")  # of the step sizes, in their order


def draw_sweep(folders, path):
    """Grounding (left) and answers (right) of every run over its steps. folders: {(lr, steps, reward): folder}."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
    rates = list(dict.fromkeys(lr for lr, _, _ in folders))
    style = {lr: LINES[i % len(LINES)] for i, lr in enumerate(rates)}
    for (lr, _, reward), folder in folders.items():
        curve = read_curve(folder)
        for axis, values in zip(axes, (curve.grounding, curve.answers)):
            axis.plot(curve.steps, values, style[lr], marker="o", markersize=3, color=COLORS[reward])
    for axis, title in zip(axes, ("visual grounding $R_{vg}$, held out", "answers, held out")):
        low, high = axis.get_ylim()
        axis.set(title=title, xlabel="GRPO step", ylim=(max(0, low - .05), min(1, high + .05)))
        axis.grid(alpha=.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles = [plt.Line2D([], [], color=COLORS[reward], label=f"reward: {reward}") for reward in COMPARED]
    for lr in rates:
        handles.append(plt.Line2D([], [], color="gray", linestyle=style[lr], label=f"learning rate {lr:g}"))
    axes[1].legend(handles=handles, frameon=False, loc="center left", bbox_to_anchor=(1, .5))
    figure.tight_layout()
    save_figure(figure, path)
    plt.close(figure)


def main():
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--study"] + arguments  # `python -m tiny.study sweep`
    cfg = parse_config(Config, __doc__, arguments)
    if cfg.study not in ("seeds", "sweep"):
        raise BadInput(f"--study {cfg.study}: choose seeds or sweep")
    mixed_up = {"--foils", "--judge", "--eval_judge"} & set(shlex.split(cfg.flags))
    if mixed_up:
        raise BadInput(f"--flags {cfg.flags}: the tables would be made with another judge; "
                       "foils have a flag of their own, a judge has none here")
    out = Path(cfg.out) / cfg.name
    folder = shlex.quote(cfg.out)
    grpo = (f"python train_grpo.py --policy {folder}/sft/merged --data {folder}/data/rl.jsonl "
            f"--val {folder}/data/val.jsonl --foils {cfg.foils} {cfg.flags}").strip()
    study = seeds if cfg.study == "seeds" else sweep
    with alone(out):
        study(cfg, out, grpo)


if __name__ == "__main__":
    run_main(main)
