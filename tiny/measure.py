"""How often are the pixel teachers right? Their masks and points against what the world knows about its pictures.

Every picture is asked every label of its vocabulary, present or absent ("red square", "red shape", "square", "shape"):

    recall      of the true things, the share whose true centre lies in a mask for a label that names them
    precision   of the masks, the share that hold one of the pointer's points such that the truth holds that point too
    pointer     of the pointer's points, the share inside a true thing of that label
    exact       of the questions (picture, label), the share answered with exactly as many masks as there are things

The reward is made of these answers: what is missing from 1 here is noise in the reward (the noise dials say of which kind).

Run:   python -m tiny.measure --scenes 500 --seed 0
       python -m tiny.measure --noise        # each noise dial of theory/noise.py by itself, on scenes
       python -m tiny.measure --points tiny/base        # the same truth, asked of a model: "Point to every red square."
Next:  tiny/pixels.py (who is measured), tests/test_teachers.py (the thresholds)
"""
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from transformers import HfArgumentParser

from teachers.names import load_teachers
from verifier.claims import parse
from verifier.coordinates import Media
from theory import noise
from tiny import world


# ---- 1. Pictures with their truth: (pixels, [(color, shape, x, y, true mask)], labels) ---------------------------------
def _drawn(frames, i, rng):
    pixels = world.render(frames, rng)[i]
    return pixels, [(t.color, t.shape, t.x, t.y, world.footprint(t)) for t in frames[i]], _labels(world.COLORS, world.SHAPES)


def _published(item):
    """easy-vqa does not say how large its shapes are: the truth is the exact colour, within the square around the thing."""
    pixels, truth = item.pixels[0], []
    y, x = np.indices(pixels.shape[:2])
    for t in item.frames[0]:
        near = (np.abs(x - t.x) <= t.r + 1) & (np.abs(y - t.y) <= t.r + 1)
        mask = near & (np.abs(pixels - np.float32(world.EASY_COLORS[t.color])).max(-1) < 90)
        truth.append((t.color, t.shape, t.x, t.y, mask))
    return pixels, truth, _labels(world.EASY_COLORS, ("circle", "rectangle", "triangle"))


def _labels(colors, shapes):
    """Every label of a vocabulary, as (text, color or None, shape or None)."""
    return [(f"{c or ''} {s or 'shape'}".strip(), c, s) for c in [*colors, None] for s in [*shapes, None]]


def scenes(rng):
    return _drawn(world.scene_item(rng).frames, 0, rng)


def crowds(rng):
    """Out of domain: eight objects, and the colour-shape pairs that no training picture holds."""
    pairs = [(c, s) for c in world.COLORS for s in world.SHAPES]
    return _drawn(world.scene_item(rng, pairs=pairs, objects=(8, 8)).frames, 0, rng)


def clips(rng):
    return _drawn(world.clip_item(rng).frames, int(rng.integers(8)), rng)


def easy(rng):
    return _published(world.easy_item(rng))


def tiles(rng):
    return _published(world.tile_item(rng))


SOURCES = {"scenes": scenes, "8 objects": crowds, "clip frames": clips, "easy-vqa": easy, "2x2 tiles": tiles}


# ---- 2. Measuring -----------------------------------------------------------------------------------------------------
def measure(source, detector, segmenter, pointer, pictures, seed=0):
    """source: one of SOURCES' functions. Returns {"things", "recall", "precision", "pointer", "exact"}; shares 0..1."""
    rng, n = np.random.default_rng(seed), dict.fromkeys(
        ("things", "named", "found", "masks", "true masks", "points", "true points", "asked", "exact"), 0)
    for _ in range(pictures):
        pixels, truth, labels = source(rng)
        image = Image.fromarray(pixels)
        n["things"] += len(truth)
        for (label, color, shape), boxes in zip(labels, detector.detect(image, [text for text, *_ in labels])):
            named = [t for t in truth if color in (None, t[0]) and shape in (None, t[1])]
            masks = segmenter.segment(image, boxes)  # (N, H, W)
            union = masks.any(0)
            truly = np.any([t[4] for t in named] or [np.zeros_like(union)], axis=0)
            points = [(int(y), int(x)) for x, y in pointer.point(image, label)]
            n["named"] += len(named)
            n["found"] += sum(bool(union[round(y), round(x)]) for *_, x, y, _ in named)
            n["masks"] += len(masks)
            n["true masks"] += sum(any(m[p] and truly[p] for p in points) for m in masks)
            n["points"] += len(points)
            n["true points"] += sum(bool(truly[p]) for p in points)
            n["asked"] += 1
            n["exact"] += len(masks) == len(named)
    share = lambda part, whole: n[part] / max(n[whole], 1)
    return {"things": n["things"], "recall": share("found", "named"), "precision": share("true masks", "masks"),
            "pointer": share("true points", "points"), "exact": share("exact", "asked")}


# ---- 3. The table -----------------------------------------------------------------------------------------------------
@dataclass
class Config:
    scenes: int = field(default=500, metadata={"help": "pictures per source"})
    # one picture asks 20 labels (36 for easy-vqa)
    seed: int = field(default=0, metadata={"help": "seed of the pictures and of the noise"})
    # the same seed gives the same pictures to every row
    noise: bool = field(default=False, metadata={"help": "show the noise dials on scenes, instead of all sources"})
    # each dial alone, the others at 0
    points: str = field(default="", metadata={"help": "a model folder: measure how it points instead (on --scenes held-out items)"})
    # the truth is the drawn shapes, not a teacher


def measure_points(folder, n, seed):
    """How well a model points when asked, on held-out items: precision of its points, recall of the things that it was asked for."""
    import policy as P
    from tiny.train import matches
    actor, rng = P.load_policy(folder), np.random.default_rng(seed)
    hits = points = found = things = markup = 0
    for start in range(0, n, 128):
        asked = []
        for i in range(start, min(n, start + 128)):
            item = world.split_item("val", i, seed)
            frame = int(rng.integers(len(item.frames)))
            there = item.frames[frame] or item.frames[-1]
            label, where = there[int(rng.integers(len(there)))].label, "" if len(item.frames) == 1 else f" in frame {frame}"
            media = Media([Image.fromarray(p) for p in item.pixels], [k / world.FPS for k in range(len(item.pixels))], (84, 84))
            asked.append((media, f"Point to every {label}{where}.", [t for t in item.frames[frame] if matches(label, t)]))
        texts = P.sample(actor, P.encode_prompts(actor, [a[:2] for a in asked]), 1, greedy=True, max_new_tokens=112).texts
        for (media, _, truth), text in zip(asked, texts):
            said = parse(f"<think>{text}</think>", "image" if len(media.frames) == 1 else "video").points
            near = lambda p, t: max(abs(p.x - t.x), abs(p.y - t.y)) <= t.r
            hits, points = hits + sum(any(near(p, t) for t in truth) for p in said), points + len(said)
            found, things = found + sum(any(near(p, t) for p in said) for t in truth), things + len(truth)
            markup += "<think>" in text
    print(f"{folder}: {n} held-out items, points on the thing asked for {hits}/{points} = {hits / max(points, 1):.3f}, "
          f"things found {found}/{things} = {found / max(things, 1):.3f}, replies with <think> {markup}")


def main():
    config = HfArgumentParser(Config).parse_args_into_dataclasses()[0]
    if config.points:
        return measure_points(config.points, config.scenes, config.seed)
    detector, segmenter, pointer = load_teachers()
    rows = [(name, source, detector, pointer) for name, source in SOURCES.items()]
    if config.noise:
        dials = (("miss", .1), ("false_alarm", .1), ("jitter", 3), ("jitter", 6), ("bias", (4, 0)), ("bias", (8, 0)))
        noisy = lambda kind, teacher, dial: kind(teacher, **dict([dial]), seed=config.seed)
        rows = [("no noise", scenes, detector, pointer)]
        rows += [(f"boxes {d[0]} {d[1]}", scenes, noisy(noise.NoisyDetector, detector, d), pointer) for d in dials]
        rows += [(f"points {d[0]} {d[1]}", scenes, detector, noisy(noise.NoisyPointer, pointer, d)) for d in dials]
    print(f"{'':<24}{'things':>8}{'recall':>9}{'precision':>11}{'pointer':>9}{'exact':>8}")
    for name, source, *asked in rows:
        m = measure(source, asked[0], segmenter, asked[1], config.scenes, config.seed)
        shares = f"{m['recall']:>9.4f}{m['precision']:>11.4f}{m['pointer']:>9.4f}{m['exact']:>8.4f}"
        print(f"{name:<24}{m['things']:>8}{shares}", flush=True)


if __name__ == "__main__":
    main()
