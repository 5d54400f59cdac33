"""The recipe that made `tiny/base` and `tiny/teacher`: from random weights to a model that sees, points and answers.

The paper starts from Qwen2.5-VL-7B and asks GLM-4.1V-9B for reasoning. On a laptop without a model hub both have to be grown:
  base      sees, points when asked ("Point to every red square.") and answers briefly; it has never seen <think>.
  teacher   larger; reasons in the paper's format, with and without coordinates drawn on the picture; judges claims, compares
            phrases, and lists what a question is about as JSON.

What made it work (together; not ablated):
1. Vision first. From captions alone, where things are stays at chance for hundreds of steps. For `--warmup` steps the vision
   tower alone predicts, for every merged token (one 28-px cell), presence, colour, shape, x and y, through small heads tied to
   the text embeddings; the same loss stays on afterwards at weight .03.
2. Endless fresh scenes; answer tokens count three times; Muon on matrices and AdamW on the rest; linear decay at the end.

3. Language without pictures. A base model must know its words before it can learn a format from a few hundred examples: SFT on
   tokens that training never touched stays diffuse. So it also repeats random words (`--echo`) and concludes from written
   descriptions (`--reading`), both text only and cheap.
4. The teacher is grown, not started again: block expansion of the base (`--grow`, tiny/models.py) keeps what it sees. A wider
   teacher from random weights, tried first, was far slower to learn where things are.

Run, in this order (an hour and a half on one core, roughly; `--resume` continues after a kill, or with more --steps):
   python -m tiny.train base    --out out/base --steps 1000
   python -m tiny.train teacher --out out/teacher --grow out/base --warmup 0 --steps 540
   python -m tiny.train teacher --out out/teacher --grow out/base --warmup 0 --steps 1020 --mix 0.42,0.44,0.14 --counting 0.35 --resume
   python -m tiny.train teacher --out out/teacher --grow out/base --warmup 0 --steps 1340 --decay 240 --mix 0.32,0.46,0.22 --counting 0.3 --resume
   python -m tiny.train base    --out out/base --steps 1240 --decay 240 --echo 0.2 --resume
   python -m tiny.train base    --out out/base --steps 1640 --decay 200 --echo 0.6 --resume
   python -m tiny.train base    --out out/base --steps 2090 --echo 0.08 --reading 0.22 --mix 0.45,0.40,0.15 --counting 0.15 --resume
   python -m tiny.train base    --out out/base --steps 2490 --decay 250 --echo 0.03 --reading 0.12 --mix 0.48,0.37,0.15 --counting 0.15 --resume
   python -m tiny.train base    --out out/base2 --start out/base --warmup 0 --steps 220 --decay 180 --lr 1.4e-3 --mix 0.40,0.36,0.24 --echo 0.03 --reading 0.08 --counting 0.15
   python -m tiny.train teacher --out out/teacher2 --start out/teacher --warmup 0 --steps 200 --decay 170 --lr 7e-4 --mix 0.45,0.37,0.18 --counting 0.2 --prose 0.45
   python -m tiny.train teacher --out out/teacher3 --start out/teacher2 --warmup 0 --steps 100 --decay 80 --lr 7e-4 --mix 0.45,0.37,0.18 --counting 0.2 --prose 0.4
`--prose` teaches the teacher that coordinates drawn on a picture may be left unused, as a real one does (paper, section 4).
The logs of the shipped models lie beside them (train.jsonl, pieces one after another). They were made by these commands while
the world was still growing: the clock in clips and "Point, then answer" came in with the last --resume, and the words of
--prose changed between out/teacher2 and out/teacher3. So running the list today gives other weights, not these bit for bit.
Next:  README.md, then curate.py.
"""
import json
import os
import re
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from runs.errors import BadInput, run_main
from runs.settings import parse_config
import policy
from curate import overlay
from tiny import models, world
from tiny.world import COLORS, EASY_COLORS, FPS, LATTICE, SIZE, lattice, where


@dataclass
class Config:
    size: str = field(default="base", metadata={"help": "base or teacher (tiny/models.py)"})
    out: str = field(default="", metadata={"help": "folder to write; default out/<size>"})
    warmup: int = field(default=400, metadata={"help": "steps of vision alone, 96 pictures and 16 clips each"})
    steps: int = field(default=900, metadata={"help": "steps of language after that"})
    decay: int = field(default=300, metadata={"help": "the last so many steps decay the learning rate linearly to 2 %%"})
    batch: int = field(default=64, metadata={"help": "sequences a step"})
    lr: float = field(default=2e-3, metadata={"help": "learning rate of both Muon and AdamW"})
    seed: int = field(default=0, metadata={"help": "seed of weights and data"})
    save_every: int = field(default=100, metadata={"help": "steps between checkpoints (and measurements)"})
    grow: str = field(default="", metadata={"help": "start the teacher from this trained base (block expansion) instead of random weights"})
    echo: float = field(default=0., metadata={"help": "share of base examples that repeat random words, so that it knows all of its words"})
    reading: float = field(default=0., metadata={"help": "share of base examples that conclude from a description, without a picture"})
    mix: str = field(default="0.62,0.25,0.13", metadata={"help": "shares of scenes, clips and easy-vqa"})
    prose: float = field(default=0., metadata={"help": "share of the teacher's traces about overlaid pictures that reason in words alone, without a point"})
    counting: float = field(default=0., metadata={"help": "share of the scenes that ask to count, beyond the even share"})
    start: str = field(default="", metadata={"help": "start from the weights of this folder, with a new optimizer and new detection heads"})
    resume: bool = field(default=False, metadata={"help": "continue from OUT/state.pt"})


# ---- 1. What the models are taught: (pictures, prompt, target) --------------------------------------------------------
@dataclass
class Example:
    prompt: str
    target: str
    media: list  # of ("image" | "video", uint8 (F, H, W, 3))
    answer: str = ""  # the part of the target that counts three times
    item: object = None


def matches(label, thing):
    """Does "red square", "squares", "red shape" or "shape" name this thing?"""
    words = [w for w in label.split() if w not in ("shape", "shapes")]
    return all(w == thing.color or w == thing.shape for w in words)


def picture(item):
    return [("image" if len(item.pixels) == 1 else "video", item.pixels)]


def overlaid(item):
    """What curation shows the teacher: original and overlaid picture, or overlaid frames only (SPEC 5, step 4)."""
    frames = []
    for i, things in enumerate(item.frames):
        marks = [(t.x, t.y) for label in item.labels for t in things if matches(label, t)]
        caption = None if len(item.frames) == 1 else (i, i / FPS)
        frames.append(np.asarray(overlay(Image.fromarray(item.pixels[i]), marks, caption)))
    drawn = np.stack(frames)
    return picture(item) + [("image", drawn)] if len(frames) == 1 else [("video", drawn)]


def base_example(item, rng, cfg):
    u = rng.random()
    if u < .3:  # short answers
        return Example(f"{item.question} Answer briefly.", item.answer, picture(item), item.answer, item)
    if u < .6:  # points, then the answer, as Molmo counts: evidence without reasoning
        seen = re.findall(r"<point [^>]*>[^<]*</point>", item.think)
        target = ", ".join(seen) if seen else " ".join(re.findall(r"The \w+ \w+ is at .*?seconds\)\.", item.think))
        return Example(f"{item.question} Point, then answer.", f"{target} Answer: {item.answer}", picture(item), item.answer, item)
    i = int(rng.integers(len(item.frames)))
    things = world.reading_order(item.frames[i])
    if len(item.frames) == 1:
        forms = [t.label for t in things] + [item.labels[0]] + ["shape"] * (len(things) < 5)
        label = forms[int(rng.integers(len(forms)))]
        hits = [t for t in things if matches(label, t)]
        target = ", ".join(map(world.point, hits)) + "." if hits else "None."
        return Example(f"Point to every {label}.", target, picture(item), "", item)
    label = item.labels[0] if rng.random() < .5 or not things else things[int(rng.integers(len(things)))].label
    hits = [t for t in things if matches(label, t)]
    target = " ".join(where(t, i) for t in hits) or "None."
    return Example(f"Point to every {label} in frame {i}.", target, picture(item), "", item)


def echo_example(tokenizer, rng):
    """Words and markup in no order, to be repeated: a base model knows its vocabulary before it is taught a format."""
    ids = rng.integers(256, len(tokenizer), int(rng.integers(4, 17)))  # above the bytes
    text = tokenizer.decode([int(i) for i in ids], skip_special_tokens=True).strip()
    return Example(f"Repeat: {text}", text, [])


def reading_example(item, rng):
    """A description in words, to be concluded from: a base model can read before it can look (half the time the last,
    telling sentence is missing)."""
    said = re.split(r"(?<=\.) (?=\S)", item.think)
    said = said[:-1] if len(said) > 1 and rng.random() < .5 else said
    return Example(f"{item.question} {' '.join(said)} Answer briefly.", item.answer, [], item.answer)


def teacher_example(item, rng, cfg):
    u = rng.random()
    if u < .72:
        answer = f"<answer>{item.answer}</answer>"
        if u < .47:
            return Example(f"{item.question} Think and point.", f"<think>{item.think}</think>{answer}", picture(item), answer, item)
        # A reasoning teacher that is shown coordinates does not always use them (paper, section 4).
        think = item.think if rng.random() >= cfg.prose else unpointed(item.think)
        return Example(f"{item.question} Coordinates are drawn. Think and point.", f"<think>{think}</think>{answer}", overlaid(item),
                       answer, item)
    if u < .90:
        claim, media, truth = claim_about(item, rng)
        word = "yes" if truth else "no"
        return Example(f"Is this true? {claim}", word, media, word)
    if u < .96:
        actions = re.findall(r"(appear|leave|move|change color|become)", item.question)
        target = '{"objects": ["' + '", "'.join(item.labels) + '"], "actions": ' + \
            (f'["{actions[0]}"]' if actions else "[]") + ', "events": []}'
        return Example(f"List what matters: {item.question} {item.answer}", target, picture(item), "", item)
    a, b, truth = phrases(rng)
    word = "yes" if truth else "no"
    return Example(f'Same meaning? "{a}" "{b}"', word, [], word)


def unpointed(think):
    """The same reasoning in words alone: no place, no moment."""
    think = re.sub(r"<point [^>]*>([^<]*)</point>", r"\1", think)
    think = re.sub(r" \d+ is \w+ than \d+\.|The [a-z ]+ is at \(\d+, \d+\) in frame \d+ \([\d.]+ seconds\)\. ?", "", think)
    return re.sub(r"(In frame \d+ \([\d.]+ seconds\)|From [\d.]+ seconds to [\d.]+ seconds) the", "The", think)


def phrases(rng):
    """Two ways to say a thing, or two different things (the judge of free-text answers)."""
    def say(color, shape):
        a = str(rng.choice(["a", "the"]))
        return str(rng.choice([f"{color} {shape}", f"{a} {color} {shape}", f"{a} {shape} that is {color}", f"it is a {color} {shape}",
                               f"the {shape} is {color}", f"{color} {world.plural(shape)}"]))
    colors, shapes = list(COLORS), list(world.SHAPES)
    c, s = colors[int(rng.integers(4))], shapes[int(rng.integers(3))]
    truth = bool(rng.integers(2))
    d, z = (c, s) if truth else [(colors[int(rng.integers(4))], s), (c, shapes[int(rng.integers(3))])][int(rng.integers(2))]
    return say(c, s), say(d, z), (c, s) == (d, z)


def claim_about(item, rng):
    """A claim of the kind that traces make, true or false, with what its judge sees: one frame, or the frames of a segment."""
    if len(item.frames) > 1 and rng.random() < .5 and "moves" in item.think:  # segment claim
        start, end, label, way = re.search(r"From ([\d.]+) seconds to ([\d.]+) seconds the (\w+ \w+) moves (\w+)", item.think).groups()
        first, last = int(float(start) * FPS), int(float(end) * FPS)
        u = rng.random()
        if u < .2:  # right shape and way, wrong time
            length = last - first
            spans = [k for k in range(len(item.frames) - length) if k >= last or k + length <= first]
            if spans:
                first = spans[int(rng.integers(len(spans)))]
                return f"the {label} moves {way}", [("video", item.pixels[first:first + length + 1])], False
        if u < .5:
            other = [w for w in ("left", "right", "up", "down") if w != way]
            return f"the {label} moves {other[int(rng.integers(3))]}", [("video", item.pixels[first:last + 1])], False
        if u < .6:
            still = [t.label for t in item.frames[0] if t.label != label]
            return f"the {still[0]} moves {way}", [("video", item.pixels[first:last + 1])], False
        return f"the {label} moves {way}", [("video", item.pixels[first:last + 1])], True
    i = int(rng.integers(len(item.frames)))
    if len(item.frames) > 1 and rng.random() < .7:  # around the event, where claims are made
        i = min(len(item.frames) - 1, max(0, int(re.findall(r"frame (\d+)", item.think)[-1]) - int(rng.integers(2))))
    things = item.frames[i]
    media = [("image", item.pixels[i:i + 1])]
    known = {t for f in item.frames for t in f}
    pool = [t for t in known] or things
    t = sorted(pool, key=lambda t: (t.label, t.x))[int(rng.integers(len(pool)))]
    if rng.random() < .3:  # a claim about something that is nowhere
        colors = list(EASY_COLORS if item.source == "easy-vqa" else COLORS)
        t = replace(t, color=colors[int(rng.integers(len(colors)))])
        if (t.color, t.shape) in world.HELD_OUT:
            t = replace(t, color="red")
    here = any(x.label == t.label for x in things)
    form = int(rng.integers(3))
    if form == 0:
        return f"the {t.label} is visible", media, here
    if form == 1:
        return f"the {t.label} is gone", media, not here
    return f"the {t.shape} is {t.color}", media, here


def draw_example(cfg, make, tokenizer, rng):
    """One example of the mixture that the configuration asks for."""
    u = rng.random()
    if u < cfg.echo:
        return echo_example(tokenizer, rng)
    count = dict(task="count") if rng.random() < cfg.counting else {}
    item = world.draw_item(rng, mix=[float(share) for share in cfg.mix.split(",")], **count)
    return reading_example(item, rng) if u < cfg.echo + cfg.reading else make(item, rng, cfg)


# ---- 2. Tensors ---------------------------------------------------------------------------------------------------------
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)  # CLIP's, as in Qwen2-VL's processors
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def patchify(pixels):
    """uint8 (F, H, W, 3) -> patches (T*h*w, 1176) and grid (T, h, w); the processors' own arithmetic, an order faster."""
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, pixels[-1:]])
    f, h, w, _ = pixels.shape
    x = (pixels.astype(np.float32) / 255 - MEAN) / STD
    x = x.transpose(0, 3, 1, 2).reshape(f // 2, 2, 3, h // 28, 2, 14, w // 28, 2, 14)
    x = x.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)  # (T, h/2, w/2, 2, 2, C, 2, 14, 14)
    return x.reshape(-1, 1176), (f // 2, h // 14, w // 14)


def collate(examples, tokenizer, config):
    """Examples -> the model's inputs, right-padded, with labels and weights (B, T)."""
    images, videos, image_grid, video_grid, rows = [], [], [], [], []
    for e in examples:
        head = "<|im_start|>user\n"
        for kind, pixels in e.media:
            patches, grid = patchify(pixels)
            (images if kind == "image" else videos).append(patches)
            (image_grid if kind == "image" else video_grid).append(grid)
            head += "<|vision_start|>" + f"<|{kind}_pad|>" * (grid[0] * grid[1] * grid[2] // 4) + "<|vision_end|>"
        prompt = tokenizer.encode(f"{head}{e.prompt}<|im_end|>\n<|im_start|>assistant\n")
        target = tokenizer.encode(e.target) + [tokenizer.eos_token_id]
        weight = np.ones(len(target), np.float32)
        tail = len(tokenizer.encode(e.answer)) + 1 if e.answer else 0
        weight[len(target) - tail:] = 3
        rows.append((prompt, target, weight))
    width = max(len(p) + len(t) for p, t, _ in rows)
    ids = np.full((len(rows), width), tokenizer.pad_token_id)
    labels, weights, mask = np.full_like(ids, -100), np.zeros(ids.shape, np.float32), np.zeros_like(ids)
    for i, (p, t, w) in enumerate(rows):
        n = len(p) + len(t)
        ids[i, :n], labels[i, len(p):n], weights[i, len(p):n], mask[i, :n] = p + t, t, w, 1
    batch = dict(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))
    types = (batch["input_ids"] == config.image_token_id).int() + 2 * (batch["input_ids"] == config.video_token_id).int()
    batch["mm_token_type_ids"] = types
    if images:
        batch |= dict(pixel_values=torch.tensor(np.concatenate(images)), image_grid_thw=torch.tensor(image_grid))
    if videos:
        batch |= dict(pixel_values_videos=torch.tensor(np.concatenate(videos)), video_grid_thw=torch.tensor(video_grid),
                      second_per_grid_ts=torch.full((len(videos),), 2 / FPS))
    return batch, torch.tensor(labels), torch.tensor(weights)


# ---- 3. Seeing: what stands in every cell --------------------------------------------------------------------------------
class Eyes(torch.nn.Module):
    """Ten small heads (five facts, two frames of a temporal patch) on the vision tower's output, tied to the embeddings."""
    FACTS = ("presence", "color", "shape", "x", "y")

    def __init__(self, tokenizer, hidden):
        super().__init__()
        self.heads = torch.nn.ModuleList(torch.nn.Linear(hidden, hidden, bias=False) for _ in range(10))
        ids = lambda words: torch.tensor([tokenizer.convert_tokens_to_ids(w) for w in words])
        self.numbers = list(range(LATTICE, SIZE, LATTICE))
        self.colors = list(EASY_COLORS)
        self.shapes = ["square", "cross", "triangle", "circle", "rectangle"]
        self.words = [ids(["no", "yes"]), ids(["Ġ" + c for c in self.colors]), ids(["Ġ" + s for s in self.shapes]),
                      ids(map(str, self.numbers)), ids(map(str, self.numbers))]

    def targets(self, frames):
        """Scenes of one picture or clip -> int (T*9, 2, 5), -100 where nothing stands."""
        frames = frames * 2 if len(frames) == 1 else frames + frames[-1:] * (len(frames) % 2)
        out = np.full((len(frames), 9, 5), -100)
        out[..., 0] = 0
        for i, things in enumerate(frames):
            for t in things:
                cell = min(2, int(t.y // 28)) * 3 + min(2, int(t.x // 28))
                out[i, cell] = (1, self.colors.index(t.color), self.shapes.index(t.shape),
                                self.numbers.index(lattice(t.x)), self.numbers.index(lattice(t.y)))
        return out.reshape(-1, 2, 9, 5).transpose(0, 2, 1, 3).reshape(-1, 2, 5)

    def loss(self, features, targets, embeddings):
        """features (N, D), targets (N, 2, 5) -> mean cross-entropy and the share of shapes that are right."""
        total, right = 0., None
        for k in range(2):
            for f in range(5):
                logits = self.heads[5 * k + f](features) @ embeddings[self.words[f]].T  # (N, words)
                total = total + F.cross_entropy(logits, targets[:, k, f], ignore_index=-100) / 10
                if f == 2 and k == 0:
                    seen = targets[:, 0, 2] >= 0
                    right = (logits.argmax(-1) == targets[:, 0, 2])[seen].float().mean()
        return total, right


def look(model, eyes, media, frames):
    """Detection loss of pictures and clips seen by the vision tower alone."""
    parts = [patchify(pixels) for pixels in media]
    patches = torch.tensor(np.concatenate([p for p, _ in parts]))
    features = model.model.visual(patches, grid_thw=torch.tensor([g for _, g in parts])).pooler_output  # (N, D)
    targets = torch.tensor(np.concatenate([eyes.targets(f) for f in frames]))
    return eyes.loss(features, targets, model.get_input_embeddings().weight)


# ---- 4. Training -----------------------------------------------------------------------------------------------------------
def build(cfg, rng):
    texts = [e.prompt + " " + e.target for _ in range(4000) for make in (base_example, teacher_example)
             for e in [make(world.draw_item(rng), rng, cfg)]] + [text for c in EASY_COLORS for s in ("shape", *world.SHAPES, "circle", "rectangle")
             for text in (f"A {c} {s}.", f'"{c} {s}"', c, s, f" {world.plural(s)}")] + ["Yes No yes no (A) (B) (C) (D) (E) A B C D E"]
    tokenizer = models.build_tokenizer(texts)
    return models.build_model(tokenizer, cfg.size), models.build_processor(tokenizer)


def main():
    cfg = parse_config(Config, __doc__, ["--size", sys.argv[1]] + sys.argv[2:]
                             if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None)
    policy.keep_big_buffers()
    out = Path(cfg.out or f"out/{cfg.size}")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(cfg.seed)
    if cfg.start and cfg.grow:
        raise BadInput("--start and --grow: choose one")
    known = next((f for f in (str(out) if cfg.resume else "", cfg.grow, cfg.start) if f and Path(f, "tokenizer.json").exists()), None)
    if known:  # weights belong to a vocabulary: never build another beside them
        processor = AutoProcessor.from_pretrained(known)
        model = models.build_model(processor.tokenizer, cfg.size)
    else:
        model, processor = build(cfg, np.random.default_rng(0))  # the vocabulary is the same for every seed
    tokenizer = processor.tokenizer
    if cfg.start:
        model = AutoModelForImageTextToText.from_pretrained(cfg.start, dtype=torch.float32)
    eyes = Eyes(tokenizer, model.config.text_config.hidden_size)
    if cfg.grow:
        state = torch.load(Path(cfg.grow) / "state.pt", weights_only=True)
        base = models.build_model(tokenizer, "base")
        base.load_state_dict(state["model"])
        model = models.grow(base, tokenizer)
        eyes.load_state_dict(state["eyes"])
    named = list(model.named_parameters()) + [("eyes." + n, p) for n, p in eyes.named_parameters()]
    matrix = [p for n, p in named if p.ndim == 2 and "embed_tokens" not in n]
    rest = [p for n, p in named if not (p.ndim == 2 and "embed_tokens" not in n)]
    optimizers = [torch.optim.Muon(matrix, lr=cfg.lr, weight_decay=0.01, momentum=.95, adjust_lr_fn="match_rms_adamw"),
                  torch.optim.AdamW(rest, lr=cfg.lr, betas=(.9, .98), weight_decay=0.)]
    make = base_example if cfg.size == "base" else teacher_example
    step, total, started = 0, cfg.warmup + cfg.steps, time.time()
    if cfg.resume and (out / "state.pt").exists():
        state = torch.load(out / "state.pt", weights_only=True)
        model.load_state_dict(state["model"])
        eyes.load_state_dict(state["eyes"])
        for o, s in zip(optimizers, state["optimizers"]):
            o.load_state_dict(s)
        step, started = state["step"], time.time() - state["seconds"]
    recent = []
    while step < total:
        rng = np.random.default_rng([cfg.seed, step])  # data depend on the step alone, so that a resumed run is the same run
        lr = cfg.lr * min(1, (step + 1) / 20, max(.02, (total - step) / cfg.decay))
        for o in optimizers:
            for g in o.param_groups:
                g["lr"] = lr
        if step < cfg.warmup:
            items = [world.draw_item(rng, mix=(.86, 0, .14)) for _ in range(96)] + [world.draw_item(rng, mix=(0, 1, 0)) for _ in range(12)]
            loss, right = look(model, eyes, [i.pixels for i in items], [i.frames for i in items])
            loss.backward()
            row = dict(phase="vision", loss=loss.item(), shapes=right.item())
        else:
            examples = sorted((draw_example(cfg, make, tokenizer, rng) for _ in range(cfg.batch)), key=lambda e: sum(p.size for _, p in e.media))
            row = dict(phase="language", loss=0., seen=0., answers=0.)
            chunks = [examples[i:i + 16] for i in range(0, len(examples), 16)]
            batches = [collate(c, tokenizer, model.config) for c in chunks]
            norm = sum(w.sum() for _, _, w in batches)
            hits = count = 0
            for chunk, (batch, labels, weights) in zip(chunks, batches):
                logits = model(**batch).logits[:, :-1]  # (b, T-1, V)
                nll = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="none")
                loss = (nll * weights[:, 1:].flatten()).sum() / norm
                heavy = weights[:, 1:] == 3
                wrong = ((logits.argmax(-1) != labels[:, 1:]) & heavy).any(1)
                hits, count = hits + (heavy.any(1) & ~wrong).sum().item(), count + heavy.any(1).sum().item()
                loss.backward()
                row["loss"] += loss.item()
            seen = [e.item for e in examples if e.item is not None][::4]
            loss, _ = look(model, eyes, [i.pixels for i in seen], [i.frames for i in seen])
            (.03 * loss).backward()
            row.update(seen=loss.item(), answers=hits / max(count, 1))
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)
        step += 1
        recent.append(row)
        if step % 20 == 0 or step == total:
            mean = {k: round(float(np.mean([r[k] for r in recent if r["phase"] == row["phase"]])), 4) for k in row if k != "phase"}
            line = dict(step=step, phase=row["phase"], lr=round(lr, 6), seconds=round(time.time() - started), **mean)
            with open(out / "train.jsonl", "a") as f:
                f.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            recent = []
        if step % cfg.save_every == 0 or step == total:
            models.save(model, processor, out)
            torch.save(dict(model=model.state_dict(), eyes=eyes.state_dict(), optimizers=[o.state_dict() for o in optimizers],
                            step=step, seconds=time.time() - started), out / "state.tmp")
            os.replace(out / "state.tmp", out / "state.pt")


if __name__ == "__main__":
    run_main(main)
