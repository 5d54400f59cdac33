"""Scoring: is an answer right, and what do the answers come to?

What a response answered is read by extract.py. Here it is held against the truth (SCORERS), and the questions
are averaged as each benchmark's authors average them (`metrics`), with bootstrap draws for intervals
(`draws`).

A judge, where there is one, is asked only where the rules cannot tell; without one the rules alone decide. (A
known fault of harnesses is a judge that is not there and makes every answer wrong.)

Before: extract.py. Next: run.py; tasks.py has the benchmarks and the names of the averages
"""
import zlib
from collections import defaultdict

import numpy as np

from verifier.answers import KINDS, MAX_JUDGED, judged, outcome_score
from benchmarks import tasks
from benchmarks.extract import extract, finals  # extract: for those who score


# ---- 1. Right or wrong -------------------------------------------------------------------------------------
def correct(extracted, item, judge=None, response=""):
    """1.0 or 0.0 (a share for the kinds ocr and regression).

    extracted: what `extract` read; judge: teachers' Judge, asked only where the rules cannot tell. It has two
    uses: a free-text answer that is not the truth word for word, and a yes-or-no question that was answered
    without saying yes or no, of which it gets the response and the truth in words (as GPT-4 does officially,
    for every answer).
    """
    return float(SCORERS[item.scorer](extracted, item, judge, response))


def same(extracted, item, judge, response):
    """A choice: the letter, or number, of the right option."""
    return extracted == item.answer


def yes_or_no(extracted, item, judge, response):
    """Yes or no. An answer that says neither goes to the judge, if the benchmark has the truth in words."""
    details = item.groups.get("details")
    if extracted is None and judge and response.strip() and details:
        said = judged("\n".join(finals(response)[0])[-MAX_JUDGED:])
        return bool(said) and judge.equivalent(item.question, details, said)
    return extracted == item.answer


def yes_no_or_unclear(extracted, item, judge, response):
    """HallusionBench's questions without their figure: not to know is right, too; only a wrong claim is wrong
    (utils.py).
    """
    return extracted in (None, item.answer)


def outcome(extracted, item, judge, response):
    """R_o, as it is trained with (verifier.answers.outcome_score; paper eqs 6-8)."""
    if extracted is None:
        return 0.0
    return outcome_score(extracted, item.answer, item.scorer, item.options, judge, item.question)


SCORERS = dict.fromkeys(KINDS, outcome)
SCORERS |= {"choice": same, "yesno": yes_or_no, "yesno or unclear": yes_no_or_unclear}


# ---- 2. What the answers come to ---------------------------------------------------------------------------
def metrics(name, rows):
    """{metric: value in 0..1}, in the order of the benchmark's entry. rows: [{"id", "groups", "correct"}],
    all or some.

    Metrics that no row is part of are absent. Where rows are some of the questions, coverage says how many.
    Rows with a number under "grounding" add its mean (figure 4).
    """
    return {metric: weighted_mean(cells) for metric, cells in metric_cells(name, rows).items()}


def draws(name, rows, n=2000, seed=0):
    """{metric: (n,) bootstrap values}: units are drawn again within each cell of the metric, with
    replacement.

    A unit is what the metric counts: a figure with all its questions for fAcc. The same seed and ids draw the
    same units, whatever the order of the rows, so that draws(a) - draws(b) is paired: give both models the
    rows that both have.
    """
    return {metric: drawn for metric, (_, drawn) in measure(name, rows, n, seed).items()}


def measure(name, rows, n=2000, seed=0):
    """{metric: (its value, its bootstrap values)}: `metrics` and `draws`, with the rows sorted into units
    once.
    """
    known = {}  # cells that metrics share are drawn once
    measured = {}
    for metric, cells in metric_cells(name, rows).items():
        drawn = np.zeros(n)
        for weight, values, key in cells:
            cell = key, values.tobytes()
            if cell not in known:
                known[cell] = bootstrap_means(values, n, [seed, key])
            drawn += weight * known[cell]
        measured[metric] = (weighted_mean(cells), drawn)
    return measured


def bootstrap_means(values, n, seed):
    """Means of n samples with replacement. values: (units,) -> (n,)"""
    rng = np.random.default_rng(seed)
    step = max(1, 4_000_000 // len(values))  # draws at a time: memory stays bounded
    parts = []
    for start in range(0, n, step):
        size = (min(step, n - start), len(values))
        chosen = rng.integers(len(values), size=size, dtype=np.int32)  # (draws, units)
        parts.append(values[chosen].mean(1))
    return np.concatenate(parts)


def weighted_mean(cells):
    return float(sum(weight * values.mean() for weight, values, _ in cells))


def coverage(name, rows):
    """{part: (rows that are there, questions that are published or None)} for each part that the entry
    counts.
    """
    entry, there = tasks.BENCHMARKS[name], defaultdict(int)
    for row in rows:
        there[row["groups"].get(entry.part, "")] += 1
    return {part: (there[part], entry.counts.get(part, 0)) for part in entry.counts | there}


def metric_cells(name, rows):
    """What each metric averages: {metric: [(weight, values of its units (units,), a number made of their
    names), ...]}.

    The weights sum to 1. Example: CV-Bench's 2D is half ADE20K and half COCO, so two cells of weight 1/2.
    """
    entry = tasks.BENCHMARKS[name]
    found = dict.fromkeys(entry.metrics)  # keeps the entry's order
    for label, metric in entry.metrics.items():
        if metric.of:
            continue
        kinds = defaultdict(list)
        for row in rows:
            if counts_in(row["groups"], metric):
                kinds[str(row["groups"].get(metric.each, ""))].append(row)
        for kind in sorted(kinds):
            found[label + kind] = split_weight(kinds[kind], metric, metric.over, 1.0)
    for label, metric in entry.metrics.items():
        if metric.of and all(found.get(part) for part in metric.of):
            found[label] = []
            for part in metric.of:
                for weight, values, key in found[part]:
                    found[label].append((weight / len(metric.of), values, key))
    found = {label: cells for label, cells in found.items() if cells}

    seen = [row | {"correct": row["grounding"]} for row in rows if row.get("grounding") is not None]
    if seen:
        found["visual grounding"] = split_weight(seen, tasks.Metric(), (), 1.0)
    return found


def counts_in(groups, metric):
    """Is a row with these groups part of the metric?"""
    if metric.unit and metric.unit not in groups:
        return False
    for group, value in (metric.where or {}).items():
        allowed = value if isinstance(value, tuple) else (value,)
        if groups.get(group) not in allowed:
            return False
    return True


def split_weight(rows, metric, over, weight):
    """Halve, third ...

    the weight among the values of the outermost key of `over`, and so on inwards -> cells.
    """
    if over:
        parts = defaultdict(list)
        for row in rows:
            parts[row["groups"].get(over[0])].append(row)
        cells = []
        for key in sorted(parts, key=str):
            cells += split_weight(parts[key], metric, over[1:], weight / len(parts))
        return cells
    units = defaultdict(list)  # name of the unit -> scores of its rows
    for row in rows:
        unit = row["groups"][metric.unit] if metric.unit else row["id"]
        units[unit].append(row["correct"])
    names = sorted(units)
    values = np.array([unit_value(units[name], metric) for name in names], float)
    return [(weight, values, zlib.crc32("\n".join(names).encode("utf-8", "replace")))]


def unit_value(scores, metric):
    """What a unit counts for: 1 if all its rows are right, or its rows' mean, as the metric says."""
    if metric.all:
        return float(all(score == 1 for score in scores))
    return sum(scores) / len(scores)
