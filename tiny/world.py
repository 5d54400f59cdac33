"""The embedded world: drawn scenes, short clips and easy-vqa, with questions whose true answers are known.

A picture is 84 x 84 pixels: nine cells of 28 px (one merged vision token of Qwen2.5-VL each), every shape
wholly inside one cell, on a background whose brightness and tint drift across the picture, with pixel noise
and grey specks as distractors. A clip is 8 such pictures, two a second: one shape appears, leaves, moves or
changes colour. As the ramp makes position visible, a faint bar that grows along the bottom edge makes time
visible; a small model learns neither from rotary positions alone in minutes (without the bar, "when?" stayed
at chance). The second source is easy-vqa (PyPI, MIT: published pictures and questions that nobody here made):
single pictures, and 2 x 2 tiles of them.

What the world knows about its pictures (the objects) is used for three things only: to ask questions, to
train the two shipped models (`tiny/train.py`), and to measure the pixel teachers (`python -m tiny.measure`).
Datasets written to disk hold a picture, a question and an answer, as a real dataset would: no verifier and no
policy ever sees the objects.

Held out of all training: more than 5 objects, the colour-shape pairs HELD_OUT, clips of other lengths,
easy-vqa's test split. The paper has no such world: all of this is our choice, so that everything can be run
on a laptop.

Every random number comes from one generator, in a fixed order: another order of the same draws gives other
pictures.

Run:     python -m tiny.world --out out/data       # writes the splits; look at out/data/contact.png
Before:  tiny/README.md
Next:    tiny/pixels.py (the teachers that look at these pictures), tiny/models.py (the two small models)
"""
import json
import os
import textwrap
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import easy_vqa as easy_vqa_package
import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from runs.errors import run_main
from runs.files import make_folder, save_figure, write_atomically
from runs.settings import flag, parse_config

# ---- 1. What can be drawn ----------------------------------------------------------------------------------
SIZE = 84     # pixels, width and height of every picture
CELL = 28     # pixels, width and height of a cell: 3 x 3 cells, one vision token each
FPS = 2.0     # frames per second of a clip
LATTICE = 4   # points are spoken on a 4-px lattice, so that a coordinate is one of 21 tokens
COLORS = {"red": (225, 30, 30), "green": (20, 190, 40), "blue": (30, 50, 225), "yellow": (240, 225, 20)}
SHAPES = ("square", "cross", "triangle")
# Unseen pairs: only the out-of-domain evaluation draws them.
HELD_OUT = (("yellow", "cross"), ("blue", "triangle"))
PAIRS = [(color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in HELD_OUT]


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

    @property
    def pair(self):
        return self.color, self.shape


@dataclass
class Item:
    """One question about one picture or clip.

    `frames` is a list of scenes, each a list of Things (one for a picture).
    """
    question: str
    answer: str
    kind: str    # how the answer is compared with the truth: one of verifier.answers.KINDS
    task: str    # what is asked: one of SCENE_TASKS, CLIP_TASKS, "easy" or "tile ..."
    frames: list
    think: str   # the oracle's reasoning; used by tiny/train.py alone
    options: list | None = None
    source: str = "scenes"
    labels: list = field(default_factory=list)  # what the question names: the target of extraction
    pixels: np.ndarray | None = None  # (F, 84, 84, 3) uint8


def lattice(v):
    """The nearest multiple of 4 px inside the picture: 45.3 -> 44."""
    nearest = round(v / LATTICE) * LATTICE
    return int(min(SIZE - LATTICE, max(LATTICE, nearest)))


def plural(shape):
    return shape + ("es" if shape.endswith("s") else "s")


def matches(label, thing):
    """Does "red square", "squares", "red shape" or "shape" name this thing?"""
    words = [word for word in label.split() if word not in ("shape", "shapes")]
    return all(word in thing.pair for word in words)


ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)  # (84, 84) each: every pixel's y, every pixel's x


def footprint(thing):
    """The pixels of one shape: bool (84, 84)."""
    dx, dy, r = COLUMNS - thing.x, ROWS - thing.y, thing.r
    box = (np.abs(dx) <= r) & (np.abs(dy) <= r)
    if thing.shape == "square":
        return box
    if thing.shape == "circle":
        return dx * dx + dy * dy <= r * r
    if thing.shape == "cross":
        return box & ((np.abs(dx) <= r / 3) | (np.abs(dy) <= r / 3))
    return box & (np.abs(dx) <= (dy + r) / 2)  # triangle, apex up


# Pixel noise is cut from this bank: ten times faster than drawing it anew.
NOISE = np.random.default_rng(0).normal(0, 5, 1 << 20).astype(np.float32)


def background(rng):
    """A pale ramp in brightness and tint, so that a place can be seen: float32 (84, 84, 3), about 170 to 250."""
    low, high, slope_x, slope_y = rng.uniform((175, 225, .3, .3), (200, 245, 1, 1)).astype(np.float32)
    ramp = (COLUMNS * slope_x + ROWS * slope_y) / ((slope_x + slope_y) * (SIZE - 1))  # (84, 84), 0..1
    brightness = (low + (high - low) * ramp)[..., None]  # (84, 84, 1)
    tint = np.stack([COLUMNS - SIZE / 2, ROWS - SIZE / 2, -COLUMNS / 2], -1)  # (84, 84, 3)
    return brightness + tint * np.float32(.12)


def render(frames, rng):
    """Draw scenes on one shared background. frames: list of lists of Things -> uint8 (F, 84, 84, 3)."""
    base = background(rng)
    # No two pictures have quite the same red.
    shade = {color: np.float32(rng.uniform(-12, 12, 3)) for color in COLORS}
    for _ in range(rng.integers(0, 4)):  # specks: too small and too grey to be a shape
        x, y = rng.integers(2, SIZE - 2, 2)
        base[y:y + 2, x:x + 2] = rng.uniform(110, 150)
    out = np.empty((len(frames), SIZE, SIZE, 3), np.uint8)
    for i, things in enumerate(frames):
        canvas = base.copy()
        for thing in things:
            canvas[footprint(thing)] = np.float32(COLORS[thing.color]) + shade[thing.color]
        if len(frames) > 1:  # a clock: a faint bar at the bottom edge, 7 px longer in every frame
            canvas[-3:, :7 * (i + 1)] -= 40
        start = rng.integers(len(NOISE) - canvas.size)
        canvas += NOISE[start:start + canvas.size].reshape(canvas.shape)
        out[i] = np.clip(canvas, 0, 255, out=canvas)
    return out


def place(pairs, rng, cells=None):
    """Put (colour, shape) pairs into distinct cells -> list of Things.

    cells: which ones, numbered 0..8 row by row; at random unless given.
    """
    if cells is None:
        cells = rng.permutation(9)[:len(pairs)]
    things = []
    for (color, shape), cell in zip(pairs, cells):
        r = int(rng.integers(7, 11))
        slack = CELL // 2 - r  # how far the centre may leave the middle of its cell
        x = (cell % 3) * CELL + CELL / 2 + rng.integers(-slack, slack + 1)
        y = (cell // 3) * CELL + CELL / 2 + rng.integers(-slack, slack + 1)
        things.append(Thing(color, shape, float(x), float(y), r))
    return things


def reading_order(things):
    """Row of cells by row of cells, from the left."""
    return sorted(things, key=lambda thing: (int(thing.y // CELL), int(thing.x // CELL)))


# ---- 2. How a point, a time and a claim are written (what a response may hold: see verifier/claims.py) -----
LETTERS = "ABCDEFGH"  # of the options of a multiple choice


def point(thing):
    return f'<point x1="{lattice(thing.x)}" y1="{lattice(thing.y)}" alt="{thing.label}">{thing.label}</point>'


def when(i):
    return f"frame {i} ({i / FPS:.1f} seconds)"


def where(thing, i):
    return f"The {thing.label} is at ({lattice(thing.x)}, {lattice(thing.y)}) in {when(i)}."


def see(things):
    return "I see " + ", ".join(point(thing) for thing in reading_order(things)) + "."


def options_text(options):
    return " ".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options))


# ---- 3. Questions about pictures ---------------------------------------------------------------------------
def choose(rng, sequence):
    """One element, each as likely as any other."""
    return sequence[int(rng.integers(len(sequence)))]


def relatives(pair, pairs):
    """Hard negatives: what shares the colour or the shape with `pair`, but not both."""
    color, shape = pair
    return [p for p in pairs if (p[0] == color) != (p[1] == shape)]


def crowd(rng, need, forbidden, pairs, size):
    """Fill a scene up to `size` pairs, none of the fillers forbidden -> `need`, then the fillers.

    A share of .45 of the fillers are relatives of a pair already there, so that a question cannot be answered
    by its colour or its shape alone.
    """
    scene = list(need)
    while len(scene) < size:
        if scene and rng.random() < .45:
            akin = scene[rng.integers(len(scene))]
            candidates = relatives(akin, pairs) or pairs
        else:
            candidates = pairs
        pick = candidates[rng.integers(len(candidates))]
        if pick not in forbidden:
            scene.append(pick)
        elif all(pair in forbidden for pair in pairs):
            break
    return scene


def count_item(rng, target, size, pairs, most):
    """"How many red squares (squares, red shapes) are there?" One to `most` of them."""
    color, shape = target
    by = choose(rng, ("pair", "pair", "shape", "color"))
    n = int(rng.integers(1, most + 1))
    if by == "pair":
        kinds = [pair for pair in pairs if pair == target]
        singular, name = f"{color} {shape}", f"{color} {plural(shape)}"
    elif by == "shape":
        kinds = [pair for pair in pairs if pair[1] == shape]
        singular, name = shape, plural(shape)
    else:
        kinds = [pair for pair in pairs if pair[0] == color]
        singular, name = f"{color} shape", f"{color} shapes"
    counted = [choose(rng, kinds) for _ in range(n)]
    things = place(crowd(rng, counted, kinds, pairs, max(size, n)), rng)
    hits = [thing for thing in things if thing.pair in kinds]
    return Item(f"How many {name} are there?", str(n), "count", "count", [things], f"{see(hits)} That makes {n}.",
                labels=[singular])


def exist_item(rng, target, size, pairs):
    """"Is there a red square?" One of its relatives is always there."""
    color, shape = target
    there = bool(rng.integers(2))
    need = [target] if there else []
    need.append(choose(rng, relatives(target, pairs)))
    things = place(crowd(rng, need, [target], pairs, size), rng)
    if there:
        think = see([thing for thing in things if thing.pair == target])
    else:
        akin = [thing for thing in things if thing.color == color or thing.shape == shape]
        think = f"{see(akin[:4])} No {color} {shape}."
    return Item(f"Is there a {color} {shape}?", "yes" if there else "no", "phrase", "exist", [things], think,
                labels=[f"{color} {shape}"])


def color_item(rng, target, size, pairs, multiple_choice):
    """"What color is the square?", with three options or without. It is the only one of its shape."""
    color, shape = target
    same_shape = [pair for pair in pairs if pair[1] == shape]
    things = place(crowd(rng, [target], same_shape, pairs, size), rng)
    think = see([thing for thing in things if thing.shape == shape])
    question = f"What color is the {shape}?"
    if not multiple_choice:
        return Item(question, color, "phrase", "color", [things], think, labels=[shape])
    others = rng.permutation([other for other in COLORS if other != color])[:2]
    options = [str(option) for option in rng.permutation([color, *others])]
    letter = LETTERS[options.index(color)]
    return Item(f"{question} {options_text(options)}", letter, "choice", "choice", [things],
                f"{think} {color} is ({letter}).", options=options, labels=[shape])


RELATIONS = {  # task -> (how it is asked, the answer where the first one's coordinate is less, where it is more)
    "side": ("left or right of", "left", "right"),
    "height": ("above or below", "above", "below"),
}


def compare(one, two, task):
    """The oracle's reasoning about two things: both pointed at, their x (task side) or y (height) compared."""
    if task == "side":
        u, v = lattice(one.x), lattice(two.x)
    else:
        u, v = lattice(one.y), lattice(two.y)
    return f"I see {point(one)} and {point(two)}. {u} is {'less' if u < v else 'more'} than {v}."


def relation_item(rng, target, size, pairs, task):
    """"Is the red square left or right of the blue cross?"

    Both are unique, in different columns (side) or rows (height).
    """
    second = choose(rng, [pair for pair in pairs if pair != target])
    lines = rng.permutation(3)[:2]        # the columns (rows) of the two
    along = rng.integers(3, size=2)       # where each stands in its column (row)
    if task == "side":
        cells = [int(3 * row + column) for column, row in zip(lines, along)]
    else:
        cells = [int(3 * row + column) for row, column in zip(lines, along)]
    rest = [int(cell) for cell in rng.permutation(9) if cell not in cells]
    scene = crowd(rng, [target, second], [target, second], pairs, size)
    things = place(scene, rng, cells + rest[:len(scene) - 2])
    one, two = things[0], things[1]
    asked, first, last = RELATIONS[task]
    answer = first if lines[0] < lines[1] else last
    return Item(f"Is the {one.label} {asked} the {two.label}?", answer, "phrase", task, [things],
                compare(one, two, task), labels=[one.label, two.label])


PLACES = {0: "top left", 2: "top right", 4: "middle", 6: "bottom left", 8: "bottom right"}  # cell -> its name


def free_item(rng, target, size, pairs):
    """"What is in the top left?" A free answer: a judge compares it with the truth."""
    cell = int(choose(rng, list(PLACES)))
    scene = crowd(rng, [target], [], pairs, size)
    rest = [int(other) for other in rng.permutation(9) if other != cell]
    things = place(scene, rng, [cell] + rest[:len(scene) - 1])
    return Item(f"What is in the {PLACES[cell]}?", f"a {things[0].label}", "free", "free", [things],
                see(things[:1]), labels=["shape"])


SCENE_TASKS = ("count", "exist", "color", "choice", "side", "height", "free")


def scene_item(rng, task=None, pairs=PAIRS, objects=(2, 5)):
    """One question about a fresh scene.

    rng: numpy Generator; task: one of SCENE_TASKS, at random unless given; pairs: what may be drawn, each as
    likely as it is often in the list; objects: (least, most). -> Item without pixels (see render).
    """
    task = task or choose(rng, SCENE_TASKS)
    size = int(rng.integers(objects[0], objects[1] + 1))
    target = choose(rng, pairs)
    if task == "count":
        return count_item(rng, target, size, pairs, most=min(4, objects[1]))
    if task == "exist":
        return exist_item(rng, target, size, pairs)
    if task in ("color", "choice"):
        return color_item(rng, target, size, pairs, multiple_choice=task == "choice")
    if task in RELATIONS:
        return relation_item(rng, target, size, pairs, task)
    return free_item(rng, target, size, pairs)


# ---- 4. Questions about clips ------------------------------------------------------------------------------
EVENTS = {"appear": "appears", "leave": "leaves", "move": "moves", "change": "changes color"}
STEPS = {"left": -1, "right": 1, "up": -3, "down": 3}  # direction -> how far it is to the next cell's number


@dataclass
class Clip:
    """What happens in a clip. before, after: the acting Thing; start, end: first and last frame of the event."""
    frames: list
    before: Thing
    after: Thing
    start: int
    end: int
    direction: str | None = None


def free_directions(cell, taken):
    """The directions in which a shape can leave its cell for an empty one."""
    fits = []
    for direction, step in STEPS.items():
        wraps = direction == "left" and cell % 3 == 0 or direction == "right" and cell % 3 == 2
        if 0 <= cell + step < 9 and cell + step not in taken and not wraps:
            fits.append(direction)
    return fits


def draw_clip(rng, event, pairs, length):
    """One event, a key of EVENTS, among one or two bystanders of other shapes -> Clip of `length` frames."""
    color, shape = choose(rng, pairs)
    strangers = [pair for pair in pairs if pair[1] != shape]
    drawn = [choose(rng, strangers) for _ in range(int(rng.integers(1, 3)))]
    bystanders = list(dict.fromkeys(drawn))  # no two alike
    cells = [int(cell) for cell in rng.permutation(9)]
    actor, *others = place([(color, shape)] + bystanders, rng, cells)
    start = int(rng.integers(1, length - 1))
    if event == "move":
        directions = free_directions(cells[0], cells[1:1 + len(bystanders)])
        if not directions:
            return draw_clip(rng, event, pairs, length)
        return moving_clip(rng, actor, others, choose(rng, directions), length)

    after = actor
    if event == "change":
        after = replace(actor, color=choose(rng, [p[0] for p in pairs if p[1] == shape and p[0] != color]))
    frames = []
    for i in range(length):
        happened = i >= start
        if event == "change":
            acting = [after if happened else actor]
        else:
            there = happened if event == "appear" else not happened
            acting = [actor] if there else []
        frames.append(acting + others)
    return Clip(frames, actor, after, start, start)


def moving_clip(rng, actor, others, direction, length):
    """A shape that wanders one cell further, in even steps over two or three frames' time."""
    dx, dy = {"left": (-CELL, 0), "right": (CELL, 0), "up": (0, -CELL), "down": (0, CELL)}[direction]
    start = int(rng.integers(0, length - 3))
    end = int(rng.integers(start + 2, min(start + 4, length)))
    after = replace(actor, x=actor.x + dx, y=actor.y + dy)
    frames = []
    for i in range(length):
        if start <= i <= end:
            share = (i - start) / (end - start)
            acting = replace(actor, x=actor.x + dx * share, y=actor.y + dy * share)
        else:
            acting = actor if i < start else after
        frames.append([acting] + others)
    return Clip(frames, actor, after, start, end, direction)


def clip_reasoning(event, clip):
    """The oracle's reasoning: where the shape is in time, and what it does."""
    before, after, start, end = clip.before, clip.after, clip.start, clip.end
    if event == "appear":
        return f"{where(before, start)} In {when(start)} the {before.label} is visible."
    if event == "leave":
        return f"{where(before, start - 1)} In {when(start)} the {before.label} is gone."
    if event == "change":
        seen = f"{where(before, start - 1)} {where(after, start)}"
        return f"{seen} In {when(start)} the {after.shape} is {after.color}."
    span = f"From {start / FPS:.1f} seconds to {end / FPS:.1f} seconds"
    return f"{where(before, start)} {where(after, end)} {span} the {before.label} moves {clip.direction}."


CLIP_TASKS = ("when", "what", "who", "become", "direction")


def clip_item(rng, task=None, pairs=PAIRS, length=8):
    """One question about a fresh clip -> Item without pixels (see render).

    task: one of CLIP_TASKS, at random unless given; pairs: see scene_item; length: in frames.
    """
    task = task or choose(rng, CLIP_TASKS)
    has_a_time = choose(rng, ("appear", "leave", "change"))
    any_event = choose(rng, list(EVENTS))  # both are always drawn, so that later draws do not depend on the task
    event = {"when": has_a_time, "become": "change", "direction": "move"}.get(task, any_event)
    clip = draw_clip(rng, event, pairs, length)
    actor = clip.before
    options = None
    labels = [actor.label]
    if task == "when":
        verb = {"appear": "appear", "leave": "leave", "change": "change color"}[event]
        question = f"When does the {actor.label} {verb}?"
        answer, kind = f"{clip.start / FPS:.1f} seconds", "number"
    elif task == "what":
        options = [str(option) for option in rng.permutation([f"it {verb}" for verb in EVENTS.values()])]
        question = f"What does the {actor.label} do? {options_text(options)}"
        answer, kind = LETTERS[options.index(f"it {EVENTS[event]}")], "choice"
    elif task == "who":
        question, answer, kind = f"Which shape {EVENTS[event]}?", actor.label, "phrase"
        labels = ["shape"]
    elif task == "become":
        question, answer, kind = f"What color does the {actor.shape} become?", clip.after.color, "phrase"
        labels = [actor.shape]
    else:
        question, answer, kind = f"Which way does the {actor.label} move?", clip.direction, "phrase"
    return Item(question, answer, kind, task, clip.frames, clip_reasoning(event, clip), options, "clips", labels)


# ---- 5. easy-vqa: somebody else's pictures and questions ---------------------------------------------------
EASY_SIZE = 64  # pixels, width and height of its pictures
EASY_COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0),
               "black": (0, 0, 0), "gray": (128, 128, 128), "teal": (0, 128, 128), "brown": (165, 42, 42)}
EASY_SHAPES = ("circle", "rectangle", "triangle")


@lru_cache(maxsize=None)
def easy_vqa(split):
    """Published pictures and questions -> list of (path of the picture, [(question, answer)]).

    split: "train" or "test". Listed once per process.
    """
    if split == "train":
        texts, answers, ids = easy_vqa_package.get_train_questions()
        paths = easy_vqa_package.get_train_image_paths()
    else:
        texts, answers, ids = easy_vqa_package.get_test_questions()
        paths = easy_vqa_package.get_test_image_paths()
    asked = {}
    for question, answer, i in zip(texts, answers, ids):
        asked.setdefault(i, []).append((question, answer))
    return [(paths[i], asked[i]) for i in sorted(asked)]


@lru_cache(maxsize=None)
def easy_picture(path):
    """-> pixels uint8 (64, 64, 3), and the Thing in it. Read once per process, and only if it is drawn."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return pixels, easy_thing(pixels)


def easy_thing(pixels):
    """Find the one flat shape of an easy-vqa picture: its colour is exact, its outline tells its form."""
    for color, rgb in EASY_COLORS.items():
        mask = (pixels == rgb).all(-1)
        if mask.sum() >= 12:
            break
    ys, xs = np.nonzero(mask)
    left, right, top, bottom = xs.min(), xs.max(), ys.min(), ys.max()
    inside = mask[top:bottom + 1, left:right + 1]
    fill = inside.mean()  # of its own box: 1 for a rectangle, .79 for a circle, about a half for a triangle
    pointed = inside[0].sum() == 1 and inside[-1].all()  # the tiniest triangles fill two thirds
    if fill > .93:
        shape = "rectangle"
    elif fill < .65 or pointed:
        shape = "triangle"
    else:
        shape = "circle"
    longest = int(max(right - left, bottom - top) + 1)
    return Thing(color, shape, (left + right) / 2, (top + bottom) / 2, longest // 2)


def enlarged(thing, side, dx=0, dy=0):
    """A Thing of an easy-vqa picture that is drawn `side` pixels wide, with its corner at (dx, dy)."""
    return replace(thing, x=thing.x * side / EASY_SIZE + dx, y=thing.y * side / EASY_SIZE + dy,
                   r=int(thing.r * side / EASY_SIZE))


def resized(pixels, side):
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.BICUBIC))


def easy_item(rng, split="train"):
    """A published question about a published picture, resized to 84 px."""
    path, asked = choose(rng, easy_vqa(split))
    pixels, thing = easy_picture(path)
    question, answer = choose(rng, asked)
    thing = enlarged(thing, SIZE)
    words = question.rstrip("?").split()
    colors = [word for word in words if word in EASY_COLORS]
    shapes = [word for word in words if word in EASY_SHAPES]
    if colors:
        label = f"{colors[0]} shape"
    else:
        label = shapes[0] if shapes else "shape"
    return Item(question, answer, "phrase", "easy", [[thing]], see([thing]), source="easy-vqa", labels=[label],
                pixels=resized(pixels, SIZE)[None])


def tile_item(rng, split="train", task=None):
    """Four easy-vqa pictures as one: counting and relations that no single picture of the package asks."""
    task = task or choose(rng, ("count", "side", "height"))
    while True:
        paths = [path for path, _ in easy_vqa(split)]
        picture, things = draw_tiles(rng, paths, repeats=task == "count")
        if task == "count":
            shape = choose(rng, things).shape
            hits = [thing for thing in things if thing.shape == shape]
            return Item(f"How many {plural(shape)} are there?", str(len(hits)), "count", "tile count", [things],
                        f"{see(hits)} That makes {len(hits)}.", source="easy-vqa", labels=[shape], pixels=picture)
        i, j = (int(k) for k in rng.permutation(4)[:2])
        one, two = things[i], things[j]
        labels = [thing.label for thing in things]
        if labels.count(one.label) > 1 or labels.count(two.label) > 1:
            continue  # a name must mean one thing
        if task == "side":
            across = i % 2 != j % 2
            u, v = lattice(one.x), lattice(two.x)
        else:
            across = i // 2 != j // 2
            u, v = lattice(one.y), lattice(two.y)
        if not across or u == v:
            continue
        asked, first, last = RELATIONS[task]
        return Item(f"Is the {one.label} {asked} the {two.label}?", first if u < v else last, "phrase",
                    "tile " + task, [things], compare(one, two, task), source="easy-vqa",
                    labels=[one.label, two.label], pixels=picture)


def draw_tiles(rng, paths, repeats):
    """Four of easy-vqa's pictures, 2 x 2 -> (pixels (1, 84, 84, 3), their four Things).

    repeats: make it likely that some share a shape.
    """
    chosen = [easy_picture(paths[int(k)]) for k in rng.integers(len(paths), size=4)]
    if repeats and rng.random() < .7:
        shape = chosen[0][1].shape
        for k in range(1, int(rng.integers(1, 5))):
            while chosen[k][1].shape != shape:
                chosen[k] = easy_picture(paths[int(rng.integers(len(paths)))])
        order = rng.permutation(4)
        chosen = [chosen[int(k)] for k in order]
    half = SIZE // 2
    picture = np.empty((1, SIZE, SIZE, 3), np.uint8)
    things = []
    for k, (pixels, thing) in enumerate(chosen):
        dx, dy = (k % 2) * half, (k // 2) * half
        picture[0, dy:dy + half, dx:dx + half] = resized(pixels, half)
        things.append(enlarged(thing, half, dx, dy))
    return picture, things


def draw_item(rng, mix=(.66, .18, .16), split="train", **scene):
    """An item of the training mixture, with its pixels.

    mix: shares of scenes, clips and easy-vqa (half of it tiles); split: of easy-vqa; scene: see scene_item.
    """
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


# ---- 6. Datasets on disk -----------------------------------------------------------------------------------
@dataclass
class Config:
    out: str = flag("out/data", "folder to write")
    curate: int = flag(800, "samples for curation and SFT (curate.jsonl)")
    rl: int = flag(1600, "samples for GRPO (rl.jsonl), disjoint from the others")
    val: int = flag(1024, "held-out samples of the training mixture (val.jsonl; easy-vqa's test split)")
    ood: int = flag(256, "samples of each out-of-domain set (ood-*.jsonl)")
    seed: int = flag(0, "seed of everything drawn")


def held_out_item(rng):
    return draw_item(rng, split="test")


def many_objects_item(rng):
    """More shapes than any training scene holds."""
    return scene_item(rng, objects=(6, 8))


def unseen_pair_item(rng):
    """A scene with a colour-shape pair that training never drew."""
    likely = PAIRS + [pair for pair in HELD_OUT for _ in range(4)]
    while True:
        item = scene_item(rng, pairs=likely)
        if any(thing.pair in HELD_OUT for thing in item.frames[0]):
            return item


def other_length_item(rng):
    """A clip shorter or longer than any of training."""
    return clip_item(rng, length=int(choose(rng, (5, 6, 10, 12))))


# name -> how one item is drawn; the position in this table seeds the split, so splits never share a picture
SPLITS = {
    "curate": draw_item,
    "rl": draw_item,
    "val": held_out_item,
    "ood-objects": many_objects_item,
    "ood-pairs": unseen_pair_item,
    "ood-clips": other_length_item,
}


def split_item(split, index, seed=0):
    """Item `index` of a split, with its pixels: the same for everybody, without the disk."""
    rng = np.random.default_rng([seed, list(SPLITS).index(split), index])
    item = SPLITS[split](rng)
    if item.pixels is None:
        item.pixels = render(item.frames, rng)
    return item


def save_media(pixels, path):
    """One frame -> PNG; several -> animated PNG (lossless, exact times, plays in a browser).

    Returns the path with its suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(frame) for frame in pixels]
    animation = {}
    if rest:
        animation = dict(save_all=True, append_images=rest, duration=round(1000 / FPS), loop=0)
    path = path.with_suffix(".apng" if rest else ".png")
    first.save(path, format="PNG", compress_level=1, **animation)
    return path


def write_item(split, out, seed, index):
    """Write the media of one item -> its row: a picture or clip, a question and an answer; no objects."""
    item = split_item(split, index, seed)
    name = f"{split}-{index:05d}"
    path = save_media(item.pixels, Path(out) / "media" / name)
    row = dict(id=name, question=item.question, answer=item.answer, kind=item.kind, task=item.task,
               source=item.source)
    row["video" if len(item.pixels) > 1 else "image"] = str(path.relative_to(out))
    if item.options:
        row["options"] = item.options
    if item.kind == "free":
        row["exact"] = True  # who draws the scene knows the one right answer
    return row


def write_split(split, n, out, seed=0, map_items=map):
    """Write <out>/<split>.jsonl and its media. map_items: the built-in map, or that of a pool of processes."""
    made = map_items(partial(write_item, split, out, seed), range(n))
    rows = [json.dumps(row) for row in tqdm(made, total=n, desc=f"draw {split}", unit="sample")]
    write_atomically(Path(out) / f"{split}.jsonl", "\n".join(rows) + "\n")


def contact_sheet(path, seed=0, n=24):
    """A page of pictures with their questions and answers, six in a row."""
    width, height = 190, 216  # of one entry, in pixels
    sheet = Image.new("RGB", (6 * width, n // 6 * height), "white")
    pen = ImageDraw.Draw(sheet)
    for i in range(n):
        item = split_item("val", i, seed)
        frames = len(item.pixels)
        x, y = (i % 6) * width + 8, (i // 6) * height + 6
        picture = Image.fromarray(item.pixels[frames // 2]).resize((168, 168), Image.NEAREST)
        question = "\n".join(textwrap.wrap(item.question, 32)[:2])
        answer = f"-> {item.answer}  [{item.source}, {frames} frame{'s' if frames > 1 else ''}]"
        sheet.paste(picture, (x, y))
        pen.multiline_text((x, y + 171), question, fill="black", spacing=0)
        pen.text((x, y + 195), answer, fill=(0, 90, 0))
    save_figure(sheet, path)


def main():
    cfg = parse_config(Config, __doc__)
    make_folder(cfg.out)
    sizes = {split: cfg.ood if split.startswith("ood-") else getattr(cfg, split) for split in SPLITS}
    # Several processes may share the work: an item depends on its split, its place and the seed alone.
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for split, n in sizes.items():
            write_split(split, n, cfg.out, cfg.seed, partial(pool.map, chunksize=16))
    contact_sheet(Path(cfg.out) / "contact.png", cfg.seed)
    print(f"wrote {', '.join(SPLITS)} to {cfg.out}; look at {cfg.out}/contact.png")


if __name__ == "__main__":
    run_main(main)
