"""A run of train_grpo.py beside healthy ones: as a picture, as a table, and down to the first number that parts.

    python -m exercises.look out/bug-4               # out/bug-4/look.png, over three healthy runs (exercises/bugs)
    python -m exercises.look out/bug-4 out/healthy   # over your own, too, and where the two part
    python -m exercises.look                         # the table of the three alone

On one machine a run with the same settings and seed is the same, bit for bit (on a CPU). So where a changed
program parts from the healthy one says more than any curve: what was equal up to there was computed before the
change, or without it.

Before: BUGS.md
"""
import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draw into files, without a screen
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

from runs.errors import run_main  # noqa: E402
from runs.files import read_jsonl, save_figure  # noqa: E402

SHIPPED = Path(__file__).parent / "bugs"

# (kind of row, name in metrics.jsonl, how it is drawn): the telling ones of some thirty. A share is drawn from 0
# to 1, so that noise looks like noise.
PANELS = [("train", "reward", "share"), ("train", "outcome", "share"), ("train", "grounding", "share"),
          ("train", "reasoning", "share"), ("train", "points", "linear"), ("train", "length", "linear"),
          ("train", "unfinished", "share"), ("train", "skipped", "linear"), ("train", "loss", "symlog"),
          ("train", "entropy", "linear"), ("train", "kl", "symlog"), ("train", "sampler_gap", "log"),
          ("train", "grad_norm", "log"), ("eval", "answers", "share"), ("eval", "judged", "share"),
          ("eval", "judge_only", "share"), ("eval", "grounding", "share"), ("eval", "misses beside", "share")]
OF_THE_CLOCK = ("seconds", "memory_gb")


# ---- 1. Where two runs part --------------------------------------------------------------------------------
def rows_of(log):
    """{(kind, step): {name: value}} of a metrics.jsonl, in its order, without what the clock says.

    Shares by part, such as {"misses": {"beside": .2}}, are taken apart: "misses beside".
    """
    rows = {}
    for _, row in read_jsonl(log, torn=True):
        if row.get("kind") not in ("train", "eval") or "step" not in row:
            continue
        values = {}
        for name, value in row.items():
            if isinstance(value, dict):
                values |= {f"{name} {part}": share for part, share in value.items()}
            else:
                values[name] = value
        rows[row["kind"], row["step"]] = {name: value for name, value in values.items() if is_measured(name)}
    return rows


def is_measured(name):
    return not name.startswith(OF_THE_CLOCK) and name not in ("kind", "step")


def parting(log, healthy):
    """The first row in which two runs differ -> (kind, step), the names that differ, those that do not; or None.

    -> None, too, where they have no row in common.
    """
    rows, others = rows_of(log), rows_of(healthy)
    for key in rows:
        if key in others:
            names = sorted(rows[key].keys() | others[key].keys())
            differ = [name for name in names if rows[key].get(name) != others[key].get(name)]
            if differ:
                return key, differ, [name for name in names if name not in differ]
    return None


def parting_text(log, healthy):
    """What `parting` finds, as lines of text."""
    found = parting(log, healthy)
    if found is None:
        return f"{log} and {healthy} are the same, number by number"
    (kind, step), differ, same = found
    ours, theirs = rows_of(log)[kind, step], rows_of(healthy)[kind, step]
    lines = [f"They part in the row of kind {kind!r}, step {step}:", ""]
    lines.append(f"{'':24}{'this run':>14}{'healthy':>14}")
    for name in differ:
        lines.append(f"{name:24}{number(ours.get(name)):>14}{number(theirs.get(name)):>14}")
    lines += ["", "the same in both: " + ", ".join(same)]
    return "\n".join(lines)


def number(value):
    return "-" if value is None else f"{value:.6g}"


# ---- 2. Numbers and a picture ------------------------------------------------------------------------------
def series(log, kind, name):
    """A number of metrics.jsonl over the steps -> steps, values; without those that were not measured."""
    rows = rows_of(log)
    steps = [step for of, step in rows if of == kind and rows[of, step].get(name) is not None]
    return steps, [rows[kind, step][name] for step in steps]


def table(logs):
    """A line for each number of PANELS, a column for each run: {name: log} -> lines of text.

    Of training the mean over the last ten steps, since every step has other prompts; held out the last row.
    """
    lines = ["| mean of the last ten steps | " + " | ".join(logs) + " |", "|---" * (len(logs) + 1) + "|"]
    for kind, name, _ in PANELS:
        cells = []
        for log in logs.values():
            _, values = series(log, kind, name)
            last = values[-10:] if kind == "train" else values[-1:]
            cells.append(f"{sum(last) / len(last):.3g}" if last else "-")
        title = f"{name}, held out, at the end" if kind == "eval" else name
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def shipped():
    """{"seed 0": the log of a healthy run, ...}"""
    return {f"seed {log.stem[-1]}": log for log in sorted(SHIPPED.glob("healthy-seed*.jsonl"))}


def draw_look(log, own, healthy, path):
    """Draw a run, in red, over healthy ones: a panel for each number of PANELS.

    log: metrics.jsonl of the run; own: those of healthy runs on this machine, in black; healthy: the shipped
    ones, in gray; path: of the PNG
    """
    figure, grid = plt.subplots(3, 6, figsize=(24, 10), sharex=True)
    lines = [(one, "0.65", 1) for one in healthy] + [(one, "black", 1) for one in own] + [(log, "#c0392b", 2)]
    for axis, (kind, name, scale) in zip(grid.flat, PANELS):
        for one, color, width in lines:
            axis.plot(*series(one, kind, name), color=color, linewidth=width)
        if scale == "share":
            axis.set_ylim(-.03, 1.03)
        elif scale == "symlog":
            axis.set_yscale("symlog", linthresh=1e-3)  # linear below that, logarithmic above
        else:
            axis.set_yscale(scale)
        axis.set_title(f"{name}, held out" if kind == "eval" else name)
        axis.grid(alpha=.3)
    for axis in grid[-1]:
        axis.set_xlabel("GRPO step")
    figure.suptitle(f"{log} (red) over healthy runs: seeds 0, 1 and 2 as shipped (gray), your own (black)")
    figure.tight_layout()
    save_figure(figure, path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description="Set a run beside healthy ones; draw it into RUN/look.png.")
    parser.add_argument("run", metavar="RUN", nargs="?", help="a folder of train_grpo.py")
    parser.add_argument("own", metavar="HEALTHY", nargs="?", help="a healthy run of your own, of the same seed")
    args = parser.parse_args()
    logs = {}
    for name, folder in (("this run", args.run), ("healthy", args.own)):
        if folder:
            logs[name] = Path(folder) / "metrics.jsonl"
    print("\n".join(table(logs | shipped())))
    if args.own:
        print("\n" + parting_text(*logs.values()))
    if args.run:
        path = Path(args.run) / "look.png"
        draw_look(logs["this run"], list(logs.values())[1:], shipped().values(), path)
        print(f"\nwrote {path}")


if __name__ == "__main__":
    run_main(main)
