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
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from runs.curves import draw_curves, read_curve
from runs.statistics import by_item, cell, checkpoints, difference
from runs.errors import BadInput, run_main
from runs.files import append_jsonl, file_name, read_jsonl, weights_stamp, write_atomically
from runs.settings import TeacherSettings, parse_config, parse_model, pixel_budget, preset_arguments, verifier_options
from teachers.names import load_judge, load_teachers
from verifier.cards import draw_card
from verifier.samples import read_samples
import argos
import policy as P


@dataclass
class Config(TeacherSettings):
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
def load_verifier(cfg):
    """The verifier with the teachers that were asked for, tried on a drawing. Reasoning quality is no measure: it stays off."""
    judge = load_judge(cfg.judge, cfg.preset, dtype=cfg.dtype)
    detector, segmenter, pointer = load_teachers(cfg.detector, cfg.segmenter, cfg.pointer, cache=cfg.teacher_cache,
                                                          base=getattr(judge, "policy", None))
    verifier = argos.Argos(detector, segmenter, pointer, judge, use=("outcome", "grounding"), **verifier_options(cfg))
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
    logged = [row for _, row in read_jsonl(log, torn=True)] if log.exists() else []
    have, verifier = defaultdict(dict), load_verifier(cfg)
    for spec in cfg.models:
        name, mode, folder = parse_model(spec)
        actor = None
        for path in cfg.data:
            samples = read_samples(path)[:cfg.limit or None]
            # answers count again only for the same weights, asked in the same way
            stamp = [mode, cfg.temperature, cfg.max_new_tokens, cfg.seed, cfg.batch, cfg.preset, str(cfg.judge), str(path),
                     cfg.dtype, *pixel_budget(cfg).values(), cfg.detector, cfg.segmenter, cfg.pointer, weights_stamp(folder)]
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
                    append_jsonl(log, row)
                    seen[sample.id] = row
    return have, verifier


# ---- 2. Numbers -----------------------------------------------------------------------------------------------------------
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
        dataset, samples = Path(path).stem, read_samples(path)[:cfg.limit or None]
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
    dataset, samples = Path(path).stem, {s.id: s for s in read_samples(path)}
    order, tables = telling(have, names, dataset)
    rows = []
    for i in tqdm(order[:cfg.pages], desc="draw page", unit="sample"):
        cells = []
        for name in names:
            row, card = tables[name][i], file_name(f"{i}-{name}.png")
            media = verifier.load(samples[i])
            verdict = verifier.verify(samples[i], row["response"], media)
            draw_card(media, samples[i], row["response"], verdict, verdict.masks, folder / card)
            cells.append(f"<td><b>{html.escape(name)}</b><br><img src='{html.escape(card)}' width='560'></td>")
        rows.append(f"<tr><td colspan='{len(names)}'><h3>{html.escape(samples[i].question)} &rarr; "
                    f"{html.escape(samples[i].answer)}</h3></td></tr><tr>{''.join(cells)}</tr>")
    write_atomically(folder / "index.html", "<!doctype html><meta charset='utf-8'><title>Argos: telling rollouts</title>"
                           "<body style='font-family:sans-serif'><h1>Where the models differ most</h1>"
                           f"<table>{''.join(rows)}</table>")


def main():
    if any(word.partition("=")[0] == "--benchmark" for word in sys.argv[1:]):
        from benchmarks import run as paper
        return paper.main()
    cfg = parse_config(Config, __doc__, preset_arguments("evaluate", Config))
    asked = [parse_model(spec) for spec in cfg.models]  # a typo in the last one is told before the first is asked
    for name, mode, folder in asked:
        if any(n == name and (m != mode or f == folder) for n, m, f in asked if (n, m, f) != (name, mode, folder)) or asked.count(
                (name, mode, folder)) > 1:
            raise BadInput(f"--models: {name} is asked in two ways, or twice the same; give each its own name")
    if len({Path(path).stem for path in cfg.data}) < len(cfg.data):
        raise BadInput("--data: two sets have one file name; rename one, or evaluate them into two --out")
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    if not cfg.models and not cfg.curves:
        raise BadInput("nothing to do: give --models name=folder ..., or --curves name=training-folder ...")
    if cfg.curves:
        runs = defaultdict(list)
        for name, _, folder in map(parse_model, cfg.curves):
            runs[name].append(read_curve(folder))
        draw_curves(runs, out / "curves.png")
        print(f"wrote {out}/curves.png")
    if cfg.models:
        have, verifier = run(cfg)
        text = tables(cfg, have)
        write_atomically(out / "table.md", text)
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
    run_main(main)
