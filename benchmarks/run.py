"""Any models on any benchmarks of the paper: asked in batches, scored, and set beside the paper's tables 1 and 2 and figure 4.

    python evaluate.py --benchmark all --data DIR --model out/grpo/merged --preset 7b
    python evaluate.py --benchmark blink,cv-bench --data DIR --models base:direct=HUB_ID cot:cot=HUB_ID argos=out/grpo/merged --preset 7b
    python evaluate.py --benchmark video-r1 --data DIR --models argos@20=out/step20 argos@40=out/step40    # figure 4 over checkpoints
    python evaluate.py --benchmark all --out out/benchmarks --rescore                  # stored answers scored again, without a model

The files of a benchmark are in DIR/<name> (tasks.py says where each is had). `name:mode=folder` sets how one model is asked: `direct`
(the shipped instruction where there is one), `cot`, `grounded` (it points while it reasons, as Argos was trained); `:greedy`,
`:direct:greedy` ... decode greedily. The paper evaluates at temperature 0.6 with up to 6144 or 8192 new tokens (app. A); --preset 7b
does so. Where a response is grounded and the verifier knows how to look (figure 4: video-r1, and easy-vqa), it is scored, too.

**The same answers, however often it is stopped.** Questions stand in windows of a few batches, sorted by length inside a window, so that
little is padding. Windows and batches follow from the files, --limit and --batch alone, and each batch has its own random numbers, seeded
by --seed and the ids in it: a batch that kill -9 tore apart is asked again whole, and comes out as it would have. With another --batch or
--limit an answer is another draw from the same distribution (rows of a batch share random numbers); greedy ones do not care.

What is simplified: one answer a question; no majority vote. One process: start one for each GPU on other benchmarks, with other --out.
Reads:  DIR/<name>. Writes, under --out: answers.jsonl (append-only; what is there is not asked again), left_out.jsonl (what could not be
asked, and why), table.md, table.csv, bars.png, figure4-<name>.png, page/index.html (failures, with the points drawn).
Before: tasks.py (what is asked), score.py (what counts as right). Next: embodied.py, libero.py (tables 3 to 5)
"""
import csv
import functools
import hashlib
import html
import io
import itertools
import json
import os
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import binomtest
from tqdm import tqdm

import argos
import evaluate
import policy as P
import scale
import teachers
from benchmarks import score, tasks

PROMPT = {"direct": "direct", "cot": "cot", "grounded": "reason"}  # mode -> key of policy.PROMPTS
GROUNDED = ("video-r1", "easy-vqa")  # one picture or clip a question, and things that the teachers can look for
WINDOW = 8  # batches that are sorted by length together


@dataclass
class Config(scale.TeacherSettings):
    benchmark: str = field(default="all", metadata={"help": f"all that --data holds, or some with commas between: {', '.join(tasks.BENCHMARKS)}"})
    data: str = field(default="benchmarks/data", metadata={"help": "folder with a folder for each benchmark, of its name"})
    models: list[str] = field(default_factory=list, metadata={"help": "name=folder ..., name:MODE=, name:greedy=, name:MODE:greedy=, name@STEP="})
    model: str = field(default="", metadata={"help": "one folder: short for --models ours=FOLDER"})
    mode: str = field(default="grounded", metadata={"help": "how models without a mode of their own are asked: direct, cot or grounded"})
    out: str = field(default="out/benchmarks", metadata={"help": "folder to write"})
    temperature: float = field(default=.6, metadata={"help": "sampling temperature (paper: 0.6); 0 decodes greedily"})
    max_new_tokens: int = field(default=112, metadata={"help": "an answer is cut here (paper: 6144 or 8192, so --preset 7b)"})
    batch: int = field(default=64, metadata={"help": "questions at a time; lower it where memory ends, what was answered stays"})
    limit: int = field(default=0, metadata={"help": "a seeded, stratified sample of so many questions of each benchmark (0: all)"})
    rescore: bool = field(default=False, metadata={"help": "read and score the stored answers again; asks no model"})
    judge: str = field(default=str(Path(__file__).parents[1] / "tiny/teacher"), metadata={"help": "VLM that judges claims about clips"})
    judge_answers: bool = field(default=False, metadata={"help": "let it judge answers, too, where the official rule asks a model (HallusionBench)"})
    pages: int = field(default=12, metadata={"help": "failures to draw for each benchmark (0: no page)"})
    seed: int = field(default=0, metadata={"help": "seed of --limit, sampling and bootstrap"})


@dataclass
class Model:
    name: str
    folder: str
    mode: str
    temperature: float  # 0: greedy
    stamp: list         # answers count again only for the same weights, asked in the same way


def read_models(cfg):
    """--models and --model -> [Model]."""
    if cfg.mode not in PROMPT or cfg.temperature < 0:
        raise argos.BadInput(f"--mode {cfg.mode} --temperature {cfg.temperature:g}: give {', '.join(PROMPT)}, and 0 or more")
    modes = {"sampled": (cfg.mode, cfg.temperature), "greedy": (cfg.mode, 0.)}
    modes |= {mode: (mode, cfg.temperature) for mode in PROMPT} | {f"{mode}:greedy": (mode, 0.) for mode in PROMPT}
    models = []
    for spec in cfg.models + [f"ours={cfg.model}"] * bool(cfg.model):
        name, mode, folder = evaluate.parse_model(spec, modes)
        if name in [m.name for m in models]:
            raise argos.BadInput(f"--models: {name} is named twice; give each its own name")
        asked = *modes[mode], cfg.max_new_tokens, cfg.seed, cfg.preset, cfg.dtype, *scale.budget(cfg).values()
        models.append(Model(name, folder, *modes[mode], [folder, *asked, evaluate.weights_stamp(folder)]))  # no batch: it may shrink
    if not models:
        raise argos.BadInput("whom to ask? give --model FOLDER, or --models name=folder ...")
    return models


# ---- 1. What is asked -----------------------------------------------------------------------------------------------------
def read_benchmarks(cfg):
    """--benchmark -> names. One that is asked for by its name must be there; "all" skips what is not, and says so."""
    if cfg.benchmark != "all":
        for name in (names := list(dict.fromkeys(cfg.benchmark.split(",")))):
            tasks.find(name, Path(cfg.data, name))
        return names
    names = []
    for name in tasks.BENCHMARKS:
        try:
            tasks.find(name, Path(cfg.data, name))
            names.append(name)
        except argos.BadInput as error:
            print(f"skipped {name}: {error}", file=sys.stderr)
    if not names:
        raise argos.BadInput(f"--data {cfg.data}: holds no benchmark; put each into a folder of its name, such as {cfg.data}/blink")
    return names


def ticket(seed, id):
    """Chance that is the same on every machine."""
    return hashlib.sha256(f"{seed} {id}".encode()).digest()


def stratified(entry, items, limit, seed):
    """Ids of about `limit` items, every stratum with its share. A larger limit adds to the sample of a smaller one.

    Strata are the groups that the benchmark averages over. Rows that belong together (both orders of a caption, all questions on one
    set of figures) come together: half a figure would make "all right" too easy.
    """
    keys = {entry.part, *(key for m in entry.metrics.values() for key in (m.each, *m.over))} - set(entry.together)
    units = defaultdict(list)
    for item in items:
        units[tuple(item.groups.get(key) for key in entry.together) or item.id].append(item)
    strata = defaultdict(list)
    for unit in sorted(units.values(), key=lambda unit: ticket(seed, unit[0].id)):
        strata[tuple(str(unit[0].groups.get(key)) for key in sorted(keys))].append(unit)
    # The j-th of k units stands at (j + 1/2) / k: whatever begins this line holds each stratum in proportion.
    line = sorted(((j + .5) / len(stratum), ticket(seed, unit[0].id), unit) for stratum in strata.values() for j, unit in enumerate(stratum))
    chosen = []
    for _, _, unit in line:
        if chosen and len(chosen) + len(unit) > limit:
            break
        chosen += [item.id for item in unit]
    return set(chosen)


def batched(things, size):
    """Lists of `size` things, the last one shorter."""
    things = iter(things)
    while batch := list(itertools.islice(things, size)):
        yield batch


def note(left_out, benchmark, reason, where, detail=""):
    """Remember what could not be asked; a file that is read again says so once."""
    left_out[benchmark, str(reason), str(where)] = str(detail)


def usable(items, cfg, report):
    """Load what the policy sees -> [(item, [Media])]; what cannot be shown is reported and left out."""
    for item in items:
        try:
            media = [argos.load_media(source, **scale.budget(cfg)) for _, source in item.media]
            if any(kind == "image" and len(m.frames) > 1 for (kind, _), m in zip(item.media, media)):
                raise argos.BadMedia("a clip in place of a picture")
        except argos.BadMedia as error:
            print(f"left out: {item.id}: {error}", file=sys.stderr)
            report("damaged media", item.id, str(error))
        else:
            yield item, media


# ---- 2. Asking ------------------------------------------------------------------------------------------------------------
def question_text(name, item, mode, preset):
    shipped = tasks.BENCHMARKS[name].ask if mode == "direct" else ""
    return f"{item.question}\n{shipped}" if shipped else P.prompt(preset, PROMPT[mode], question=item.question)


def prompt_length(actor, media, text):
    """Tokens of a prompt, but for the template's."""
    vision = sum(len(m.frames) * m.frames[0].width * m.frames[0].height / 784 / (1 + (len(m.frames) > 1)) for m in media)
    return vision + len(actor.tokenizer.encode(text))


def as_sample(item):
    """An Item on one picture or clip -> argos.Sample, so that the verifier can look at what is pointed at."""
    (kind, source), = item.media
    given = {key: item.groups[key] for key in ("task", "source", "kind", "grounding", "drawn") if key in item.groups}
    return argos.Sample(item.id, item.question, item.answer, path=str(source)[:200], media=kind, options=item.options,
                        **{"kind": item.scorer if item.scorer in argos.KINDS else "phrase"} | given)


def ask(actor, model, name, batch, cfg, verifier, judge):
    """Ask a batch of (item, [Media]) -> rows of answers.jsonl."""
    texts = [question_text(name, item, model.mode, cfg.preset) for item, _ in batch]
    seed = int.from_bytes(ticket(cfg.seed, [item.id for item, _ in batch])[:7])
    drawn = P.sample(actor, P.encode_prompts(actor, [(media, text) for (_, media), text in zip(batch, texts)]), 1,
                     temperature=model.temperature or 1., greedy=not model.temperature, max_new_tokens=cfg.max_new_tokens,
                     generator=torch.Generator(actor.device).manual_seed(seed))
    grounding = {}
    if model.mode == "grounded" and name in GROUNDED:
        shown = [(as_sample(item), media[0], text) for (item, media), text in zip(batch, drawn.texts)]
        samples, seen, said = map(list, zip(*shown))
        verdicts = verifier.verify_groups(samples, [[text] for text in said], seen)
        grounding = {s.id: v.grounding for s, (v,) in zip(samples, verdicts) if s.grounding}
    return [scored(dict(benchmark=name, model=model.name, mode=model.mode, **{k: getattr(item, k) for k in ITEM}, prompt=text,
                        response=response, finished=finished, grounding=grounding.get(item.id), stamp=model.stamp), judge)
            for (item, _), text, response, finished in zip(batch, texts, drawn.texts, drawn.finished.tolist())]


ITEM = ("id", "question", "answer", "options", "groups", "scorer")  # what a row keeps of its Item: scoring needs no other file


def load_judge(cfg):
    return teachers.load_judge(cfg.judge, cfg.preset, dtype=cfg.dtype) if cfg.judge_answers else None


def scored(row, judge=None):
    """A row with what was read as its answer, and whether it is right."""
    item = tasks.Item(media=[], **{k: row[k] for k in ITEM})
    extracted = score.extract(row["response"], item)
    return row | dict(extracted=extracted, correct=score.correct(extracted, item, judge))


def run(cfg, models, names, left_out):
    """Ask every model every question that it has not answered. -> {(model, folder, benchmark): {id: row}}."""
    log = Path(cfg.out, "answers.jsonl")
    have = read_answers(log, {(m.name, name): m.stamp for m in models for name in names})
    looks = set(names) & set(GROUNDED) and any(m.mode == "grounded" for m in models)
    verifier, judge = evaluate.load_verifier(cfg) if looks else None, load_judge(cfg)
    chosen = {}
    for name in names:
        report = functools.partial(note, left_out, name)
        items = list(tasks.items(name, Path(cfg.data, name), report, pictures=False))
        chosen[name] = stratified(tasks.BENCHMARKS[name], items, cfg.limit, cfg.seed) if cfg.limit else {item.id for item in items}
    for model in models:
        actor = None
        for name in names:
            report, folder = functools.partial(note, left_out, name), Path(cfg.data, name)
            seen = have[model.name, model.folder, name] = {i: r for i, r in have[model.name, model.folder, name].items() if i in chosen[name]}
            bar = tqdm(total=len(chosen[name]), initial=len(seen), desc=f"{model.name} on {name}", unit="answer", smoothing=.1)
            asked = (item for item in tasks.items(name, folder, report) if item.id in chosen[name]) if len(seen) < bar.total else ()
            for window in batched(asked, WINDOW * cfg.batch):
                if all(item.id in seen for item in window):
                    continue
                actor = actor or P.load_policy(model.folder, dtype=cfg.dtype)
                shown = sorted(usable(window, cfg, report), key=lambda pair: prompt_length(
                    actor, pair[1], question_text(name, pair[0], model.mode, cfg.preset)))
                for batch in batched(shown, cfg.batch):
                    if not all(item.id in seen for item, _ in batch):
                        rows = [row for row in ask(actor, model, name, batch, cfg, verifier, judge) if row["id"] not in seen]
                        for row in rows:
                            argos.append_jsonl(log, row)
                        seen |= {row["id"]: slim(row) for row in rows}
                        bar.update(len(rows))
            bar.close()
    return have, verifier


# ---- 3. Stored answers ----------------------------------------------------------------------------------------------------
def slim(row):
    """What numbers need of a row; "outcome" is evaluate.py's word for it."""
    return {k: row[k] for k in ("id", "groups", "correct", "grounding", "finished")} | dict(
        outcome=row["correct"], read=row["extracted"] is not None)


def read_answers(log, stamps):
    """The log -> {(model, folder, benchmark): {id: row}}, of rows with the right stamp. stamps: {(model, benchmark): stamp}."""
    have = defaultdict(dict)
    for _, row in argos.read_jsonl(log, torn=True) if log.exists() else ():
        if stamps.get((row["model"], row.get("benchmark"))) == row["stamp"]:
            have[row["model"], row["stamp"][0], row["benchmark"]][row["id"]] = slim(row)
    return have


def rescore(cfg):
    """Extract and score all stored answers again, in place. -> as `run`; where a model was asked in several ways, the last counts."""
    log, judge, stamps = Path(cfg.out, "answers.jsonl"), load_judge(cfg), {}
    aside = log.with_name(f".{log.name}.tmp")
    asked = tasks.BENCHMARKS if cfg.benchmark == "all" else cfg.benchmark.split(",")
    with open(aside, "w", encoding="utf-8") as file:
        for _, row in tqdm(argos.read_jsonl(log, torn=True), desc="score", unit="answer"):
            if row.get("benchmark") in asked:
                row = scored(row, judge)
                stamps[row["model"], row["benchmark"]] = row["stamp"]
            file.write(json.dumps(row) + "\n")
    os.replace(aside, log)
    return read_answers(log, stamps)


# ---- 4. Tables ------------------------------------------------------------------------------------------------------------
def in_order(rows):
    return [rows[i] for i in sorted(rows)]


def measure(name, rows, seed):
    """{metric: (value, low, high)} in percent, with 95 % bootstrap intervals; R_vg where the verifier looked."""
    values, drawn = score.metrics(name, in_order(rows)), score.draws(name, in_order(rows), seed=seed)
    found = {metric: (value, *np.nanquantile(drawn[metric], [.025, .975])) for metric, value in values.items()}
    looked = [r["grounding"] for r in rows.values() if r["grounding"] is not None]
    if looked:
        found["R_vg"] = evaluate.interval(looked, seed=seed)
    return {metric: tuple(100 * v for v in three) for metric, three in found.items()}


def headlines(name):
    """The metrics that the paper prints; where it prints none, the first."""
    entry = tasks.BENCHMARKS[name]
    return list(entry.paper or ()) or [next(iter(entry.metrics))]


def mcnemar(a, b):
    """Exact two-sided p that one model is right where the other is wrong as often as the reverse; and both counts. a, b: 0/1, paired."""
    only_a, only_b = sum(x > y for x, y in zip(a, b)), sum(x < y for x, y in zip(a, b))
    return binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1., only_a, only_b


def paired(name, a, b, metrics, seed):
    """Two models on the questions that both answered -> {metric: (difference, low, high)} in percent points, and McNemar's test."""
    both = sorted(a.keys() & b.keys())
    a, b = [a[i] for i in both], [b[i] for i in both]
    (of_a, of_b), (drawn_a, drawn_b) = ([f(name, rows, **k) for rows in (a, b)] for f, k in ((score.metrics, {}), (score.draws, dict(seed=seed))))
    less = {m: tuple(100 * v for v in (of_a[m] - of_b[m], *np.nanquantile(drawn_a[m] - drawn_b[m], [.025, .975]))) for m in metrics}
    answers = [[r["correct"] for r in rows] for rows in (a, b)]
    return less, mcnemar(*answers) if {*answers[0], *answers[1]} <= {0, 1} else None, len(both)


def cell(three, sign=""):
    return "-" if three is None or np.isnan(three[0]) else "{:{s}.1f} [{:{s}.1f}, {:{s}.1f}]".format(*three, s=sign)


def line(*cells):
    return "| " + " | ".join(argos.clean(str(c)).replace("|", "/").replace("\n", " ") for c in cells) + " |"


def head(*cells):
    return [line(*cells), "|---" * len(cells) + "|"]


def tables(cfg, names, models, have, left_out):
    """-> Markdown, the same as CSV, and {(benchmark, metric): {model: (value, low, high)}} of the summary, the paper's rows included."""
    found = {(m, name): measure(name, rows, cfg.seed) for (m, _, name), rows in have.items() if rows}
    rows_of = {(m, name): rows for (m, _, name), rows in have.items() if rows}
    names = [name for name in names if any((m, name) in found for m in models)]
    columns = {(name, metric): {f"{m} (paper)": (v[metric], np.nan, np.nan) for m, v in tasks.BENCHMARKS[name].printed.items()}
               | {m: found[m, name].get(metric) for m in models if (m, name) in found} for name in names for metric in headlines(name)}
    title = lambda name, metric: tasks.BENCHMARKS[name].title + f" {metric}" * (len(headlines(name)) > 1 and metric != headlines(name)[0])
    text = ["# Beside the paper's tables 1 and 2", "", *head("percent [95 % interval]", *(title(*column) for column in columns))]
    written = [("benchmark", "metric", "model", "questions", "percent", "low", "high")]
    for m in (*(f"{m} (paper)" for m in tasks.MODELS), *models):
        cells = [by.get(m) for by in columns.values()]
        if any(cells):
            text.append(line(m, *("-" if c is None else f"{c[0]:.1f}" if np.isnan(c[1]) else cell(c) for c in cells)))
    for name in names:
        entry, mine = tasks.BENCHMARKS[name], [m for m in models if (m, name) in found]
        asked = set().union(*(rows_of[m, name] for m in mine))
        text += ["", f"## {entry.title}: {len(asked):,} questions" + f" of {entry.count:,} published" * bool(entry.count), "",
                 *head("percent", *(f"{m} (paper)" for m in entry.printed), *mine)]
        for metric in dict.fromkeys(metric for m in mine for metric in found[m, name]):
            paper = [v.get(metric) for v in entry.printed.values()]
            text.append(line(metric, *("" if v is None else f"{v:.1f}" for v in paper), *(cell(found[m, name].get(metric)) for m in mine)))
            written += [(name, metric, f"{m} (paper)", "", v, "", "") for m, v in zip(entry.printed, paper) if v is not None]
            written += [(name, metric, m, len(rows_of[m, name]), *found[m, name][metric]) for m in mine if metric in found[m, name]]
        share = lambda wrong: [f"{100 * np.mean([wrong(r) for r in rows_of[m, name].values()]):.1f}" for m in mine]
        text += [line("no answer could be read", *[""] * len(entry.printed), *share(lambda r: not r["read"])),
                 line(f"cut at {cfg.max_new_tokens} tokens" if not cfg.rescore else "cut", *[""] * len(entry.printed),
                      *share(lambda r: not r["finished"]))]
        text += [f"\n{m} has not answered {len(asked) - len(rows_of[m, name])} of them." for m in mine if len(rows_of[m, name]) < len(asked)]
        reasons = Counter(f"{reason}" + f" ({where}: {detail})" * ("wrong count" in reason)
                          for (n, reason, where), detail in left_out.items() if n == name)
        if reasons:
            text += ["", "Not as published: " + argos.clean("; ".join(f"{n} x {why}" for why, n in reasons.most_common())) + "."]
        if len(mine) > 1:
            text += ["", *head("paired difference", *headlines(name), "R_vg", "only the first right, only the second", "McNemar p")]
            for a, b in ((a, b) for i, a in enumerate(mine) for b in mine[:i]):
                less, test, n = paired(name, rows_of[a, name], rows_of[b, name], headlines(name), cfg.seed)
                looked = evaluate.difference(have, a, b, name, "grounding")
                seen = tuple(100 * v for v in evaluate.interval(looked, seed=cfg.seed)) if looked.size else None
                text.append(line(f"{a} - {b} ({n:,} questions)", *(cell(less[metric], "+") for metric in headlines(name)), cell(seen, "+"),
                                 *((f"{test[1]}, {test[2]}", f"{test[0]:.2g}") if test else ("-", "-"))))
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(written)
    return "\n".join(text) + "\n", file.getvalue(), columns


def draw_bars(columns, models, path):
    """Our models beside the paper's rows, which are grey; the darker, the further down its table."""
    labels = [f"{m} (paper)" for m in tasks.MODELS if any(f"{m} (paper)" in by for by in columns.values())] + models
    greys = plt.get_cmap("Greys")(np.linspace(.25, .75, max(1, len(labels) - len(models))))
    colors = [*greys, *(evaluate.COLORS.get(m.split("@")[0], f"C{i}") for i, m in enumerate(models))]
    figure, axis = plt.subplots(figsize=(max(6, 2 + .22 * len(columns) * len(labels)), 4))
    for k, (label, color) in enumerate(zip(labels, colors[-len(labels):])):
        at, three = zip(*[(x + (k + .5) / len(labels) * .84 - .42, by[label]) for x, by in enumerate(columns.values()) if by.get(label)])
        value, low, high = np.array(three).T
        axis.bar(at, value, .8 / len(labels), color=color, label=label)
        axis.errorbar(at, value, [np.maximum(0, value - low), np.maximum(0, high - value)], fmt="none", ecolor="black", elinewidth=.8, capsize=1.5)
    axis.set_xticks(range(len(columns)), [f"{tasks.BENCHMARKS[name].title}\n{metric}" for name, metric in columns], fontsize=8)
    axis.set(ylabel="percent", ylim=(0, 100))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(.5, 1))
    figure.tight_layout()
    argos.save_figure(figure, path)
    plt.close(figure)


# ---- 5. Failures ----------------------------------------------------------------------------------------------------------
def escape(text, limit=4000):
    """What a model or a data set wrote, as text for a page: it can neither be run nor hide what stands beside it."""
    text = argos.clean(str(text))
    return html.escape(text if len(text) <= limit else f"{text[:limit - 1000]} [... {len(text) - limit} characters ...] {text[-1000:]}")


def draw_page(cfg, names, models, have, verifier):
    """page/index.html: questions that a model got wrong, first those on which models differ, by chance otherwise.

    One picture or clip: with the response's points, judged where the verifier can judge them (then as its card), else in blue. Of
    several pictures no response says which one it points at, so they are shown as they are.
    """
    rows_of = {(m, name): rows for (m, _, name), rows in have.items() if rows}
    wanted = {}
    for name in names:
        answers = defaultdict(list)
        for m in models:
            for i, row in rows_of.get((m, name), {}).items():
                answers[i].append(row["correct"])
        wrong = [i for i, correct in answers.items() if min(correct) < 1]
        wanted[name] = sorted(wrong, key=lambda i: (-np.ptp(answers[i]), ticket(cfg.seed, i)))[:cfg.pages]
    full = {}
    for _, row in argos.read_jsonl(Path(cfg.out, "answers.jsonl"), torn=True):
        if row.get("id") in wanted.get(row.get("benchmark"), ()) and (row["model"], row["stamp"][0], row["benchmark"]) in have:
            full[row["benchmark"], row["id"], row["model"]] = row
    folder, parts = Path(cfg.out, "page"), []
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            tasks.find(name, Path(cfg.data, name))
        except argos.BadInput as error:
            print(f"no page for {name}: {error}", file=sys.stderr)
            continue
        parts.append(f"<h2>{escape(tasks.BENCHMARKS[name].title)}</h2>")
        left, asked = set(wanted[name]), tasks.items(name, Path(cfg.data, name), lambda *_: None) if wanted[name] else ()
        for item in asked:
            if item.id not in left:
                continue
            left.remove(item.id)
            shown = next(usable([item], cfg, lambda *_: None), (item, []))[1]
            cells = []
            for m in models:
                if row := full.get((name, item.id, m)):
                    pictures = draw_failure(item, shown, row, verifier if row["grounding"] is not None else None, folder)
                    verdict = "right" if row["correct"] == 1 else "no answer could be read" if row["extracted"] is None else "wrong"
                    cells.append(f"<td><b>{escape(m)}</b>: {escape(row['extracted'])} <i>({verdict})</i><br>"
                                 + "".join(f"<img src='{escape(p)}' loading='lazy'>" for p in pictures)
                                 + f"<pre>{escape(row['response'])}</pre></td>")
            parts.append(f"<h3>{escape(item.id)}</h3><pre>{escape(item.question)}</pre><p>truth: <b>{escape(item.answer)}</b></p>"
                         f"<table><tr>{''.join(cells)}</tr></table>")
            if not left:
                break
    argos.write_atomically(folder / "index.html", "<!doctype html><meta charset='utf-8'><title>Failures</title><style>body {font-family: "
                           "sans-serif} td {vertical-align: top; padding: 8px} img {max-width: 640px} pre {white-space: pre-wrap; max-width: "
                           "640px; background: #f4f4f2; padding: 6px}</style><h1>What went wrong</h1>" + "".join(parts))


def draw_failure(item, media, row, verifier, folder):
    """Write the pictures of one model's failure -> their file names."""
    name = lambda k: argos.file_name(f"{row['benchmark']}-{item.id}-{row['model']}"[:100] + f"-{ticket('', item.id).hex()[:6]}-{k}") + ".png"
    if len(media) != 1:
        for k, m in enumerate(media):
            argos.draw_points(m, [], folder / name(k))
    elif verifier:
        sample = as_sample(item)
        verdict = verifier.verify(sample, row["response"], media[0])
        argos.draw_card(media[0], sample, row["response"], verdict, verdict.masks, folder / name(0))
    else:
        points = argos.parse(row["response"], item.media[0][0]).points
        argos.draw_points(media[0], [argos.PointVerdict(p, None, "", [], argos.which_frame(media[0], p.frame, p.seconds)[0])
                                     for p in points[:argos.MAX_POINTS]], folder / name(0))
    return [name(k) for k in range(len(media))]


# ---- 6. The whole ---------------------------------------------------------------------------------------------------------
def main():
    cfg = argos.parse_config(Config, __doc__, scale.preset_arguments("benchmark", Config))
    out, left_out, verifier = Path(cfg.out), {}, None
    unknown = set(cfg.benchmark.split(",")) - set(tasks.BENCHMARKS) - {"all"}
    if unknown:
        raise argos.BadInput(f"--benchmark {','.join(sorted(unknown))}: there is all, or some of {', '.join(tasks.BENCHMARKS)}")
    if cfg.rescore:
        if not (out / "answers.jsonl").is_file():
            raise argos.BadInput(f"{out}/answers.jsonl: nothing is stored there; give the --out of an evaluation")
        have, told = rescore(cfg), out / "left_out.jsonl"
        models, names = (list(dict.fromkeys(key[k] for key in have)) for k in (0, 2))
        left_out = {(r["benchmark"], r["reason"], r["where"]): r["detail"] for _, r in (argos.read_jsonl(told) if told.exists() else ())}
    else:
        asked, names = read_models(cfg), read_benchmarks(cfg)
        have, verifier = run(cfg, asked, names, left_out)
        models = [m.name for m in asked]
        argos.write_atomically(out / "left_out.jsonl", "".join(
            json.dumps(dict(benchmark=n, reason=reason, where=where, detail=detail)) + "\n" for (n, reason, where), detail in left_out.items()))
    text, table, columns = tables(cfg, names, models, have, left_out)
    argos.write_atomically(out / "table.md", text)
    argos.write_atomically(out / "table.csv", table)
    print(text)
    draw_bars(columns, [m for m in models if any(m in by for by in columns.values())], out / "bars.png")
    for name in names:
        if curves := evaluate.checkpoints(have, name):
            evaluate.draw_curves(curves, out / f"figure4-{name}.png")
    if cfg.pages:
        draw_page(cfg, names, models, have, verifier)
    print(f"wrote {out}/table.md, table.csv, bars.png, answers.jsonl" + ", page/index.html" * bool(cfg.pages))
