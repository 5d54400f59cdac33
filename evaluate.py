"""Evaluation: answers and visual grounding of any checkpoints side by side, with intervals, curves and the rollouts themselves.

The paper's figure 4 asks two questions of a checkpoint on held-out samples: is the answer right, and is what the reasoning
points at really there? Both are Argos's own scores (R_o and R_vg; R_rq is a training signal, not a measure). Every number
comes with a 95 % bootstrap interval over items, and over seeds too where a model was trained with several; differences are
paired, item by item (and seed by seed).

    python evaluate.py --models base:direct=tiny/base sft=out/sft/merged argos=out/grpo-argos/merged \\
        outcome=out/grpo-outcome/merged --data out/data/val.jsonl --out out/eval
    python evaluate.py --curves argos=out/grpo-argos outcome=out/grpo-outcome --out out/eval     # figure 4 from the logs
    python evaluate.py --benchmark all --data DIR --model DIR         # the paper's tables: benchmarks/run.py, with flags of its own

A model is `name=folder`; `name:direct=folder` asks for a short answer without reasoning, `name:greedy=folder` decodes greedily,
`name:overlay=folder` draws coordinates as curation does. One name given several times is one model with several seeds. Names that
end in a step (`argos@20=... argos@40=...`) are checkpoints of one run: they give figure 4, too.

What is simplified: one rollout a sample at temperature 1 (the policy as RL trains it; the paper evaluates at 0.6).
Writes: answers.jsonl (append-only; what is there is not asked again), table.md, curves.png (curves-SET.png of checkpoints), page/index.html.
A model asked `:direct` is never asked to point: its R_vg is 0 by construction.
Before: train_grpo.py. Next: benchmarks/run.py (the paper's benchmarks), README.md (what came out)
"""
import html
import math
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

import argos
import policy as P
import scale
import teachers


@dataclass
class Config(scale.TeacherSettings):
    models: list[str] = field(default_factory=list, metadata={"help": "name=folder ..., name:direct=, name:greedy=, name:overlay="})
    data: list[str] = field(default_factory=lambda: ["out/data/val.jsonl"], metadata={"help": "held-out sets, JSONL"})
    curves: list[str] = field(default_factory=list, metadata={"help": "name=training folder ...: learning curves from metrics.jsonl"})
    out: str = field(default="out/eval", metadata={"help": "folder to write"})
    judge: str = field(default=str(Path(__file__).parent / "tiny/teacher"), metadata={"help": "VLM that judges claims and free-text answers"})
    temperature: float = field(default=1.0, metadata={"help": "sampling temperature"})
    max_new_tokens: int = field(default=112, metadata={"help": "a rollout is cut here"})
    limit: int = field(default=0, metadata={"help": "use the first so many samples of each set (0: all)"})
    batch: int = field(default=128, metadata={"help": "samples at a time"})
    pages: int = field(default=12, metadata={"help": "telling rollouts to draw on the page"})
    seed: int = field(default=0, metadata={"help": "seed of sampling and bootstrap"})


# ---- 1. Asking ------------------------------------------------------------------------------------------------------------
def parse_model(spec, modes=("direct", "greedy", "overlay")):
    """"name:mode=folder" -> (name, mode, folder)."""
    name, _, folder = spec.partition("=")
    name, _, mode = name.partition(":")
    if not name or not folder or mode not in ("", *modes):
        raise argos.BadInput(f"--models {spec}: write name=folder, with :{', :'.join(modes)} after the name if wanted")
    return name, mode or "sampled", folder


def weights_stamp(folder):
    """What changes when the weights do: the latest time that a part of them was written."""
    return max((file.stat().st_mtime_ns for file in Path(folder).glob("*.safetensors")), default=0)


def load_verifier(cfg):
    """The verifier with the teachers that were asked for, tried on a drawing. Reasoning quality is no measure: it stays off."""
    judge = teachers.load_judge(cfg.judge, cfg.preset, dtype=cfg.dtype)
    detector, segmenter, pointer = teachers.load_teachers(cfg.detector, cfg.segmenter, cfg.pointer, cache=cfg.teacher_cache,
                                                          base=getattr(judge, "policy", None))
    verifier = argos.Argos(detector, segmenter, pointer, judge, use=("outcome", "grounding"), **scale.verifier_options(cfg))
    verifier.self_check()
    return verifier


def ask(actor, samples, media, mode, cfg, pointer):
    """One response per sample."""
    if mode == "overlay":
        from curate import overlaid, read_extraction
        lists = P.sample(actor, P.encode_prompts(actor, [(m, P.prompt(cfg.preset, "objects", question=s.question, answer="", raw=""))
                                                         for m, s in zip(media, samples)]), 1, greedy=True, max_new_tokens=48 if cfg.preset == "tiny" else 256)
        found = [(read_extraction(t) or {"objects": []})["objects"] for t in lists.texts]
        drawn = [overlaid(m, objects, pointer) for m, objects in zip(media, found)]
        media = [d if len(d.frames) > 1 else [m, d] for m, d in zip(media, drawn)]
    key = {"direct": "direct", "overlay": "overlay"}.get(mode, "reason")
    prompts = P.encode_prompts(actor, [(m, P.prompt(cfg.preset, key, question=s.question)) for m, s in zip(media, samples)])
    texts = P.sample(actor, prompts, 1, cfg.temperature, max_new_tokens=cfg.max_new_tokens, greedy=mode == "greedy",
                     generator=torch.Generator(actor.device).manual_seed(cfg.seed)).texts
    return [f"<answer>{t}</answer>" if mode == "direct" else t for t in texts]


def run(cfg):
    """Ask every model everything; append to answers.jsonl; skip what is there."""
    log = Path(cfg.out) / "answers.jsonl"
    logged = [row for _, row in argos.read_jsonl(log, torn=True)] if log.exists() else []
    have, verifier = defaultdict(dict), load_verifier(cfg)
    for spec in cfg.models:
        name, mode, folder = parse_model(spec)
        actor = None
        for path in cfg.data:
            samples = argos.read_samples(path)[:cfg.limit or None]
            # answers count again only for the same weights, asked in the same way
            stamp = [mode, cfg.temperature, cfg.max_new_tokens, cfg.seed, cfg.batch, cfg.preset, str(cfg.judge), str(path),
                     cfg.dtype, *scale.budget(cfg).values(), cfg.detector, cfg.segmenter, cfg.pointer, weights_stamp(folder)]
            ids = {s.id for s in samples}
            seen = have[name, folder, Path(path).stem]
            seen |= {r["id"]: r for r in logged if r["model"] == name and r["folder"] == folder and r["stamp"] == stamp
                     and r["id"] in ids and r["outcome"] is not None}  # None: a teacher failed, so ask again
            for start in tqdm(range(0, len(samples), cfg.batch), desc=f"{name} on {Path(path).stem}", unit="batch"):
                part = samples[start:start + cfg.batch]
                if all(s.id in seen for s in part):
                    continue
                actor = actor or P.load_policy(folder, dtype=cfg.dtype)
                part, media = verifier.usable(part)  # damaged files are named and left out
                if not part:
                    continue
                texts = ask(actor, part, media, mode, cfg, verifier.pointer)
                for sample, text, (verdict,) in zip(part, texts, verifier.verify_groups(part, [[text] for text in texts], media)):
                    row = dict(model=name, folder=folder, set=Path(path).stem, id=sample.id, task=sample.task, source=sample.source,
                               kind=sample.kind, outcome=verdict.outcome, grounding=verdict.grounding if sample.grounding else None,
                               response=text, stamp=stamp)  # grounding counts where the sample calls for it, whoever answers
                    argos.append_jsonl(log, row)
                    seen[sample.id] = row
    return have, verifier


# ---- 2. Numbers -----------------------------------------------------------------------------------------------------------
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


def by_item(have, name, dataset, score):
    """(seeds, items) scores of a model, items that have this score in a fixed order; the items' rows; how many seeds."""
    runs = [rows for (n, _, d), rows in have.items() if n == name and d == dataset and rows]
    ids = sorted(i for i in set.intersection(*(set(r) for r in runs)) if all(r[i][score] is not None for r in runs))
    return np.array([[r[i][score] for i in ids] for r in runs]), [runs[0][i] for i in ids], len(runs)


def cell(values):
    if not values.size:
        return "-"
    mean, low, high = interval(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def difference(have, a, b, dataset, score):
    """Model a less model b, paired over the items that both have, and over seeds where both have as many: (seeds, items)."""
    (a, of_a, _), (b, of_b, _) = (by_item(have, name, dataset, score) for name in (a, b))
    of_a, of_b = [r["id"] for r in of_a], [r["id"] for r in of_b]
    both = sorted(set(of_a) & set(of_b))
    a, b = a[:, [of_a.index(i) for i in both]], b[:, [of_b.index(i) for i in both]]
    return a - b if len(a) == len(b) or 1 in (len(a), len(b)) else a.mean(0, keepdims=True) - b.mean(0, keepdims=True)


def majority(samples):
    """Accuracy of always giving the most frequent answer of each task: the floor to compare with."""
    groups = defaultdict(list)
    for s in samples:
        groups[s.task].append(s.answer)
    return sum(Counter(g).most_common(1)[0][1] for g in groups.values()) / len(samples)


def tables(cfg, have):
    """Markdown: per set, per source, per task; then paired differences between every two models."""
    names = list(dict.fromkeys(parse_model(m)[0] for m in cfg.models))
    lines = []
    for path in cfg.data:
        dataset, samples = Path(path).stem, argos.read_samples(path)[:cfg.limit or None]
        lines += [f"## {dataset}: {len(samples)} samples, per-task majority {majority(samples):.3f}", "",
                  "| model | seeds | answers | R_vg |", "|---|---|---|---|"]
        for name in names:
            answers, _, seeds = by_item(have, name, dataset, "outcome")
            grounding, _, _ = by_item(have, name, dataset, "grounding")
            missing = len(samples) - answers.shape[1]
            lines.append(f"| {name}{f' ({missing} not scored)' * bool(missing)} | {seeds} | {cell(answers)} | {cell(grounding)} |")
        if any(len(by_item(have, name, dataset, "outcome")[0]) > 1 for name in names):
            lines += ["", "| seed by seed | answers | R_vg |", "|---|---|---|"]
            for name in names:
                each = [", ".join(f"{v:.3f}" for v in by_item(have, name, dataset, s)[0].mean(1)) for s in ("outcome", "grounding")]
                lines.append(f"| {name} | {each[0]} | {each[1]} |")
        for key in ("source", "task"):
            groups = sorted({getattr(s, key) for s in samples})
            if len(groups) < 2:
                continue
            lines += ["", f"answers / R_vg by {key}", "", "| model | " + " | ".join(groups) + " |", "|---" * (len(groups) + 1) + "|"]
            for name in names:
                answers, rows, _ = by_item(have, name, dataset, "outcome")
                grounding, pointed, _ = by_item(have, name, dataset, "grounding")
                mean = lambda values, rows, g: f"{picked.mean():.2f}" if (picked := values[:, [r[key] == g for r in rows]]).size else "-"
                lines.append(f"| {name} | " + " | ".join(f"{mean(answers, rows, g)} / {mean(grounding, pointed, g)}" for g in groups) + " |")
        if len(names) > 1:
            lines += ["", "| paired difference | answers | R_vg |", "|---|---|---|"]
            for i, a in enumerate(names):
                for b in names[:i]:
                    d = [difference(have, a, b, dataset, s) for s in ("outcome", "grounding")]
                    lines.append(f"| {a} - {b} | {cell(d[0])} | {cell(d[1])} |")
        lines.append("")
    return "\n".join(lines)


# ---- 3. Pictures ----------------------------------------------------------------------------------------------------------
COLORS = {"argos": "#1a7f5a", "outcome": "#c0392b", "no-vg": "#d68910", "no-rq": "#2471a3"}


def read_curve(folder):
    """Held-out evaluations of a run -> steps, answers, grounding. A step logged twice (after --resume) counts once."""
    points = {row["step"]: row for _, row in argos.read_jsonl(Path(folder) / "metrics.jsonl", torn=True) if row.get("kind") == "eval"}
    steps = sorted(points)
    return steps, *([math.nan if points[s][k] is None else points[s][k] for s in steps] for k in ("answers", "grounding"))


def checkpoints(have, dataset):
    """Models named "run@step" -> {run: [(steps, answers, grounding)]}, as draw_curves takes them; several seeds: their mean."""
    points = defaultdict(list)
    for label in {name for (name, _, d), rows in have.items() if d == dataset and rows}:
        run, _, step = label.rpartition("@")
        if run and step.isdigit():
            scores = [by_item(have, label, dataset, score)[0] for score in ("outcome", "grounding")]
            points[run].append((int(step), *(values.mean() if values.size else math.nan for values in scores)))
    return {run: [tuple(zip(*sorted(curve)))] for run, curve in points.items()}


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
    argos.save_figure(figure, path)
    plt.close(figure)


def telling(have, names, dataset):
    """Samples on which the models disagree most in grounding, then in answers: what a person should look at first."""
    tables = {n: {r["id"]: r for r in by_item(have, n, dataset, "outcome")[1]} for n in names}
    ids = set.intersection(*(set(t) for t in tables.values()))
    spread = lambda i: np.ptp([t[i]["grounding"] or 0 for t in tables.values()]) + .5 * np.ptp([t[i]["outcome"] for t in tables.values()])
    return sorted(ids, key=lambda i: (-spread(i), i)), tables


def draw_page(cfg, have, verifier):
    """page/index.html: the most telling samples, one row each, one verification card per model."""
    names = list(dict.fromkeys(name for name, mode, _ in map(parse_model, cfg.models) if mode != "direct"))
    if not names:
        return
    folder = Path(cfg.out) / "page"
    folder.mkdir(parents=True, exist_ok=True)
    path = cfg.data[0]
    dataset, samples = Path(path).stem, {s.id: s for s in argos.read_samples(path)}
    order, tables = telling(have, names, dataset)
    rows = []
    for i in tqdm(order[:cfg.pages], desc="draw page", unit="sample"):
        cells = []
        for name in names:
            row, card = tables[name][i], argos.file_name(f"{i}-{name}.png")
            media = verifier.load(samples[i])
            verdict = verifier.verify(samples[i], row["response"], media)
            argos.draw_card(media, samples[i], row["response"], verdict, verdict.masks, folder / card)
            cells.append(f"<td><b>{html.escape(name)}</b><br><img src='{html.escape(card)}' width='560'></td>")
        rows.append(f"<tr><td colspan='{len(names)}'><h3>{html.escape(samples[i].question)} &rarr; "
                    f"{html.escape(samples[i].answer)}</h3></td></tr><tr>{''.join(cells)}</tr>")
    argos.write_atomically(folder / "index.html", "<!doctype html><meta charset='utf-8'><title>Argos: telling rollouts</title>"
                           "<body style='font-family:sans-serif'><h1>Where the models differ most</h1>"
                           f"<table>{''.join(rows)}</table>")


def main():
    if any(word.partition("=")[0] == "--benchmark" for word in sys.argv[1:]):
        from benchmarks import run as paper
        return paper.main()
    cfg = argos.parse_config(Config, __doc__, scale.preset_arguments("evaluate", Config))
    asked = [parse_model(spec) for spec in cfg.models]  # a typo in the last one is told before the first is asked
    for name, mode, folder in asked:
        if any(n == name and (m != mode or f == folder) for n, m, f in asked if (n, m, f) != (name, mode, folder)) or asked.count(
                (name, mode, folder)) > 1:
            raise argos.BadInput(f"--models: {name} is asked in two ways, or twice the same; give each its own name")
    if len({Path(path).stem for path in cfg.data}) < len(cfg.data):
        raise argos.BadInput("--data: two sets have one file name; rename one, or evaluate them into two --out")
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    if not cfg.models and not cfg.curves:
        raise argos.BadInput("nothing to do: give --models name=folder ..., or --curves name=training-folder ...")
    if cfg.curves:
        runs = defaultdict(list)
        for name, _, folder in map(parse_model, cfg.curves):
            runs[name].append(read_curve(folder))
        draw_curves(runs, out / "curves.png")
        print(f"wrote {out}/curves.png")
    if cfg.models:
        have, verifier = run(cfg)
        text = tables(cfg, have)
        argos.write_atomically(out / "table.md", text)
        print(text)
        if verifier.failures:
            print("failures: " + ", ".join(f"{n} x {what}" for what, n in verifier.failures.items()), file=sys.stderr)
        for dataset in [Path(path).stem for path in cfg.data]:
            if curves := checkpoints(have, dataset):
                draw_curves(curves, out / f"curves-{dataset}.png")
        if cfg.pages:
            draw_page(cfg, have, verifier)
        print(f"wrote {out}/table.md, {out}/answers.jsonl" + (f", {out}/page/index.html" if cfg.pages else ""))


if __name__ == "__main__":
    argos.run_main(main)
