"""Curation: a teacher's rollouts, with coordinates drawn for it to read, filtered by Argos into SFT data (paper section 4).

A reasoning teacher does not point on its own. The paper makes it: objects are named by a language model, found by a pointing
model, and their coordinates drawn onto the picture, where the teacher can read them off while it reasons. What it writes is
still unreliable (the paper kept about 3.1 %), so the verifier that will reward RL first filters the SFT data:

  1. extract    a language model lists objects, actions and events from question, answer and the        (app. C.1)
                reasoning that the source data set ships, if it does ("raw" in a row), as JSON
  2. point      a pointing model finds every object in the picture, or in each of up to 32 frames       (sec. 4.1)
  3. overlay    points and their coordinates are drawn; frames carry their number and second            (sec. 4.1)
  4. roll out   the teacher sees original and overlaid picture (clips: overlaid frames only), writes 8   (sec. 4.2)
  5. score      Argos scores all 8; the sample survives if the best reaches 0.7 with a right answer      (sec. 4.3)
  6. rewrite    points and times take their canonical form; SFT will see the original, not the overlay   (sec. 4.3)

A corpus that was filtered by its answers alone holds made-up evidence: right answers with points that sit elsewhere. The embedded
teachers are too good for that, so a share of the SFT examples gets its points moved (`--made_up`, our choice; 0 is the paper's
pipeline). The policy learns this habit too, and what becomes of it in RL is up to the reward: README.md, "What came out".

Run:   python curate.py --data out/data/curate.jsonl --out out/curated      # --resume continues after a kill
       accelerate launch curate.py ...      # all GPUs of the machine: the same samples and rollouts, each process every n-th batch
Reads: JSONL rows with a picture or clip, a question and an answer (python -m tiny.world, python -m benchmarks.prepare). A sample
       whose file is damaged is named, counted and left out.
Writes, under --out:
       rollouts.jsonl  every sample with its 8 rollouts and scores (append-only: the memory of --resume)
       sft.jsonl       the survivors, in HF chat format (messages + images/videos), for train_sft.py and TRL
       llamafactory.jsonl, dataset_info.json   the same for LLaMA-Factory (dataset: argos), which wants other fields
       settings.jsonl  what the run was asked for (so that --resume cannot mix two)
       report.json     yield by kind, task and source, and by reason of rejection
       overlays/, best/, worst/   pictures to look at: what the teacher saw; cards of the best and the worst rollouts

With another trainer: start it in --out, as media paths are relative to it. TRL 1.16 trains on pictures, not on clips (filter by
"images"). Coordinates are pixels after Qwen2.5-VL's resize within this run's pixel budget: give the other trainer the same one,
or every point is off.

Next:  train_sft.py
"""
import heapq
import json
import os
import random
import re
import sys
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

import policy as P
from argos import Argos
from runs import processes
from runs.errors import BadInput, BadMedia, run_main
from runs.files import append_jsonl, claim_run, file_name, save_figure, write_atomically
from runs.settings import TeacherSettings, parse_config, preset_arguments, verifier_options
from teachers.judges import VLMJudge
from teachers.names import load_teachers
from verifier.claims import canonical
from verifier.coordinates import Media
from verifier.samples import read_samples


@dataclass
class Config(TeacherSettings):
    data: str = field(default="out/data/curate.jsonl", metadata={"help": "samples to curate, one JSON object a line"})
    out: str = field(default="out/curated", metadata={"help": "folder to write"})
    teacher: str = field(default=str(Path(__file__).parent / "tiny/teacher"), metadata={"help": "the reasoning VLM (paper: GLM-4.1V-9B), folder or hub id"})
    rollouts: int = field(default=8, metadata={"help": "rollouts a sample (paper: 8)"})
    temperature: float = field(default=0.6, metadata={"help": "the teacher's temperature (paper: 0.6)"})
    max_new_tokens: int = field(default=112, metadata={"help": "a rollout is cut here (paper: 6144)"})
    threshold: float = field(default=0.7, metadata={"help": "the best rollout's reward must reach this (app. C.3)"})
    keep: int = field(default=4, metadata={"help": "SFT sees so many rollouts of a survivor, the best that pass; 1: the best alone"})
    made_up: float = field(default=0.25, metadata={"help": "share of SFT examples whose points are moved elsewhere, the answer kept (our choice; 0 for real data)"})
    batch: int = field(default=32, metadata={"help": "samples at a time"})
    overlay: bool = field(default=True, metadata={"help": "off: the teacher sees the original alone (an ablation)"})
    extract_tokens: int = field(default=48, metadata={"help": "the list of objects, actions and events is cut here"})
    pictures: int = field(default=12, metadata={"help": "so many overlays, best and worst rollouts to keep as pictures"})
    seed: int = field(default=0, metadata={"help": "seed of the teacher's sampling"})
    resume: bool = field(default=False, metadata={"help": "keep OUT/rollouts.jsonl and continue after it"})


# ---- 1. Extract: what is this question about? -----------------------------------------------------------------------------
KEYS = ("objects", "actions", "events")
MAX_RAW = 4_000  # characters of a data set's own reasoning that the extraction gets to read (our choice)


def read_extraction(text):
    """The model's JSON -> {"objects": [...], "actions": [...], "events": [...]}, or None if it is anything else.

    A list holds at most 8 strings of at most 60 characters: what a model says is data, checked before use (our choice).
    """
    try:
        found = json.loads(text[text.index("{"):text.rindex("}") + 1][:4000])
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or any(not isinstance(found.get(k), list) for k in KEYS):
        return None
    return {k: [v.strip()[:60] for v in found[k] if isinstance(v, str) and v.strip()][:8] for k in KEYS}


# ---- 2./3. Point and overlay: coordinates that the teacher can read -------------------------------------------------------
def overlay(image, points, caption=None):
    """Draw points, each with its coordinates as text, on a copy of `image`.

    image: PIL picture as the policy saw it; points: [(x, y)] in its pixels; caption: (frame number, seconds) of a clip.
    A picture with a side below 168 px is doubled first, so that the text can be read (our choice); the numbers written
    are those of the original.
    """
    scale = 2 if min(image.size) < 168 else 1
    drawn = image.resize((image.width * scale, image.height * scale), Image.NEAREST)
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(9 if scale == 2 else 12)
    for x, y in points:
        cx, cy = (x + .5) * scale, (y + .5) * scale
        pen.ellipse([cx - 3, cy - 3, cx + 3, cy + 3], outline=(255, 255, 255), fill=(0, 0, 0))
        text = f"{round(x)},{round(y)}"
        width = pen.textlength(text, font=font)
        left = min(max(0, cx - width / 2), drawn.width - width)
        top = cy + 5 if cy + 16 < drawn.height else cy - 16
        pen.text((left, top), text, fill=(0, 0, 0), font=font, stroke_width=1, stroke_fill=(255, 255, 255))
    if caption is not None:
        pen.text((1, 0), f"{caption[0]} {caption[1]:.1f}s", fill=(0, 0, 0), font=font)
    return drawn


def overlaid(media, objects, pointer):
    """Every frame of `media` with the pointer's points for `objects` drawn on it -> Media of the same seconds."""
    clip = len(media.frames) > 1
    frames = [overlay(frame, [p for label in objects for p in pointer.point(frame, label)],
                      (i, seconds) if clip else None) for i, (frame, seconds) in enumerate(zip(media.frames, media.seconds))]
    return Media(frames=frames, seconds=media.seconds, original_size=media.original_size)


# ---- 4. - 6. Roll out, score, rewrite --------------------------------------------------------------------------------------
def reject_reason(verdicts, threshold):
    """Why a sample did not survive: of its best rollout. None: it did (app. C.3: best score and right answer).

    What a failed teacher could not check is not taught, even where the rest of the reward would do (our choice).
    """
    if any(v.not_scored for v in verdicts):
        return "not scored: " + ", ".join(sorted({term for v in verdicts for term in v.not_scored}))
    best = max(verdicts, key=lambda v: v.reward)
    if passes(best.reward, best.outcome, threshold):
        return None
    if all(v.parsed.answer is None for v in verdicts):
        return "no answer in any rollout"
    if best.outcome < .5:
        return "no right answer"
    return "right, but not grounded" if (best.grounding or 0) < (best.reasoning or 0) else "right, but not reasoned"


def keep_rollouts(row, cfg):
    """Which rollouts of a survivor become SFT examples: the best `keep` of those that pass.

    Our choice: the paper names the filter, not how many rollouts it leaves.
    """
    good = [r for r in row["rollouts"] if passes(r["reward"], r["outcome"], cfg.threshold)]
    return sorted(good, key=lambda r: -r["reward"])[:cfg.keep]


def passes(reward, outcome, threshold):
    return reward is not None and outcome >= .5 and reward >= threshold


NUMBER = r"(\d+(?:\.\d+)?)"
POINT = re.compile(rf'(x\d+="|\(){NUMBER}(" y\d+="|, ){NUMBER}(?="|\))')


def made_up(response, size, rng):
    """Move all points of a canonical response by a third of the picture, together and towards the middle: evidence that is not
    there. Comparisons of the first two points' x or y move along; the answer stays. size: (width, height); rng: random.Random."""
    think, mark, answer = response.rpartition("<answer>")
    found = [(m[2], m[4]) for m in POINT.finditer(think)]
    middle = [sum(float(p[k]) for p in found) / max(len(found), 1) for k in (0, 1)]
    axes = rng.choice([(1, 0), (0, 1), (1, 1)])
    step = [axes[k] * (size[k] // 3) * (1 if middle[k] < size[k] / 2 else -1) for k in (0, 1)]
    move = lambda k, v: f"{min(max(float(v) + step[k], 4), size[k] - 4):g}"

    def compare(match):
        for k in (0, 1):
            if [p[k] for p in found[:2]] == [match[1], match[3]]:
                return f"{move(k, match[1])}{match[2]}{move(k, match[3])}"
        return match[0]
    think = POINT.sub(lambda m: f"{m[1]}{move(0, m[2])}{m[3]}{move(1, m[4])}", think)
    return re.sub(rf"{NUMBER}( is \w+ than ){NUMBER}", compare, think) + mark + answer


def chat_row(sample, reward, response, question, folder, moved):
    """One SFT example in HF chat format; media paths are relative to the JSONL's folder."""
    kind = sample.media
    path = os.path.relpath(sample.path, folder)
    return {"id": sample.id, "task": sample.task, "source": sample.source, "reward": reward, "made_up": moved,
            "messages": [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": question}]},
                         {"role": "assistant", "content": [{"type": "text", "text": response}]}],
            f"{kind}s": [path]}


def llamafactory_row(chat):
    """The same example as LLaMA-Factory reads it: texts instead of lists, a tag in the text for each picture or clip."""
    question, response = (turn["content"][-1]["text"] for turn in chat["messages"])
    plain = lambda text: re.sub(r"<(image|video|audio)>", r"< \1>", text)  # every such tag in a text would count as a file
    return {"instruction": f"<{chat['messages'][0]['content'][0]['type']}>{plain(question)}", "output": plain(response),
            "images": chat.get("images", []), "videos": chat.get("videos", [])}


LLAMAFACTORY = {"argos": {"file_name": "llamafactory.jsonl", "formatting": "alpaca", "columns": {
    "prompt": "instruction", "response": "output", "images": "images", "videos": "videos"}}}  # dataset_info.json


def load_batch(samples, verifier):
    """-> ({id: Media}, {id: row for rollouts.jsonl} of the samples whose file is damaged: named, and left out)."""
    media, damaged = {}, {}
    for sample in samples:
        try:
            media[sample.id] = verifier.load(sample)
        except BadMedia as error:
            tqdm.write(f"left out: {error}", file=sys.stderr)
            damaged[sample.id] = dict(id=sample.id, extracted=None, reason=DAMAGED, error=str(error), rollouts=[])
    return media, damaged


DAMAGED = "damaged media"


def curate_batch(samples, media, cfg, teacher, verifier, pointer, generator):
    """Steps 1 to 5 for a few samples and their media -> one row each for rollouts.jsonl, and the overlaid media."""
    raw = [s.raw[:MAX_RAW] for s in samples]
    asked = P.encode_prompts(teacher, [(m, P.prompt(cfg.preset, "objects", question=s.question, answer=s.answer, raw=r))
                                       for m, s, r in zip(media, samples, raw)])
    lists = [read_extraction(t) for t in P.sample(teacher, asked, 1, greedy=True, max_new_tokens=cfg.extract_tokens).texts]
    drawn = [overlaid(m, (found or {"objects": []})["objects"], pointer) for m, found in zip(media, lists)]
    if cfg.overlay:
        shown = [d if len(d.frames) > 1 else [m, d] for m, d in zip(media, drawn)]
        texts = [P.prompt(cfg.preset, "overlay", question=s.question) for s in samples]
    else:
        shown, texts = media, [P.prompt(cfg.preset, "reason", question=s.question) for s in samples]
    groups = [None] * len(samples)
    for clips in (False, True):  # apart, so that short prompts are not padded to long ones
        at = [i for i, m in enumerate(media) if (len(m.frames) > 1) == clips]
        if at:
            prompts = P.encode_prompts(teacher, [(shown[i], texts[i]) for i in at])
            written = P.sample(teacher, prompts, cfg.rollouts, cfg.temperature, max_new_tokens=cfg.max_new_tokens,
                               generator=generator).texts
            for k, i in enumerate(at):
                groups[i] = written[k * cfg.rollouts:(k + 1) * cfg.rollouts]
    rows = []
    for sample, found, group, verdicts in zip(samples, lists, groups, verifier.verify_groups(samples, groups, media)):
        rows.append(dict(id=sample.id, extracted=found, reason=reject_reason(verdicts, cfg.threshold),
                         rollouts=[dict(text=t, reward=v.reward and round(v.reward, 4), outcome=v.outcome, grounding=v.grounding,
                                        reasoning=v.reasoning) for t, v in zip(group, verdicts)]))
    return rows, drawn


# ---- 7. The log, and what is made of it ------------------------------------------------------------------------------------
# Rollouts of 85K samples do not fit into memory: the log is read row by row.
def read_log(path):
    """Yield (row, where it ends in bytes) of every complete row of rollouts.jsonl."""
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                yield json.loads(line), end
            except ValueError:
                raise BadInput(f"{path} row {number}: is not JSON; delete the line, and its sample is done again") from None


def resume_log(path):
    """-> {id of a finished sample: did it survive}. A last line cut by a kill is cut off, so its sample is simply done again."""
    done, end = {}, 0
    if path.exists():
        for row, end in read_log(path):
            done[row["id"]] = row["reason"] is None
        os.truncate(path, end)
    return done


def in_order(path, samples):
    """The rows of these samples in the samples' order: several processes append as they finish. samples: {id: Sample}."""
    places, begin = {}, 0
    for row, end in read_log(path):
        places[row["id"]], begin = begin, end
    with open(path, "rb") as file:
        for begin in (places[i] for i in samples if i in places):
            file.seek(begin)
            yield json.loads(file.readline())


@contextmanager
def written_aside(path):
    """A file to write line by line, which takes its name when it is complete."""
    aside = path.with_name(f".{path.name}.tmp")
    with open(aside, "w", encoding="utf-8", errors="backslashreplace") as file:
        yield file
    os.replace(aside, path)


def write_sft(log, samples, cfg, verifier, out):
    """Survivors -> sft.jsonl, llamafactory.jsonl and dataset_info.json. Returns (examples, of them with moved points)."""
    count = moved_count = 0
    with written_aside(out / "sft.jsonl") as chats, written_aside(out / "llamafactory.jsonl") as factory:
        for row in in_order(log, samples):
            sample = samples[row["id"]]
            if row["reason"] is not None:
                continue
            question = P.prompt(cfg.preset, "reason", question=sample.question)
            for i, rollout in enumerate(keep_rollouts(row, cfg)):
                text = canonical(rollout["text"], sample.media)
                rng = random.Random(f"{cfg.seed} {sample.id} {i}")  # the same after --resume
                moved = rng.random() < cfg.made_up
                if moved:
                    text = made_up(text, verifier.load(sample).frames[0].size, rng)
                chat = chat_row(sample, rollout["reward"], text, question, out, moved)
                chats.write(json.dumps(chat, ensure_ascii=False) + "\n")
                factory.write(json.dumps(llamafactory_row(chat), ensure_ascii=False) + "\n")
                count, moved_count = count + 1, moved_count + moved
    write_atomically(out / "dataset_info.json", json.dumps(LLAMAFACTORY, indent=2))
    return count, moved_count


def report(log, samples, threshold):
    """Yield overall, by task, kind and source, by reason of rejection. Damaged files are counted apart, and in no yield."""
    table, reasons = Counter({"survived": 0, "rollouts": 0, "extraction malformed": 0, "rollouts that pass": 0}), Counter()
    yields = {key: defaultdict(lambda: [0, 0]) for key in ("task", "kind", "source")}
    for row in in_order(log, samples):
        sample, survived = samples[row["id"]], row["reason"] is None
        reasons[row["reason"]] += 1
        if row["reason"] == DAMAGED:
            continue
        table.update({"survived": survived, "rollouts": len(row["rollouts"]), "extraction malformed": row["extracted"] is None,
                      "rollouts that pass": sum(passes(r["reward"], r["outcome"], threshold) for r in row["rollouts"])})
        for key, groups in yields.items():
            good, of = groups[getattr(sample, key)]
            groups[getattr(sample, key)] = [good + survived, of + 1]
    skipped = reasons.pop(DAMAGED, 0)
    del reasons[None]
    return {"samples": len(samples), DAMAGED: skipped, **table, "rejected": dict(reasons.most_common())} | {
        f"yield by {key}": {name: f"{good}/{of}" for name, (good, of) in sorted(groups.items())} for key, groups in yields.items()}


def draw_cards(log, samples, cfg, verifier, out):
    """Cards of the best and the worst rollouts, one a sample: best/01-<id>.png is the best of all, worst/01-<id>.png the worst."""
    quality = lambda rollout: (rollout["reward"], rollout["grounding"] or 0, rollout["reasoning"] or 0)
    scored = lambda: ((quality(r), k, row) for row in in_order(log, samples) for k, r in enumerate(row["rollouts"]) if r["reward"] is not None)
    for folder, extreme, first in (("best", heapq.nlargest, max), ("worst", heapq.nsmallest, min)):
        (out / folder).mkdir(exist_ok=True)
        for old in (out / folder).glob("[0-9][0-9]-*.png"):
            old.unlink()
        one_each = (first(group, key=lambda one: one[0]) for _, group in groupby(scored(), key=lambda one: one[2]["id"]))
        for place, (_, k, row) in enumerate(extreme(cfg.pictures, one_each, key=lambda one: one[0]), 1):
            sample, texts = samples[row["id"]], [r["text"] for r in row["rollouts"]]
            verdict = verifier.verify_group(sample, texts)[k]  # scored again: masks are not in the log
            verifier.card(sample, texts[k], verdict, out / folder / f"{place:02d}-{file_name(sample.id)}.png")


def main():
    cfg = parse_config(Config, __doc__, preset_arguments("curate", Config))
    for name in ("batch", "rollouts", "max_new_tokens", "keep", "extract_tokens"):
        if getattr(cfg, name) < 1:
            raise BadInput(f"--{name} {getattr(cfg, name)}: must be at least 1")
    if not 0 <= cfg.made_up <= 1:
        raise BadInput(f"--made_up {cfg.made_up}: a share lies between 0 and 1")
    out = Path(cfg.out)
    accelerator = processes.start(cfg)
    (out / "overlays").mkdir(parents=True, exist_ok=True)
    samples = read_samples(cfg.data)
    teacher = P.load_policy(cfg.teacher, dtype=cfg.dtype)
    detector, segmenter, pointer = load_teachers(cfg.detector, cfg.segmenter, cfg.pointer, cache=cfg.teacher_cache, base=teacher)
    verifier = Argos(detector, segmenter, pointer, VLMJudge(teacher, preset=cfg.preset), **verifier_options(cfg))
    verifier.self_check()
    memory, done = out / "rollouts.jsonl", {}
    claimed = {k: v for k, v in asdict(cfg).items() if k not in ("keep", "made_up", "pictures", "teacher_cache")}  # those may change: no rollout depends on them
    if accelerator.is_main_process:
        if memory.exists() and not cfg.resume:
            raise BadInput(f"{memory} exists: continue it with --resume, or name another --out")
        claim_run(out / "settings.jsonl", claimed)
        done = resume_log(memory)
    done, = broadcast_object_list([done])

    # Batches are cut from the whole list and seeded by their place in it, so that a resumed run, or one of more processes, rolls out
    # the same.
    bar = tqdm(range(0, len(samples), cfg.batch)[accelerator.process_index::accelerator.num_processes], desc="curate", unit="batch",
               disable=not accelerator.is_main_process)
    for start in bar:
        batch = samples[start:start + cfg.batch]
        if all(s.id in done for s in batch):
            continue
        media, rows = load_batch(batch, verifier)
        usable = [s for s in batch if s.id in media]
        if usable:
            generator = torch.Generator(teacher.device).manual_seed(cfg.seed * 1_000_003 + start)
            made, drawn = curate_batch(usable, list(media.values()), cfg, teacher, verifier, pointer, generator)
            rows |= {row["id"]: row for row in made}
            for sample, shown in zip(usable, drawn):
                if sample in samples[:cfg.pictures]:
                    middle = shown.frames[len(shown.frames) // 2]
                    if max(middle.size) < 336:
                        middle = middle.resize((middle.width * 3, middle.height * 3), Image.NEAREST)
                    save_figure(middle, out / "overlays" / f"{file_name(sample.id)}.png")
        for sample in batch:
            if sample.id not in done:
                append_jsonl(memory, rows[sample.id])
                done[sample.id] = rows[sample.id]["reason"] is None
        bar.set_postfix({"yield": f"{sum(done.values())}/{len(done)}"})

    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return
    by_id = {s.id: s for s in samples}
    examples, moved = write_sft(memory, by_id, cfg, verifier, out)
    table = report(memory, by_id, cfg.threshold) | {"SFT examples": examples, "of them with moved points": moved}
    write_atomically(out / "report.json", json.dumps(table, indent=2))
    print(json.dumps(table, indent=2))
    if table[DAMAGED] == len(samples):
        raise BadInput(f"{cfg.data}: none of its {len(samples)} files can be read; {memory} says why")
    draw_cards(memory, by_id, cfg, verifier, out)
    print(f"wrote {examples} examples to {out}/sft.jsonl; look at {out}/overlays, best and worst")


if __name__ == "__main__":
    run_main(main)
