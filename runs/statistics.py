"""Numbers with intervals: means over items and seeds, paired differences."""
import math
from collections import defaultdict

import numpy as np


def interval(values, draws=2000, seed=0):
    """Mean and 95 % bootstrap interval. values: (items,) or (training seeds, items) -> (mean, low, high).

    Items are drawn again with replacement, and so are seeds where there are several: both are samples of what could have been.
    """
    values, rng = np.atleast_2d(np.asarray(values, float)), np.random.default_rng(seed)
    (runs, items), means = values.shape, []
    for _ in range(draws):
        drawn = values.mean(0) if runs == 1 else values[rng.integers(runs, size=runs)].mean(0)
        means.append(drawn[rng.integers(items, size=items)].mean())
    return values.mean(), *np.quantile(means, [.025, .975])


def cell(values):
    if not values.size:
        return "-"
    mean, low, high = interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def by_item(have, name, dataset, score):
    """(seeds, items) scores of a model, items that have this score in a fixed order; the items' rows; how many seeds."""
    runs = [rows for (n, _, d), rows in have.items() if n == name and d == dataset and rows]
    ids = sorted(i for i in set.intersection(*(set(r) for r in runs)) if all(r[i][score] is not None for r in runs))
    return np.array([[r[i][score] for i in ids] for r in runs]), [runs[0][i] for i in ids], len(runs)


def difference(have, a, b, dataset, score):
    """Model a less model b, paired over the items that both have, and over seeds where both have as many: (seeds, items)."""
    (a, of_a, _), (b, of_b, _) = (by_item(have, name, dataset, score) for name in (a, b))
    of_a, of_b = [r["id"] for r in of_a], [r["id"] for r in of_b]
    both = sorted(set(of_a) & set(of_b))
    a, b = a[:, [of_a.index(i) for i in both]], b[:, [of_b.index(i) for i in both]]
    return a - b if len(a) == len(b) or 1 in (len(a), len(b)) else a.mean(0, keepdims=True) - b.mean(0, keepdims=True)


def checkpoints(have, dataset):
    """Models named "run@step" -> {run: [(steps, answers, grounding)]}, as draw_curves takes them; several seeds: their mean."""
    points = defaultdict(list)
    for label in {name for (name, _, d), rows in have.items() if d == dataset and rows}:
        run, _, step = label.rpartition("@")
        if run and step.isdigit():
            scores = [by_item(have, label, dataset, score)[0] for score in ("outcome", "grounding")]
            points[run].append((int(step), *(values.mean() if values.size else math.nan for values in scores)))
    return {run: [tuple(zip(*sorted(curve)))] for run, curve in points.items()}
