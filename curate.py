"""Curation: a teacher's rollouts, with coordinates drawn for it to read, filtered by Argos into SFT data (paper section 4).

A reasoning teacher does not point on its own. The paper makes it: objects are named by a language model, found by a pointing
model, and their coordinates drawn onto the picture, where the teacher can read them off while it reasons. What it writes is
still unreliable (the paper kept about 3.1 %), so the verifier that will reward RL first filters the SFT data:

  1. extract    a language model lists objects, actions and events from question and answer, as JSON    (app. C.1; the paper
                also shows it the raw rollouts of its source dataset, which the embedded world does not have)
  2. point      a pointing model finds every object in the picture, or in each of up to 32 frames       (sec. 4.1)
  3. overlay    points and their coordinates are drawn; frames carry their number and second            (sec. 4.1)
  4. roll out   the teacher sees original and overlaid picture (clips: overlaid frames only), writes 8   (sec. 4.2)
  5. score      Argos scores all 8; the sample survives if the best reaches 0.7 with a right answer      (sec. 4.3)
  6. rewrite    points and times take their canonical form; SFT will see the original, not the overlay   (sec. 4.3)

A corpus that was filtered by its answers alone holds made-up evidence: right answers with points that sit elsewhere. The embedded
teachers are too good for that, so a share of the SFT examples gets its points moved (`--made_up`, our choice; 0 is the paper's
pipeline). The policy learns this habit too, and what becomes of it in RL is up to the reward: README.md, "What came out".

Run:   python curate.py --data out/data/curate.jsonl --out out/curated      # --resume continues after a kill
Reads: JSONL rows with a picture or clip, a question and an answer. Writes, under --out:
       rollouts.jsonl  every sample with its 8 rollouts and scores (append-only: the memory of --resume)
       sft.jsonl       the survivors, in HF chat format (messages + images/videos)
       settings.jsonl  what the run was asked for (so that --resume cannot mix two)
       report.json     yield by kind, by source and by reason of rejection; overlays/ pictures to look at
Next:  train_sft.py
"""
import json
import os
import random
import re
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm


@dataclass
class Config:
    data: str = field(default="out/data/curate.jsonl", metadata={"help": "samples to curate, one JSON object a line"})
    out: str = field(default="out/curated", metadata={"help": "folder to write"})
    teacher: str = field(default=str(Path(__file__).parent / "tiny/teacher"), metadata={"help": "the reasoning VLM (paper: GLM-4.1V-9B), folder or hub id"})
    preset: str = field(default="tiny", metadata={"help": "prompts to use: tiny or 7b"})
    detector: str = field(default="pixels", metadata={"help": "who finds what a label names: pixels, yolo-world, grounding-dino, mm-grounding-dino or owlv2, or NAME:FOLDER"})
    segmenter: str = field(default="pixels", metadata={"help": "who turns boxes into masks: pixels, sam2 or sam2-hf"})
    pointer: str = field(default="pixels", metadata={"help": "who points at what the extraction names: pixels, molmo or qwen"})
    teacher_cache: str = field(default="", metadata={"help": "folder that keeps these teachers' answers, for several runs at once (default: none)"})
    rollouts: int = field(default=8, metadata={"help": "rollouts a sample (paper: 8)"})
    temperature: float = field(default=0.6, metadata={"help": "the teacher's temperature (paper: 0.6)"})
    max_new_tokens: int = field(default=112, metadata={"help": "a rollout is cut here (paper: 6144)"})
    threshold: float = field(default=0.7, metadata={"help": "the best rollout's reward must reach this (app. C.3)"})
    keep: int = field(default=4, metadata={"help": "SFT sees so many rollouts of a survivor, the best that pass; 1: the best alone"})
    made_up: float = field(default=0.25, metadata={"help": "share of SFT examples whose points are moved elsewhere, the answer kept (our choice; 0 for real data)"})
    batch: int = field(default=32, metadata={"help": "samples at a time"})
    overlay: bool = field(default=True, metadata={"help": "off: the teacher sees the original alone (an ablation)"})
    pictures: int = field(default=12, metadata={"help": "overlays to keep as pictures"})
    seed: int = field(default=0, metadata={"help": "seed of the teacher's sampling"})
    resume: bool = field(default=False, metadata={"help": "keep OUT/rollouts.jsonl and continue after it"})


# ---- 1. Extract: what is this question about? -----------------------------------------------------------------------------
KEYS = ("objects", "actions", "events")


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
    from argos import Media
    clip = len(media.frames) > 1
    frames = [overlay(frame, [p for label in objects for p in pointer.point(frame, label)],
                      (i, seconds) if clip else None) for i, (frame, seconds) in enumerate(zip(media.frames, media.seconds))]
    return Media(frames=frames, seconds=media.seconds, original_size=media.original_size)


# ---- 4. - 6. Roll out, score, rewrite --------------------------------------------------------------------------------------
def reject_reason(verdicts, threshold):
    """Why a sample did not survive: of its best rollout. None: it did (app. C.3: best score and right answer)."""
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
    return outcome >= .5 and reward >= threshold


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


def curate_batch(samples, cfg, teacher, verifier, pointer, generator):
    """Steps 1 to 5 for a few samples -> one row each for rollouts.jsonl, and the overlaid media."""
    import policy as P
    media = [verifier.load(s) for s in samples]
    asked = P.encode_prompts(teacher, [(m, P.prompt(cfg.preset, "objects", question=s.question, answer=s.answer))
                                       for m, s in zip(media, samples)])
    lists = [read_extraction(t) for t in P.sample(teacher, asked, 1, greedy=True, max_new_tokens=48).texts]
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
                         rollouts=[dict(text=t, reward=round(v.reward, 4), outcome=v.outcome, grounding=v.grounding,
                                        reasoning=v.reasoning) for t, v in zip(group, verdicts)]))
    return rows, drawn


def finished_rows(path):
    """Complete rows of an append-only log; a last line cut by a kill is dropped, so its sample is simply done again."""
    import argos
    return {row["id"]: row for _, row in argos.read_jsonl(path, torn=True)} if path.exists() else {}


def report(samples, rows, threshold):
    """Yield overall, by kind, by source, by reason of rejection."""
    table = {"samples": len(samples), "survived": sum(rows[s.id]["reason"] is None for s in samples),
             "rollouts": sum(len(rows[s.id]["rollouts"]) for s in samples),
             "extraction malformed": sum(rows[s.id]["extracted"] is None for s in samples),
             "rejected": dict(Counter(rows[s.id]["reason"] for s in samples if rows[s.id]["reason"]))}
    good = [passes(r["reward"], r["outcome"], threshold) for s in samples for r in rows[s.id]["rollouts"]]
    table["rollouts that pass"] = sum(good)
    for key in ("task", "source"):
        groups = defaultdict(list)
        for s in samples:
            groups[getattr(s, key)].append(rows[s.id]["reason"] is None)
        table[f"yield by {key}"] = {k: f"{sum(v)}/{len(v)}" for k, v in sorted(groups.items())}
    return table


def main():
    import argos
    import policy as P
    import teachers
    cfg = argos.parse_config(Config, __doc__)
    for name in ("batch", "rollouts", "max_new_tokens", "keep"):
        if getattr(cfg, name) < 1:
            raise argos.BadInput(f"--{name} {getattr(cfg, name)}: must be at least 1")
    if not 0 <= cfg.made_up <= 1:
        raise argos.BadInput(f"--made_up {cfg.made_up}: a share lies between 0 and 1")
    out = Path(cfg.out)
    (out / "overlays").mkdir(parents=True, exist_ok=True)
    samples = argos.read_samples(cfg.data)
    teacher = P.load_policy(cfg.teacher)
    detector, segmenter, pointer = teachers.load_teachers(cfg.detector, cfg.segmenter, cfg.pointer, cache=cfg.teacher_cache)
    verifier = argos.Argos(detector, segmenter, pointer, teachers.VLMJudge(teacher, preset=cfg.preset))
    verifier.self_check()
    memory = out / "rollouts.jsonl"
    if memory.exists() and not cfg.resume:
        raise argos.BadInput(f"{memory} exists: continue it with --resume, or name another --out")
    claimed = {k: v for k, v in asdict(cfg).items() if k not in ("keep", "made_up", "pictures", "teacher_cache")}  # those may change: no rollout depends on them
    argos.claim_run(out / "settings.jsonl", claimed)
    done, pictures = finished_rows(memory), 0

    # Batches are cut from the whole list and seeded by their place in it, so a resumed run rolls out what the killed one would.
    bar = tqdm(range(0, len(samples), cfg.batch), desc="curate", unit="batch")
    for start in bar:
        batch = samples[start:start + cfg.batch]
        if all(s.id in done for s in batch):
            continue
        generator = torch.Generator(teacher.device).manual_seed(cfg.seed * 1_000_003 + start)
        rows, drawn = curate_batch(batch, cfg, teacher, verifier, pointer, generator)
        for sample, row, media in zip(batch, rows, drawn):
            if sample.id not in done:
                argos.append_jsonl(memory, row)
                done[sample.id] = row
            if pictures < cfg.pictures:
                middle = media.frames[len(media.frames) // 2]
                large = middle.resize((middle.width * 3, middle.height * 3), Image.NEAREST)
                argos.save_figure(large, out / "overlays" / f"{argos.file_name(sample.id)}.png")
                pictures += 1
        bar.set_postfix({"yield": f"{sum(r['reason'] is None for r in done.values())}/{len(done)}"})

    lines = []
    for sample in samples:
        row = done[sample.id]
        if row["reason"] is None:
            question = P.prompt(cfg.preset, "reason", question=sample.question)
            for i, rollout in enumerate(keep_rollouts(row, cfg)):
                text = argos.canonical(rollout["text"], sample.media)
                rng = random.Random(f"{cfg.seed} {sample.id} {i}")  # the same after --resume
                moved = rng.random() < cfg.made_up
                if moved:
                    text = made_up(text, argos.load_media(sample.path).frames[0].size, rng)
                lines.append(json.dumps(chat_row(sample, rollout["reward"], text, question, out, moved), ensure_ascii=False))
    argos.write_atomically(out / "sft.jsonl", "\n".join(lines) + "\n")
    table = report(samples, done, cfg.threshold) | {"SFT examples": len(lines), "of them with moved points": sum('"made_up": true' in l for l in lines)}
    argos.write_atomically(out / "report.json", json.dumps(table, indent=2))
    print(json.dumps(table, indent=2))
    print(f"wrote {len(lines)} examples to {out}/sft.jsonl; look at {out}/overlays")


if __name__ == "__main__":
    import argos
    argos.run_main(main)
