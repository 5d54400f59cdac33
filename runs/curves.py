"""Learning curves: the paper's figure 4, from the logs of runs.

Who needs it: evaluate.py --curves, benchmarks/ and tiny/study.py; a reader who wants to draw something else.
The figure shows what the paper is about: RL on the answer alone loses visual grounding, RL with Argos
gains it.

    python evaluate.py --models ... --curves argos=out/grpo-argos outcome=out/grpo-outcome

Before: runs/statistics.py
"""
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draw into files, without a screen
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
import numpy as np  # noqa: E402

from runs.files import read_jsonl, save_figure  # noqa: E402

COLORS = {"argos": "#1a7f5a", "outcome": "#c0392b", "no-vg": "#d68910", "no-rq": "#2471a3"}  # by reward


def read_curve(folder):
    """Held-out evaluations of a run. -> steps, answers, grounding: three lists; NaN where nothing was scored.

    A step that was logged twice, before a kill and after --resume, counts once.
    """
    points = {}
    for _, row in read_jsonl(Path(folder) / "metrics.jsonl", torn=True):
        if row.get("kind") == "eval":
            points[row["step"]] = row
    steps = sorted(points)

    def values(name):
        found = [points[step][name] for step in steps]
        return [math.nan if value is None else value for value in found]

    return steps, values("answers"), values("grounding")


def draw_curves(runs, path):
    """Draw held-out grounding (left) and answers (right) over RL steps into a PNG.

    runs: {name: [(steps, answers, grounding), one for each seed]}; the first word of a name chooses its
        color. Several seeds are drawn as their mean, with the range between the lowest and the highest
        shaded.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
    for name, curves in runs.items():
        steps_of_each = [set(steps) for steps, _, _ in curves]
        steps = sorted(set.intersection(*steps_of_each))  # those that every seed has
        color = COLORS.get(name.split()[0])
        for axis, column in ((axes[0], 2), (axes[1], 1)):
            rows = []  # one per seed: its values at these steps
            for curve in curves:
                places = [curve[0].index(step) for step in steps]
                rows.append([curve[column][place] for place in places])
            values = np.array(rows)  # (seeds, steps)
            axis.plot(steps, values.mean(0), "-o", color=color, markersize=3, label=f"reward: {name}")
            if len(curves) > 1:
                axis.fill_between(steps, values.min(0), values.max(0), color=color, alpha=.15, linewidth=0)
    axes[0].set_title("visual grounding $R_{vg}$, held out")
    axes[1].set_title("answer accuracy, held out")
    for axis in axes:
        axis.set_xlabel("GRPO step")
        low, high = axis.get_ylim()
        axis.set_ylim(max(0, low - .1), min(1, high + .1))  # at least .2 high: noise should look like noise
        axis.grid(alpha=.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    save_figure(figure, path)
    plt.close(figure)
