"""Learning curves: the paper's figure 4 from logs."""
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
import numpy as np  # noqa: E402

from runs.files import read_jsonl, save_figure  # noqa: E402


COLORS = {"argos": "#1a7f5a", "outcome": "#c0392b", "no-vg": "#d68910", "no-rq": "#2471a3"}


def read_curve(folder):
    """Held-out evaluations of a run -> steps, answers, grounding. A step logged twice (after --resume) counts once."""
    points = {row["step"]: row for _, row in read_jsonl(Path(folder) / "metrics.jsonl", torn=True) if row.get("kind") == "eval"}
    steps = sorted(points)
    return steps, *([math.nan if points[s][k] is None else points[s][k] for s in steps] for k in ("answers", "grounding"))


def draw_curves(runs, path):
    """The paper's figure 4: held-out grounding and answers over RL steps.

    runs: {name: [(steps, answers, grounding), one for each seed]}; several seeds are drawn as their mean and range.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
    for name, curves in runs.items():
        steps = sorted(set.intersection(*(set(c[0]) for c in curves)))
        color = COLORS.get(name.split()[0])
        for axis, k in zip(axes, (2, 1)):
            values = np.array([[c[k][c[0].index(s)] for s in steps] for c in curves])  # (seeds, points)
            axis.plot(steps, values.mean(0), "-o", color=color, markersize=3, label=f"reward: {name}")
            if len(curves) > 1:
                axis.fill_between(steps, values.min(0), values.max(0), color=color, alpha=.15, linewidth=0)
    for axis, title in zip(axes, ("visual grounding $R_{vg}$, held out", "answer accuracy, held out")):
        axis.set(title=title, xlabel="GRPO step")
        low, high = axis.get_ylim()
        axis.set_ylim(max(0, low - .1), min(1, high + .1))  # at least .2 high: noise should look like noise
        axis.grid(alpha=.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    save_figure(figure, path)
    plt.close(figure)
