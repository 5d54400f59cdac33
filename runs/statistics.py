"""Numbers with intervals: means over items and seeds, paired differences.

Who needs it: evaluate.py and benchmarks/, for their tables; a reader, to know what "[.451, .549]" behind a
mean says.

The bootstrap: other questions and other training seeds would have given another mean, and to see how different
it could be, we draw as many items as we have from our own items, with replacement, and as many seeds from our
seeds, and take the mean. We do so 2,000 times, and the middle 95 % of these means is the interval.

`have` below is what evaluate.py has read from its logs: {(name of a model, its key, dataset): {item: row}};
seeds of one model share its name, and each row holds the item's scores ("outcome", "grounding", and from
evaluate.py "judged"), None where there is none.

Before: runs/curves.py
"""
import math
from collections import defaultdict

import numpy as np

from runs.curves import Curve


def interval(values, draws=2000, seed=0):
    """Mean and 95 % bootstrap interval. -> mean, low, high.

    values: (items,), or (seeds, items) for a model that was trained several times

    Example: of 400 answers half are right. interval([0, 1] * 200) is about .5, .451, .549. The textbook says
    the same: the standard error is sqrt(.5 * .5 / 400) = .025, and .5 +- 1.96 * .025 is .451 to .549.
    """
    values = np.atleast_2d(np.asarray(values, float))  # (seeds, items)
    rng = np.random.default_rng(seed)
    seeds, items = values.shape
    scores = values.mean(0)  # (items,)
    means = []
    for _ in range(draws):
        if seeds > 1:
            scores = values[rng.integers(seeds, size=seeds)].mean(0)
        means.append(scores[rng.integers(items, size=items)].mean())
    low, high = np.quantile(means, [.025, .975])
    return values.mean(), low, high


def cell(values):
    """A cell of a table: "0.500 [0.451, 0.549]", or "-" where nothing was scored."""
    if not values.size:
        return "-"
    mean, low, high = interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def by_item(have, name, dataset, score):
    """Scores of a model. -> (seeds, items) array, the items' rows, number of seeds; (0, 0) where it has no rows.

    Only items that every seed has scored, in the order of their names: so the columns of two models can be
    compared.

    Example: seed 1 scored a: 1, b: 0, c: 1 and seed 2 a: 0, b: 0. The array is [[1, 0], [0, 0]], for a and b.
    """
    runs = []  # one {item: row} per seed
    for (model, _, data), rows in have.items():
        if model == name and data == dataset and rows:
            runs.append(rows)
    if not runs:
        return np.zeros((0, 0)), [], 0
    shared = set.intersection(*(set(rows) for rows in runs))
    items = sorted(item for item in shared if all(rows[item].get(score) is not None for rows in runs))
    values = np.array([[rows[item][score] for item in items] for rows in runs])
    return values, [runs[0][item] for item in items], len(runs)


def difference(have, a, b, dataset, score):
    """Scores of model a less those of model b, paired over the items that both have. -> (seeds, items).

    Pairing is what makes a small difference visible: a hard question is hard for both, and drops out. Seeds
    are paired where both models have as many; one row is compared with each of many; else each model's seeds
    are averaged first.

    Example: a has seeds [[.1, .5], [.3, .7]] and b [[.1, .5]]: the difference is [[0, 0], [.2, .2]].
    """
    values_a, rows_a, _ = by_item(have, a, dataset, score)
    values_b, rows_b, _ = by_item(have, b, dataset, score)
    items_a = [row["id"] for row in rows_a]
    items_b = [row["id"] for row in rows_b]
    both = sorted(set(items_a) & set(items_b))
    if not both:
        return np.zeros((0, 0))
    values_a = values_a[:, [items_a.index(item) for item in both]]
    values_b = values_b[:, [items_b.index(item) for item in both]]
    if len(values_a) == len(values_b) or 1 in (len(values_a), len(values_b)):
        return values_a - values_b
    return values_a.mean(0, keepdims=True) - values_b.mean(0, keepdims=True)


def checkpoints(have, dataset):
    """Learning curves from models named "run@step". -> {run: [Curve]}, for draw_curves.

    Example: rl@20 with two seeds of outcome 0 and 1, rl@100 with .5 give {"rl": [Curve([20, 100], [.5, .5],
    ...)]}: a point is the mean over seeds and items. NaN where nothing was scored.
    """
    names = {name for (name, _, data), rows in have.items() if data == dataset and rows}
    points = defaultdict(list)  # {run: [(step, answers, judged, grounding)]}
    for name in names:
        run, _, step = name.rpartition("@")
        if not run or not step.isdigit():
            continue
        point = [int(step)]
        for score in ("outcome", "judged", "grounding"):
            values, _, _ = by_item(have, name, dataset, score)
            point.append(values.mean() if values.size else math.nan)
        points[run].append(point)
    curves = {}
    for run, in_any_order in points.items():
        columns = [list(column) for column in zip(*sorted(in_any_order))]
        curves[run] = [Curve(*columns)]
    return curves
