"""Learning curves: the paper's figure 4, from the logs of runs.

Who needs it: evaluate.py --curves, benchmarks/ and tiny/study.py; a reader who wants to draw something else.
The figure shows what the paper is about: RL on the answer alone loses visual grounding, RL with Argos
gains it.

    python evaluate.py --models ... --curves argos=out/grpo-argos outcome=out/grpo-outcome

Before: evaluate.py. Next: runs/statistics.py
"""
import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draw into files, without a screen
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
import numpy as np  # noqa: E402

from runs.files import read_jsonl, save_figure  # noqa: E402

COLORS = {"argos": "#1a7f5a", "outcome": "#c0392b", "no-vg": "#d68910", "no-rq": "#2471a3"}  # by reward


@dataclass
class Curve:
    """Held-out evaluations of one run: four lists of equal length; NaN where nothing was scored."""
    steps: list
    answers: list    # as measured (verifier/watch.py)
    judged: list     # the same as the judge that rewards scores them; NaN where nobody noted that
    grounding: list

    @property
    def hacked(self):
        """What the judge that rewards accepts, and the measure does not."""
        return [judged - measured for judged, measured in zip(self.judged, self.answers)]


def read_curve(folder):
    """Held-out evaluations of a training run, from its metrics.jsonl -> Curve.

    A step that was logged twice, before a kill and after --resume, counts once. A row without a step, and a
    value that is no number, were damaged: they do not count.
    """
    points = {}
    for _, row in read_jsonl(Path(folder) / "metrics.jsonl", torn=True):
        if row.get("kind") == "eval" and isinstance(row.get("step"), int):
            points[row["step"]] = row
    steps = sorted(points)

    def values(name):
        found = [points[step].get(name) for step in steps]
        return [value if isinstance(value, (int, float)) else math.nan for value in found]

    return Curve(steps, values("answers"), values("judged"), values("grounding"))


def draw_curves(runs, path):
    """Draw held-out grounding and answers over RL steps into a PNG, side by side.

    runs: {name: [Curve, one for each seed]}; the first word of a name chooses its color. Several seeds are drawn
        as their mean, with the range between the lowest and the highest shaded.

    Where judge and measure disagree about answers, the judge's score is added as a dashed line, and a third panel
    shows the difference: what was hacked.
    """
    every = [curve for curves in runs.values() for curve in curves]
    disagree = any(judged != measured for curve in every for judged, measured in zip(curve.judged, curve.answers)
                   if not math.isnan(judged + measured))
    panels = 3 if disagree else 2
    figure, axes = plt.subplots(1, panels, figsize=(5 * panels, 4), sharex=True)
    for name, curves in runs.items():
        draw_curve(axes[0], name, curves, "grounding")
        draw_curve(axes[1], name, curves, "answers")
        if disagree:
            draw_curve(axes[1], name, curves, "judged", dashed=True)
            draw_curve(axes[2], name, curves, "hacked")
    axes[0].set_title("visual grounding $R_{vg}$, held out")
    axes[1].set_title("answers, held out" + (" (dashed: as the judge scores them)" if disagree else ""))
    for axis in axes[:2]:
        low, high = axis.get_ylim()
        axis.set_ylim(max(0, low - .1), min(1, high + .1))  # at least .2 high: noise should look like noise
    if disagree:
        axes[2].set_title("what was hacked: judge less measure")
        axes[2].set_ylim(min(-.05, axes[2].get_ylim()[0]), max(.2, axes[2].get_ylim()[1]))
    for axis in axes:
        axis.set_xlabel("GRPO step")
        axis.grid(alpha=.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    save_figure(figure, path)
    plt.close(figure)


def draw_curve(axis, name, curves, column, dashed=False):
    """One line: the mean of a model's seeds over the steps that all of them have, and their range."""
    steps = sorted(set.intersection(*[set(curve.steps) for curve in curves]))
    rows = []  # one per seed: its values at these steps
    for curve in curves:
        values = dict(zip(curve.steps, getattr(curve, column)))
        rows.append([values[step] for step in steps])
    values = np.array(rows)  # (seeds, steps)
    color = COLORS.get(name.split()[0])
    if dashed:
        axis.plot(steps, values.mean(0), "--", color=color, linewidth=1.2)
        return
    axis.plot(steps, values.mean(0), "-o", color=color, markersize=3, label=f"reward: {name}")
    if len(curves) > 1:
        axis.fill_between(steps, values.min(0), values.max(0), color=color, alpha=.15, linewidth=0)
