"""Evaluation: answers and visual grounding of any checkpoints side by side, with intervals, curves and cards.

The paper's figure 4 asks two questions of a checkpoint on held-out samples: is the answer right, and is what
the reasoning points at really there? R_o and R_vg say so (R_rq is a training signal, no measure). Every number
comes with a 95 % bootstrap interval over items, and over seeds too where a model was trained with several;
differences are paired, item by item (and seed by seed).

Never measure with the model that rewards: RL learns what it can be told. So answers stand in two columns,
"answers" and "as its judge scores them" (--judge, with --foils as in training); between them lies what was
hacked. See verifier/watch.py for who measures, and --eval_judge for real data. After train_grpo.py --judge base
the judge is the checkpoint that training started from: --judge out/sft/merged.

One rollout per sample, at the paper's temperature 0.6. A model asked `:direct` is never asked to point: its R_vg
is 0 by construction.

Run:
  python evaluate.py --models base:direct=tiny/base sft=out/sft/merged argos=out/grpo-argos/merged \\
      outcome=out/grpo-outcome/merged --data out/data/val.jsonl --foils 0 --out out/eval
Figure 4 from the logs of training:
  python evaluate.py --curves argos=out/grpo-argos outcome=out/grpo-outcome --out out/eval
The paper's tables (benchmarks/run.py, which has flags of its own):
  python evaluate.py --benchmark all --data DIR --model DIR

A model is `name=folder`. `name:direct=folder` asks for a short answer without reasoning, `name:greedy=folder`
decodes greedily, `name:overlay=folder` draws coordinates as curation does. One name given several times is
one model with several seeds. Names that end in a step (`argos@20=... argos@40=...`) are checkpoints of one
run: they give figure 4.

What to watch in table.md: `answers` against the per-task majority above the table (what always giving the
most frequent answer would earn), and against its judge's score; intervals of paired differences that leave
out 0; and by source the share of responses without an answer, which must be small for the rest to mean much.

Writes: answers.jsonl (append-only; what is there is not asked again), unreadable.jsonl (samples whose file is
damaged), table.md, curves.png (curves-SET.png of checkpoints), page.html (all of it, with rollouts, and the
gate as a toy: verifier/page.py), groups.jsonl (the groups on the page, append-only).
Before: train_grpo.py. Next: benchmarks/run.py (the paper's benchmarks), README.md (what came out)
"""
import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from runs.checkpoints import follow_budget
from runs.curves import draw_curves, read_curve
from runs.errors import BadInput, printable, run_main, warn
from runs.files import (alone, append_jsonl, file_stamp, is_score, read_jsonl, weights_stamp,
                        write_atomically)
from runs.settings import (TeacherSettings, flag, parse_config, parse_model, pixel_budget, preset_arguments,
                           verifier_options)
from runs.statistics import by_item, cell, checkpoints, difference
from verifier.samples import read_samples
from verifier.foils import check_foils
from verifier.page import Rollout, question, read_yield, table, write_page
from verifier.watch import Measure, same_model
import policy as P
from teachers.names import load_judge, load_teachers
from argos import Argos, Weights
from benchmarks import run as paper_benchmarks
from curate import objects_of, overlaid, point, read_extraction, with_overlay


# ---- 1. Configuration --------------------------------------------------------------------------------------
@dataclass
class Config(TeacherSettings):
    models: list[str] = field(default_factory=list, metadata={
        "help": "name=folder ..., name:direct=, name:greedy=, name:overlay="})
    data: list[str] = field(default_factory=lambda: ["out/data/val.jsonl"], metadata={
        "help": "held-out sets, JSONL"})
    curves: list[str] = field(default_factory=list, metadata={
        "help": "name=training folder ...: learning curves from metrics.jsonl"})
    out: str = flag("out/eval", "folder to write")
    judge: str = flag(str(Path(__file__).parent / "tiny/teacher"),
        "VLM that judged claims and free answers in training")
    eval_judge: str = flag("", "another VLM that measures; empty: the same, and the table says what rests on it")
    temperature: float = flag(0.6, "sampling temperature (paper: 0.6)")
    max_new_tokens: int = flag(112, "a rollout is cut after this many tokens")
    limit: int = flag(0, "use only so many samples of each set, the first (0: all)")
    batch: int = flag(128, "samples at a time")
    pages: int = flag(20, "samples on the page, the most telling of each task first (0: no page)")
    group: int = flag(8, "rollouts of the first sampled model to each of them, as GRPO draws them (0: none)")
    curated: str = flag("", "folder of curate.py, whose yield the page shows; empty: not shown")
    seed: int = flag(0, "seed of sampling")


def check(cfg):
    """Refuse now, in one line, what would fail late or mix two things up."""
    asked = [parse_model(spec) for spec in cfg.models]
    for name, mode, folder in asked:
        namesakes = [(m, f) for n, m, f in asked if n == name]
        another_way = any(m != mode for m, _ in namesakes)  # one name is one way of asking
        twice = namesakes.count((mode, folder)) > 1         # and each of its folders is one seed
        if another_way or twice:
            raise BadInput(f"--models: {name} is asked in two ways, or twice the same; give each its own name")
    for name in ("batch", "max_new_tokens"):
        if getattr(cfg, name) < 1:
            raise BadInput(f"--{name} {getattr(cfg, name)}: must be at least 1")
    if cfg.pages < 0:
        raise BadInput(f"--pages {cfg.pages}: a number of samples; 0: no page")
    if cfg.group < 0 or cfg.group == 1:
        raise BadInput(f"--group {cfg.group}: an advantage compares at least 2 rollouts; 0: none")
    if cfg.curated:
        read_yield(Path(cfg.curated, "report.json"))
    check_foils(cfg.foils)
    if same_model(cfg.eval_judge, cfg.judge):
        raise BadInput(f"--eval_judge {cfg.eval_judge}: is the judge of training; name another, or none")
    if len({set_name(path) for path in cfg.data}) < len(cfg.data):
        raise BadInput("--data: two sets have one file name; rename one, or evaluate them into two --out")


def set_name(path):
    """The file's name, as it stands in tables and on the terminal."""
    return printable(Path(path).stem)


def read_set(path, cfg):
    return read_samples(path)[:cfg.limit or None]


# ---- 2. Asking ---------------------------------------------------------------------------------------------
SCORES = ("outcome", "judged", "grounding")
HEADINGS = "answers | as its judge scores them | R_vg"  # of SCORES, in every table
# How a model is asked -> which of the texts in policy.PROMPTS.
PROMPTS = {"sampled": "reason", "greedy": "reason", "direct": "direct", "overlay": "overlay"}


def load_measure(cfg):
    """The verifier with the teachers that were named, tried on a drawing -> verifier.watch.Measure.

    R_rq is no measure: it stays off.
    """
    judge = load_judge(cfg.judge, cfg.preset, dtype=cfg.dtype)
    base = getattr(judge, "policy", None)  # --pointer base: the judge points
    detector, segmenter, pointer = load_teachers(cfg.detector, cfg.segmenter, cfg.pointer,
                                                 cache=cfg.teacher_cache, base=base)

    def verifier(who_judges, *use):
        return Argos(detector, segmenter, pointer, who_judges, use=use, **verifier_options(cfg))

    if cfg.eval_judge:
        eval_judge = load_judge(cfg.eval_judge, cfg.preset, dtype=cfg.dtype)
        measure = Measure(verifier(judge, "outcome"), verifier(eval_judge, "outcome", "grounding"))
    else:
        measure = Measure(verifier(judge, "outcome", "grounding"))
    measure.verifier.self_check()
    return measure


def draw_overlays(policy, samples, media, cfg, pointer):
    """Coordinates drawn as curation does (steps 1 to 3), but the truth is not told. -> media to show."""
    items = []
    for sample, seen in zip(samples, media):
        items.append((seen, P.prompt(cfg.preset, "objects", question=sample.question, answer="", raw="")))
    longest = 48 if cfg.preset == "tiny" else 256
    replies = P.sample(policy, P.encode_prompts(policy, items), 1, greedy=True, max_new_tokens=longest).texts
    shown = []
    for seen, reply in zip(media, replies):
        points = point(seen, objects_of(read_extraction(reply)), pointer)
        shown.append(with_overlay(seen, overlaid(seen, points)))
    return shown


def ask(policy, samples, media, mode, cfg, pointer):
    """One response per sample -> texts, and whether each came to its end.

    mode: sampled, greedy, direct or overlay.
    """
    if mode == "overlay":
        media = draw_overlays(policy, samples, media, cfg, pointer)
    items = []
    for sample, seen in zip(samples, media):
        items.append((seen, P.prompt(cfg.preset, PROMPTS[mode], question=sample.question)))
    generator = torch.Generator(policy.device).manual_seed(cfg.seed)
    rollouts = P.sample(policy, P.encode_prompts(policy, items), 1, cfg.temperature, greedy=mode == "greedy",
                        max_new_tokens=cfg.max_new_tokens, generator=generator)
    texts = rollouts.texts
    if mode == "direct":
        texts = [f"<answer>{text}</answer>" for text in texts]
    return texts, rollouts.finished.tolist()


def run(cfg):
    """Ask every model everything; append to answers.jsonl; skip what is there.

    -> {(name, folder, set): {id of a sample: its row}}, and the Measure.
    """
    log = Path(cfg.out) / "answers.jsonl"
    logged = read_answers(log)
    unreadable = {}  # (set, id of a sample) -> row of unreadable.jsonl
    have = {}
    measure = load_measure(cfg)
    for spec in cfg.models:
        name, mode, folder = parse_model(spec)
        policy = None  # loaded when the first sample is asked
        for path in cfg.data:
            samples = read_set(path, cfg)
            stamp = stamp_of(cfg, mode, path, folder)
            answers = logged_answers(logged, name, folder, stamp, samples)
            have[name, folder, set_name(path)] = answers
            report = partial(note_unreadable, unreadable, set_name(path))
            starts = range(0, len(samples), cfg.batch)
            for start in tqdm(starts, desc=f"{name} on {set_name(path)}", unit="batch"):
                batch = samples[start:start + cfg.batch]
                if all(sample.id in answers for sample in batch):
                    continue
                batch, media = measure.verifier.usable(batch, report)  # damaged files are named and left out
                if all(sample.id in answers for sample in batch):
                    continue
                if policy is None:
                    policy = P.load_policy(folder, dtype=cfg.dtype)
                # A batch of which some are answered is asked again whole: so the others draw the random numbers
                # that they would have drawn. Their rows are written together, so that a stop rarely parts them.
                texts, finished = ask(policy, batch, media, mode, cfg, measure.verifier.pointer)
                measured = measure.score(batch, texts, media)
                new = []
                for sample, text, ended, one in zip(batch, texts, finished, measured):
                    if sample.id in answers:
                        continue
                    no_answer = one.verdict.parsed.answer is None
                    row = dict(model=name, folder=folder, set=set_name(path), id=sample.id, task=sample.task,
                               source=sample.source, kind=sample.kind, outcome=one.outcome, judged=one.judged,
                               grounding=grounding_of(one.verdict, sample), malformed=no_answer,
                               unfinished=not ended, response=text, stamp=stamp)
                    new.append(row)
                append_jsonl(log, *new)
                answers.update((row["id"], row) for row in new)
    write_unreadable(Path(cfg.out) / "unreadable.jsonl", unreadable)
    return have, measure


def note_unreadable(unreadable, dataset, sample, error):
    unreadable[dataset, sample.id] = dict(set=dataset, id=sample.id, path=sample.path, why=str(error))


def write_unreadable(path, unreadable):
    """What this run could not read; an older list goes, as its files may have been mended."""
    if unreadable or path.exists():
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in unreadable.values()))


def grounding_of(verdict, sample):
    """R_vg counts where the sample calls for it, whoever answers."""
    return verdict.grounding if sample.grounding else None


def stamp_of(cfg, mode, path, folder):
    """An answer counts again only if all this is the same: the weights, and how they were asked and scored."""
    asked = [mode, cfg.temperature, cfg.max_new_tokens, cfg.seed, cfg.batch, cfg.preset]
    seen = [str(path), file_stamp(path), cfg.dtype, *pixel_budget(cfg).values()]
    judged = [cfg.foils, cfg.extract]
    for judge in (cfg.judge, cfg.eval_judge):
        judged += [str(judge), weights_stamp(judge) if judge else 0]
    return asked + seen + judged + [cfg.detector, cfg.segmenter, cfg.pointer, weights_stamp(folder)]


TEXTS = ("model", "folder", "set", "id", "task", "source", "kind", "response")  # of a row of answers.jsonl


def read_answers(log):
    """The rows of answers.jsonl; none where there is none. A row that was damaged does not count, nor one that
    benchmarks/run.py has written there."""
    if not log.exists():
        return []
    return [row for _, row in read_jsonl(log, torn=True) if is_whole(row)]


def is_whole(row):
    """Is this a row as `run` writes it?"""
    texts = all(isinstance(row.get(name), str) for name in TEXTS)
    scores = all(is_score(row.get(name, "missing")) for name in SCORES)
    flags = all(isinstance(row.get(name), bool) for name in ("malformed", "unfinished"))
    return texts and scores and flags and "stamp" in row


def logged_answers(logged, name, folder, stamp, samples):
    """What answers.jsonl holds of these samples -> {id: row}; none where a teacher failed: ask again."""
    ids = {sample.id for sample in samples}
    answers = {}
    for row in logged:
        same = row["model"] == name and row["folder"] == folder and row["stamp"] == stamp
        if same and row["id"] in ids and row["outcome"] is not None and row["judged"] is not None:
            answers[row["id"]] = row
    return answers


# ---- 3. Numbers --------------------------------------------------------------------------------------------
def majority(samples):
    """Accuracy of always giving the most frequent answer of each task: the floor to compare with.

    Answers a, a, b of one task and c of another: 3 of 4 are right.
    """
    answers = defaultdict(Counter)
    for sample in samples:
        answers[sample.task][sample.answer] += 1
    return sum(counts.most_common(1)[0][1] for counts in answers.values()) / len(samples)


def score_tables(cfg, have):
    """-> {name of a set: lines of its table of scores}"""
    names = model_names(cfg.models)
    found = {}
    for path in cfg.data:
        found[set_name(path)] = score_table(have, names, set_name(path), len(read_set(path, cfg)))
    return found


def tables(cfg, have, measure, scores):
    """Markdown: per set the scores, seed by seed, by source and by task, and paired differences of models.

    scores: of score_tables.
    """
    names = model_names(cfg.models)
    lines = []
    for path in cfg.data:
        dataset = set_name(path)
        samples = read_set(path, cfg)
        lines += [f"## {dataset}: {len(samples)} samples, per-task majority {majority(samples):.3f}", ""]
        judge = "/".join(Path(cfg.judge).parts[-2:])
        asked = f"Judge {judge}, foils {cfg.foils}; temperature {cfg.temperature:g}."
        lines += [f"{asked} {measure.remark(samples)}", ""]
        lines += scores[dataset]
        lines += seed_table(have, names, dataset)
        lines += hacked_table(have, names, dataset)
        lines += group_table(have, names, dataset, samples, "source")
        lines += group_table(have, names, dataset, samples, "task")
        lines += group_table(have, names, dataset, samples, "source", ("malformed", "unfinished"),
                             "share without an answer / unfinished")
        lines += difference_table(have, names, dataset)
        lines.append("")
    return "\n".join(lines)


def model_names(specs, but=()):
    """The names of models, each once, in the order of the command line. but: modes to leave out."""
    names = []
    for spec in specs:
        name, mode, _ = parse_model(spec)
        if mode not in but and name not in names:
            names.append(name)
    return names


def score_table(have, names, dataset, n_samples):
    lines = [f"| model | seeds | {HEADINGS} |", "|---|---|---|---|---|"]
    for name in names:
        answers, _, seeds = by_item(have, name, dataset, "outcome")
        missing = n_samples - answers.shape[1]
        label = f"{name} ({missing} not scored)" if missing else name
        cells = [cell(by_item(have, name, dataset, score)[0]) for score in SCORES]
        lines.append(f"| {label} | {seeds} | {' | '.join(cells)} |")
    return lines


def seed_table(have, names, dataset):
    """The means of every seed; nothing where no model has several."""
    seeds = [by_item(have, name, dataset, "outcome")[2] for name in names]
    if max(seeds) < 2:
        return []
    lines = ["", f"| seed by seed | {HEADINGS} |", "|---|---|---|---|"]
    for name in names:
        cells = []
        for score in SCORES:
            values, _, _ = by_item(have, name, dataset, score)  # (seeds, items)
            cells.append(", ".join(f"{value:.3f}" for value in values.mean(1)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def group_table(have, names, dataset, samples, key, scores=("outcome", "grounding"), title="answers / R_vg"):
    """Means of two scores by source or by task (key); nothing where there is only one group."""
    groups = sorted({getattr(sample, key) for sample in samples})
    if len(groups) < 2:
        return []
    lines = ["", f"{title} by {key}", "", "| model | " + " | ".join(map(printable, groups)) + " |",
             "|---" * (len(groups) + 1) + "|"]
    for name in names:
        columns = [by_item(have, name, dataset, score) for score in scores]
        cells = []
        for group in groups:
            cells.append(" / ".join(group_mean(values, rows, key, group) for values, rows, _ in columns))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def group_mean(values, rows, key, group):
    """The mean of a group's items as text, "-" if it has none. values: (seeds, items); rows: one per item."""
    chosen = values[:, [row[key] == group for row in rows]]
    return f"{chosen.mean():.2f}" if chosen.size else "-"


def hacked_table(have, names, dataset):
    """How many answers the judge accepts and the measure does not, seed by seed."""
    lines = ["", "| accepted by the judge alone | answers, seed by seed |", "|---|---|"]
    for name in names:
        answers, _, _ = by_item(have, name, dataset, "outcome")  # (seeds, items)
        judged, _, _ = by_item(have, name, dataset, "judged")    # (seeds, items)
        counts = (judged > answers).sum(axis=1)
        lines.append(f"| {name} | {', '.join(str(count) for count in counts)} |")
    return lines


def difference_table(have, names, dataset):
    if len(names) < 2:
        return []
    lines = ["", f"| paired difference | {HEADINGS} |", "|---|---|---|---|"]
    for i, later in enumerate(names):
        for earlier in names[:i]:
            cells = [cell(difference(have, later, earlier, dataset, score)) for score in SCORES]
            lines.append(f"| {later} - {earlier} | {' | '.join(cells)} |")
    return lines


# ---- 4. The page -------------------------------------------------------------------------------------------
def telling(answers):
    """The ids that all models answered, first those on which they disagree most, in grounding before answers.

    answers: {name of a model: {id: row}}.
    """
    models = list(answers.values())
    shared = set(models[0])
    for rows in models[1:]:
        shared &= set(rows)

    def rank(i):
        grounding = [rows[i]["grounding"] or 0 for rows in models]
        outcomes = [rows[i]["outcome"] for rows in models]
        disagreement = np.ptp(grounding) + .5 * np.ptp(outcomes)  # largest less smallest
        return -disagreement, i
    return sorted(shared, key=rank)


def one_of_each(ids, samples):
    """The ids in turns: the first of each task, then the second of each, and so on. samples: {id: Sample}."""
    seen = Counter()
    turns = []
    for i in ids:
        task = samples[i].task
        turns.append((seen[task], i))
        seen[task] += 1
    return [i for _, i in sorted(turns, key=lambda turn: turn[0])]


GATE_AJAR = 1e-9  # tau for verdicts whose gate the page turns: R_rq of whatever is not wholly wrong is computed


def make_page(cfg, have, measure, curves, scores, path):
    """Write the page: curves, tables, curation's yield, and the most telling samples of the first set, each with
    every model's answer and a group of rollouts. scores: of score_tables."""
    shown = [table(f"{dataset}: mean [95 % interval]", lines) for dataset, lines in scores.items()]
    curation = read_yield(Path(cfg.curated, "report.json")) if cfg.curated else None
    rewarding = replace(measure.rewarding, use=("outcome", "grounding", "reasoning"), tau=GATE_AJAR)
    questions = telling_questions(cfg, have, measure, rewarding)
    about = ("Every question was put to each model once. Under their answers stands a group: many rollouts of one "
             "policy, as GRPO samples them at every step. A reward R says how good a rollout is; but only how far "
             "it lies above or below its own group, its advantage A, moves the weights.")
    write_page(path, "Argos, rollout by rollout", about, Weights(), Argos.tau, questions, curves, shown,
               curation)


def telling_questions(cfg, have, measure, rewarding):
    """-> the questions of the page, as verifier.page.question makes them."""
    names = model_names(cfg.models, but=("direct",))  # they never point
    if not names:
        return []
    dataset = set_name(cfg.data[0])
    samples = {sample.id: sample for sample in read_set(cfg.data[0], cfg)}
    answers = {}
    for name in names:
        _, rows, _ = by_item(have, name, dataset, "outcome")
        answers[name] = {row["id"]: row for row in rows}
    chosen = [samples[i] for i in one_of_each(telling(answers), samples)[:cfg.pages]]
    chosen, media = measure.verifier.usable(chosen)
    who, groups = sample_groups(cfg, chosen, media)

    questions = []
    for sample, seen in tqdm(list(zip(chosen, media)), desc="write page", unit="sample"):
        asked = [(name, [answers[name][sample.id]["response"]]) for name in names]
        asked.append((who, groups.get(sample.id, [])))
        *of_models, group = rollouts(sample, seen, asked, measure, rewarding)
        single = [found[0] for found in of_models]
        questions.append(question(sample, seen, single, group))
    return questions


def rollouts(sample, media, asked, measure, rewarding):
    """Verify responses to one sample -> for each name a list of verifier.page.Rollouts.

    asked: [(name of a model, its responses, which are verified as one group)].
    """
    groups = [responses for _, responses in asked]
    verdicts = rewarding.verify_groups([sample] * len(groups), groups, [media] * len(groups))
    texts = [text for responses in groups for text in responses]
    measured = iter(measure.score([sample] * len(texts), texts, [media] * len(texts)))
    return [[Rollout(name, text, verdict, next(measured).outcome) for text, verdict in zip(responses, of_group)]
            for (name, responses), of_group in zip(asked, verdicts)]


def sample_groups(cfg, samples, media):
    """Groups of rollouts at temperature 1, as train_grpo.py samples them, of the first model that is sampled, not
    greedy: the one that RL starts from, where models are named in the order in which they were made.

    -> its name, {id of a sample: responses}. Kept in groups.jsonl; what is there is not sampled again.
    """
    sampled = [(name, folder) for name, mode, folder in map(parse_model, cfg.models) if mode == "sampled"]
    if not sampled or not cfg.group or not samples:
        return "", {}
    name, folder = sampled[0]
    log = Path(cfg.out) / "groups.jsonl"
    ids = [sample.id for sample in samples]
    stamp = [*stamp_of(cfg, "sampled", cfg.data[0], folder), cfg.group, ids]
    for _, row in read_jsonl(log, torn=True) if log.exists() else []:
        if row.get("stamp") == stamp and is_groups(row.get("groups"), ids, cfg.group):
            return name, row["groups"]

    policy = P.load_policy(folder, dtype=cfg.dtype)
    generator = torch.Generator(policy.device).manual_seed(cfg.seed)
    at_once = max(1, cfg.batch // cfg.group)
    groups = {}
    for start in range(0, len(samples), at_once):
        batch = samples[start:start + at_once]
        items = []
        for sample, seen in zip(batch, media[start:start + at_once]):
            items.append((seen, P.prompt(cfg.preset, "reason", question=sample.question)))
        texts = P.sample(policy, P.encode_prompts(policy, items), cfg.group, 1.,
                         max_new_tokens=cfg.max_new_tokens, generator=generator).texts
        for i, sample in enumerate(batch):
            groups[sample.id] = texts[i * cfg.group:(i + 1) * cfg.group]
    append_jsonl(log, dict(model=name, stamp=stamp, groups=groups))
    return name, groups


def is_groups(groups, ids, size):
    """Is this what a row of groups.jsonl holds: for each of these ids so many texts?"""
    if not isinstance(groups, dict) or set(groups) != set(ids):
        return False
    return all(isinstance(texts, list) and len(texts) == size and all(isinstance(text, str) for text in texts)
               for texts in groups.values())


# ---- 5. The whole ------------------------------------------------------------------------------------------
def read_training_curves(cfg):
    """Figure 4 from the logs of training runs -> {name: [Curve, one for each seed]}."""
    curves = defaultdict(list)
    for spec in cfg.curves:
        name, _, folder = parse_model(spec)
        curves[name].append(read_curve(folder))
    return dict(curves)


def evaluate_models(cfg, out, curves_of_training):
    """Ask, then write the table, the curves of checkpoints, and the page."""
    have, measure = run(cfg)
    scores = score_tables(cfg, have)
    text = tables(cfg, have, measure, scores)
    write_atomically(out / "table.md", text)
    print(text)
    if measure.failures:
        failures = ", ".join(f"{count} x {what}" for what, count in measure.failures.items())
        warn(f"failures: {failures}")
    of_checkpoints = {set_name(path): checkpoints(have, set_name(path)) for path in cfg.data}
    for dataset, curves in of_checkpoints.items():
        if curves:
            draw_curves(curves, out / f"curves-{dataset}.png")
    written = f"{out}/table.md, {out}/answers.jsonl"
    if cfg.pages:
        curves = curves_of_training or of_checkpoints[set_name(cfg.data[0])]
        make_page(cfg, have, measure, curves, scores, out / "page.html")
        written += f", {out}/page.html"
    print(f"wrote {written}")
    for path in cfg.data:
        if not any(answers for (_, _, dataset), answers in have.items() if dataset == set_name(path)):
            raise BadInput(f"{path}: nothing of it could be asked; {out}/unreadable.jsonl says why, file by file")


def main():
    if any(word.partition("=")[0] == "--benchmark" for word in sys.argv[1:]):
        return paper_benchmarks.main()
    cfg = parse_config(Config, __doc__, preset_arguments("evaluate", Config))
    check(cfg)
    follow_budget(cfg, *[folder for _, _, folder in map(parse_model, cfg.models)])
    out = Path(cfg.out)
    if not cfg.models and not cfg.curves:
        raise BadInput("nothing to do: give --models name=folder ..., or --curves name=training-folder ...")
    with alone(out):
        curves = read_training_curves(cfg)
        if curves:
            draw_curves(curves, out / "curves.png")
            print(f"wrote {out}/curves.png")
        if cfg.models:
            evaluate_models(cfg, out, curves)


if __name__ == "__main__":
    run_main(main)
