"""A run of train_grpo.py over healthy ones: as a picture, and down to the first number that parts.

    python -m exercises.look out/bug-4               # out/bug-4/look.png, over the three runs shipped in exercises/bugs
    python -m exercises.look out/bug-4 out/healthy   # over your own, too, and where the two part

On one machine a run with the same settings and seed is the same, bit for bit (on a CPU). So where a changed program
parts from the healthy one says more than any curve: what was equal up to there was computed before the change, or
without it.

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

# (kind of row, name in metrics.jsonl, how it is drawn): the telling ones of some thirty.
PANELS = [("train", "reward", "linear"), ("train", "outcome", "linear"), ("train", "grounding", "linear"),
          ("train", "reasoning", "linear"), ("train", "length", "linear"), ("train", "unfinished", "linear"),
          ("train", "skipped", "linear"), ("train", "loss", "symlog"), ("train", "entropy", "linear"),
          ("train", "kl", "symlog"), ("train", "sampler_gap", "log"), ("train", "grad_norm", "log"),
          ("eval", "answers", "linear"), ("eval", "judged", "linear"), ("eval", "grounding", "linear")]
SYMLOG = dict(linthresh=1e-3)  # linear below, logarithmic above
OF_THE_CLOCK = ("seconds", "memory_gb")


# ---- 1. Where two runs part --------------------------------------------------------------------------------
def rows_of(log):
    """{(kind, step): row} of a metrics.jsonl, in its order, without what differs from run to run anyway."""
    rows = {}
    for _, row in read_jsonl(log, torn=True):
        if row.get("kind") in ("train", "eval") and "step" in row:
            rows[row["kind"], row["step"]] = {name: row[name] for name in row if name not in OF_THE_CLOCK}
    return rows


def parting(log, healthy):
    """The first row in which two runs differ -> (kind, step), {name: (its value, the healthy one)}; None: nowhere."""
    rows, others = rows_of(log), rows_of(healthy)
    for key in rows:
        if key in others:
            names = rows[key].keys() & others[key].keys()
            differ = {name: (rows[key][name], others[key][name]) for name in sorted(names)
                      if rows[key][name] != others[key][name]}
            if differ:
                return key, differ
    return None


def parting_text(log, healthy):
    """What `parting` finds, as lines of text."""
    found = parting(log, healthy)
    if found is None:
        return f"{log} and {healthy} are the same, number by number"
    (kind, step), differ = found
    same = sorted(rows_of(log)[kind, step].keys() - differ.keys())
    lines = [f"They part in the row of kind {kind!r}, step {step}:", "", f"{'':16}{'this run':>14}{'healthy':>14}"]
    lines += [f"{name:16}{number(ours):>14}{number(theirs):>14}" for name, (ours, theirs) in differ.items()]
    return "\n".join([*lines, "", "the same in both: " + ", ".join(same)])


def number(value):
    """A number in six digits; of a table by parts only that it is one."""
    if isinstance(value, dict):
        return "{...}"
    return f"{value:.6g}" if isinstance(value, (int, float)) else str(value)


# ---- 2. The picture ----------------------------------------------------------------------------------------
def series(log, kind, name):
    """A number of metrics.jsonl over the steps -> steps, values; without those that were not measured."""
    rows = rows_of(log)
    steps = [step for of, step in rows if of == kind and rows[of, step].get(name) is not None]
    return steps, [rows[kind, step][name] for step in steps]


def draw_look(log, own, healthy, path):
    """Draw a run, in red, over healthy ones: a panel for each number of PANELS.

    log: metrics.jsonl of the run; own: those of healthy runs on this machine, in black; healthy: the shipped ones,
    in gray; path: of the PNG
    """
    figure, grid = plt.subplots(3, 5, figsize=(20, 10), sharex=True)
    lines = [(one, "0.65", 1) for one in healthy] + [(one, "black", 1) for one in own] + [(log, "#c0392b", 2)]
    for axis, (kind, name, scale) in zip(grid.flat, PANELS):
        for one, color, width in lines:
            axis.plot(*series(one, kind, name), color=color, linewidth=width)
        axis.set_yscale(scale, **(SYMLOG if scale == "symlog" else {}))
        axis.set_title(f"{name}, held out" if kind == "eval" else name)
        axis.grid(alpha=.3)
    for axis in grid[-1]:
        axis.set_xlabel("GRPO step")
    figure.suptitle(f"{log} (red) over healthy runs: seeds 0, 1 and 2 as shipped (gray), your own (black)")
    figure.tight_layout()
    save_figure(figure, path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description="Draw a run over healthy ones, into RUN/look.png.")
    parser.add_argument("run", metavar="RUN", help="a folder of train_grpo.py")
    parser.add_argument("own", metavar="HEALTHY", nargs="?", help="a healthy run of your own, of the same seed")
    args = parser.parse_args()
    log = Path(args.run) / "metrics.jsonl"
    own = [Path(args.own) / "metrics.jsonl"] if args.own else []
    path = Path(args.run) / "look.png"
    draw_look(log, own, sorted(SHIPPED.glob("healthy-*.jsonl")), path)
    for healthy in own:
        print(parting_text(log, healthy))
    print(f"wrote {path}")


if __name__ == "__main__":
    run_main(main)
