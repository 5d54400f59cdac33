"""What came out: the paper's tables with our columns beside them, differences between models, and a page of
failures.

Every number is in percent with a 95 % bootstrap interval over what its metric counts (score.draws). Two
models are compared on the questions that both answered, pair by pair: the interval of a difference draws the
same questions for both, and McNemar's exact test asks whether one is right where the other is wrong more
often than the reverse. The paper prints no intervals.

Nothing here asks a model anything; run.py calls it, also on stored answers (--rescore).

Before: score.py (metrics and their draws), run.py. Next: embodied.py (tables 3 and 4)
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
from benchmarks.stored import stored_rows, ticket, usable

PAPER = {model: f"{model} (paper)" for model in tasks.MODELS}
GROUNDING = "visual grounding"  # score.py's name for the mean of what the verifier gave


# ---- 1. Numbers --------------------------------------------------------------------------------------------
def percent(value, draws):
    """(value, low, high) in percent, with a 95 % interval from the bootstrap's draws."""
    low, high = np.quantile(draws, [.025, .975])
    return 100 * value, 100 * low, 100 * high


def measure(name, rows, seed):
    """{metric: (value, its bootstrap draws)}. rows: {id: row}."""
    return score.measure(name, [rows[i] for i in sorted(rows)], seed=seed)


def numbers(have, seed):
    """Measure all our models. have: {(model, folder, benchmark): {id: row}}

    -> {benchmark: {model: {metric: (value, draws)}}}, the benchmarks in the order of tasks.BENCHMARKS
    """
    measured = defaultdict(dict)
    for (model, _, name), rows in tqdm(have.items(), desc="bootstrap", unit="model"):
        if rows:
            measured[name][model] = measure(name, rows, seed)
    return {name: measured[name] for name in tasks.BENCHMARKS if name in measured}


def headlines(name):
    """The metrics that the paper prints; where it prints none, the first."""
    entry = tasks.BENCHMARKS[name]
    if entry.printed:
        return list(entry.printed)
    return [next(iter(entry.metrics))]


def mcnemar(a, b):
    """McNemar's exact test: if both models were as good, how probable is as large an imbalance? a, b: 0 or 1
    per question, paired.

    -> (two-sided p, on how many only a is right, on how many only b). Example: 5 against 1 gives p = 14 / 64.
    """
    only_a = sum(x > y for x, y in zip(a, b))
    only_b = sum(x < y for x, y in zip(a, b))
    if only_a + only_b == 0:
        return 1., 0, 0
    return binomtest(only_a, only_a + only_b).pvalue, only_a, only_b


def paired(name, a, b, seed, measured=None):
    """Model a less model b on the questions that both answered. a, b: {id: row}; measured: what `measure`
    gave for both, if known.

    -> ({metric: (difference, low, high)}, McNemar's test or None where answers can be half right, how many
    questions)
    """
    both = sorted(a.keys() & b.keys())
    same_questions = len(a) == len(b) == len(both)
    if measured is None or not same_questions:
        measured = [measure(name, {i: rows[i] for i in both}, seed) for rows in (a, b)]
    of_a, of_b = measured
    less = {}
    for metric in [*headlines(name), GROUNDING]:
        if metric in of_a and metric in of_b:
            (value_a, draws_a), (value_b, draws_b) = of_a[metric], of_b[metric]
            less[metric] = percent(value_a - value_b, draws_a - draws_b)
    right_a = [a[i]["correct"] for i in both]
    right_b = [b[i]["correct"] for i in both]
    all_or_nothing = {*right_a, *right_b} <= {0, 1}
    return less, mcnemar(right_a, right_b) if all_or_nothing else None, len(both)


# ---- 2. Tables ---------------------------------------------------------------------------------------------
def cell(three, sign=""):
    """(value, low, high) -> "56.0 [53.8, 58.2]"; "-" for None. sign: "+" writes a plus, too."""
    if three is None:
        return "-"
    value, low, high = (f"{number:{sign}.1f}" for number in three)
    return f"{value} [{low}, {high}]"


def measured_cell(row, metric):
    """The cell of one metric. row: {metric: (value, draws)}."""
    return cell(percent(*row[metric])) if metric in row else "-"


def line(*cells):
    """A row of a Markdown table.

    Cells may hold names from a data file: nothing in them may break the table.
    """
    texts = [clean(str(c)).replace("|", "/").replace("<", "&lt;").replace("\n", " ") for c in cells]
    return "| " + " | ".join(texts) + " |"


def head(*cells):
    return [line(*cells), "|---" * len(cells) + "|"]


def columns(measured):
    """[(benchmark, metric, heading)] of the summary: "CV-Bench" for the first metric, "CV-Bench 3D" for
    another.
    """
    found = []
    for name in measured:
        title, metrics = tasks.BENCHMARKS[name].title, headlines(name)
        for metric in metrics:
            found.append((name, metric, title if metric == metrics[0] else f"{title} {metric}"))
    return found


def summary(measured, models):
    """Lines as the paper lays out its tables 1 and 2: a row for each model."""
    shown = columns(measured)
    lines = head("percent [95 % interval]", *(heading for _, _, heading in shown))
    for model, label in PAPER.items():
        cells = [tasks.BENCHMARKS[name].paper.get(model, {}).get(metric, "-") for name, metric, _ in shown]
        if set(cells) != {"-"}:
            lines.append(line(label, *cells))
    for model in models:
        cells = [measured_cell(measured[name].get(model, {}), metric) for name, metric, _ in shown]
        lines.append(line(model, *cells))
    return lines


def one_table(name, of_models, rows_of, left_out, seed):
    """Lines on one benchmark: all metrics, a column for each model; how much of it was asked; differences
    between models.

    of_models: {model: {metric: (value, draws)}}; rows_of: {model: {id: row}}
    """
    entry, models = tasks.BENCHMARKS[name], list(of_models)
    asked = set().union(*rows_of.values())
    published = f" of {entry.count:,} published" if entry.count else ""
    lines = [f"## {entry.title}: {len(asked):,} questions{published}", ""]
    lines += head("percent", *(PAPER[m] for m in entry.paper), *models)

    for metric in dict.fromkeys(metric for row in of_models.values() for metric in row):
        printed = [row.get(metric, "") for row in entry.paper.values()]
        lines.append(line(metric, *printed, *(measured_cell(row, metric) for row in of_models.values())))
    blank = [""] * len(entry.paper)
    unread = [share([not row["read"] for row in rows_of[m].values()]) for m in models]
    cut = [share([not row["finished"] for row in rows_of[m].values()]) for m in models]
    lines.append(line("no answer could be read", *blank, *unread))
    lines.append(line("cut before the end", *blank, *cut))

    for model in models:
        missing = len(asked) - len(rows_of[model])
        if missing:
            lines.append(f"\n{model} has not answered {missing} of them.")
    lines += not_as_published(name, left_out)
    if len(models) > 1:
        lines += differences(name, of_models, rows_of, seed)
    return lines


def share(flags):
    """How many of the flags are set, in percent."""
    return f"{100 * np.mean(flags):.1f}"


def not_as_published(name, left_out):
    """Lines on what of a benchmark could not be asked, and which counts are not the published ones; none if
    all is well.
    """
    title = tasks.BENCHMARKS[name].title
    reasons, counts = Counter(), []
    for (benchmark, reason, where), detail in left_out.items():
        if benchmark != name:
            continue
        reason = reason.removeprefix(f"{title}: ")
        if reason == "wrong count":
            counts.append(f"{where}: {detail}")
        else:
            reasons[reason] += 1
    if not reasons and not counts:
        return []
    told = [f"{n} x {reason}" for reason, n in reasons.most_common()]
    return ["", "Not as published: " + clean("; ".join(told + counts)) + "."]


def differences(name, of_models, rows_of, seed):
    """Lines of a table of paired differences, a row for every two models, the later one less the earlier."""
    pairs = []
    for b, a in combinations(of_models, 2):
        less, test, n = paired(name, rows_of[a], rows_of[b], seed, (of_models[a], of_models[b]))
        pairs.append((f"{a} - {b}", less, test, n))
    metrics = list(dict.fromkeys(metric for _, less, _, _ in pairs for metric in less))
    lines = ["", *head("paired difference", "questions", *metrics,
                       "only the first right / only the second", "McNemar p")]
    for label, less, test, n in pairs:
        cells = [cell(less.get(metric), "+") for metric in metrics]
        counted, p = "-", "-"
        if test:
            p_value, only_a, only_b = test
            counted, p = f"{only_a} / {only_b}", f"{p_value:.2g}"
        lines.append(line(label, n, *cells, counted, p))
    return lines


def tables(measured, models, have, left_out, seed):
    """The whole report in Markdown."""
    lines = ["# Beside the paper's tables 1 and 2", "", *summary(measured, models)]
    for name, of_models in measured.items():
        rows_of = {model: rows for (model, _, benchmark), rows in have.items() if benchmark == name and rows}
        lines += ["", *one_table(name, of_models, rows_of, left_out, seed)]
    return "\n".join(lines) + "\n"


def as_csv(measured, have):
    """The same numbers, one in each row."""
    count = {(model, name): len(rows) for (model, _, name), rows in have.items() if rows}
    rows = [("benchmark", "metric", "model", "questions", "percent", "low", "high")]
    for name, of_models in measured.items():
        for model, printed in tasks.BENCHMARKS[name].paper.items():
            for metric, value in printed.items():
                rows.append((name, metric, PAPER[model], "", value, "", ""))
        for model, row in of_models.items():
            for metric in row:
                three = [f"{v:.4f}" for v in percent(*row[metric])]
                rows.append((name, metric, model, count[model, name], *three))
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def draw_bars(measured, models, path):
    """Our models in colour, with intervals, beside the paper's rows in grey, the darker the further down its
    table.
    """
    groups = columns(measured)
    bars = defaultdict(list)  # label -> [(x, value, low, high)]
    for x, (name, metric, _) in enumerate(groups):
        for model, printed in tasks.BENCHMARKS[name].paper.items():
            if metric in printed:
                bars[PAPER[model]].append((x, printed[metric], printed[metric], printed[metric]))
        for model, row in measured[name].items():
            if metric in row:
                bars[model].append((x, *percent(*row[metric])))

    labels = [label for label in [*PAPER.values(), *models] if label in bars]
    colors = dict(zip(PAPER.values(), plt.get_cmap("Greys")(np.linspace(.2, .7, len(PAPER)))))
    for i, model in enumerate(models):
        name_without_step = model.split("@")[0]
        colors[model] = COLORS.get(name_without_step, f"C{i}")
    figure, axis = plt.subplots(figsize=(max(6, 2 + .16 * len(groups) * len(labels)), 4))
    for k, label in enumerate(labels):
        x, value, low, high = np.array(bars[label]).T
        x = x + (k + .5) / len(labels) * .84 - .42  # the bars of a group share .84 around its middle
        axis.bar(x, value, .8 / len(labels), color=colors[label], label=label)
        if label in models:
            spread = [np.maximum(0, value - low), np.maximum(0, high - value)]
            axis.errorbar(x, value, spread, fmt="none", ecolor="black", elinewidth=.8, capsize=2)
    headings = [heading.replace(" ", "\n", 1) for _, _, heading in groups]
    axis.set_xticks(range(len(groups)), headings, fontsize=8)
    axis.set(ylabel="percent", ylim=(0, 100))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(.5, 1))
    figure.tight_layout()
    save_figure(figure, path)
    plt.close(figure)


# ---- 3. Failures -------------------------------------------------------------------------------------------
PAGE = ("<!doctype html><meta charset='utf-8'><title>Failures</title><style>body {font-family: sans-serif} "
        "td {vertical-align: top; padding: 8px} img {max-width: 640px} "
        "pre {white-space: pre-wrap; max-width: 640px; background: #f4f4f2; padding: 6px}"
        "</style><h1>What went wrong</h1>")


def escape(text, limit=4000):
    """What a model or a data set wrote, as text for a page: it cannot run, nor hide what stands beside it."""
    text = clean(str(text))
    if len(text) > limit:
        text = f"{text[:limit - 1000]} [... {len(text) - limit} more ...] {text[-1000:]}"
    return html.escape(text)


def failures(rows_of, n, seed):
    """Ids of n questions that some model got wrong: those on which models differ first, else by chance.

    rows_of: {model: {id: row}}
    """
    correct = defaultdict(list)  # id -> one score per model
    for rows in rows_of.values():
        for i, row in rows.items():
            correct[i].append(row["correct"])
    wrong = [i for i, scores in correct.items() if min(scores) < 1]
    wrong.sort(key=lambda i: (-np.ptp(correct[i]), ticket(seed, i)))  # ptp: the largest less the smallest
    return wrong[:n]


def silent(*_):
    """A report(reason, where, detail) for a second reading: all was said at the first."""


def draw_page(cfg, models, have, verifier):
    """page/index.html: failures, each with pictures, question, truth, and every model's response.

    The points of a response are drawn if it is on one picture or clip: judged where the verifier has judged
    them (as its card), else in blue. Of several pictures no response says which one it points at: they are
    shown as they are.
    """
    folder = Path(cfg.out, "page")
    rows_of = defaultdict(dict)  # benchmark -> {model: {id: row}}
    for (model, _, name), rows in have.items():
        if rows:
            rows_of[name][model] = rows
    names = [name for name in tasks.BENCHMARKS if name in rows_of]
    wanted = {name: failures(rows_of[name], cfg.pages, cfg.seed) for name in names}
    whole = whole_rows(Path(cfg.out, "answers.jsonl"), rows_of, wanted)

    parts = []
    for name in tqdm(names, desc="draw failures", unit="benchmark"):
        try:
            tasks.find(name, Path(cfg.data, name))
        except BadInput as error:
            print(f"no page for {name}: {error}", file=sys.stderr)
            continue
        parts.append(f"<h2>{escape(tasks.BENCHMARKS[name].title)}</h2>")
        for item in find_items(name, Path(cfg.data, name), wanted[name]):
            shown = list(usable([item], cfg, silent))
            media = shown[0][1] if shown else []
            cells = []
            for model in models:
                if (model, name, item.id) in whole:
                    cells.append(one_response(item, media, whole[model, name, item.id], verifier, folder))
            parts.append(f"<h3>{escape(item.id)}</h3><pre>{escape(item.question)}</pre>"
                         f"<p>truth: <b>{escape(item.answer)}</b></p>"
                         f"<table><tr>{''.join(cells)}</tr></table>")
    write_atomically(folder / "index.html", PAGE + "".join(parts))


def whole_rows(log, rows_of, wanted):
    """The stored rows of the wanted questions, with their long texts, as the models were asked for this
    report.

    rows_of: {benchmark: {model: {id: slim row}}}; wanted: {benchmark: [id, ...]} -> {(model, benchmark, id):
    row}
    """
    whole = {}
    for row in stored_rows(log):
        model, name, i = row["model"], row["benchmark"], row["id"]
        counted = rows_of.get(name, {}).get(model, {}).get(i)
        if counted and i in wanted[name] and counted["stamp"] == row["stamp"]:
            whole[model, name, i] = row
    return whole


def find_items(name, folder, ids):
    """Yield the Items with these ids, in the order of the benchmark's files; reading ends with the last one.
    """
    missing = set(ids)
    if not missing:
        return
    for item in tasks.items(name, folder, silent):
        if item.id in missing:
            missing.remove(item.id)
            yield item
        if not missing:
            return


def one_response(item, media, row, verifier, folder):
    """A table cell: who, what was read, the pictures, the whole response."""
    unique = ticket(row["model"], item.id).hex()[:8]
    stem = file_name(f"{row['benchmark']}-{row['model']}-{item.id}")[:80] + f"-{unique}"
    files = [folder / f"{stem}-{k}.png" for k in range(len(media))]
    if len(media) == 1 and verifier and row["grounding"] is not None:
        sample = tasks.as_sample(item)
        verdict = verifier.verify(sample, row["response"], media[0])
        draw_card(media[0], sample, row["response"], verdict, verdict.masks, files[0])
    else:
        points = []
        if len(media) == 1:
            kind = item.media[0][0]
            points = parse(row["response"], kind).points[:MAX_POINTS]
        for shown, file in zip(media, files):
            draw_points(shown, [unjudged(point, shown) for point in points], file)

    if row["correct"] == 1:
        outcome = "right"
    elif row["extracted"] is None:
        outcome = "no answer could be read"
    else:
        outcome = "wrong"
    pictures = "".join(f"<img src='{escape(file.name)}' loading='lazy'>" for file in files)
    return (f"<td><b>{escape(row['model'])}</b>: {escape(row['extracted'])} <i>({outcome})</i><br>"
            f"{pictures}<pre>{escape(row['response'])}</pre></td>")


def unjudged(point, media):
    """A point that no verifier has looked at, as the cards take it: it is drawn in blue."""
    frame, _ = argos.which_frame(media, point.frame, point.seconds)
    return argos.PointVerdict(point, None, "", [], frame)
