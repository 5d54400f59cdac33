"""The recipe that made `tiny/base` and `tiny/teacher`: from random weights to a model that sees and points.

The paper starts from Qwen2.5-VL-7B and asks GLM-4.1V-9B for reasoning. On a laptop without a model hub both
have to be grown:
  base      sees, points when asked ("Point to every red square.") and answers briefly; it has never seen <think>.
  teacher   larger; reasons in the paper's format, with and without coordinates drawn on the picture; judges
            claims, compares phrases, and lists what a question is about as JSON.

What made it work (together; not ablated):
1. Vision first. From captions alone, where things are stays at chance for hundreds of steps. For `--warmup`
   steps the vision tower alone predicts, for every merged token (one 28-px cell), presence, colour, shape, x
   and y, through small heads tied to the text embeddings; the same loss stays on afterwards at weight .03.
2. Endless fresh scenes; answer tokens count three times; Muon (an optimizer that makes a matrix's step
   orthogonal) on matrices and AdamW on the rest; linear decay at the end.
3. Language without pictures. A base model must know its words before it can learn a format from a few hundred
   examples: SFT on tokens that training never touched stays diffuse. So it also repeats random words
   (`--echo`) and concludes from written descriptions (`--reading`), both text only and cheap.
4. The teacher is grown, not started again: block expansion of the base (`--grow`, tiny/models.py) keeps what
   it sees. A wider teacher from random weights, tried first, was far slower to learn where things are.

Run, in this order (roughly an hour and a half on one core; `--resume` continues after a kill, or goes on
with more --steps):

   B="python -m tiny.train base --out out/base"
   T="python -m tiny.train teacher --out out/teacher --grow out/base --warmup 0"
   $B --steps 1000
   $T --steps 540
   $T --steps 1020 --mix 0.42,0.44,0.14 --counting 0.35 --resume
   $T --steps 1340 --decay 240 --mix 0.32,0.46,0.22 --counting 0.3 --resume
   $B --steps 1240 --decay 240 --echo 0.2 --resume
   $B --steps 1640 --decay 200 --echo 0.6 --resume
   $B --steps 2090 --echo 0.08 --reading 0.22 --mix 0.45,0.40,0.15 --counting 0.15 --resume
   $B --steps 2490 --decay 250 --echo 0.03 --reading 0.12 --mix 0.48,0.37,0.15 --counting 0.15 --resume
   python -m tiny.train base --out out/base2 --start out/base --warmup 0 --steps 220 --decay 180 --lr 1.4e-3 \\
       --mix 0.40,0.36,0.24 --echo 0.03 --reading 0.08 --counting 0.15
   python -m tiny.train teacher --out out/teacher2 --start out/teacher --warmup 0 --steps 200 --decay 170 \\
       --lr 7e-4 --mix 0.45,0.37,0.18 --counting 0.2 --prose 0.45
   python -m tiny.train teacher --out out/teacher3 --start out/teacher2 --warmup 0 --steps 100 --decay 80 \\
       --lr 7e-4 --mix 0.45,0.37,0.18 --counting 0.2 --prose 0.4

`--prose` teaches the teacher that coordinates drawn on a picture may be left unused, as a real one does
(paper, section 4). The logs of the shipped models lie beside them (train.jsonl, pieces one after another).
They were made by these commands while the world was still growing: the clock in clips and "Point, then
answer" came in with the last --resume, and the words of --prose changed between out/teacher2 and
out/teacher3. So running the list today gives other weights, not these bit for bit.

Before:  tiny/world.py, tiny/models.py
Next:    tiny/__main__.py, then curate.py
"""
import json
import os
import re
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import policy
from curate import overlay
from runs.errors import BadInput, run_main
from runs.settings import flag, parse_config
from tiny import models, world
from tiny.world import (COLORS, EASY_COLORS, EASY_SHAPES, FPS, LATTICE, SHAPES, SIZE, choose, lattice, matches,
                        where)


@dataclass
class Config:
    size: str = flag("base", "base or teacher (tiny/models.py)")
    out: str = flag("", "folder to write; default out/<size>")
    warmup: int = flag(400, "steps of vision alone, 96 pictures and 16 clips each")
    steps: int = flag(900, "steps of language after that")
    decay: int = flag(300, "the last so many steps decay the learning rate linearly to 2 %%")
    batch: int = flag(64, "sequences a step")
    lr: float = flag(2e-3, "learning rate of both Muon and AdamW")
    seed: int = flag(0, "seed of weights and data")
    save_every: int = flag(100, "steps between checkpoints (and measurements)")
    grow: str = flag("", "start the teacher from this trained base (block expansion) instead of random "
                         "weights")
    echo: float = flag(0., "share of base examples that repeat random words, so that it knows all of its "
                           "words")
    reading: float = flag(0., "share of base examples that conclude from a description, without a picture")
    mix: str = flag("0.62,0.25,0.13", "shares of scenes, clips and easy-vqa")
    prose: float = flag(0., "share of the teacher's traces about overlaid pictures that reason in words, "
                            "without a point")
    counting: float = flag(0., "share of the scenes that ask to count, beyond the even share")
    other_kinds: float = flag(0., "share of the teacher's phrase pairs that compare a thing with something of "
                                  "another kind, such as \"3\" (0 grew the shipped judge, which RL can fool)")
    start: str = flag("", "start from the weights of this folder, with a new optimizer and new detection "
                          "heads")
    resume: bool = flag(False, "continue from OUT/state.pt")


# ---- 1. What the models are taught: (pictures, prompt, target) ---------------------------------------------
@dataclass
class Example:
    prompt: str
    target: str
    media: list  # of ("image" | "video", uint8 (F, H, W, 3))
    answer: str = ""  # the end of the target, which counts three times
    item: object = None  # the world's Item, where there is a picture to detect things in


def shown(item):
    """The item's picture or clip, as Example.media."""
    return [("image" if len(item.pixels) == 1 else "video", item.pixels)]


def overlaid(item):
    """What curation shows the teacher (paper, section 4): original and overlaid picture, or overlaid frames
    only."""
    frames = []
    for i, things in enumerate(item.frames):
        marks = [(thing.x, thing.y) for label in item.labels for thing in things if matches(label, thing)]
        caption = None if len(item.frames) == 1 else (i, i / FPS)
        frames.append(np.asarray(overlay(Image.fromarray(item.pixels[i]), marks, caption)))
    drawn = np.stack(frames)  # (F, H, W, 3)
    if len(frames) == 1:
        return shown(item) + [("image", drawn)]
    return [("video", drawn)]


def base_example(item, rng, cfg):
    """30 % short answers, 30 % points and then the answer, 40 % pointing."""
    u = rng.random()
    if u < .3:
        return Example(f"{item.question} Answer briefly.", item.answer, shown(item), item.answer, item)
    if u < .6:  # as Molmo counts: evidence without reasoning
        seen = re.findall(r"<point [^>]*>[^<]*</point>", item.think)
        if seen:
            evidence = ", ".join(seen)
        else:
            evidence = " ".join(re.findall(r"The \w+ \w+ is at .*?seconds\)\.", item.think))
        target = f"{evidence} Answer: {item.answer}"
        return Example(f"{item.question} Point, then answer.", target, shown(item), item.answer, item)
    return pointing_example(item, rng)


def pointing_example(item, rng):
    """"Point to every red square.", in a clip "... in frame 3."; the target is every point, or "None."."""
    i = int(rng.integers(len(item.frames)))
    things = world.reading_order(item.frames[i])
    if len(item.frames) == 1:
        labels = [thing.label for thing in things] + [item.labels[0]]
        if len(things) < 5:
            labels.append("shape")
        label = choose(rng, labels)
        hits = [thing for thing in things if matches(label, thing)]
        target = ", ".join(world.point(thing) for thing in hits) + "." if hits else "None."
        return Example(f"Point to every {label}.", target, shown(item), "", item)
    if rng.random() < .5 or not things:
        label = item.labels[0]
    else:
        label = choose(rng, things).label
    hits = [thing for thing in things if matches(label, thing)]
    target = " ".join(where(thing, i) for thing in hits) or "None."
    return Example(f"Point to every {label} in frame {i}.", target, shown(item), "", item)


def echo_example(tokenizer, rng):
    """Words and markup in no order, to be repeated: a base model knows its vocabulary before it is taught a
    format."""
    ids = rng.integers(256, len(tokenizer), int(rng.integers(4, 17)))  # above the bytes
    text = tokenizer.decode([int(i) for i in ids], skip_special_tokens=True).strip()
    return Example(f"Repeat: {text}", text, [])


def reading_example(item, rng):
    """A description in words, to be concluded from: a base model can read before it can look (half the time
    the last, telling sentence is missing)."""
    said = re.split(r"(?<=\.) (?=\S)", item.think)
    if len(said) > 1 and rng.random() < .5:
        said = said[:-1]
    return Example(f"{item.question} {' '.join(said)} Answer briefly.", item.answer, [], item.answer)


def teacher_example(item, rng, cfg):
    """47 % reasoning, 25 % reasoning with coordinates drawn, 18 % claims, 6 % extraction, 4 % phrases."""
    u = rng.random()
    answer = f"<answer>{item.answer}</answer>"
    if u < .47:
        target = f"<think>{item.think}</think>{answer}"
        return Example(f"{item.question} Think and point.", target, shown(item), answer, item)
    if u < .72:
        # A reasoning teacher that is shown coordinates does not always use them (paper, section 4).
        think = item.think if rng.random() >= cfg.prose else unpointed(item.think)
        prompt = f"{item.question} Coordinates are drawn. Think and point."
        return Example(prompt, f"<think>{think}</think>{answer}", overlaid(item), answer, item)
    if u < .90:
        claim, media, truth = claim_about(item, rng)
        word = "yes" if truth else "no"
        return Example(f"Is this true? {claim}", word, media, word)
    if u < .96:  # what curation asks first (paper, section 4)
        actions = re.findall(r"(appear|leave|move|change color|become)", item.question)[:1]
        target = json.dumps({"objects": item.labels, "actions": actions, "events": []})
        return Example(f"List what matters: {item.question} {item.answer}", target, shown(item), "", item)
    one, two, truth = phrases(rng, cfg.other_kinds)
    word = "yes" if truth else "no"
    return Example(f'Same meaning? "{one}" "{two}"', word, [], word)


def unpointed(think):
    """The same reasoning in words alone: no place, no moment."""
    think = re.sub(r"<point [^>]*>([^<]*)</point>", r"\1", think)
    places = r" \d+ is \w+ than \d+\.|The [a-z ]+ is at \(\d+, \d+\) in frame \d+ \([\d.]+ seconds\)\. ?"
    think = re.sub(places, "", think)
    return re.sub(r"(In frame \d+ \([\d.]+ seconds\)|From [\d.]+ seconds to [\d.]+ seconds) the", "The", think)


def say(color, shape, rng):
    """One of six ways to name a thing."""
    article = str(rng.choice(["a", "the"]))
    ways = [f"{color} {shape}", f"{article} {color} {shape}", f"{article} {shape} that is {color}",
            f"it is a {color} {shape}", f"the {shape} is {color}", f"{color} {world.plural(shape)}"]
    return str(rng.choice(ways))


# Texts that name no thing. GRPO answered every free question with one of them, once it saw that the judge, which
# had only been taught that other colours and shapes differ, said yes.
OTHER_KINDS = ("3", "0", "12", "up", "down", "left", "right", "yes", "no", "it", "a shape", "the shape",
               "something", "one of them", "red", "green", "a color", "a picture", "2.5 seconds", "frame 3", "A",
               "B", "I do not know")


def phrases(rng, other_kinds=0.):
    """Two ways to say a thing, or two different things (the judge of free-text answers) -> (one, two,
    whether they agree). other_kinds: share of pairs in which one text is of OTHER_KINDS, and they never agree."""
    colors, shapes = list(COLORS), list(SHAPES)
    color, shape = choose(rng, colors), choose(rng, shapes)
    if other_kinds and rng.random() < other_kinds:
        pair = [say(color, shape, rng), choose(rng, OTHER_KINDS)]
        if rng.integers(2):
            pair.reverse()
        return pair[0], pair[1], False
    other_color, other_shape = color, shape
    if not rng.integers(2):  # another colour or another shape, unless the draw hits the same again
        another_color, another_shape = choose(rng, colors), choose(rng, shapes)
        if rng.integers(2):
            other_shape = another_shape
        else:
            other_color = another_color
    one = say(color, shape, rng)
    two = say(other_color, other_shape, rng)
    return one, two, (color, shape) == (other_color, other_shape)


def claim_about(item, rng):
    """A claim of the kind that traces make -> (claim, what its judge sees as Example.media, whether it is
    true)."""
    is_clip = len(item.frames) > 1
    if is_clip and rng.random() < .5 and "moves" in item.think:
        return segment_claim_about(item, rng)
    return frame_claim_about(item, rng, is_clip)


def segment_claim_about(item, rng):
    """About a movement, with the frames of a stretch of time: half of them true."""
    moves = re.search(r"From ([\d.]+) seconds to ([\d.]+) seconds the (\w+ \w+) moves (\w+)", item.think)
    start, end, label, way = moves.groups()
    first, last = int(float(start) * FPS), int(float(end) * FPS)
    true_segment = [("video", item.pixels[first:last + 1])]
    u = rng.random()
    if u < .2:  # right shape and way, wrong time
        length = last - first
        begins = [k for k in range(len(item.frames) - length) if k >= last or k + length <= first]
        if begins:
            begin = choose(rng, begins)
            return f"the {label} moves {way}", [("video", item.pixels[begin:begin + length + 1])], False
    if u < .5:
        others = [other for other in ("left", "right", "up", "down") if other != way]
        return f"the {label} moves {choose(rng, others)}", true_segment, False
    if u < .6:
        still = [thing.label for thing in item.frames[0] if thing.label != label]
        return f"the {still[0]} moves {way}", true_segment, False
    return f"the {label} moves {way}", true_segment, True


def frame_claim_about(item, rng, is_clip):
    """That a thing is visible, is gone, or has a colour, with one frame."""
    i = int(rng.integers(len(item.frames)))
    if is_clip and rng.random() < .7:  # around the event, where claims are made
        event = int(re.findall(r"frame (\d+)", item.think)[-1])
        i = min(len(item.frames) - 1, max(0, event - int(rng.integers(2))))
    known = {thing for things in item.frames for thing in things}
    thing = choose(rng, sorted(known, key=lambda t: (t.label, t.x)))
    if rng.random() < .3:  # a claim about something that is nowhere
        colors = list(EASY_COLORS if item.source == "easy-vqa" else COLORS)
        thing = replace(thing, color=choose(rng, colors))
        if thing.pair in world.HELD_OUT:
            thing = replace(thing, color="red")
    here = any(other.label == thing.label for other in item.frames[i])
    form = int(rng.integers(3))
    media = [("image", item.pixels[i:i + 1])]
    if form == 0:
        return f"the {thing.label} is visible", media, here
    if form == 1:
        return f"the {thing.label} is gone", media, not here
    return f"the {thing.shape} is {thing.color}", media, here


def draw_example(cfg, make, tokenizer, rng):
    """One example of the mixture that the configuration asks for. make: base_example or teacher_example."""
    u = rng.random()
    if u < cfg.echo:
        return echo_example(tokenizer, rng)
    scene = dict(task="count") if rng.random() < cfg.counting else {}
    item = world.draw_item(rng, mix=[float(share) for share in cfg.mix.split(",")], **scene)
    if u < cfg.echo + cfg.reading:
        return reading_example(item, rng)
    return make(item, rng, cfg)


# ---- 2. Tensors --------------------------------------------------------------------------------------------
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)  # CLIP's, as in Qwen2-VL's processors
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def patchify(pixels):
    """uint8 (F, H, W, 3) -> patches (T*h*w, 1176) and grid (T, h, w); the processors' own arithmetic, an
    order faster.

    A patch is 14 x 14 pixels of two frames; the four patches of a merged token stand one after another.
    """
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, pixels[-1:]])
    f, h, w, _ = pixels.shape
    x = (pixels.astype(np.float32) / 255 - MEAN) / STD
    x = x.transpose(0, 3, 1, 2).reshape(f // 2, 2, 3, h // 28, 2, 14, w // 28, 2, 14)
    x = x.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)  # (T, h/2, w/2, 2, 2, C, 2, 14, 14)
    return x.reshape(-1, 1176), (f // 2, h // 14, w // 14)


def encode(example, grids, tokenizer):
    """-> (prompt's ids, target's ids, weight of each target token). grids: (T, h, w) of each of the
    example's media."""
    vision = ""
    for (kind, _), (t, h, w) in zip(example.media, grids):
        vision += "<|vision_start|>" + f"<|{kind}_pad|>" * (t * h * w // 4) + "<|vision_end|>"
    prompt = tokenizer.encode(f"<|im_start|>user\n{vision}{example.prompt}<|im_end|>\n<|im_start|>assistant\n")
    target = tokenizer.encode(example.target) + [tokenizer.eos_token_id]
    weights = np.ones(len(target), np.float32)
    if example.answer:
        tail = len(tokenizer.encode(example.answer)) + 1  # and the end token
        weights[len(target) - tail:] = 3
    return prompt, target, weights


def collate(examples, tokenizer, config):
    """Examples -> the model's inputs, right-padded, with labels and weights (B, T)."""
    patches = {"image": [], "video": []}
    grids = {"image": [], "video": []}
    rows = []
    for example in examples:
        mine = []
        for kind, pixels in example.media:
            patch, grid = patchify(pixels)
            patches[kind].append(patch)
            grids[kind].append(grid)
            mine.append(grid)
        rows.append(encode(example, mine, tokenizer))

    width = max(len(prompt) + len(target) for prompt, target, _ in rows)
    ids = np.full((len(rows), width), tokenizer.pad_token_id)  # (B, T)
    labels = np.full_like(ids, -100)  # cross_entropy leaves -100 out
    weights = np.zeros(ids.shape, np.float32)
    mask = np.zeros_like(ids)
    for i, (prompt, target, weight) in enumerate(rows):
        start, end = len(prompt), len(prompt) + len(target)
        ids[i, :end] = prompt + target
        labels[i, start:end] = target
        weights[i, start:end] = weight
        mask[i, :end] = 1

    batch = dict(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))
    is_image = (batch["input_ids"] == config.image_token_id).int()
    is_video = (batch["input_ids"] == config.video_token_id).int()
    batch["mm_token_type_ids"] = is_image + 2 * is_video  # 0: text, 1: picture, 2: clip
    if patches["image"]:
        batch["pixel_values"] = torch.tensor(np.concatenate(patches["image"]))
        batch["image_grid_thw"] = torch.tensor(grids["image"])
    if patches["video"]:
        batch["pixel_values_videos"] = torch.tensor(np.concatenate(patches["video"]))
        batch["video_grid_thw"] = torch.tensor(grids["video"])
        batch["second_per_grid_ts"] = torch.full((len(grids["video"]),), 2 / FPS)
    return batch, torch.tensor(labels), torch.tensor(weights)


# ---- 3. Seeing: what stands in every cell ------------------------------------------------------------------
class Eyes(torch.nn.Module):
    """Ten small heads (five facts, two frames of a temporal patch) on the vision tower's output, tied to the
    embeddings.

    A head's output is compared with the embeddings of the words for its fact: what the vision tower learns to
    say is said in the language model's own words.
    """
    FACTS = ("presence", "color", "shape", "x", "y")

    def __init__(self, tokenizer, hidden):
        super().__init__()
        self.heads = torch.nn.ModuleList(torch.nn.Linear(hidden, hidden, bias=False) for _ in range(10))
        self.numbers = list(range(LATTICE, SIZE, LATTICE))
        self.colors = list(EASY_COLORS)
        self.shapes = ["square", "cross", "triangle", "circle", "rectangle"]
        numbers = [str(n) for n in self.numbers]
        spelled = (["no", "yes"],
                   ["Ġ" + color for color in self.colors],  # Ġ: a space before the word, in byte-level BPE
                   ["Ġ" + shape for shape in self.shapes],
                   numbers, numbers)
        self.words = [torch.tensor([tokenizer.convert_tokens_to_ids(word) for word in words]) for words in spelled]

    def targets(self, frames):
        """Scenes of one picture or clip -> int (T*9, 2, 5), -100 where nothing stands."""
        if len(frames) == 1:
            frames = frames * 2
        elif len(frames) % 2 == 1:
            frames = frames + frames[-1:]
        out = np.full((len(frames), 9, 5), -100)
        out[..., 0] = 0  # nothing is present, unless it is written below
        for i, things in enumerate(frames):
            for thing in things:
                row, column = min(2, int(thing.y // 28)), min(2, int(thing.x // 28))
                out[i, 3 * row + column] = (
                    1, self.colors.index(thing.color), self.shapes.index(thing.shape),
                    self.numbers.index(lattice(thing.x)), self.numbers.index(lattice(thing.y)))
        return out.reshape(-1, 2, 9, 5).transpose(0, 2, 1, 3).reshape(-1, 2, 5)

    def loss(self, features, targets, embeddings):
        """features (N, D), targets (N, 2, 5) -> mean cross-entropy and the share of shapes that are right."""
        total, right = 0., None
        for k in range(2):
            for f, fact in enumerate(self.FACTS):
                logits = self.heads[5 * k + f](features) @ embeddings[self.words[f]].T  # (N, words)
                total = total + F.cross_entropy(logits, targets[:, k, f], ignore_index=-100) / 10
                if fact == "shape" and k == 0:
                    there = targets[:, 0, f] >= 0
                    right = (logits.argmax(-1) == targets[:, 0, f])[there].float().mean()
        return total, right


def look(model, eyes, media, frames):
    """Detection loss of pictures and clips seen by the vision tower alone."""
    parts = [patchify(pixels) for pixels in media]
    patches = torch.tensor(np.concatenate([patch for patch, _ in parts]))
    grids = torch.tensor([grid for _, grid in parts])
    features = model.model.visual(patches, grid_thw=grids).pooler_output  # (N, D)
    targets = torch.tensor(np.concatenate([eyes.targets(scenes) for scenes in frames]))
    return eyes.loss(features, targets, model.get_input_embeddings().weight)


# ---- 4. Training -------------------------------------------------------------------------------------------
def build(cfg, rng):
    """A new model and processor, whose vocabulary is what 8,000 examples say, and the name of everything
    that can be drawn."""
    texts = []
    for _ in range(4000):
        for make in (base_example, teacher_example):
            example = make(world.draw_item(rng), rng, cfg)
            texts.append(f"{example.prompt} {example.target}")
    for color in EASY_COLORS:
        for shape in ("shape", *SHAPES, *EASY_SHAPES):
            texts += [f"A {color} {shape}.", f'"{color} {shape}"', color, shape, f" {world.plural(shape)}"]
    texts.append("Yes No yes no (A) (B) (C) (D) (E) A B C D E")
    tokenizer = models.build_tokenizer(texts)
    return models.build_model(tokenizer, cfg.size), models.build_processor(tokenizer)


def vocabulary(cfg, out):
    """The folder whose tokenizer must be used, or None: weights belong to a vocabulary, never build another
    beside them."""
    folders = [cfg.grow, cfg.start]
    if cfg.resume:
        folders.insert(0, str(out))
    for folder in folders:
        if folder and Path(folder, "tokenizer.json").exists():
            return folder
    return None


def prepare(cfg, out):
    """The model to train, its processor, and the detection heads, from where the configuration says."""
    known = vocabulary(cfg, out)
    if known:
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
    return model, processor, eyes


def make_optimizers(parameters, lr):
    """Muon for matrices, AdamW for vectors and the embedding. parameters: [(name, parameter)]."""
    matrices, rest = [], []
    for name, parameter in parameters:
        is_matrix = parameter.ndim == 2 and "embed_tokens" not in name
        (matrices if is_matrix else rest).append(parameter)
    return [torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, momentum=.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=lr, betas=(.9, .98), weight_decay=0.)]


def vision_step(model, eyes, rng):
    """Gradients of one step of seeing alone -> what is logged."""
    items = [world.draw_item(rng, mix=(.86, 0, .14)) for _ in range(96)]
    items += [world.draw_item(rng, mix=(0, 1, 0)) for _ in range(12)]
    loss, right = look(model, eyes, [item.pixels for item in items], [item.frames for item in items])
    loss.backward()
    return dict(phase="vision", loss=loss.item(), shapes=right.item())


def media_size(example):
    return sum(pixels.size for _, pixels in example.media)


def language_step(model, eyes, tokenizer, cfg, rng):
    """Gradients of one step of language, in chunks of 16 examples, and of seeing at weight .03 -> what is
    logged."""
    make = base_example if cfg.size == "base" else teacher_example
    examples = [draw_example(cfg, make, tokenizer, rng) for _ in range(cfg.batch)]
    examples.sort(key=media_size)  # alike ones together: less padding
    batches = [collate(examples[i:i + 16], tokenizer, model.config) for i in range(0, len(examples), 16)]
    norm = sum(weights.sum() for _, _, weights in batches)
    row = dict(phase="language", loss=0., seen=0., answers=0.)
    right = asked = 0
    for batch, labels, weights in batches:
        logits = model(**batch).logits[:, :-1]  # (b, T-1, V)
        labels, weights = labels[:, 1:], weights[:, 1:]  # (b, T-1): position t predicts token t + 1
        nll = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none")
        loss = (nll * weights.flatten()).sum() / norm
        is_answer = weights == 3
        has_answer = is_answer.any(1)  # (b,)
        is_wrong = ((logits.argmax(-1) != labels) & is_answer).any(1)  # (b,)
        right += (has_answer & ~is_wrong).sum().item()
        asked += has_answer.sum().item()
        loss.backward()
        row["loss"] += loss.item()

    items = [example.item for example in examples if example.item is not None][::4]
    loss, _ = look(model, eyes, [item.pixels for item in items], [item.frames for item in items])
    (.03 * loss).backward()
    row["seen"] = loss.item()
    row["answers"] = right / max(asked, 1)
    return row


def averages(rows):
    """The mean of every number in the rows of the last row's phase."""
    last = rows[-1]
    alike = [row for row in rows if row["phase"] == last["phase"]]
    return {name: round(float(np.mean([row[name] for row in alike])), 4) for name in last if name != "phase"}


def main():
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--size"] + arguments  # `python -m tiny.train teacher`
    cfg = parse_config(Config, __doc__, arguments)
    policy.keep_big_buffers()
    out = Path(cfg.out or f"out/{cfg.size}")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(cfg.seed)
    if cfg.start and cfg.grow:
        raise BadInput("--start and --grow: choose one")
    model, processor, eyes = prepare(cfg, out)
    named = list(model.named_parameters())
    named += [("eyes." + name, parameter) for name, parameter in eyes.named_parameters()]
    parameters = [parameter for _, parameter in named]
    optimizers = make_optimizers(named, cfg.lr)

    step, started = 0, time.time()
    total = cfg.warmup + cfg.steps
    if cfg.resume and (out / "state.pt").exists():
        state = torch.load(out / "state.pt", weights_only=True)
        model.load_state_dict(state["model"])
        eyes.load_state_dict(state["eyes"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        step = state["step"]
        started -= state["seconds"]

    recent = []  # what was logged since the last line of the log
    while step < total:
        rng = np.random.default_rng([cfg.seed, step])  # the step alone decides: a resumed run is the same run
        lr = cfg.lr * min(1, (step + 1) / 20, max(.02, (total - step) / cfg.decay))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        if step < cfg.warmup:
            row = vision_step(model, eyes, rng)
        else:
            row = language_step(model, eyes, processor.tokenizer, cfg, rng)
        torch.nn.utils.clip_grad_norm_(parameters, 1.)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1

        recent.append(row)
        if step % 20 == 0 or step == total:
            seconds = round(time.time() - started)
            line = dict(step=step, phase=row["phase"], lr=round(lr, 6), seconds=seconds, **averages(recent))
            with open(out / "train.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            recent = []
        if step % cfg.save_every == 0 or step == total:
            models.save(model, processor, out)
            state = dict(model=model.state_dict(), eyes=eyes.state_dict(),
                         optimizers=[optimizer.state_dict() for optimizer in optimizers],
                         step=step, seconds=time.time() - started)
            torch.save(state, out / "state.tmp")
            os.replace(out / "state.tmp", out / "state.pt")


if __name__ == "__main__":
    run_main(main)
