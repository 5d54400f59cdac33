"""The embedded world: drawn scenes, short clips and easy-vqa, with questions whose true answers are known.

A picture is 84 x 84 pixels: nine cells of 28 px (one merged vision token of Qwen2.5-VL each), every shape wholly inside
one cell, on a background whose brightness and tint drift across the picture, with pixel noise and grey specks as
distractors. A clip is 8 such pictures, two a second: one shape appears, leaves, moves or changes colour. As the ramp makes
position visible, a faint bar that grows along the bottom edge makes time visible; a small model learns neither from rotary
positions alone in minutes (without the bar, "when?" stayed at chance). The second source
is easy-vqa (PyPI, MIT, published pictures and questions that nobody here made): single pictures, and 2 x 2 tiles of them.

What the world knows about its pictures (the objects) is used for three things only: to ask questions, to train the two
shipped models (`tiny/train.py`), and to measure the pixel teachers (`python -m tiny.measure`). Datasets written to disk
hold a picture, a question and an answer, as a real dataset would: no verifier and no policy ever sees the objects.

Held out of all training: more than 5 objects, the colour-shape pairs HELD_OUT, clips of other lengths, easy-vqa's test split.

Run:   python -m tiny.world --out out/data       # writes the splits, and a contact sheet to look at (contact.png)
Next:  tiny/models.py (the two small models), tiny/train.py (the recipe that made them)
"""
import json
import os
import textwrap
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from runs.files import save_figure
from runs.settings import parse_config

# ---- 1. What can be drawn -------------------------------------------------------------------------------------------
SIZE, CELL, FPS = 84, 28, 2.0
COLORS = {"red": (225, 30, 30), "green": (20, 190, 40), "blue": (30, 50, 225), "yellow": (240, 225, 20)}
SHAPES = ("square", "cross", "triangle")
HELD_OUT = {("yellow", "cross"), ("blue", "triangle")}  # unseen pairs: only the out-of-domain evaluation draws them
PAIRS = [(c, s) for c in COLORS for s in SHAPES if (c, s) not in HELD_OUT]
LATTICE = 4  # points are spoken on a 4-px lattice, so that a coordinate is one of 21 tokens


@dataclass(frozen=True)
class Thing:
    """One shape. x, y: centre in pixels; r: half width in pixels (7 to 10)."""
    color: str
    shape: str
    x: float
    y: float
    r: int = 9

    @property
    def label(self):
        return f"{self.color} {self.shape}"


@dataclass
class Item:
    """One question about one picture or clip. `frames` is a list of scenes, each a list of Things (one for a picture)."""
    question: str
    answer: str
    kind: str
    task: str
    frames: list
    think: str  # the oracle's reasoning; used by tiny/train.py alone
    options: list | None = None
    source: str = "scenes"
    labels: list = field(default_factory=list)  # what the question names: the target of extraction
    pixels: np.ndarray | None = None  # (F, 84, 84, 3) uint8


def lattice(v):
    return int(min(SIZE - LATTICE, max(LATTICE, round(v / LATTICE) * LATTICE)))


def plural(shape):
    return shape + ("es" if shape.endswith("s") else "s")


_YY, _XX = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def footprint(thing):
    """The pixels of one shape: bool (84, 84)."""
    dx, dy, r = _XX - thing.x, _YY - thing.y, thing.r
    box = (np.abs(dx) <= r) & (np.abs(dy) <= r)
    if thing.shape == "square":
        return box
    if thing.shape == "circle":
        return dx * dx + dy * dy <= r * r
    if thing.shape == "cross":
        return box & ((np.abs(dx) <= r / 3) | (np.abs(dy) <= r / 3))
    return box & (np.abs(dx) <= (dy + r) / 2)  # triangle, apex up


_NOISE = np.random.default_rng(0).normal(0, 5, 1 << 20).astype(np.float32)  # pixel noise is cut from this bank: 10 x faster


def background(rng):
    """A pale ramp in brightness and tint, so that absolute position can be seen: float32 (84, 84, 3), about 170 to 250."""
    low, high, a, b = rng.uniform((175, 225, .3, .3), (200, 245, 1, 1)).astype(np.float32)
    ramp = (_XX * a + _YY * b) / ((a + b) * (SIZE - 1))
    plane = (low + (high - low) * ramp)[..., None]
    return plane + np.stack([_XX - SIZE / 2, _YY - SIZE / 2, -_XX / 2], -1) * np.float32(.12)


def render(frames, rng):
    """Draw scenes on one shared background. frames: list of lists of Things -> uint8 (F, 84, 84, 3)."""
    base, shade = background(rng), {c: np.float32(rng.uniform(-12, 12, 3)) for c in COLORS}
    for _ in range(rng.integers(0, 4)):  # specks: too small and too grey to be a shape
        x, y = rng.integers(2, SIZE - 2, 2)
        base[y:y + 2, x:x + 2] = rng.uniform(110, 150)
    out = np.empty((len(frames), SIZE, SIZE, 3), np.uint8)
    for i, things in enumerate(frames):
        canvas = base.copy()
        for t in things:
            canvas[footprint(t)] = np.float32(COLORS[t.color]) + shade[t.color]
        if len(frames) > 1:  # a clock: a faint bar at the bottom edge, 7 px longer in every frame
            canvas[-3:, :7 * (i + 1)] -= 40
        start = rng.integers(len(_NOISE) - canvas.size)
        canvas += _NOISE[start:start + canvas.size].reshape(canvas.shape)
        out[i] = np.clip(canvas, 0, 255, out=canvas)
    return out


def place(pairs, rng, cells=None):
    """Put (colour, shape) pairs into distinct cells, in reading order of nothing: a list of Things."""
    cells = rng.permutation(9)[:len(pairs)] if cells is None else cells
    things = []
    for (color, shape), cell in zip(pairs, cells):
        r = int(rng.integers(7, 11))
        slack = CELL // 2 - r
        x = (cell % 3) * CELL + CELL / 2 + rng.integers(-slack, slack + 1)
        y = (cell // 3) * CELL + CELL / 2 + rng.integers(-slack, slack + 1)
        things.append(Thing(color, shape, float(x), float(y), r))
    return things


def reading_order(things):
    return sorted(things, key=lambda t: (int(t.y // CELL), int(t.x // CELL)))


# ---- 2. How a point, a time and a claim are written (SPEC of a response: see argos.py) ------------------------------
def point(t):
    return f'<point x1="{lattice(t.x)}" y1="{lattice(t.y)}" alt="{t.label}">{t.label}</point>'


def when(i):
    return f"frame {i} ({i / FPS:.1f} seconds)"


def where(t, i):
    return f"The {t.label} is at ({lattice(t.x)}, {lattice(t.y)}) in {when(i)}."


def see(things):
    return "I see " + ", ".join(point(t) for t in reading_order(things)) + "."


def options_text(options):
    return " ".join(f"({chr(65 + i)}) {o}" for i, o in enumerate(options))


# ---- 3. Questions about pictures ------------------------------------------------------------------------------------
def _crowd(rng, need, forbid, pairs, size):
    """Fill a scene up to `size` objects without making `forbid(pair)` true; .45 of the fillers copy a kind already there."""
    out = list(need)
    while len(out) < size:
        if out and rng.random() < .45:
            c, s = out[rng.integers(len(out))]
            other = [p for p in pairs if (p[0] == c) != (p[1] == s)] or pairs  # a hard negative: same colour or same shape
            pick = other[rng.integers(len(other))]
        else:
            pick = pairs[rng.integers(len(pairs))]
        if not forbid(pick):
            out.append(pick)
        elif all(forbid(p) for p in pairs):
            break
    return out


def _uniform(rng, seq):
    return seq[int(rng.integers(len(seq)))]


def scene_item(rng, task=None, pairs=PAIRS, objects=(2, 5)):
    """One question about a fresh scene. task: one of SCENE_TASKS; pairs: what may be drawn; objects: (least, most)."""
    task = task or _uniform(rng, SCENE_TASKS)
    size = int(rng.integers(objects[0], objects[1] + 1))
    target = _uniform(rng, pairs)
    c, s = target
    if task == "count":
        how = _uniform(rng, ("pair", "pair", "shape", "color"))
        n = int(rng.integers(1, min(4, objects[1]) + 1))
        match = {"pair": lambda p: p == target, "shape": lambda p: p[1] == s, "color": lambda p: p[0] == c}[how]
        kinds = [p for p in pairs if match(p)]
        scene = _crowd(rng, [_uniform(rng, kinds) for _ in range(n)], match, pairs, max(size, n))
        things = place(scene, rng)
        hits = [t for t in things if match((t.color, t.shape))]
        name = {"pair": f"{c} {plural(s)}", "shape": plural(s), "color": f"{c} shapes"}[how]
        singular = {"pair": f"{c} {s}", "shape": s, "color": f"{c} shape"}[how]
        return Item(f"How many {name} are there?", str(n), "count", task, [things],
                    f"{see(hits)} That makes {n}.", labels=[singular])
    if task == "exist":
        yes = bool(rng.integers(2))
        near = [p for p in pairs if (p[0] == c) != (p[1] == s)]
        need = ([target] if yes else []) + [_uniform(rng, near)]
        things = place(_crowd(rng, need, lambda p: p == target, pairs, size), rng)
        akin = [t for t in things if (t.color == c) and (t.shape == s)] if yes else \
               [t for t in things if (t.color == c) or (t.shape == s)][:4]
        return Item(f"Is there a {c} {s}?", "yes" if yes else "no", "phrase", task, [things],
                    see(akin) + ("" if yes else f" No {c} {s}."), labels=[f"{c} {s}"])
    if task in ("color", "choice"):
        things = place(_crowd(rng, [target], lambda p: p[1] == s, pairs, size), rng)
        think = see([t for t in things if t.shape == s])
        if task == "color":
            return Item(f"What color is the {s}?", c, "phrase", task, [things], think, labels=[s])
        options = [c] + list(rng.permutation([k for k in COLORS if k != c])[:2])
        options = [str(o) for o in rng.permutation(options)]
        letter = chr(65 + options.index(c))
        return Item(f"What color is the {s}? {options_text(options)}", letter, "choice", task, [things],
                    f"{think} {c} is ({letter}).", options=options, labels=[s])
    if task in ("side", "height"):
        second = _uniform(rng, [p for p in pairs if p != target])
        # both named shapes are unique, and stand in different columns (side) or rows (height)
        a, b = rng.permutation(3)[:2]
        other = rng.integers(3, size=2)
        cell = (lambda k, o: 3 * o + k) if task == "side" else (lambda k, o: 3 * k + o)
        cells = [int(cell(a, other[0])), int(cell(b, other[1]))]
        rest = [int(k) for k in rng.permutation(9) if k not in cells]
        scene = _crowd(rng, [target, second], lambda p: p in (target, second), pairs, size)
        things = place(scene, rng, cells + rest[:len(scene) - 2])
        one, two = things[0], things[1]
        u, v = (lattice(one.x), lattice(two.x)) if task == "side" else (lattice(one.y), lattice(two.y))
        words = ("left", "right") if task == "side" else ("above", "below")
        answer = words[0] if a < b else words[1]
        relation = {"side": "left or right of", "height": "above or below"}[task]
        sign = "less" if u < v else "more"
        return Item(f"Is the {one.label} {relation} the {two.label}?", answer, "phrase", task, [things],
                    f"I see {point(one)} and {point(two)}. {u} is {sign} than {v}.", labels=[one.label, two.label])
    # free: name what stands in a corner or in the middle
    corners = {0: "top left", 2: "top right", 4: "middle", 6: "bottom left", 8: "bottom right"}
    cell = int(_uniform(rng, list(corners)))
    scene = _crowd(rng, [target], lambda p: False, pairs, size)
    rest = [int(k) for k in rng.permutation(9) if k != cell]
    things = place(scene, rng, [cell] + rest[:len(scene) - 1])
    return Item(f"What is in the {corners[cell]}?", f"a {things[0].label}", "free", "free", [things],
                see(things[:1]), labels=["shape"])


SCENE_TASKS = ("count", "exist", "color", "choice", "side", "height", "free")

# ---- 4. Questions about clips ---------------------------------------------------------------------------------------
EVENTS = {"appear": "it appears", "leave": "it leaves", "move": "it moves", "change": "it changes color"}


def _clip(rng, event, pairs, length):
    """One event among one or two bystanders. Returns frames, the acting Thing before and after, first and last frame of it."""
    c, s = _uniform(rng, pairs)
    bystanders = [p for p in pairs if p[1] != s]
    others = [_uniform(rng, bystanders) for _ in range(int(rng.integers(1, 3)))]
    others = [p for i, p in enumerate(others) if p not in others[:i]]
    cells = [int(k) for k in rng.permutation(9)]
    actor, *rest = place([(c, s)] + others, rng, cells)
    start = int(rng.integers(1, length - 1))
    before, after, end = actor, actor, start
    path = {}
    if event == "change":
        after = replace(actor, color=_uniform(rng, [p[0] for p in pairs if p[1] == s and p[0] != c]))
    if event == "move":
        taken = cells[1:1 + len(others)]
        cell = cells[0]
        steps = {"left": -1, "right": 1, "up": -3, "down": 3}
        fits = [d for d, k in steps.items() if 0 <= cell + k < 9 and cell + k not in taken
                and not (d == "left" and cell % 3 == 0) and not (d == "right" and cell % 3 == 2)]
        if not fits:
            return _clip(rng, event, pairs, length)
        direction = _uniform(rng, fits)
        dx, dy = {"left": (-CELL, 0), "right": (CELL, 0), "up": (0, -CELL), "down": (0, CELL)}[direction]
        start = int(rng.integers(0, length - 3))
        end = int(rng.integers(start + 2, min(start + 4, length)))
        after = replace(actor, x=actor.x + dx, y=actor.y + dy)
        for i in range(start, end + 1):
            f = (i - start) / (end - start)
            path[i] = replace(actor, x=actor.x + dx * f, y=actor.y + dy * f)
    frames = []
    for i in range(length):
        if event == "appear":
            now = [actor] if i >= start else []
        elif event == "leave":
            now = [actor] if i < start else []
        elif event == "change":
            now = [before if i < start else after]
        else:
            now = [path.get(i, before if i < start else after)]
        frames.append(now + rest)
    return frames, before, after, start, end, (direction if event == "move" else None)


def clip_item(rng, task=None, pairs=PAIRS, length=8):
    """One question about a fresh clip. task: one of CLIP_TASKS."""
    task = task or _uniform(rng, CLIP_TASKS)
    event = {"when": _uniform(rng, ("appear", "leave", "change")), "become": "change", "direction": "move"}.get(
        task, _uniform(rng, list(EVENTS)))
    frames, a, b, start, end, direction = _clip(rng, event, pairs, length)
    if event == "appear":
        think = f"{where(a, start)} In {when(start)} the {a.label} is visible."
    elif event == "leave":
        think = f"{where(a, start - 1)} In {when(start)} the {a.label} is gone."
    elif event == "change":
        think = f"{where(a, start - 1)} {where(b, start)} In {when(start)} the {b.shape} is {b.color}."
    else:
        think = (f"{where(a, start)} {where(b, end)} From {start / FPS:.1f} seconds to {end / FPS:.1f} seconds "
                 f"the {a.label} moves {direction}.")
    make = lambda q, ans, kind, options=None: Item(q, ans, kind, task, frames, think, options, "clips", [a.label])
    if task == "when":
        verb = {"appear": "appear", "leave": "leave", "change": "change color"}[event]
        return make(f"When does the {a.label} {verb}?", f"{start / FPS:.1f} seconds", "number")
    if task == "what":
        options = [str(o) for o in rng.permutation(list(EVENTS.values()))]
        letter = chr(65 + options.index(EVENTS[event]))
        return make(f"What does the {a.label} do? {options_text(options)}", letter, "choice", options)
    if task == "who":
        verb = {"appear": "appears", "leave": "leaves", "move": "moves", "change": "changes color"}[event]
        item = make(f"Which shape {verb}?", a.label, "phrase")
    elif task == "become":
        item = make(f"What color does the {a.shape} become?", b.color, "phrase")
    else:
        item = make(f"Which way does the {a.label} move?", direction, "phrase")
    item.labels = ["shape"] if task == "who" else [a.shape] if task == "become" else [a.label]
    return item


CLIP_TASKS = ("when", "what", "who", "become", "direction")

# ---- 5. easy-vqa: somebody else's pictures and questions --------------------------------------------------------------
EASY_COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "black": (0, 0, 0),
               "gray": (128, 128, 128), "teal": (0, 128, 128), "brown": (165, 42, 42)}
_EASY = {}


def easy_vqa(split):
    """Published pictures and questions: a list of (pixels uint8 (64, 64, 3), Thing in 64-px units, [(question, answer)])."""
    if split not in _EASY:
        import easy_vqa as package
        texts, answers, ids = getattr(package, f"get_{split}_questions")()
        paths = getattr(package, f"get_{split}_image_paths")()
        asked = {}
        for q, a, i in zip(texts, answers, ids):
            asked.setdefault(i, []).append((q, a))
        rows = []
        for i in sorted(asked):
            pixels = np.asarray(Image.open(paths[i]).convert("RGB"))
            rows.append((pixels, easy_thing(pixels), asked[i]))
        _EASY[split] = rows
    return _EASY[split]


def easy_thing(pixels):
    """Find the one flat shape of an easy-vqa picture: its colour is exact, its outline tells its form."""
    for color, rgb in EASY_COLORS.items():
        mask = (pixels == rgb).all(-1)
        if mask.sum() >= 12:
            break
    ys, xs = np.nonzero(mask)
    (x0, x1), (y0, y1) = (xs.min(), xs.max()), (ys.min(), ys.max())
    inside = mask[y0:y1 + 1, x0:x1 + 1]
    fill, pointed = inside.mean(), inside[0].sum() == 1 and inside[-1].all()  # the tiniest triangles fill two thirds
    shape = "rectangle" if fill > .93 else "triangle" if fill < .65 or pointed else "circle"
    return Thing(color, shape, (x0 + x1) / 2, (y0 + y1) / 2, int(max(x1 - x0, y1 - y0) + 1) // 2)


def easy_item(rng, split="train", row=None):
    """A published question about a published picture, resized to 84 px."""
    pixels, thing, asked = row or _uniform(rng, easy_vqa(split))
    question, answer = _uniform(rng, asked)
    big = replace(thing, x=thing.x * SIZE / 64, y=thing.y * SIZE / 64, r=int(thing.r * SIZE / 64))
    picture = np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.BICUBIC))[None]
    words = question.rstrip("?").split()
    named = [w for w in words if w in EASY_COLORS] + [w for w in words if w in ("circle", "rectangle", "triangle")]
    label = f"{named[0]} shape" if named and named[0] in EASY_COLORS else named[0] if named else "shape"
    return Item(question, answer, "phrase", "easy", [[big]], see([big]), source="easy-vqa", labels=[label], pixels=picture)


def tile_item(rng, split="train", task=None):
    """Four easy-vqa pictures as one: counting and relations that no single picture of the package asks."""
    rows = easy_vqa(split)
    task = task or _uniform(rng, ("count", "side", "height"))
    while True:
        chosen = [rows[int(k)] for k in rng.integers(len(rows), size=4)]
        if task == "count" and rng.random() < .7:  # make repeats likely: at least two share a shape
            shape = chosen[0][1].shape
            for k in range(1, int(rng.integers(1, 5))):
                while chosen[k][1].shape != shape:
                    chosen[k] = rows[int(rng.integers(len(rows)))]
            order = rng.permutation(4)
            chosen = [chosen[int(k)] for k in order]
        half = SIZE // 2
        picture, things = np.empty((1, SIZE, SIZE, 3), np.uint8), []
        for k, (pixels, t, _) in enumerate(chosen):
            dx, dy = (k % 2) * half, (k // 2) * half
            picture[0, dy:dy + half, dx:dx + half] = np.asarray(Image.fromarray(pixels).resize((half, half), Image.BICUBIC))
            things.append(replace(t, x=t.x * half / 64 + dx, y=t.y * half / 64 + dy, r=int(t.r * half / 64)))
        if task == "count":
            shape = _uniform(rng, things).shape
            hits = [t for t in things if t.shape == shape]
            return Item(f"How many {plural(shape)} are there?", str(len(hits)), "count", "tile count", [things],
                        f"{see(hits)} That makes {len(hits)}.", source="easy-vqa", labels=[shape], pixels=picture)
        i, j = (int(k) for k in rng.permutation(4)[:2])
        across = i % 2 != j % 2 if task == "side" else i // 2 != j // 2
        labels = [t.label for t in things]
        if not across or labels.count(labels[i]) > 1 or labels.count(labels[j]) > 1:
            continue
        one, two = things[i], things[j]
        u, v = (lattice(one.x), lattice(two.x)) if task == "side" else (lattice(one.y), lattice(two.y))
        if u == v:
            continue
        words = ("left", "right") if task == "side" else ("above", "below")
        relation = {"side": "left or right of", "height": "above or below"}[task]
        return Item(f"Is the {one.label} {relation} the {two.label}?", words[0] if u < v else words[1], "phrase",
                    "tile " + task, [things], f"I see {point(one)} and {point(two)}. {u} is {'less' if u < v else 'more'} than {v}.",
                    source="easy-vqa", labels=[one.label, two.label], pixels=picture)


def draw_item(rng, mix=(.66, .18, .16), split="train", **scene):
    """An item of the training mixture: scenes, clips, easy-vqa (half of it tiles), drawn to pixels."""
    u = rng.random()
    if u < mix[0]:
        item = scene_item(rng, **scene)
    elif u < mix[0] + mix[1]:
        item = clip_item(rng)
    else:
        item = easy_item(rng, split) if rng.random() < .5 else tile_item(rng, split)
    if item.pixels is None:
        item.pixels = render(item.frames, rng)
    return item


# ---- 6. Datasets on disk ------------------------------------------------------------------------------------------------
@dataclass
class Config:
    out: str = field(default="out/data", metadata={"help": "folder to write"})
    curate: int = field(default=800, metadata={"help": "samples for curation and SFT (curate.jsonl)"})
    rl: int = field(default=1600, metadata={"help": "samples for GRPO (rl.jsonl), disjoint from the others"})
    val: int = field(default=1024, metadata={"help": "held-out samples of the training mixture (val.jsonl; easy-vqa's test split)"})
    ood: int = field(default=256, metadata={"help": "samples of each out-of-domain set (ood-*.jsonl)"})
    seed: int = field(default=0, metadata={"help": "seed of everything drawn"})


def unseen_pair_item(rng):
    """A scene whose question turns on a colour-shape pair that training never drew."""
    item = scene_item(rng, pairs=PAIRS + [p for p in HELD_OUT for _ in range(4)])
    return item if any((t.color, t.shape) in HELD_OUT for t in item.frames[0]) else unseen_pair_item(rng)


SPLITS = {  # name -> how one item is drawn; the position in this table seeds the split, so splits never share a picture
    "curate": lambda rng: draw_item(rng),
    "rl": lambda rng: draw_item(rng),
    "val": lambda rng: draw_item(rng, split="test"),
    "ood-objects": lambda rng: scene_item(rng, objects=(6, 8)),
    "ood-pairs": unseen_pair_item,
    "ood-clips": lambda rng: clip_item(rng, length=int(_uniform(rng, (5, 6, 10, 12)))),
}


def split_item(split, index, seed=0):
    """Item `index` of a split, drawn to pixels: the same for everybody, without the disk (used to measure the teachers)."""
    rng = np.random.default_rng([seed, list(SPLITS).index(split), index])
    item = SPLITS[split](rng)
    if item.pixels is None:
        item.pixels = render(item.frames, rng)
    return item


def save_media(pixels, path):
    """One frame -> PNG; several -> animated PNG (lossless, exact times, plays in a browser). Returns the path with its suffix."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(p) for p in pixels]
    path = path.with_suffix(".apng" if rest else ".png")
    more = dict(save_all=True, append_images=rest, duration=round(1000 / FPS), loop=0) if rest else {}
    first.save(path, format="PNG", compress_level=1, **more)
    return path


def write_item(split, out, seed, index):
    """Write the media of one item -> its row: a picture or clip, a question and an answer; no objects."""
    item, name = split_item(split, index, seed), f"{split}-{index:05d}"
    path = save_media(item.pixels, Path(out) / "media" / name)
    row = dict(id=name, question=item.question, answer=item.answer, kind=item.kind, task=item.task, source=item.source)
    row["video" if len(item.pixels) > 1 else "image"] = str(path.relative_to(out))
    return row | (dict(options=item.options) if item.options else {})


def write_split(split, n, out, seed=0, map=map):
    """Write <out>/<split>.jsonl and its media. map: the built-in one, or that of a pool of processes."""
    made = map(partial(write_item, split, out, seed), range(n))
    rows = [json.dumps(row) for row in tqdm(made, total=n, desc=f"draw {split}", unit="sample")]
    temporary = Path(out) / f".{split}.tmp"
    temporary.write_text("\n".join(rows) + "\n")
    os.replace(temporary, Path(out) / f"{split}.jsonl")


def contact_sheet(path, seed=0, n=24):
    """A page of pictures with their questions and answers."""
    sheet = Image.new("RGB", (6 * 190, n // 6 * 216), "white")
    pen = ImageDraw.Draw(sheet)
    for i in range(n):
        item = split_item("val", i, seed)
        x, y = (i % 6) * 190 + 8, (i // 6) * 216 + 6
        sheet.paste(Image.fromarray(item.pixels[len(item.pixels) // 2]).resize((168, 168), Image.NEAREST), (x, y))
        pen.multiline_text((x, y + 171), "\n".join(textwrap.wrap(item.question, 32)[:2]), fill="black", spacing=0)
        pen.text((x, y + 195), f"-> {item.answer}  [{item.source}, {len(item.pixels)} frame{'s' * (len(item.pixels) > 1)}]", fill=(0, 90, 0))
    save_figure(sheet, path)


def main():
    cfg = parse_config(Config, __doc__)
    os.makedirs(cfg.out, exist_ok=True)
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # an item depends on its split, place and seed alone
        for split in SPLITS:
            write_split(split, getattr(cfg, split, cfg.ood), cfg.out, cfg.seed, partial(pool.map, chunksize=16))
    contact_sheet(Path(cfg.out) / "contact.png", cfg.seed)
    print(f"wrote {', '.join(SPLITS)} to {cfg.out}; look at {cfg.out}/contact.png")


if __name__ == "__main__":
    main()
