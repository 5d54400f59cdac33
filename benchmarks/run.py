"""Any models on any benchmarks of the paper: asked in batches, scored, and set beside the paper's tables 1
and 2 and figure 4.

    python evaluate.py --benchmark all --data DIR --model out/grpo/merged --preset 7b
    python evaluate.py --benchmark blink,cv-bench --data DIR --models base:direct=HUB_ID cot:cot=HUB_ID
    python evaluate.py --benchmark video-r1 --data DIR --models rl@20=out/20 rl@40=out/40    # figure 4
    python evaluate.py --benchmark all --out out/benchmarks --rescore     # stored answers, without a model

The files of a benchmark are in DIR/<name> (README.md here says where to get them). `name:mode=folder` sets
how one model is asked: `direct` (the benchmark's own prompt where it publishes one), `cot`, `grounded` (it
points while it reasons, as Argos was trained); `:greedy`, `:direct:greedy` ... decode greedily. The paper
evaluates at temperature 0.6 with up to 6144 or 8192 new tokens (app. A); --preset 7b does so. Where a
response is grounded and the verifier knows how to look (figure 4: video-r1, and easy-vqa), its visual
grounding is scored, too. Beside hallusionbench a judge of answers is recommended: --judge_answers True, with
a --judge that can judge.

**The same answers, however often it is stopped.** Questions stand in windows of a few batches, sorted by
length inside a window, so that little is padding. Windows and batches follow from the files, --limit and
--batch alone, and each batch has its own random numbers, seeded by --seed and the ids in it: a batch that a
kill tore apart is asked again whole, and comes out as it would have. With another --batch or --limit an
answer is another draw from the same distribution (the rows of a batch share random numbers); greedy ones
stay, up to rounding.

What is simplified: one answer per question, no majority vote. One process: start one per GPU on other
benchmarks, with other --out.
Reads:  DIR/<name>. Writes, under --out: answers.jsonl (append-only; what is there is not asked again),
left_out.jsonl (what could not be asked, and why), table.md, table.csv, bars.png, figure4-<name>.png,
page/index.html (failures, with the points drawn).
Before: tasks.py (what is asked), score.py (what counts as right), stored.py (a row of answers). Next:
report.py (tables, the page)
"""
import json
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from runs.checkpoints import follow_budget
from runs.curves import draw_curves
from runs.errors import BadInput
from runs.files import alone, append_jsonl, read_jsonl, weights_stamp, write_atomically
from runs.settings import (TeacherSettings, flag, parse_config, parse_model, pixel_budget, preset_arguments,
                           verifier_options)
from runs.statistics import checkpoints
from teachers.names import load_judge, load_teachers
from verifier.answers import clean
import argos
import policy as P
from benchmarks import report, score, tasks
from benchmarks.sources import existing_folder
from benchmarks.stored import ITEM_FIELDS, is_whole, read_answers, slim, ticket, usable

PROMPT = {"direct": "direct", "cot": "cot", "grounded": "reason"}  # mode -> key of policy.PROMPTS
# Benchmarks with one picture or clip per question, and with things that the teachers can look for.
GROUNDED = ("video-r1", "easy-vqa")
WINDOW = 8  # batches that are sorted by length together
DATA = "benchmarks/data"


@dataclass
class Config(TeacherSettings):
    benchmark: str = field(default="all", metadata={
        "help": f"all that --data holds, or some, with commas: {', '.join(tasks.BENCHMARKS)}"})
    data: str = flag(DATA, "folder with a folder for each benchmark, of its name")
    models: list[str] = field(default_factory=list, metadata={
        "help": "name=folder ..., name:MODE=, name:greedy=, name:MODE:greedy="})
    model: str = flag("", "one folder: short for --models ours=FOLDER")
    mode: str = flag("grounded", "how models without a mode of their own are asked: direct, cot or grounded")
    out: str = flag("out/benchmarks", "folder to write")
    temperature: float = flag(.6, "sampling temperature (paper: 0.6); 0 decodes greedily")
    max_new_tokens: int = flag(112, "an answer is cut here (paper: 6144 or 8192, so --preset 7b)")
    batch: int = flag(64, "questions at a time; lower it where memory ends, what was answered stays")
    limit: int = flag(0, "a seeded, stratified sample of so many questions of each benchmark (0: all)")
    rescore: bool = flag(False, "read and score the stored answers again; asks no model")
    judge: str = flag(str(Path(__file__).parents[1] / "tiny/teacher"), "VLM that judges claims about clips")
    judge_answers: bool = flag(False, "let it judge answers, too, where the rules cannot tell (recommended "
                                      "for hallusionbench)")
    pages: int = flag(12, "failures to draw for each benchmark (0: no page)")
    seed: int = flag(0, "seed of --limit, sampling and bootstrap")


@dataclass
class Model:
    name: str
    folder: str
    mode: str           # direct, cot or grounded
    temperature: float  # 0: greedy
    stamp: list         # answers count again only for the same weights, asked in the same way


def read_models(cfg):
    """--models and --model -> [Model]. Raises BadInput for flags that make no sense."""
    if cfg.batch < 1 or cfg.max_new_tokens < 1 or min(cfg.limit, cfg.pages) < 0:
        raise BadInput("--batch, --max_new_tokens: at least 1; --limit, --pages: not below 0")
    if cfg.mode not in PROMPT or not 0 <= cfg.temperature < float("inf"):
        raise BadInput(f"--mode {cfg.mode} --temperature {cfg.temperature:g}: "
                       f"give {', '.join(PROMPT)}, and 0 or more")
    # What may stand between a model's name and its folder -> (mode, temperature). "sampled": nothing stands
    # there.
    ways = {"sampled": (cfg.mode, cfg.temperature), "greedy": (cfg.mode, 0.)}
    for mode in PROMPT:
        ways[mode] = (mode, cfg.temperature)
    for mode in PROMPT:
        ways[f"{mode}:greedy"] = (mode, 0.)

    specs = list(cfg.models)
    if cfg.model:
        specs.append(f"ours={cfg.model}")
    follow_budget(cfg, *[parse_model(spec, ways)[2] for spec in specs])
    models = []
    for spec in specs:
        name, way, folder = parse_model(spec, ways)
        if name in [model.name for model in models]:
            raise BadInput(f"--models: {name} is named twice; give each its own name")
        mode, temperature = ways[way]
        stamp = [folder, mode, temperature, cfg.max_new_tokens, cfg.seed, cfg.preset, cfg.dtype,
                 *pixel_budget(cfg).values(), weights_stamp(folder)]  # without the batch: it may shrink
        models.append(Model(name, folder, mode, temperature, stamp))
    if not models:
        raise BadInput("whom to ask? give --model FOLDER, or --models name=folder ...")
    return models


# ---- 1. What is asked --------------------------------------------------------------------------------------
def read_benchmarks(cfg):
    """--benchmark

    -> names. One that is asked for by its name must be there; "all" skips what is not, and says so.
    """
    if cfg.benchmark != "all":
        names = list(dict.fromkeys(cfg.benchmark.split(",")))
        for name in names:
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
        raise BadInput(f"--data {cfg.data}: holds no benchmark; put each into a folder of its name, "
                       f"such as {cfg.data}/blink")
    return names


def check_data(cfg):
    """BadInput for a --data that is no folder: else a typo would leave alone what packages bring (easy-vqa).

    The default folder need not be there for those, nor to score again.
    """
    packages = {name for name, entry in tasks.BENCHMARKS.items() if entry.package}
    does_without = cfg.rescore or set(cfg.benchmark.split(",")) <= packages
    if cfg.data != DATA or not does_without:
        existing_folder("data", cfg.data)


def stratified(entry, items, limit, seed):
    """Ids of about `limit` items, every stratum with its share. A larger limit adds to the sample of a
    smaller one.

    Strata are the groups that the benchmark averages over. Rows that belong together (both orders of a
    caption, all questions on one set of figures) make a unit and come together: half a figure would make "all
    right" too easy.
    """
    keys = {entry.part}
    for metric in entry.metrics.values():
        keys |= {metric.each, *metric.over}
    keys = sorted(keys)

    units = defaultdict(list)
    for item in items:
        together = tuple(item.groups.get(key) for key in entry.together)
        units[together or item.id].append(item)
    strata = defaultdict(list)
    for unit in sorted(units.values(), key=lambda unit: ticket(seed, unit[0].id)):
        stratum = tuple(str(unit[0].groups.get(key)) for key in keys)
        strata[stratum].append(unit)

    # The j-th of k units stands at (j + 1/2) / k of one long line: whatever begins the line holds each
    # stratum in proportion.
    line = []
    for stratum in strata.values():
        for j, unit in enumerate(stratum):
            place = (j + .5) / len(stratum)
            line.append((place, ticket(seed, unit[0].id), unit))
    line.sort(key=lambda placed: placed[:2])  # chance decides between units at one place

    chosen = []
    for _, _, unit in line:
        if chosen and len(chosen) + len(unit) > limit:
            break
        chosen += [item.id for item in unit]
    return set(chosen)


def choose(cfg, name, report_left_out):
    """Ids of the questions of a benchmark that are asked: all of them, or --limit's sample.

    No picture is read for it. Says for which reason most of the other rows are left out. BadInput where no
    row can be asked.
    """
    reasons = defaultdict(list)

    def remember(reason, where, detail=""):
        report_left_out(reason, where, detail)
        short = reason.removeprefix(f"{entry.title}: ")
        if short != "wrong count":
            reasons[short].append((where, detail))

    entry, folder = tasks.find(name, Path(cfg.data, name))
    items = list(tasks.items(name, folder, remember, pictures=False))
    if not items and reasons:
        raise BadInput(f"{name}: no question can be asked. {tasks.why_left_out(entry, folder, reasons)}")
    if reasons:
        print(f"{name}: {tasks.why_left_out(entry, folder, reasons)}", file=sys.stderr)
    if cfg.limit:
        return stratified(tasks.BENCHMARKS[name], items, cfg.limit, cfg.seed)
    return {item.id for item in items}


def reporter(left_out, name):
    """-> report(reason, where, detail), which remembers in `left_out` what of a benchmark could not be asked.

    A file that is read again reports the same things again; they count once.
    """
    def report_left_out(reason, where, detail=""):
        left_out[name, str(reason), str(where)] = str(detail)
    return report_left_out


# ---- 2. Asking ---------------------------------------------------------------------------------------------
def question_text(item, mode, preset):
    """The prompt: the benchmark's own where it publishes one for direct answers, else the prompt of the mode
    around its question.
    """
    if mode == "direct" and item.direct:
        return item.direct
    return P.prompt(preset, PROMPT[mode], question=item.question)


def prompt_length(actor, media, text):
    """About how many tokens a prompt has, the chat template aside.

    28 x 28 pixels are a token, of two frames in a clip.
    """
    vision = 0
    for one in media:
        frame = one.frames[0]
        frames_in_a_token = 2 if len(one.frames) > 1 else 1
        vision += len(one.frames) * frame.width * frame.height / 784 / frames_in_a_token
    return vision + len(actor.tokenizer.encode(text))


def load_verifier(cfg):
    """The verifier with the teachers that were asked for, tried on a drawing.

    Reasoning quality is no measure: it stays off.
    """
    judge = load_judge(cfg.judge, cfg.preset, dtype=cfg.dtype)
    base = getattr(judge, "policy", None)  # --pointer base: the judge's own model points, too
    detector, segmenter, pointer = load_teachers(cfg.detector, cfg.segmenter, cfg.pointer,
                                                 cache=cfg.teacher_cache, base=base)
    verifier = argos.Argos(detector, segmenter, pointer, judge, use=("outcome", "grounding"),
                           **verifier_options(cfg))
    verifier.self_check()
    return verifier


def looks(model, name):
    """Is the visual grounding of this model's responses to this benchmark scored (figure 4)?"""
    return model.mode == "grounded" and name in GROUNDED


def answer_judge(cfg):
    """The judge of answers, or None: the rules alone decide."""
    return load_judge(cfg.judge, cfg.preset, dtype=cfg.dtype) if cfg.judge_answers else None


def recommend_judge(cfg, names):
    """Say beside which of these benchmarks a judge of answers is missing."""
    for name in names:
        why = tasks.BENCHMARKS[name].judge
        if why and not cfg.judge_answers:
            print(f"{name}: {why} (--judge_answers True --judge FOLDER, also with --rescore)", file=sys.stderr)


def scored(row, judge=None):
    """A row with what was read as its answer, and whether it is right."""
    item = tasks.Item(media=[], **{name: row[name] for name in ITEM_FIELDS})
    extracted = score.extract(row["response"], item)
    correct = score.correct(extracted, item, judge, row["response"])
    return row | {"extracted": extracted, "correct": correct}


def ask(actor, model, name, batch, cfg, verifier, judge):
    """Ask a model a batch of (Item, [Media]) of benchmark `name` -> rows of answers.jsonl."""
    texts = [question_text(item, model.mode, cfg.preset) for item, _ in batch]
    prompts = P.encode_prompts(actor, [(media, text) for (_, media), text in zip(batch, texts)])
    seed = int.from_bytes(ticket(cfg.seed, [item.id for item, _ in batch])[:7])
    generator = torch.Generator(actor.device).manual_seed(seed)
    greedy = model.temperature == 0
    drawn = P.sample(actor, prompts, 1, temperature=1. if greedy else model.temperature, greedy=greedy,
                     max_new_tokens=cfg.max_new_tokens, generator=generator)
    grounding = {}  # id -> R_vg, of the items that call for pointing
    if looks(model, name):
        grounding = verify_grounding(verifier, batch, drawn.texts)

    rows = []
    for (item, _), text, response, finished in zip(batch, texts, drawn.texts, drawn.finished.tolist()):
        row = {"benchmark": name, "model": model.name, "mode": model.mode}
        row |= {field_name: getattr(item, field_name) for field_name in ITEM_FIELDS}
        row |= {"prompt": text, "response": response, "finished": finished,
                "grounding": grounding.get(item.id), "stamp": model.stamp}
        rows.append(scored(row, judge))
    return rows


def verify_grounding(verifier, batch, responses):
    """{id: R_vg} of one response per (Item, [Media]). Items whose reasoning need not point have no entry."""
    samples = [tasks.as_sample(item) for item, _ in batch]
    media = [shown[0] for _, shown in batch]
    verdicts = verifier.verify_groups(samples, [[response] for response in responses], media)
    return {sample.id: verdict.grounding for sample, (verdict,) in zip(samples, verdicts) if sample.grounding}


def batched(things, size):
    """Lists of `size` things, the last one shorter. (itertools.batched needs Python 3.12.)"""
    batch = []
    for thing in things:
        batch.append(thing)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def run(cfg, models, names, left_out):
    """Ask every model every question that it has not answered.

    left_out: filled with {(benchmark, reason, where): detail}. -> ({(model, folder, benchmark): {id: row}},
    the verifier or None)
    """
    recommend_judge(cfg, names)
    stamps = {(model.name, name): model.stamp for model in models for name in names}
    have = read_answers(Path(cfg.out, "answers.jsonl"), stamps)
    verifier = None
    if any(looks(model, name) for model in models for name in names):
        verifier = load_verifier(cfg)
    if verifier and cfg.judge_answers:
        judge = verifier.judge  # one model serves both
    else:
        judge = answer_judge(cfg)
    chosen = {name: choose(cfg, name, reporter(left_out, name)) for name in names}
    for model in models:
        actor = None  # loaded with the first question that is not answered yet
        for name in names:
            key = model.name, model.folder, name
            have[key] = {i: row for i, row in have[key].items() if i in chosen[name]}
            actor = ask_benchmark(cfg, model, actor, name, chosen[name], have[key], verifier, judge,
                                  reporter(left_out, name))
    return have, verifier


def ask_benchmark(cfg, model, actor, name, chosen, seen, verifier, judge, report_left_out):
    """Ask a model the chosen questions of one benchmark that are not in `seen` yet, and put them there.

    actor: the loaded policy, or None as long as it was not needed. -> actor
    """
    if len(seen) < len(chosen):
        items = tasks.items(name, Path(cfg.data, name), report_left_out)
        asked = (item for item in items if item.id in chosen)
    else:
        asked = ()  # all is answered: the files need not be read
    log = Path(cfg.out, "answers.jsonl")
    bar = tqdm(total=len(chosen), initial=len(seen), desc=f"{model.name} on {name}", unit="answer",
               smoothing=.1)
    for window in batched(asked, WINDOW * cfg.batch):
        if all(item.id in seen for item in window):
            continue
        if actor is None:
            actor = P.load_policy(model.folder, dtype=cfg.dtype)
        shown = sort_by_length(actor, model, usable(window, cfg, report_left_out), cfg)
        for batch in batched(shown, cfg.batch):
            if all(item.id in seen for item, _ in batch):
                continue
            # A batch of which some are answered is asked again whole, with the same random numbers.
            rows = ask(actor, model, name, batch, cfg, verifier, judge)
            new = [row for row in rows if row["id"] not in seen]
            for row in new:
                append_jsonl(log, row)
                seen[row["id"]] = slim(row)
            bar.update(len(new))
    bar.close()
    return actor


def sort_by_length(actor, model, shown, cfg):
    """(Item, [Media]) pairs in the order of their prompts' lengths: a batch of like lengths holds little
    padding.
    """
    def length(pair):
        item, media = pair
        return prompt_length(actor, media, question_text(item, model.mode, cfg.preset))
    return sorted(shown, key=length)


# ---- 3. Stored answers, scored again -----------------------------------------------------------------------
def rescore(cfg):
    """Extract and score all stored answers again, in place.

    -> as `run`; where a model was asked in several ways, the last counts.
    """
    log = Path(cfg.out, "answers.jsonl")
    judge = answer_judge(cfg)
    benchmarks = tasks.BENCHMARKS if cfg.benchmark == "all" else cfg.benchmark.split(",")
    kept = defaultdict(dict)  # (model, stamp, benchmark) -> {id: row}
    last = {}                 # (model, benchmark) -> the stamp that was met last
    aside = log.with_name(f".{log.name}.tmp")
    with open(aside, "w", encoding="utf-8") as file:
        for _, row in tqdm(read_jsonl(log, torn=True), desc="score", unit="answer"):
            if is_whole(row) and row["benchmark"] in benchmarks:
                row = scored(row, judge)
                stamp = tuple(row["stamp"])
                kept[row["model"], stamp, row["benchmark"]][row["id"]] = slim(row)
                last[row["model"], row["benchmark"]] = stamp
            file.write(json.dumps(row) + "\n")
    os.replace(aside, log)
    have = {}
    for (model, benchmark), stamp in last.items():
        folder = stamp[0]
        have[model, folder, benchmark] = kept[model, stamp, benchmark]
    return have


def read_left_out(path):
    """left_out.jsonl -> {(benchmark, reason, where): detail}; {} if there is none."""
    if not path.exists():
        return {}
    rows = [row for _, row in read_jsonl(path)]
    return {(row["benchmark"], row["reason"], row["where"]): row["detail"] for row in rows}


def commonest(left_out):
    """The commonest reason in `left_out`, with an example: part of a sentence, "" where there is none."""
    examples = defaultdict(list)  # (benchmark, reason) -> ["where: detail", ...]
    for (name, reason, where), detail in left_out.items():
        if not reason.endswith("wrong count"):
            examples[name, reason].append(f"{where}: {detail[:200]}")
    if not examples:
        return ""
    name, reason = max(examples, key=lambda key: len(examples[key]))
    found = examples[name, reason]
    return clean(f"most of all {len(found)} x {reason} ({name}, {found[0]}); ")


def write_left_out(path, left_out):
    lines = []
    for (name, reason, where), detail in left_out.items():
        row = {"benchmark": name, "reason": reason, "where": where, "detail": detail}
        lines.append(json.dumps(row) + "\n")
    write_atomically(path, "".join(lines))


# ---- 4. The whole ------------------------------------------------------------------------------------------
def main():
    cfg = parse_config(Config, __doc__, preset_arguments("benchmark", Config))
    unknown = set(cfg.benchmark.split(",")) - set(tasks.BENCHMARKS) - {"all"}
    if unknown:
        raise BadInput(f"--benchmark {','.join(sorted(unknown))}: there is all, "
                       f"or some of {', '.join(tasks.BENCHMARKS)}")
    check_data(cfg)
    if cfg.rescore and not Path(cfg.out, "answers.jsonl").is_file():
        raise BadInput(f"{cfg.out}/answers.jsonl: nothing is stored there; give the --out of an evaluation")
    with alone(cfg.out):  # a rescore beside a run would drop what the run appends meanwhile
        work(cfg)


def work(cfg):
    """Ask, or score again, then write all that is made of it."""
    out = Path(cfg.out)
    if cfg.rescore:
        verifier = None
        have = rescore(cfg)
        recommend_judge(cfg, dict.fromkeys(name for _, _, name in have))
        names = list(dict.fromkeys(model for model, _, _ in have))
        left_out = read_left_out(out / "left_out.jsonl")
    else:
        left_out = {}
        models = read_models(cfg)
        have, verifier = run(cfg, models, read_benchmarks(cfg), left_out)
        names = [model.name for model in models]
        write_left_out(out / "left_out.jsonl", left_out)
    if not any(have.values()):
        raise BadInput(f"{out}/answers.jsonl: holds no answer to any of this; {commonest(left_out)}"
                       f"every reason is in {out}/left_out.jsonl")
    write_report(cfg, names, have, left_out, verifier)


def write_report(cfg, models, have, left_out, verifier):
    """table.md, table.csv, the figures and the page of failures. models: their names."""
    out = Path(cfg.out)
    measured = report.numbers(have, cfg.seed)
    text = report.tables(measured, models, have, left_out, cfg.seed)
    write_atomically(out / "table.md", text)
    write_atomically(out / "table.csv", report.as_csv(measured, have))
    print(text)
    report.draw_bars(measured, models, out / "bars.png")
    for name in measured:
        curves = checkpoints(have, name)
        if curves:
            draw_curves(curves, out / f"figure4-{name}.png")
    written = "table.md, table.csv, bars.png, answers.jsonl"
    if cfg.pages:
        report.draw_page(cfg, models, have, verifier)
        written += ", page/index.html"
    print(f"wrote {out}/{written}")
    print("Tables 3 to 5 need simulators: python -m benchmarks.embodied --help, "
          "python -m benchmarks.libero --help")
