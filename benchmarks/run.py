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
--limit an answer is another draw from the same distribution (rows of a batch share random numbers); greedy ones stay, up to rounding.

What is simplified: one answer a question; no majority vote. One process: start one for each GPU on other benchmarks, with other --out.
Reads:  DIR/<name>. Writes, under --out: answers.jsonl (append-only; what is there is not asked again), left_out.jsonl (what could not be
asked, and why), table.md, table.csv, bars.png, figure4-<name>.png, page/index.html (failures, with the points drawn).
Before: tasks.py (what is asked), score.py (what counts as right). Next: report.py (tables and the page)
"""
import functools
import hashlib
import itertools
import json
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from runs.curves import draw_curves
from runs.statistics import checkpoints
from runs.errors import BadInput, BadMedia
from runs.files import alone, append_jsonl, read_jsonl, weights_stamp, write_atomically
from runs.settings import TeacherSettings, parse_config, parse_model, pixel_budget, preset_arguments
from teachers.names import load_judge
from verifier.media import load_media
import evaluate
import policy as P
from benchmarks import score, tasks

PROMPT = {"direct": "direct", "cot": "cot", "grounded": "reason"}  # mode -> key of policy.PROMPTS
GROUNDED = ("video-r1", "easy-vqa")  # one picture or clip a question, and things that the teachers can look for
WINDOW = 8  # batches that are sorted by length together


@dataclass
class Config(TeacherSettings):
    benchmark: str = field(default="all", metadata={"help": f"all that --data holds, or some, with commas: {', '.join(tasks.BENCHMARKS)}"})
    data: str = field(default="benchmarks/data", metadata={"help": "folder with a folder for each benchmark, of its name"})
    models: list[str] = field(default_factory=list, metadata={"help": "name=folder ..., name:MODE=, name:greedy=, name:MODE:greedy="})
    model: str = field(default="", metadata={"help": "one folder: short for --models ours=FOLDER"})
    mode: str = field(default="grounded", metadata={"help": "how models without a mode of their own are asked: direct, cot or grounded"})
    out: str = field(default="out/benchmarks", metadata={"help": "folder to write"})
    temperature: float = field(default=.6, metadata={"help": "sampling temperature (paper: 0.6); 0 decodes greedily"})
    max_new_tokens: int = field(default=112, metadata={"help": "an answer is cut here (paper: 6144 or 8192, so --preset 7b)"})
    batch: int = field(default=64, metadata={"help": "questions at a time; lower it where memory ends, what was answered stays"})
    limit: int = field(default=0, metadata={"help": "a seeded, stratified sample of so many questions of each benchmark (0: all)"})
    rescore: bool = field(default=False, metadata={"help": "read and score the stored answers again; asks no model"})
    judge: str = field(default=str(Path(__file__).parents[1] / "tiny/teacher"), metadata={"help": "VLM that judges claims about clips"})
    judge_answers: bool = field(default=False, metadata={"help": "let it judge answers, too, where the rules cannot tell"})
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
    if cfg.batch < 1 or cfg.max_new_tokens < 1 or min(cfg.limit, cfg.pages) < 0:
        raise BadInput("--batch, --max_new_tokens: at least 1; --limit, --pages: not below 0")
    if cfg.mode not in PROMPT or not 0 <= cfg.temperature < float("inf"):
        raise BadInput(f"--mode {cfg.mode} --temperature {cfg.temperature:g}: give {', '.join(PROMPT)}, and 0 or more")
    modes = {"sampled": (cfg.mode, cfg.temperature), "greedy": (cfg.mode, 0.)}
    modes |= {mode: (mode, cfg.temperature) for mode in PROMPT} | {f"{mode}:greedy": (mode, 0.) for mode in PROMPT}
    models = []
    for spec in cfg.models + [f"ours={cfg.model}"] * bool(cfg.model):
        name, mode, folder = parse_model(spec, modes)
        if name in [m.name for m in models]:
            raise BadInput(f"--models: {name} is named twice; give each its own name")
        asked = *modes[mode], cfg.max_new_tokens, cfg.seed, cfg.preset, cfg.dtype, *pixel_budget(cfg).values()
        models.append(Model(name, folder, *modes[mode], [folder, *asked, weights_stamp(folder)]))  # no batch: it may shrink
    if not models:
        raise BadInput("whom to ask? give --model FOLDER, or --models name=folder ...")
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
        except BadInput as error:
            print(f"skipped {name}: {error}", file=sys.stderr)
    if not names:
        raise BadInput(f"--data {cfg.data}: holds no benchmark; put each into a folder of its name, such as {cfg.data}/blink")
    return names


def ticket(seed, id):
    """Chance that is the same on every machine."""
    return hashlib.sha256(f"{seed} {id}".encode()).digest()


def stratified(entry, items, limit, seed):
    """Ids of about `limit` items, every stratum with its share. A larger limit adds to the sample of a smaller one.

    Strata are the groups that the benchmark averages over. Rows that belong together (both orders of a caption, all questions on one
    set of figures) come together: half a figure would make "all right" too easy.
    """
    keys = {entry.part, *(key for m in entry.metrics.values() for key in (m.each, *m.over))}
    units = defaultdict(list)
    for item in items:
        units[tuple(item.groups.get(key) for key in entry.together) or item.id].append(item)
    strata = defaultdict(list)
    for unit in sorted(units.values(), key=lambda unit: ticket(seed, unit[0].id)):
        strata[tuple(str(unit[0].groups.get(key)) for key in sorted(keys))].append(unit)
    # The j-th of k units stands at (j + 1/2) / k: whatever begins this line holds each stratum in proportion.
    place = lambda j, stratum: ((j + .5) / len(stratum), ticket(seed, stratum[j][0].id))
    line = sorted(((place(j, stratum), unit) for stratum in strata.values() for j, unit in enumerate(stratum)), key=lambda p: p[0])
    chosen = []
    for _, unit in line:
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
            media = [load_media(source, **pixel_budget(cfg)) for _, source in item.media]
            if any(kind == "image" and len(m.frames) > 1 for (kind, _), m in zip(item.media, media)):
                raise BadMedia("a clip in place of a picture")
        except BadMedia as error:
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


def ask(actor, model, name, batch, cfg, verifier, judge):
    """Ask a batch of (item, [Media]) -> rows of answers.jsonl."""
    texts = [question_text(name, item, model.mode, cfg.preset) for item, _ in batch]
    seed = int.from_bytes(ticket(cfg.seed, [item.id for item, _ in batch])[:7])
    drawn = P.sample(actor, P.encode_prompts(actor, [(media, text) for (_, media), text in zip(batch, texts)]), 1,
                     temperature=model.temperature or 1., greedy=not model.temperature, max_new_tokens=cfg.max_new_tokens,
                     generator=torch.Generator(actor.device).manual_seed(seed))
    grounding = {}
    if model.mode == "grounded" and name in GROUNDED:
        shown = [(tasks.as_sample(item), media[0], text) for (item, media), text in zip(batch, drawn.texts)]
        samples, seen, said = map(list, zip(*shown))
        verdicts = verifier.verify_groups(samples, [[text] for text in said], seen)
        grounding = {s.id: v.grounding for s, (v,) in zip(samples, verdicts) if s.grounding}
    return [scored(dict(benchmark=name, model=model.name, mode=model.mode, **{k: getattr(item, k) for k in ITEM}, prompt=text,
                        response=response, finished=finished, grounding=grounding.get(item.id), stamp=model.stamp), judge)
            for (item, _), text, response, finished in zip(batch, texts, drawn.texts, drawn.finished.tolist())]


ITEM = ("id", "question", "answer", "options", "groups", "scorer")  # what a row keeps of its Item: scoring needs no other file


def answer_judge(cfg):
    return load_judge(cfg.judge, cfg.preset, dtype=cfg.dtype) if cfg.judge_answers else None


def scored(row, judge=None):
    """A row with what was read as its answer, and whether it is right."""
    item = tasks.Item(media=[], **{k: row[k] for k in ITEM})
    extracted = score.extract(row["response"], item)
    return row | dict(extracted=extracted, correct=score.correct(extracted, item, judge, row["response"]))


def run(cfg, models, names, left_out):
    """Ask every model every question that it has not answered. -> {(model, folder, benchmark): {id: row}}."""
    log = Path(cfg.out, "answers.jsonl")
    have = read_answers(log, {(m.name, name): m.stamp for m in models for name in names})
    looks = set(names) & set(GROUNDED) and any(m.mode == "grounded" for m in models)
    verifier = evaluate.load_verifier(cfg) if looks else None
    judge = verifier.judge if verifier and cfg.judge_answers else answer_judge(cfg)
    chosen = {}
    for name in names:
        report = functools.partial(note, left_out, name)
        items = list(tasks.items(name, Path(cfg.data, name), report, pictures=False))
        chosen[name] = stratified(tasks.BENCHMARKS[name], items, cfg.limit, cfg.seed) if cfg.limit else {item.id for item in items}
    for model in models:
        actor = None
        for name in names:
            report, folder = functools.partial(note, left_out, name), Path(cfg.data, name)
            key = model.name, model.folder, name
            seen = have[key] = {i: row for i, row in have[key].items() if i in chosen[name]}
            bar = tqdm(total=len(chosen[name]), initial=len(seen), desc=f"{model.name} on {name}", unit="answer", smoothing=.1)
            asked = (i for i in tasks.items(name, folder, report) if i.id in chosen[name]) if len(seen) < bar.total else ()
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
                            append_jsonl(log, row)
                        seen |= {row["id"]: slim(row) for row in rows}
                        bar.update(len(rows))
            bar.close()
    return have, verifier


# ---- 3. Stored answers ----------------------------------------------------------------------------------------------------
def slim(row):
    """What numbers need of a row; "outcome" is evaluate.py's word for it."""
    return {k: row[k] for k in ("id", "groups", "correct", "grounding", "finished", "stamp")} | dict(
        outcome=row["correct"], read=row["extracted"] is not None)


def stored(log):
    """Rows of answers.jsonl that are whole answers; a line that a kill tore, or that evaluate.py wrote without --benchmark, is none."""
    for _, row in read_jsonl(log, torn=True):
        if isinstance(row, dict) and WHOLE <= row.keys():
            yield row


WHOLE = {"benchmark", "model", *ITEM, "response", "finished", "grounding", "stamp", "extracted", "correct"}


def read_answers(log, stamps):
    """The log -> {(model, folder, benchmark): {id: row}}, of rows with the right stamp. stamps: {(model, benchmark): stamp}."""
    have = defaultdict(dict)
    for row in stored(log) if log.exists() else ():
        if stamps.get((row["model"], row["benchmark"])) == row["stamp"]:
            have[row["model"], row["stamp"][0], row["benchmark"]][row["id"]] = slim(row)
    return have


def rescore(cfg):
    """Extract and score all stored answers again, in place. -> as `run`; where a model was asked in several ways, the last counts."""
    log, kept, last = Path(cfg.out, "answers.jsonl"), defaultdict(dict), {}
    judge = answer_judge(cfg)
    aside = log.with_name(f".{log.name}.tmp")
    asked = tasks.BENCHMARKS if cfg.benchmark == "all" else cfg.benchmark.split(",")
    with open(aside, "w", encoding="utf-8") as file:
        for _, row in tqdm(read_jsonl(log, torn=True), desc="score", unit="answer"):
            if isinstance(row, dict) and WHOLE <= row.keys() and row["benchmark"] in asked:
                row = scored(row, judge)
                way = last[row["model"], row["benchmark"]] = row["model"], tuple(row["stamp"]), row["benchmark"]
                kept[way][row["id"]] = slim(row)
            file.write(json.dumps(row) + "\n")
    os.replace(aside, log)
    return {(model, stamp[0], name): kept[model, stamp, name] for model, stamp, name in last.values()}


# ---- 4. The whole ---------------------------------------------------------------------------------------------------------
def main():
    cfg = parse_config(Config, __doc__, preset_arguments("benchmark", Config))
    unknown = set(cfg.benchmark.split(",")) - set(tasks.BENCHMARKS) - {"all"}
    if unknown:
        raise BadInput(f"--benchmark {','.join(sorted(unknown))}: there is all, or some of {', '.join(tasks.BENCHMARKS)}")
    if cfg.rescore and not Path(cfg.out, "answers.jsonl").is_file():
        raise BadInput(f"{cfg.out}/answers.jsonl: nothing is stored there; give the --out of an evaluation")
    with alone(cfg.out):  # a rescore beside a run would drop what the run appends meanwhile
        work(cfg)


def work(cfg):
    """Ask or score again, then write all that is made of it."""
    from benchmarks import report  # it needs this file, complete
    out, left_out, verifier = Path(cfg.out), {}, None
    if cfg.rescore:
        have = rescore(cfg)
        models, told = list(dict.fromkeys(model for model, _, _ in have)), out / "left_out.jsonl"
        left_out = {(r["benchmark"], r["reason"], r["where"]): r["detail"] for _, r in (read_jsonl(told) if told.exists() else ())}
    else:
        asked = read_models(cfg)
        have, verifier = run(cfg, asked, read_benchmarks(cfg), left_out)
        models = [model.name for model in asked]
        write_atomically(out / "left_out.jsonl", "".join(json.dumps(dict(
            benchmark=name, reason=reason, where=where, detail=detail)) + "\n" for (name, reason, where), detail in left_out.items()))
    if not any(have.values()):
        raise BadInput(f"{out}/answers.jsonl: holds no answer to any of this; every reason is in {out}/left_out.jsonl")
    found = report.numbers(have, cfg.seed)
    text = report.tables(found, models, have, left_out, cfg.seed)
    write_atomically(out / "table.md", text)
    write_atomically(out / "table.csv", report.as_csv(found, have))
    print(text)
    report.draw_bars(found, models, out / "bars.png")
    for name in found:
        if curves := checkpoints(have, name):
            draw_curves(curves, out / f"figure4-{name}.png")
    if cfg.pages:
        report.draw_page(cfg, models, have, verifier)
    print(f"wrote {out}/table.md, table.csv, bars.png, answers.jsonl" + ", page/index.html" * bool(cfg.pages))
    print("Tables 3 to 5 need simulators: python -m benchmarks.embodied --help, python -m benchmarks.libero --help")
