"""How often are the pixel teachers right? Their masks and points against what the world knows about its pictures.

Every picture is asked every label of its vocabulary, present or absent ("red square", "red shape", "square",
"shape"):

    recall      of the true things, the share whose true centre lies in a mask for a label that names them
    precision   of the masks, the share that hold one of the pointer's points on a true thing
    pointer     of the pointer's points, the share inside a true thing of that label
    exact       of the questions (picture, label), the share answered with exactly as many masks as things

The reward is made of these answers: what is missing from 1 here is noise in the reward (the noise dials say
of which kind). The paper does not measure its teachers; this table is our addition.

Run:     python -m tiny.measure --scenes 500 --seed 0
         python -m tiny.measure --noise             # each noise dial of theory/noise.py by itself, on scenes
         python -m tiny.measure --points tiny/base  # the same truth, asked of a model
Before:  tiny/pixels.py (who is measured)
Next:    tests/test_pixels.py (the thresholds), theory/dial.py (what noise in a reward does)
"""
from dataclasses import dataclass

import numpy as np
from PIL import Image

import policy as P
from runs.errors import run_main
from runs.settings import flag, parse_config
from teachers.names import load_teachers
from theory import noise
from tiny import world
from verifier.claims import parse
from verifier.coordinates import Media


# ---- 1. Pictures with their truth --------------------------------------------------------------------------
@dataclass
class Truth:
    """A thing that is really there, and its pixels: bool (H, W)."""
    thing: world.Thing
    mask: np.ndarray

    def is_named(self, color, shape):
        """Does a label of this colour and shape name it? None stands for any."""
        return color in (None, self.thing.color) and shape in (None, self.thing.shape)


@dataclass
class Picture:
    pixels: np.ndarray  # uint8 (H, W, 3)
    truths: list        # of Truth
    labels: list        # of (text, color or None, shape or None): everything that is asked of it


def every_label(colors, shapes):
    """Every label of a vocabulary, as (text, color or None, shape or None).

    "red square" is ("red square", "red", "square"); "red shape" has no shape, "square" no color, "shape" neither.
    """
    labels = []
    for color in [*colors, None]:
        for shape in [*shapes, None]:
            words = [color] if color else []
            words.append(shape or "shape")
            labels.append((" ".join(words), color, shape))
    return labels


def drawn(frames, i, rng):
    """Frame i of a scene or clip."""
    pixels = world.render(frames, rng)[i]
    truths = [Truth(thing, world.footprint(thing)) for thing in frames[i]]
    return Picture(pixels, truths, every_label(world.COLORS, world.SHAPES))


def published(item):
    """easy-vqa does not say how large its shapes are: the truth is the exact colour, within the square
    around the thing."""
    pixels = item.pixels[0]
    y, x = np.indices(pixels.shape[:2])
    truths = []
    for thing in item.frames[0]:
        near = (np.abs(x - thing.x) <= thing.r + 1) & (np.abs(y - thing.y) <= thing.r + 1)
        difference = np.abs(pixels - np.float32(world.EASY_COLORS[thing.color]))  # (H, W, 3)
        difference = difference.max(-1)  # (H, W), the worst channel's
        truths.append(Truth(thing, near & (difference < 90)))
    return Picture(pixels, truths, every_label(world.EASY_COLORS, world.EASY_SHAPES))


def scenes(rng):
    return drawn(world.scene_item(rng).frames, 0, rng)


def crowds(rng):
    """Out of domain: eight objects, and the colour-shape pairs that no training picture holds."""
    pairs = [(color, shape) for color in world.COLORS for shape in world.SHAPES]
    return drawn(world.scene_item(rng, pairs=pairs, objects=(8, 8)).frames, 0, rng)


def clips(rng):
    return drawn(world.clip_item(rng).frames, int(rng.integers(8)), rng)


def easy(rng):
    return published(world.easy_item(rng))


def tiles(rng):
    return published(world.tile_item(rng))


SOURCES = {"scenes": scenes, "8 objects": crowds, "clip frames": clips, "easy-vqa": easy, "2x2 tiles": tiles}


# ---- 2. Measuring ------------------------------------------------------------------------------------------
@dataclass
class Counts:
    """Sums over all pictures and all their labels."""
    things: int = 0        # drawn in all pictures
    named: int = 0         # true things that a label names, over all labels
    found: int = 0         # of them, those whose centre lies in a mask
    masks: int = 0
    true_masks: int = 0    # that hold one of the pointer's points on a true thing
    points: int = 0
    true_points: int = 0   # that lie on a true thing
    asked: int = 0         # questions (picture, label)
    exact: int = 0         # of them, those answered with the right number of masks


def count_label(counts, named, masks, points):
    """Add one question. named: the Truths that the label names; masks: bool (N, H, W); points: [(x, y)] of
    the pointer."""
    union = masks.any(0)               # (H, W)
    truly = np.zeros_like(union)       # (H, W)
    for truth in named:
        truly |= truth.mask
    places = [(int(y), int(x)) for x, y in points]
    true_places = [place for place in places if truly[place]]
    counts.named += len(named)
    counts.found += sum(bool(union[round(truth.thing.y), round(truth.thing.x)]) for truth in named)
    counts.masks += len(masks)
    counts.true_masks += sum(any(mask[place] for place in true_places) for mask in masks)
    counts.points += len(places)
    counts.true_points += len(true_places)
    counts.asked += 1
    counts.exact += int(len(masks) == len(named))


def measure(source, detector, segmenter, pointer, pictures, seed=0):
    """Ask the teachers every label of `pictures` pictures of a source (one of SOURCES' functions).

    -> {"things", "recall", "precision", "pointer", "exact"}: a count, and shares 0..1.
    """
    rng = np.random.default_rng(seed)
    counts = Counts()
    for _ in range(pictures):
        picture = source(rng)
        image = Image.fromarray(picture.pixels)
        counts.things += len(picture.truths)
        found = detector.detect(image, [text for text, _, _ in picture.labels])
        for (text, color, shape), boxes in zip(picture.labels, found):
            named = [truth for truth in picture.truths if truth.is_named(color, shape)]
            count_label(counts, named, segmenter.segment(image, boxes), pointer.point(image, text))
    return {"things": counts.things,
            "recall": counts.found / max(counts.named, 1),
            "precision": counts.true_masks / max(counts.masks, 1),
            "pointer": counts.true_points / max(counts.points, 1),
            "exact": counts.exact / max(counts.asked, 1)}


# ---- 3. The same truth, asked of a model -------------------------------------------------------------------
def pointing_question(item, rng):
    """-> (Media, "Point to every red square.", the things that it names). In clips one frame is asked about."""
    frame = int(rng.integers(len(item.frames)))
    there = item.frames[frame] or item.frames[-1]
    label = there[int(rng.integers(len(there)))].label
    where = f" in frame {frame}" if len(item.frames) > 1 else ""
    seconds = [k / world.FPS for k in range(len(item.pixels))]
    media = Media([Image.fromarray(pixels) for pixels in item.pixels], seconds, (world.SIZE, world.SIZE))
    truth = [thing for thing in item.frames[frame] if world.matches(label, thing)]
    return media, f"Point to every {label}{where}.", truth


def is_on(point, thing):
    return max(abs(point.x - thing.x), abs(point.y - thing.y)) <= thing.r


def measure_points(folder, n, seed):
    """How well a model points when asked, on held-out items: precision of its points, recall of what it was
    asked for."""
    actor = P.load_policy(folder)
    rng = np.random.default_rng(seed)
    hits = points = found = things = with_think = 0
    for start in range(0, n, 128):  # 128 questions at a time
        items = [world.split_item("val", i, seed) for i in range(start, min(n, start + 128))]
        asked = [pointing_question(item, rng) for item in items]
        prompts = P.encode_prompts(actor, [(media, question) for media, question, _ in asked])
        texts = P.sample(actor, prompts, 1, greedy=True, max_new_tokens=112).texts
        for (media, _, truth), text in zip(asked, texts):
            kind = "image" if len(media.frames) == 1 else "video"
            said = parse(f"<think>{text}</think>", kind).points
            hits += sum(any(is_on(point, thing) for thing in truth) for point in said)
            points += len(said)
            found += sum(any(is_on(point, thing) for point in said) for thing in truth)
            things += len(truth)
            with_think += int("<think>" in text)
    print(f"{folder}: {n} held-out items, "
          f"points on the thing asked for {hits}/{points} = {hits / max(points, 1):.3f}, "
          f"things found {found}/{things} = {found / max(things, 1):.3f}, replies with <think> {with_think}")


# ---- 4. The table ------------------------------------------------------------------------------------------
@dataclass
class Config:
    scenes: int = flag(500, "pictures per source")
    # one picture asks 20 labels (36 for easy-vqa)
    seed: int = flag(0, "seed of the pictures and of the noise")
    # the same seed gives the same pictures to every row
    noise: bool = flag(False, "show the noise dials on scenes, instead of all sources")
    # each dial alone, the others at 0
    points: str = flag("", "a model folder: measure how it points instead (on --scenes held-out items)")
    # the truth is the drawn shapes, not a teacher


DIALS = (("miss", .1), ("false_alarm", .1), ("jitter", 3), ("jitter", 6), ("bias", (4, 0)), ("bias", (8, 0)))


def table_rows(with_noise, seed):
    """What the table asks: [(name, source, detector, segmenter, pointer)]."""
    detector, segmenter, pointer = load_teachers()
    if not with_noise:
        return [(name, source, detector, segmenter, pointer) for name, source in SOURCES.items()]
    rows = [("no noise", scenes, detector, segmenter, pointer)]
    for dial, value in DIALS:
        noisy = noise.NoisyDetector(detector, seed=seed, **{dial: value})
        rows.append((f"boxes {dial} {value}", scenes, noisy, segmenter, pointer))
    for dial, value in DIALS:
        noisy = noise.NoisyPointer(pointer, seed=seed, **{dial: value})
        rows.append((f"points {dial} {value}", scenes, detector, segmenter, noisy))
    return rows


def main():
    config = parse_config(Config, __doc__)
    if config.points:
        measure_points(config.points, config.scenes, config.seed)
        return
    print(f"{'':<24}{'things':>8}{'recall':>9}{'precision':>11}{'pointer':>9}{'exact':>8}")
    for name, source, *teachers in table_rows(config.noise, config.seed):
        m = measure(source, *teachers, config.scenes, config.seed)
        shares = f"{m['recall']:>9.4f}{m['precision']:>11.4f}{m['pointer']:>9.4f}{m['exact']:>8.4f}"
        print(f"{name:<24}{m['things']:>8}{shares}", flush=True)


if __name__ == "__main__":
    run_main(main)
