"""The pixel teachers: they find drawn shapes by colour, connected components and outline, and know no model.

The embedded world's stand-ins for detector, segmenter and pointer (the roles are in teachers.py): eight colours and five outlines
instead of all words. They see the picture only, never what the world knows about it, so that they can be wrong, and how
often they are is measured (`python -m tiny.measure`).

Run:   python -m tiny.measure           # precision and recall against the world's truth
Next:  teachers.py (the real ones, behind the same roles)
"""
import math
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from verifier.coordinates import Box


# ---- 1. What a label asks for ---------------------------------------------------------------------------------------
PALETTE = {"red": (230, 28, 28), "green": (10, 225, 20), "blue": (15, 25, 240), "yellow": (248, 240, 10),
           "teal": (0, 128, 128), "brown": (165, 42, 42), "gray": (128, 128, 128), "black": (0, 0, 0)}
HUES = 6  # so many of them, the first, have a hue; gray and black have none
OUTLINES = ("rectangle", "circle", "triangle", "cross")  # what the pixels can show; a square is a rectangle with equal sides
_NOUNS = {"square", "shape", *OUTLINES}
_NOUNS = {n: n for n in _NOUNS} | {n + ("es" if n == "cross" else "s"): n for n in _NOUNS}
_IGNORED = {"a", "an", "the", "this", "that", "these", "those", "all", "every", "each"}


def parse_label(label):
    """"The red squares" -> ("red", "square"). None stands for any: "shape" -> (None, None), "red shape" -> ("red", None).

    Returns None where any other word appears: an open-vocabulary detector that does not know a word finds nothing.
    """
    words = [w for w in re.findall(r"\w+", label[:100].lower()) if w not in _IGNORED]
    color = {"grey": "gray"}.get(words[0], words[0]) if words else ""
    color, nouns = (color, words[1:]) if color in PALETTE else (None, words)
    if len(nouns) != 1 or nouns[0] not in _NOUNS:
        return None
    shape = _NOUNS[nouns[0]]
    return color, None if shape == "shape" else shape


# ---- 2. Finding drawn shapes, from pixels alone -----------------------------------------------------------------------
MAX_SIDE, MAX_SHAPES, MIN_AREA = 256, 64, 5  # the bounds that keep any picture at all cheap; specks have at most 4 pixels


@dataclass(frozen=True)
class Shape:
    """A connected patch of one colour. box: (x1, y1, x2, y2); outline: one of OUTLINES; fit: 0..1, how well it fits."""
    color: str
    outline: str
    fit: float
    box: tuple

    def matches(self, color, shape):
        if color not in (None, self.color):
            return False
        x1, y1, x2, y2 = self.box
        if shape == "square":
            return self.outline == "rectangle" and min(x2 - x1, y2 - y1) >= .8 * max(x2 - x1, y2 - y1)
        return shape in (None, self.outline)


def _ink(pixels):
    """Which colour of PALETTE is drawn where. pixels: (H, W, 3) -> its index, -1 for ground (H, W); chroma and shade (H, W).

    Mixing a colour with the pale ground (a soft edge, a resized picture) moves it along the line to white, so what tells
    colours apart is the direction seen from white. Gray and black share that direction: depth tells them apart.
    """
    pixels = pixels.astype(np.float32)
    names, brightness = list(PALETTE), pixels.max(-1)
    chroma = brightness - pixels.min(-1)
    directions = 255.0 - np.array([PALETTE[n] for n in names[:HUES]], np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    colored = chroma > 60  # the ground's own tint stays below 56
    ink = np.where(colored, ((255 - pixels) @ directions.T).argmax(-1), -1)
    shade = _ground(brightness, ~colored & (brightness > np.median(brightness) - 60)) - brightness
    colorless = ~ndimage.binary_dilation(colored) & (shade > 50)  # pixels beside a coloured one are its soft edge
    deep = ~colored & (brightness < 64)
    ink[colorless] = names.index("gray")
    ink[deep | colorless & ndimage.binary_dilation(deep, iterations=2)] = names.index("black")  # with its gray edge
    return ink, chroma, shade


def _ground(brightness, pale):
    """The ground's brightness as a plane a + b x + c y, fitted to pale pixels; thrice, each time without what lies deep below."""
    y, x = np.indices(brightness.shape, dtype=np.float32)
    basis = np.stack([np.ones_like(x), x, y], -1)
    for _ in range(3):
        if pale.sum() < 3:
            return np.full_like(brightness, 255)
        plane = basis @ np.linalg.lstsq(basis[pale], brightness[pale], rcond=None)[0]
        pale = pale & (brightness > plane - 30)
    return plane


def _outline(mask):
    """The outline that fits best when drawn into the same box: (name, intersection over union). mask: bool (h, w)."""
    h, w = mask.shape
    u, v = np.abs((np.arange(w) + .5) / w * 2 - 1)[None], ((np.arange(h) + .5) / h * 2 - 1)[:, None]  # -1..1
    drawn = (np.ones_like(mask), u * u + v * v <= 1, u <= (v + 1) / 2, (u <= 1 / 3) | (np.abs(v) <= 1 / 3))
    fits = [(mask & d).sum() / (mask | d).sum() for d in drawn]
    best = int(np.argmax(fits))
    return OUTLINES[best], float(fits[best])


def _trim(mask):
    """The slices of the smallest box around the mask."""
    return (ndimage.find_objects(mask.astype(np.uint8)) or [(slice(1), slice(1))])[0]


def _sharpen(mask, strength):
    """A small patch is mostly soft edge: redraw it four times larger, its edge where half the ink is.

    mask: (h, w) with one pixel of margin; strength: the same pixels' chroma or shade.
    """
    near = ndimage.binary_dilation(mask, np.ones((3, 3)))
    full, ground = np.percentile(strength[mask], 80), strength[~mask].min()
    large = ndimage.zoom(np.where(near, strength - ground, 0), 4, order=1, grid_mode=True, mode="grid-constant")
    patches, n = ndimage.label(large > (full - ground) / 2)
    if not n:
        return mask
    large = patches == np.bincount(patches[patches > 0]).argmax()
    return large[_trim(large)]


def _cut(mask):
    """Two shapes of one colour that touch: the straight cut that leaves two clear outlines, as (axis, position), or None."""
    step = max(1, max(mask.shape) // 64)  # bounded time on large patches
    small, best = mask[::step, ::step], (.85, None)
    least = max(6, max(small.shape) / 4)  # a smaller half is a slice of one odd shape
    for axis in (0, 1):
        for at in range(2, small.shape[axis] - 1):
            halves = [h[_trim(h)] for h in np.split(small, [at], axis)]
            if min(min(h.shape) for h in halves) >= least:
                best = max(best, (min(_outline(h)[1] for h in halves), (axis, at * step)), key=lambda b: b[0])
    return best[1]


@lru_cache(maxsize=32)
def _find(data, height, width):
    """All shapes of a picture: ([Shape], ids (H, W) with k + 1 on the pixels of shape k). Cached: a group asks often."""
    pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
    ink, chroma, shade = _ink(pixels)
    patches = []  # (area, colour, x, y, mask)
    for color in range(len(PALETTE)):
        labels, _ = ndimage.label(ink == color)  # 4-connected: shapes that meet at a corner stay two
        areas = np.bincount(labels.ravel())
        for k, box in enumerate(ndimage.find_objects(labels), 1):
            if areas[k] >= MIN_AREA and ink[box].shape != ink.shape:  # what reaches all four borders is the ground
                patches.append((areas[k], color, box[1].start, box[0].start, labels[box] == k))
    patches = [patch[1:] for patch in sorted(patches, key=lambda p: -p[0])[:MAX_SHAPES]]
    shapes, ids = [], np.zeros((height, width), np.uint8)
    while patches:
        color, x, y, mask = patches.pop(0)
        (h, w), clear = mask.shape, mask
        if min(h, w) < 24:
            strength = np.pad(chroma if color < HUES else shade, 1, mode="edge")[y:y + h + 2, x:x + w + 2]
            clear = _sharpen(np.pad(mask, 1), strength)
        outline, fit = _outline(clear)
        cut = _cut(mask) if fit < .75 and len(shapes) + len(patches) < MAX_SHAPES - 1 else None
        if cut is None:
            shapes.append(Shape(list(PALETTE)[color], outline, fit, (x, y, x + w, y + h)))
            ids[y:y + h, x:x + w][mask] = len(shapes)
        else:
            first = np.zeros_like(mask)
            np.split(first, [cut[1]], cut[0])[0][:] = True
            for half in (mask & first, mask & ~first):
                rows, columns = _trim(half)
                patches.append((color, x + columns.start, y + rows.start, half[rows, columns]))
    return shapes, ids


def find_shapes(image):
    """image: PIL RGB of any size -> ([Shape], ids, step): everything in steps of `step` pixels (1 up to 256 x 256)."""
    pixels = np.asarray(image.convert("RGB"))
    step = math.ceil(max(pixels.shape[:2]) / MAX_SIDE)
    pixels = np.ascontiguousarray(pixels[::step, ::step])
    return *_find(pixels.tobytes(), *pixels.shape[:2]), step


# ---- 3. The pixel teachers --------------------------------------------------------------------------------------------
def _named(image, label):
    """The shapes that a label names, with their number in ids."""
    wanted = parse_label(label)
    shapes, ids, step = find_shapes(image)
    return [(k, s) for k, s in enumerate(shapes, 1) if wanted and s.matches(*wanted)], ids, step


class PixelDetector:
    """See Detector. A box's score is how well the outline fits (intersection over union)."""

    def detect(self, image, labels):
        return [self._detect(image, label) for label in labels]

    def _detect(self, image, label):
        named, _, step = _named(image, label)
        w, h = image.size
        return [Box(x1 * step, y1 * step, min(x2 * step, w), min(y2 * step, h), s.fit, label)
                for _, s in named for x1, y1, x2, y2 in [s.box]]


class PixelSegmenter:
    """See Segmenter. The mask of a box is the largest shape inside it, cut off at the box; of a point, the shape under it.

    Where nothing is drawn in the box the mask is the whole box: like SAM, this segmenter always answers, so that a
    detector's false alarm costs what it would cost with real teachers.
    """

    def segment(self, image, boxes):
        (w, h), (_, ids, step) = image.size, find_shapes(image)
        ids = np.repeat(np.repeat(ids, step, 0), step, 1)[:h, :w]  # (H, W)
        masks = np.zeros((len(boxes), h, w), bool)
        for mask, box in zip(masks, boxes):
            x1, x2 = np.clip([math.floor(box.x1), math.ceil(box.x2)], 0, w)
            y1, y2 = np.clip([math.floor(box.y1), math.ceil(box.y2)], 0, h)
            if box.x1 == box.x2 and box.y1 == box.y2:  # a point prompt
                if 0 <= box.x1 < w and 0 <= box.y1 < h and ids[y1, x1]:
                    mask[:] = ids == ids[y1, x1]
                continue
            inside = ids[y1:y2, x1:x2]
            areas = np.bincount(inside.ravel(), minlength=2)
            mask[y1:y2, x1:x2] = inside == 1 + areas[1:].argmax() if areas[1:].any() else True
        return masks


class PixelPointer:
    """See Pointer. Points lie inside their shape, at its centre where that is possible; read in rows of 28 px (one token)."""

    def point(self, image, label):
        named, ids, step = _named(image, label)
        w, h = image.size
        points = []
        for k, s in named:
            x1, y1, x2, y2 = s.box
            mask = ids[y1:y2, x1:x2] == k
            y, x = (int(c + .5) for c in ndimage.center_of_mass(mask))
            if not mask[y, x]:  # a ring, a hook: the pixel deepest inside instead
                y, x = np.unravel_index(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1].argmax(), mask.shape)
            points.append((float(min((x1 + x) * step + step // 2, w - 1)), float(min((y1 + y) * step + step // 2, h - 1))))
        return sorted(points, key=lambda p: (p[1] // 28, p[0]))
