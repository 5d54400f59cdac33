"""Curation: a teacher's rollouts, with coordinates drawn for it to read, filtered by Argos into SFT data.

A reasoning teacher does not point on its own. The paper (section 4) makes it: objects are named by a language
model, found by a pointing model, and their coordinates drawn onto the picture, where the teacher reads them
off while it reasons. What it writes is still unreliable (the paper kept about 3.1 %), so the verifier that
will reward RL first filters the SFT data:

  1. extract    a language model lists objects, actions and events from question, answer and the     (app. C.1)
                reasoning that the source data set ships, if it does ("raw" in a row), as JSON
  2. point      a pointing model finds every object in the picture, or in each of up to 32 frames    (sec. 4.1)
  3. overlay    points and their coordinates are drawn; frames carry their number and second         (sec. 4.1)
  4. roll out   the teacher sees original and overlaid picture (of clips the overlaid frames only)
                and writes 8 responses                                                               (sec. 4.2)
  5. score      Argos scores all 8; the sample survives if the best reaches 0.7 with a right answer  (sec. 4.3)
  6. rewrite    points and times take their canonical form; SFT sees the original, not the overlay   (sec. 4.3)

Different from the paper:
  1. Several rollouts of a survivor become SFT examples (--keep). The paper names the filter, not how many
     rollouts it leaves.
  2. A share of the SFT examples gets its points moved (--made_up; 0 is the paper's pipeline). A corpus that
     was filtered by its answers alone holds such made-up evidence: right answers with points that sit
     elsewhere. The embedded teachers are too good for that. The policy learns this habit too, and what
     becomes of it in RL is up to the reward: README.md, "What came out".
  3. What a failed teacher could not check is not taught. Files that cannot be read are named, counted and
     left out.

Run:
  python curate.py --data out/data/curate.jsonl --out out/curated          # --resume continues after a kill
Qwen2.5-VL-7B as the teacher, on one GPU, then on all GPUs of the machine (the same rollouts):
  python curate.py --preset 7b --data data/curate.jsonl --out out/curated
  accelerate launch curate.py --preset 7b --data data/curate.jsonl --out out/curated

Reads: JSONL rows with a picture or clip, a question and an answer, as python -m tiny.world and
python -m benchmarks.prepare write them.
Writes, under --out:
  rollouts.jsonl    every sample with its 8 rollouts and scores (append-only: the memory of --resume)
  sft.jsonl         the survivors, in HF chat format (messages + images/videos), for train_sft.py and TRL
  llamafactory.jsonl, dataset_info.json    the same for LLaMA-Factory, whose fields differ (dataset: argos)
  settings.jsonl    what the run was asked for (so that --resume cannot mix two)
  argos.json        the pixel budget, in which the points are meant; train_sft.py follows it
  report.json       yield by kind, task and source, and by reason of rejection
  overlays/, best/, worst/    pictures: what the teacher saw; cards of the best and the worst rollouts

What to watch in report.json: "survived" of "samples"; "rejected", by reason; "extraction malformed", which
should be few.

With another trainer: start it in --out, as media paths are relative to it. TRL 1.16 trains on pictures, not
on clips (filter by "images"). Coordinates are pixels after Qwen2.5-VL's resize within this run's pixel
budget: give the other trainer the same one, or every point is off.

Before: argos.py. Next: train_sft.py
"""
import heapq
import json
import os
import random
import re
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from runs import processes
from runs.checkpoints import budget_of, follow_budget, write_budget
from runs.errors import BadInput, BadMedia, printable, run_main
from runs.files import (append_jsonl, claim_run, file_name, is_score, make_folder, save_figure,
                        write_atomically, writing)
from runs.settings import TeacherSettings, flag, parse_config, preset_arguments, verifier_options
from verifier.claims import canonical
from verifier.coordinates import Media
from verifier.foils import check_foils
from verifier.samples import read_samples
import policy as P
from teachers.judges import VLMJudge
from teachers.names import load_teachers
from teachers.pointers import Unreadable
from argos import Argos


# ---- 0. Configuration --------------------------------------------------------------------------------------
TINY_TEACHER = str(Path(__file__).parent / "tiny/teacher")


@dataclass
class Config(TeacherSettings):
    data: str = flag("out/data/curate.jsonl", "samples to curate, one JSON object per line")
    out: str = flag("out/curated", "folder to write")
    teacher: str = flag(TINY_TEACHER, "the reasoning VLM, folder or hub id (paper: GLM-4.1V-9B); it "
                                      "extracts and judges, too")
    rollouts: int = flag(8, "rollouts per sample (paper: 8)")
    temperature: float = flag(0.6, "the teacher's temperature (paper: 0.6)")
    max_new_tokens: int = flag(112, "a rollout is cut after this many tokens (paper: 6144)")
    threshold: float = flag(0.7, "the best rollout's reward must reach this (app. C.3)")
    keep: int = flag(4, "how many rollouts of a survivor SFT sees, the best of those that pass; 1: the best "
                        "alone")
    made_up: float = flag(0.25, "share of SFT examples whose points are moved elsewhere, the answer kept "
                                "(our choice; 0 for real data)")
    batch: int = flag(32, "samples at a time")
    overlay: bool = flag(True, "off: the teacher sees the original alone (an ablation)")
    extract_tokens: int = flag(48, "the list of objects, actions and events is cut after this many tokens")
    pictures: int = flag(12, "how many overlays, best and worst rollouts to keep as pictures")
    seed: int = flag(0, "seed of the teacher's sampling")
    resume: bool = flag(False, "keep OUT/rollouts.jsonl and continue after it")


# The rollouts do not depend on these: a resumed run may change them, and its folder may have been moved.
FREE_TO_CHANGE = ("keep", "made_up", "pictures", "teacher_cache", "out")


def check(cfg):
    """Refuse now, in one line, what would fail late."""
    for name in ("batch", "rollouts", "max_new_tokens", "keep", "extract_tokens"):
        if getattr(cfg, name) < 1:
            raise BadInput(f"--{name} {getattr(cfg, name)}: must be at least 1")
    check_foils(cfg.foils)
    if not 0 <= cfg.made_up <= 1:
        raise BadInput(f"--made_up {cfg.made_up}: a share lies between 0 and 1")


# ---- 1. Extract: what is this question about? --------------------------------------------------------------
KEYS = ("objects", "actions", "events")
MAX_RAW = 4_000         # characters of a data set's own reasoning that the model gets to read (our choice)
MAX_EXTRACTION = 4_000  # characters of the model's JSON that are read (our choice)


def extract(samples, media, cfg, teacher):
    """Ask the teacher what each question is about -> one read_extraction per sample."""
    items = []
    for sample, seen in zip(samples, media):
        text = P.prompt(cfg.preset, "objects", question=sample.question, answer=sample.answer,
                        raw=sample.raw[:MAX_RAW])
        items.append((seen, text))
    prompts = P.encode_prompts(teacher, items)
    replies = P.sample(teacher, prompts, 1, greedy=True, max_new_tokens=cfg.extract_tokens).texts
    return [read_extraction(reply) for reply in replies]


def read_extraction(text):
    """The model's JSON -> {"objects": [...], "actions": [...], "events": [...]}, None if it is anything else.

    A list holds at most 8 strings of at most 60 characters: what a model says is data, checked before use
    (our choice). 'Sure! {"objects": [" mug ", 3], ...}' -> {"objects": ["mug"], ...}
    """
    try:
        start = text.index("{")
        end = text.rindex("}") + 1
        found = json.loads(text[start:end][:MAX_EXTRACTION])
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    lists = {}
    for key in KEYS:
        if not isinstance(found.get(key), list):
            return None
        texts = [v.strip()[:60] for v in found[key] if isinstance(v, str) and v.strip()]
        lists[key] = texts[:8]
    return lists


def objects_of(extraction):
    """What to point at: nothing where the extraction was malformed."""
    return extraction["objects"] if extraction else []


# ---- 2. Point: where are these objects? --------------------------------------------------------------------
def point(media, objects, pointer):
    """-> for every frame the points (x, y) of all objects, in pixels of the frame."""
    points = []
    for frame in media.frames:
        places = []
        for label in objects:
            try:
                places += pointer.point(frame, label)
            except Unreadable as error:  # the teacher goes by the picture alone
                tqdm.write(printable(f"not drawn: {label[:60]!r}: {error}"), file=sys.stderr)
        points.append(places)
    return points


# ---- 3. Overlay: coordinates that the teacher can read -----------------------------------------------------
def overlay(image, points, caption=None):
    """Draw points, each with its coordinates as text, on a copy of `image`.

    image: PIL picture as the policy saw it; points: [(x, y)] in its pixels; caption: (frame number, seconds)
    of a clip. A picture with a side below 168 px is doubled first, so that the text can be read (our choice);
    the numbers written are those of the original.
    """
    scale = 2 if min(image.size) < 168 else 1
    drawn = image.resize((image.width * scale, image.height * scale), Image.NEAREST)
    pen = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(9 if scale == 2 else 12)
    for x, y in points:
        center_x = (x + .5) * scale
        center_y = (y + .5) * scale
        dot = [center_x - 3, center_y - 3, center_x + 3, center_y + 3]
        pen.ellipse(dot, outline=(255, 255, 255), fill=(0, 0, 0))
        text = f"{round(x)},{round(y)}"
        width = pen.textlength(text, font=font)
        left = min(max(0, center_x - width / 2), drawn.width - width)
        fits_below = center_y + 16 < drawn.height
        top = center_y + 5 if fits_below else center_y - 16
        pen.text((left, top), text, fill=(0, 0, 0), font=font, stroke_width=1, stroke_fill=(255, 255, 255))
    if caption is not None:
        pen.text((1, 0), f"{caption[0]} {caption[1]:.1f}s", fill=(0, 0, 0), font=font)
    return drawn


def overlaid(media, points):
    """Every frame with its points drawn on it -> Media of the same seconds. points: as `point` gives them."""
    frames = []
    for number, (frame, seconds) in enumerate(zip(media.frames, media.seconds)):
        caption = (number, seconds) if is_clip(media) else None
        frames.append(overlay(frame, points[number], caption))
    return Media(frames=frames, seconds=media.seconds, original_size=media.original_size)


def is_clip(media):
    return len(media.frames) > 1


def with_overlay(media, drawn):
    """What is shown to a model: of a picture the original and the overlay, of a clip the overlay only."""
    return drawn if is_clip(drawn) else [media, drawn]


# ---- 4. Roll out: the teacher reasons ----------------------------------------------------------------------
def roll_out(samples, media, drawn, cfg, teacher, generator):
    """Sample the teacher -> one list of --rollouts responses per sample. drawn: the overlaid media."""
    items = []
    for sample, seen, marked in zip(samples, media, drawn):
        if cfg.overlay:
            shown = with_overlay(seen, marked)
            text = P.prompt(cfg.preset, "overlay", question=sample.question)
        else:
            shown = seen
            text = P.prompt(cfg.preset, "reason", question=sample.question)
        items.append((shown, text))

    groups = [None] * len(samples)
    for clips in (False, True):  # pictures and clips apart, so that short prompts are not padded to long ones
        chosen = [i for i, seen in enumerate(media) if is_clip(seen) == clips]
        if not chosen:
            continue
        prompts = P.encode_prompts(teacher, [items[i] for i in chosen])
        texts = P.sample(teacher, prompts, cfg.rollouts, cfg.temperature, max_new_tokens=cfg.max_new_tokens,
                         generator=generator).texts
        for k, i in enumerate(chosen):
            groups[i] = texts[k * cfg.rollouts:(k + 1) * cfg.rollouts]
    return groups


# ---- 5. Score: does the sample survive? --------------------------------------------------------------------
def score(samples, media, extractions, groups, cfg, verifier):
    """-> one row per sample for rollouts.jsonl."""
    rows = []
    verified = verifier.verify_groups(samples, groups, media)
    for sample, extraction, texts, verdicts in zip(samples, extractions, groups, verified):
        rollouts = []
        for text, v in zip(texts, verdicts):
            reward = None if v.reward is None else round(v.reward, 4)
            rollouts.append(dict(text=text, reward=reward, outcome=v.outcome, grounding=v.grounding,
                                 reasoning=v.reasoning))
        rows.append(dict(id=sample.id, extracted=extraction, reason=reject_reason(verdicts, cfg.threshold),
                         rollouts=rollouts))
    return rows


def passes(reward, outcome, threshold):
    """Is this rollout good enough to be taught? A right answer, and a reward of at least `threshold`."""
    # BEGIN SOLUTION ex11
    return reward is not None and outcome >= .5 and reward >= threshold
    # END SOLUTION


def reject_reason(verdicts, threshold):
    """Why a sample did not survive, by its best rollout; None if it did.

    What a failed teacher could not check is not taught, even where the other terms would do (our choice).
    """
    # BEGIN SOLUTION ex11
    not_scored = set()
    for v in verdicts:
        not_scored.update(v.not_scored)
    if not_scored:
        return "not scored: " + ", ".join(sorted(not_scored))
    best = max(verdicts, key=lambda v: v.reward)
    if passes(best.reward, best.outcome, threshold):
        return None
    if all(v.parsed.answer is None for v in verdicts):
        return "no answer in any rollout"
    if best.outcome < .5:
        return "no right answer"
    if (best.grounding or 0) < (best.reasoning or 0):
        return "right, but not grounded"
    return "right, but not reasoned"
    # END SOLUTION


def curate_batch(samples, media, cfg, teacher, verifier, pointer, generator):
    """Steps 1 to 5 for a few samples -> one row each for rollouts.jsonl, and the overlaid media."""
    extractions = extract(samples, media, cfg, teacher)
    drawn = []
    for seen, extraction in zip(media, extractions):
        points = point(seen, objects_of(extraction), pointer)
        drawn.append(overlaid(seen, points))
    groups = roll_out(samples, media, drawn, cfg, teacher, generator)
    rows = score(samples, media, extractions, groups, cfg, verifier)
    return rows, drawn


# ---- 6. Rewrite: survivors become SFT data -----------------------------------------------------------------
def write_sft(log, samples, cfg, verifier, out):
    """Survivors -> sft.jsonl, llamafactory.jsonl and dataset_info.json.

    log: rollouts.jsonl; samples: {id: Sample}; out: where to write. -> (examples, of them with moved points)
    """
    examples = 0
    moved_examples = 0
    with written_aside(out / "sft.jsonl") as chats, written_aside(out / "llamafactory.jsonl") as factory:
        for row in in_order(log, samples):
            if row["reason"] is not None:
                continue
            sample = samples[row["id"]]
            question = P.prompt(cfg.preset, "reason", question=sample.question)
            for i, rollout in enumerate(keep_rollouts(row, cfg)):
                response = canonical(rollout["text"], sample.media)
                name = f"{cfg.seed} {sample.id} {i}".encode("utf-8", "surrogatepass")
                rng = random.Random(name)  # the same after --resume
                moved = rng.random() < cfg.made_up
                if moved:
                    response = made_up(response, verifier.load(sample).frames[0].size, rng)
                chat = chat_row(sample, rollout["reward"], response, question, out, moved)
                chats.write(json.dumps(chat, ensure_ascii=False) + "\n")
                factory.write(json.dumps(llamafactory_row(chat), ensure_ascii=False) + "\n")
                examples += 1
                moved_examples += moved
    write_atomically(out / "dataset_info.json", json.dumps(LLAMAFACTORY, indent=2))
    return examples, moved_examples


def keep_rollouts(row, cfg):
    """Which rollouts of a survivor become SFT examples: the best `keep` of those that pass (our choice)."""
    good = [r for r in row["rollouts"] if passes(r["reward"], r["outcome"], cfg.threshold)]
    return sorted(good, key=itemgetter("reward"), reverse=True)[:cfg.keep]


NUMBER = r"\d+(?:\.\d+)?"
# A point in the canonical form: x1="44" y1="28" in a picture, (44, 28) in a clip.
POINT = re.compile(rf'(?P<before>x\d+="|\()(?P<x>{NUMBER})(?P<between>" y\d+="|, )(?P<y>{NUMBER})(?="|\))')
# Of two points' x or y: 44 is less than 70.
COMPARISON = re.compile(rf"(?P<first>{NUMBER})(?P<words> is \w+ than )(?P<second>{NUMBER})")


def made_up(response, size, rng):
    """Move all points of a canonical response, together: evidence that is not there. The answer stays.

    By a third of the picture along x, y or both, towards the middle. A comparison of the first two points' x
    or y moves along. size: (width, height) of the frames; rng: random.Random.
    """
    think, mark, answer = response.rpartition("<answer>")
    points = [(match["x"], match["y"]) for match in POINT.finditer(think)]  # texts: comparisons repeat them
    along = rng.choice([(1, 0), (0, 1), (1, 1)])  # x, y or both
    shift = []
    for axis in (0, 1):
        middle = sum(float(place[axis]) for place in points) / max(len(points), 1)
        towards_middle = 1 if middle < size[axis] / 2 else -1
        shift.append(along[axis] * (size[axis] // 3) * towards_middle)

    def move(axis, number):
        place = float(number) + shift[axis]
        return f"{min(max(place, 4), size[axis] - 4):g}"  # never closer to the edge than 4 pixels

    def move_point(match):
        return match["before"] + move(0, match["x"]) + match["between"] + move(1, match["y"])

    def move_comparison(match):
        for axis in (0, 1):
            if [place[axis] for place in points[:2]] == [match["first"], match["second"]]:
                return move(axis, match["first"]) + match["words"] + move(axis, match["second"])
        return match[0]  # it compares something else

    think = POINT.sub(move_point, think)
    think = COMPARISON.sub(move_comparison, think)
    return think + mark + answer


def chat_row(sample, reward, response, question, folder, moved):
    """One SFT example in HF chat format; media paths are relative to `folder`, where the JSONL lies."""
    kind = sample.media  # "image" or "video"
    path = os.path.relpath(sample.path, folder)
    user = {"role": "user", "content": [{"type": kind}, {"type": "text", "text": question}]}
    assistant = {"role": "assistant", "content": [{"type": "text", "text": response}]}
    return {"id": sample.id, "task": sample.task, "source": sample.source, "reward": reward, "made_up": moved,
            "messages": [user, assistant], f"{kind}s": [path]}


# What LLaMA-Factory reads first, dataset_info.json.
LLAMAFACTORY = {"argos": {"file_name": "llamafactory.jsonl", "formatting": "alpaca", "columns": {
    "prompt": "instruction", "response": "output", "images": "images", "videos": "videos"}}}


def llamafactory_row(chat):
    """The same example as LLaMA-Factory reads it: texts, and a tag in them for the picture or clip."""
    user, assistant = chat["messages"]
    kind = user["content"][0]["type"]
    question = without_tags(user["content"][-1]["text"])
    response = without_tags(assistant["content"][-1]["text"])
    return {"instruction": f"<{kind}>{question}", "output": response,
            "images": chat.get("images", []), "videos": chat.get("videos", [])}


def without_tags(text):
    """LLaMA-Factory would count every such tag in a text as a file."""
    return re.sub(r"<(image|video|audio)>", r"< \1>", text)


# ---- 7. The log, and the report that is made of it ---------------------------------------------------------
# Rollouts of 85K samples do not fit into memory: the log is read row by row.
DAMAGED = "damaged media"


def load_batch(samples, verifier):
    """Read the samples' files -> ({id: Media}, {id: row for rollouts.jsonl} of those that are damaged)."""
    media = {}
    damaged = {}
    for sample in samples:
        try:
            media[sample.id] = verifier.load(sample)
        except BadMedia as error:
            tqdm.write(printable(f"left out: {error}"), file=sys.stderr)
            damaged[sample.id] = dict(id=sample.id, extracted=None, reason=DAMAGED, error=str(error),
                                      rollouts=[])
    return media, damaged


def read_log(path):
    """Yield (row, where it ends in bytes) of every complete row of rollouts.jsonl."""
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise BadInput(f"{path} row {number}: is not JSON; {AGAIN}") from None
            if not is_whole(row):
                raise BadInput(f"{path} row {number}: is no row of this log; {AGAIN}")
            yield row, end


AGAIN = "delete the line, and its sample is done again"


def is_whole(row):
    """Is this a row as `score` or `load_batch` makes it?"""
    if not isinstance(row, dict) or not {"id", "extracted", "reason", "rollouts"} <= row.keys():
        return False
    rollouts = row["rollouts"]
    texts = isinstance(row["id"], str) and isinstance(row["reason"], str | None)
    return texts and isinstance(rollouts, list) and all(map(is_rollout, rollouts))


def is_rollout(rollout):
    if not isinstance(rollout, dict) or not isinstance(rollout.get("text"), str):
        return False
    scores = [rollout.get(name, "missing") for name in ("reward", "outcome", "grounding", "reasoning")]
    rewarded = scores[0] is None or scores[1] is not None  # no reward without an outcome
    return all(map(is_score, scores)) and rewarded


def resume_log(path):
    """-> {id of a finished sample: did it survive}. A last line torn by a kill is removed from the log."""
    done = {}
    if path.exists():
        end = 0
        for row, end in read_log(path):
            done[row["id"]] = row["reason"] is None
        os.truncate(path, end)
    return done


def in_order(path, samples):
    """The log's rows in the order of samples, {id: Sample}: several processes append as they finish."""
    begins = {}  # id -> where its row begins, in bytes
    begin = 0
    for row, end in read_log(path):
        begins[row["id"]] = begin
        begin = end
    with open(path, "rb") as file:
        for name in samples:
            if name in begins:
                file.seek(begins[name])
                yield json.loads(file.readline())


@contextmanager
def written_aside(path):
    """A file to write line by line, which takes its name when it is complete."""
    aside = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            with open(aside, "w", encoding="utf-8", errors="backslashreplace") as file:
                yield file
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def report(log, samples, threshold):
    """The yield: overall, by task, kind and source, and by reason of rejection. -> report.json as a dict.

    Damaged files are counted apart, and in no yield. log: rollouts.jsonl; samples: {id: Sample}.
    """
    table = {"survived": 0, "rollouts": 0, "extraction malformed": 0, "rollouts that pass": 0}
    reasons = Counter()
    survivors = {key: Counter() for key in ("task", "kind", "source")}  # by what the sample says of itself
    all_of = {key: Counter() for key in survivors}
    for row in in_order(log, samples):
        reasons[row["reason"]] += 1
        if row["reason"] == DAMAGED:
            continue
        survived = row["reason"] is None
        table["survived"] += survived
        table["rollouts"] += len(row["rollouts"])
        table["extraction malformed"] += row["extracted"] is None
        for rollout in row["rollouts"]:
            table["rollouts that pass"] += passes(rollout["reward"], rollout["outcome"], threshold)
        for key in survivors:
            value = getattr(samples[row["id"]], key)
            survivors[key][value] += survived
            all_of[key][value] += 1

    damaged = reasons.pop(DAMAGED, 0)
    del reasons[None]  # None: survived
    table = {"samples": len(samples), DAMAGED: damaged, **table, "rejected": dict(reasons.most_common())}
    for key, counts in all_of.items():
        rates = {value: f"{survivors[key][value]}/{count}" for value, count in sorted(counts.items())}
        table[f"yield by {key}"] = rates
    return table


# ---- 8. Pictures to look at --------------------------------------------------------------------------------
def save_overlay(drawn, path):
    """What the teacher read coordinates from, enlarged if small; of a clip the frame in the middle."""
    frame = drawn.frames[len(drawn.frames) // 2]
    if max(frame.size) < 336:
        frame = frame.resize((frame.width * 3, frame.height * 3), Image.NEAREST)
    save_figure(frame, path)


def draw_cards(log, samples, cfg, verifier, out):
    """Cards of the best and the worst rollouts, one per sample: best/01-<id>.png is the best of all."""
    best = heapq.nlargest(cfg.pictures, one_per_sample(log, samples, max), key=itemgetter("quality"))
    draw_ranked(best, samples, verifier, out / "best")
    worst = heapq.nsmallest(cfg.pictures, one_per_sample(log, samples, min), key=itemgetter("quality"))
    draw_ranked(worst, samples, verifier, out / "worst")


def one_per_sample(log, samples, choose):
    """Yield of every sample its best (choose=max) or worst (choose=min) rollout that has a reward."""
    for row in in_order(log, samples):
        candidates = []
        for k, rollout in enumerate(row["rollouts"]):
            if rollout["reward"] is not None:
                quality = (rollout["reward"], rollout["grounding"] or 0, rollout["reasoning"] or 0)
                candidates.append(dict(quality=quality, place=k, row=row))
        if candidates:
            yield choose(candidates, key=itemgetter("quality"))  # the first of equals


def draw_ranked(ranked, samples, verifier, folder):
    """One card per rollout, numbered by rank; cards of an earlier run go."""
    make_folder(folder)
    for old in folder.glob("[0-9][0-9]-*.png"):
        old.unlink()
    for rank, one in enumerate(ranked, 1):
        sample = samples[one["row"]["id"]]
        texts = [rollout["text"] for rollout in one["row"]["rollouts"]]
        verdict = verifier.verify_group(sample, texts)[one["place"]]  # scored again: masks are not in the log
        verifier.card(sample, texts[one["place"]], verdict, folder / f"{rank:02d}-{file_name(sample.id)}.png")


# ---- 9. The run --------------------------------------------------------------------------------------------
def claim(accelerator, cfg, log):
    """Begin or continue the run in --out. -> {id of a finished sample: did it survive}, in every process."""
    def begin():
        if log.exists() and not cfg.resume:
            raise BadInput(f"{log} exists: continue it with --resume, or name another --out")
        settings = {name: value for name, value in asdict(cfg).items() if name not in FREE_TO_CHANGE}
        claim_run(log.with_name("settings.jsonl"), settings)
        return resume_log(log)

    return processes.once(accelerator, begin)


def finish(cfg, samples, verifier, log, out):
    """From rollouts.jsonl to everything that is made of it. samples: {id: Sample}."""
    write_budget(out, budget_of(cfg))
    examples, moved = write_sft(log, samples, cfg, verifier, out)
    table = report(log, samples, cfg.threshold)
    table |= {"SFT examples": examples, "of them with moved points": moved}
    write_atomically(out / "report.json", json.dumps(table, indent=2))
    print(json.dumps(table, indent=2))
    if table[DAMAGED] == len(samples):
        raise BadInput(f"{cfg.data}: none of its {len(samples)} files can be read; {log} says why")
    draw_cards(log, samples, cfg, verifier, out)
    print(f"wrote {examples} examples to {out}/sft.jsonl; look at {out}/overlays, best and worst")


def main():
    cfg = parse_config(Config, __doc__, preset_arguments("curate", Config))
    check(cfg)
    follow_budget(cfg, cfg.teacher)
    accelerator = processes.start(cfg)
    with processes.alone(accelerator, cfg.out):
        work(cfg, accelerator)


def work(cfg, accelerator):
    """The whole run, in a folder that is this run's alone."""
    out = Path(cfg.out)
    log = out / "rollouts.jsonl"
    make_folder(out / "overlays")
    samples = read_samples(cfg.data)
    teacher = P.load_policy(cfg.teacher, dtype=cfg.dtype)
    detector, segmenter, pointer = load_teachers(cfg.detector, cfg.segmenter, cfg.pointer,
                                                 cache=cfg.teacher_cache, base=teacher)
    judge = VLMJudge(teacher, preset=cfg.preset)
    verifier = Argos(detector, segmenter, pointer, judge, **verifier_options(cfg))
    verifier.self_check()  # refuses to filter where points miss
    done = claim(accelerator, cfg, log)

    # Batches are cut from the whole list and seeded by their place in it, so that a resumed run, or one of
    # more processes, rolls out the same.
    starts = range(0, len(samples), cfg.batch)[accelerator.process_index::accelerator.num_processes]
    bar = tqdm(starts, desc="curate", unit="batch", disable=not accelerator.is_main_process)
    for start in bar:
        batch = samples[start:start + cfg.batch]
        if all(sample.id in done for sample in batch):
            continue
        media, rows = load_batch(batch, verifier)
        usable = [sample for sample in batch if sample.id in media]
        if usable:
            generator = torch.Generator(teacher.device).manual_seed(cfg.seed * 1_000_003 + start)
            new_rows, drawn = curate_batch(usable, list(media.values()), cfg, teacher, verifier, pointer,
                                           generator)
            for row in new_rows:
                rows[row["id"]] = row
            for sample, marked in zip(usable, drawn):
                if sample in samples[:cfg.pictures]:
                    save_overlay(marked, out / "overlays" / f"{file_name(sample.id)}.png")
        for sample in batch:
            if sample.id not in done:
                append_jsonl(log, rows[sample.id])
                done[sample.id] = rows[sample.id]["reason"] is None
        bar.set_postfix({"yield": f"{sum(done.values())}/{len(done)}"})

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        finish(cfg, {sample.id: sample for sample in samples}, verifier, log, out)


if __name__ == "__main__":
    run_main(main)
