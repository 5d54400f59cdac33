"""What came out: the paper's tables with our columns beside them, differences between models, and a page of failures.

Every number is in percent with a 95 % bootstrap interval over what its metric counts (score.draws). Two models are compared on the
questions that both answered, pair by pair: the interval of a difference draws the same questions for both, and McNemar's exact test
asks whether one is right where the other is wrong more often than the reverse. The paper prints no intervals.

Nothing here asks a model anything; run.py calls it, also on stored answers (--rescore).
"""
import csv
import html
import io
import sys
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from runs.curves import COLORS
from runs.errors import BadInput
from runs.files import file_name, save_figure, write_atomically
from verifier.answers import clean
from verifier.cards import draw_card, draw_points
from verifier.claims import MAX_POINTS, parse
import argos
from benchmarks import score, tasks
from benchmarks.run import stored, ticket, usable

PAPER = {m: f"{m} (paper)" for m in tasks.MODELS}
GROUNDING = "visual grounding"  # score.py's name for the mean of what the verifier gave


# ---- 1. Numbers -----------------------------------------------------------------------------------------------------------
def percent(value, draws):
    """(value, low, high) in percent, with a 95 % interval from the bootstrap's draws."""
    return tuple(100 * v for v in (value, *np.quantile(draws, [.025, .975])))


def measure(name, rows, seed):
    """{metric: (value, its bootstrap draws)}. rows: {id: row}."""
    return score.measure(name, [rows[i] for i in sorted(rows)], seed=seed)


def headlines(name):
    """The metrics that the paper prints; where it prints none, the first."""
    entry = tasks.BENCHMARKS[name]
    return list(entry.printed or ()) or [next(iter(entry.metrics))]


def mcnemar(a, b):
    """Exact two-sided p of as large an imbalance if both models were as good. a, b: 0/1, paired. -> (p, only a right, only b right)."""
    only_a, only_b = sum(x > y for x, y in zip(a, b)), sum(x < y for x, y in zip(a, b))
    return binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1., only_a, only_b


def paired(name, a, b, seed, measured=None):
    """Model a less model b on the questions that both answered. a, b: {id: row}; measured: both as `measure` has them, if it has.

    -> ({metric: (difference, low, high)}, McNemar's test or None where answers can be half right, how many questions)
    """
    both = sorted(a.keys() & b.keys())
    if measured is None or not len(a) == len(b) == len(both):
        measured = [measure(name, {i: rows[i] for i in both}, seed) for rows in (a, b)]
    of_a, of_b = measured
    less = {m: percent(of_a[m][0] - of_b[m][0], of_a[m][1] - of_b[m][1]) for m in [*headlines(name), GROUNDING] if m in of_a and m in of_b}
    right = [[rows[i]["correct"] for i in both] for rows in (a, b)]
    return less, mcnemar(*right) if {*right[0], *right[1]} <= {0, 1} else None, len(both)


# ---- 2. Tables ------------------------------------------------------------------------------------------------------------
def cell(three, sign=""):
    return "-" if three is None else "{:{s}.1f} [{:{s}.1f}, {:{s}.1f}]".format(*three, s=sign)


def measured_cell(row, metric):
    return cell(percent(*row[metric]) if metric in row else None)


def line(*cells):
    """A row of a Markdown table; cells may hold names from a data file."""
    return "| " + " | ".join(clean(str(c)).replace("|", "/").replace("<", "&lt;").replace("\n", " ") for c in cells) + " |"


def head(*cells):
    return [line(*cells), "|---" * len(cells) + "|"]


def numbers(have, seed):
    """{benchmark: {model: {metric: (value, draws)}}} of our own models."""
    found = defaultdict(dict)
    for (model, _, name), rows in tqdm(have.items(), desc="bootstrap", unit="model"):
        if rows:
            found[name][model] = measure(name, rows, seed)
    return {name: found[name] for name in tasks.BENCHMARKS if name in found}


def columns(found):
    """[(benchmark, metric, heading)] of the summary."""
    return [(name, metric, tasks.BENCHMARKS[name].title + f" {metric}" * (metric != headlines(name)[0]))
            for name in found for metric in headlines(name)]


def summary(found, models):
    """As the paper lays out its tables 1 and 2: a row for each model."""
    lines = head("percent [95 % interval]", *(heading for _, _, heading in columns(found)))
    for model, label in PAPER.items():
        cells = [tasks.BENCHMARKS[name].paper.get(model, {}).get(metric, "-") for name, metric, _ in columns(found)]
        lines += [line(label, *cells)] * (set(cells) != {"-"})
    return lines + [line(m, *(measured_cell(found[name].get(m, {}), metric) for name, metric, _ in columns(found))) for m in models]


def one_table(name, found, rows_of, left_out, seed):
    """All metrics of a benchmark, a column for each model; how much of it was asked; differences between models."""
    entry, mine = tasks.BENCHMARKS[name], list(found)
    asked, blank = set().union(*rows_of.values()), [""] * len(entry.paper)
    published = f" of {entry.count:,} published" if entry.count else ""
    lines = [f"## {entry.title}: {len(asked):,} questions{published}", "", *head("percent", *(PAPER[m] for m in entry.paper), *mine)]
    for metric in dict.fromkeys(metric for m in mine for metric in found[m]):
        paper = [printed.get(metric, "") for printed in entry.paper.values()]
        lines.append(line(metric, *paper, *(measured_cell(found[m], metric) for m in mine)))
    share = lambda which: [f"{100 * np.mean([which(row) for row in rows_of[m].values()]):.1f}" for m in mine]
    lines += [line("no answer could be read", *blank, *share(lambda row: not row["read"])),
              line("cut before the end", *blank, *share(lambda row: not row["finished"]))]
    lines += [f"\n{m} has not answered {len(asked) - len(rows_of[m])} of them." for m in mine if len(rows_of[m]) < len(asked)]
    told = [(reason.removeprefix(f"{entry.title}: "), where, detail) for (n, reason, where), detail in left_out.items() if n == name]
    reasons = Counter(reason for reason, _, _ in told if reason != "wrong count").most_common()
    counts = [f"{where}: {detail}" for reason, where, detail in told if reason == "wrong count"]
    if told:
        lines += ["", "Not as published: " + clean("; ".join([f"{n} x {why}" for why, n in reasons] + counts)) + "."]
    if len(mine) > 1:
        pairs = [(f"{a} - {b}", *paired(name, rows_of[a], rows_of[b], seed, (found[a], found[b]))) for b, a in combinations(mine, 2)]
        shown = list(dict.fromkeys(metric for _, less, _, _ in pairs for metric in less))
        lines += ["", *head("paired difference", "questions", *shown, "only the first right / only the second", "McNemar p")]
        for label, less, test, n in pairs:
            tested = (f"{test[1]} / {test[2]}", f"{test[0]:.2g}") if test else ("-", "-")
            lines.append(line(label, n, *(cell(less.get(metric), "+") for metric in shown), *tested))
    return lines


def tables(found, models, have, left_out, seed):
    """The whole report in Markdown."""
    lines = ["# Beside the paper's tables 1 and 2", "", *summary(found, models)]
    for name in found:
        rows_of = {m: rows for (m, _, n), rows in have.items() if n == name and rows}
        lines += ["", *one_table(name, found[name], rows_of, left_out, seed)]
    return "\n".join(lines) + "\n"


def as_csv(found, have):
    """The same numbers, one a row."""
    count = {(m, name): len(rows) for (m, _, name), rows in have.items() if rows}
    rows = [("benchmark", "metric", "model", "questions", "percent", "low", "high")]
    for name, by_model in found.items():
        for m, row in tasks.BENCHMARKS[name].paper.items():
            rows += [(name, metric, PAPER[m], "", value, "", "") for metric, value in row.items()]
        for m, row in by_model.items():
            rows += [(name, metric, m, count[m, name], *(f"{v:.4f}" for v in percent(*row[metric]))) for metric in row]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def draw_bars(found, models, path):
    """Our models in colour, with intervals, beside the paper's rows in grey, the darker the further down its table."""
    groups, bars = columns(found), defaultdict(list)  # label -> (x, value, low, high)
    for x, (name, metric, _) in enumerate(groups):
        for m, printed in tasks.BENCHMARKS[name].paper.items():
            if metric in printed:
                bars[PAPER[m]].append((x, *[printed[metric]] * 3))
        for m, row in found[name].items():
            if metric in row:
                bars[m].append((x, *percent(*row[metric])))
    labels = [label for label in [*PAPER.values(), *models] if label in bars]
    greys = dict(zip(PAPER.values(), plt.get_cmap("Greys")(np.linspace(.2, .7, len(PAPER)))))
    colors = greys | {m: COLORS.get(m.split("@")[0], f"C{i}") for i, m in enumerate(models)}
    figure, axis = plt.subplots(figsize=(max(6, 2 + .16 * len(groups) * len(labels)), 4))
    for k, label in enumerate(labels):
        x, value, low, high = np.array(bars[label]).T
        x = x + (k + .5) / len(labels) * .84 - .42
        axis.bar(x, value, .8 / len(labels), color=colors[label], label=label)
        if label in models:
            spread = [np.maximum(0, value - low), np.maximum(0, high - value)]
            axis.errorbar(x, value, spread, fmt="none", ecolor="black", elinewidth=.8, capsize=2)
    axis.set_xticks(range(len(groups)), [heading.replace(" ", "\n", 1) for _, _, heading in groups], fontsize=8)
    axis.set(ylabel="percent", ylim=(0, 100))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(.5, 1))
    figure.tight_layout()
    save_figure(figure, path)
    plt.close(figure)


# ---- 3. Failures ----------------------------------------------------------------------------------------------------------
def escape(text, limit=4000):
    """What a model or a data set wrote, as text for a page: it cannot run, nor hide what stands beside it."""
    text = clean(str(text))
    return html.escape(text if len(text) <= limit else f"{text[:limit - 1000]} [... {len(text) - limit} more ...] {text[-1000:]}")


def failures(rows_of, n, seed):
    """Ids of n questions that some model got wrong: those on which models differ first, else by chance. rows_of: {model: {id: row}}."""
    correct = defaultdict(list)
    for rows in rows_of.values():
        for i, row in rows.items():
            correct[i].append(row["correct"])
    return sorted((i for i, c in correct.items() if min(c) < 1), key=lambda i: (-np.ptp(correct[i]), ticket(seed, i)))[:n]


def draw_page(cfg, models, have, verifier):
    """page/index.html: failures, each with pictures, question, truth, and every model's response.

    Of one picture or clip the response's points are drawn: judged where the verifier has judged them (as its card), else in blue. Of
    several pictures no response says which one it points at: they are shown as they are.
    """
    rows_of = {(m, name): rows for (m, _, name), rows in have.items() if rows}
    names = [name for name in tasks.BENCHMARKS if any(n == name for _, n in rows_of)]
    wanted = {name: failures({m: rows for (m, n), rows in rows_of.items() if n == name}, cfg.pages, cfg.seed) for name in names}
    full = {}  # the long texts are on disk
    for row in stored(Path(cfg.out, "answers.jsonl")):
        key = row["model"], row["benchmark"]
        if key in rows_of and row["id"] in wanted[key[1]] and rows_of[key].get(row["id"], {}).get("stamp") == row["stamp"]:
            full[*key, row["id"]] = row
    folder, parts = Path(cfg.out, "page"), []
    for name in tqdm(names, desc="draw failures", unit="benchmark"):
        try:
            tasks.find(name, Path(cfg.data, name))
        except BadInput as error:
            print(f"no page for {name}: {error}", file=sys.stderr)
            continue
        parts.append(f"<h2>{escape(tasks.BENCHMARKS[name].title)}</h2>")
        missing, silent = set(wanted[name]), lambda *_: None
        for item in tasks.items(name, Path(cfg.data, name), silent) if missing else ():
            if item.id in missing:
                missing.remove(item.id)
                _, media = next(usable([item], cfg, silent), (item, []))
                rows = [full[m, name, item.id] for m in models if (m, name, item.id) in full]
                cells = [one_response(item, media, row, verifier, folder) for row in rows]
                parts.append(f"<h3>{escape(item.id)}</h3><pre>{escape(item.question)}</pre><p>truth: <b>{escape(item.answer)}</b></p>"
                             f"<table><tr>{''.join(cells)}</tr></table>")
            if not missing:
                break
    write_atomically(folder / "index.html", "<!doctype html><meta charset='utf-8'><title>Failures</title><style>body {font-family: "
                           "sans-serif} td {vertical-align: top; padding: 8px} img {max-width: 640px} pre {white-space: pre-wrap; "
                           "max-width: 640px; background: #f4f4f2; padding: 6px}</style><h1>What went wrong</h1>" + "".join(parts))


def one_response(item, media, row, verifier, folder):
    """A table cell: who, what was read, the pictures, the whole response."""
    stem = file_name(f"{row['benchmark']}-{row['model']}-{item.id}")[:80] + f"-{ticket(row['model'], item.id).hex()[:8]}"
    files = [folder / f"{stem}-{k}.png" for k in range(len(media))]
    if len(media) == 1 and verifier and row["grounding"] is not None:
        sample = tasks.as_sample(item)
        verdict = verifier.verify(sample, row["response"], media[0])
        draw_card(media[0], sample, row["response"], verdict, verdict.masks, files[0])
    else:
        points = parse(row["response"], item.media[0][0]).points[:MAX_POINTS] if len(media) == 1 else []
        for m, file in zip(media, files):
            draw_points(m, [argos.PointVerdict(p, None, "", [], argos.which_frame(m, p.frame, p.seconds)[0]) for p in points], file)
    verdict = "right" if row["correct"] == 1 else "no answer could be read" if row["extracted"] is None else "wrong"
    return (f"<td><b>{escape(row['model'])}</b>: {escape(row['extracted'])} <i>({verdict})</i><br>"
            + "".join(f"<img src='{escape(file.name)}' loading='lazy'>" for file in files) + f"<pre>{escape(row['response'])}</pre></td>")
