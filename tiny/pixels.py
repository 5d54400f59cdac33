"""The pixel teachers: they find drawn shapes by colour, connected components and outline, and know no model.

The paper asks an open-vocabulary detector, a segmenter and a pointing model (section 3.1). These are the
embedded world's stand-ins for the three roles (teachers/__init__.py says what each promises): eight colours and
five outlines instead of all words. They see the picture only, never what the world knows about it, so that they
can be wrong, and how often they are is measured (`python -m tiny.measure`).

Run:     python -m tiny.measure           # precision and recall against the world's truth
Before:  tiny/world.py (what is drawn)
Next:    tiny/measure.py, then teachers/ (the real ones, behind the same roles)
"""
import math
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from verifier.coordinates import Box


# ---- 1. What a label asks for ------------------------------------------------------------------------------
PALETTE = {"red": (230, 28, 28), "green": (10, 225, 20), "blue": (15, 25, 240), "yellow": (248, 240, 10),
           "teal": (0, 128, 128), "brown": (165, 42, 42), "gray": (128, 128, 128), "black": (0, 0, 0)}
NAMES = list(PALETTE)
HUES = 6  # the first six have a hue; gray and black have none
# What the pixels can show; a square is a rectangle with equal sides.
OUTLINES = ("rectangle", "circle", "triangle", "cross")
NOUNS = {  # what a label may call a shape -> its singular
    "shape": "shape", "square": "square", "rectangle": "rectangle",
    "circle": "circle", "triangle": "triangle", "cross": "cross",
    "shapes": "shape", "squares": "square", "rectangles": "rectangle",
    "circles": "circle", "triangles": "triangle", "crosses": "cross"}
IGNORED = {"a", "an", "the", "this", "that", "these", "those", "all", "every", "each"}


def parse_label(label):
    """"The red squares" -> ("red", "square").

    None stands for any: "shape" -> (None, None), "red shape" -> ("red", None).

    Returns None where any other word appears: an open-vocabulary detector that does not know a word finds nothing.
    """
    words = [word for word in re.findall(r"\w+", label[:100].lower()) if word not in IGNORED]
    color = None
    if words and words[0] in (*PALETTE, "grey"):
        color = "gray" if words[0] == "grey" else words[0]
        words = words[1:]
    if len(words) != 1 or words[0] not in NOUNS:
        return None
    shape = NOUNS[words[0]]
    return color, (None if shape == "shape" else shape)


# ---- 2. Finding drawn shapes, from pixels alone ------------------------------------------------------------
# Three bounds that keep any picture at all cheap:
MAX_SIDE = 256   # pixels; of a larger picture every second (third ...) pixel is read
MAX_SHAPES = 64  # the largest ones
MIN_AREA = 5     # pixels; the world's specks have at most 4


@dataclass(frozen=True)
class Shape:
    """A connected patch of one colour. box: (x1, y1, x2, y2); outline: one of OUTLINES; fit: 0..1, how well
    it fits."""
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
    """Which colour of PALETTE is drawn where: (H, W, 3) -> its index (-1: ground), chroma, shade, (H, W) each.

    Chroma is how far a pixel is from gray, shade how much darker it is than the ground: both in 0..255.
    Mixing a colour with the pale ground (a soft edge, a resized picture) moves it along the line to white, so
    what tells colours apart is the direction seen from white. Gray and black share that direction: depth
    tells them apart.
    """
    pixels = pixels.astype(np.float32)
    planes = np.moveaxis(pixels, -1, 0).copy()  # (3, H, W): along a last axis of 3 numpy takes ten times as long
    brightness = planes.max(0)
    chroma = brightness - planes.min(0)

    directions = 255.0 - np.array([PALETTE[name] for name in NAMES[:HUES]], np.float32)  # (HUES, 3)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    colored = chroma > 60  # the ground's own tint stays below 56
    nearest = ((255 - pixels) @ directions.T).argmax(-1)  # (H, W)
    ink = np.where(colored, nearest, -1)

    pale = ~colored & (brightness > np.median(brightness) - 60)
    shade = _ground(brightness, pale) - brightness
    colorless = ~ndimage.binary_dilation(colored) & (shade > 50)  # pixels beside a coloured one are its soft edge
    deep = ~colored & (brightness < 64)
    edge_of_deep = colorless & ndimage.binary_dilation(deep, iterations=2)
    ink[colorless] = NAMES.index("gray")
    ink[deep | edge_of_deep] = NAMES.index("black")
    return ink, chroma, shade


def _ground(brightness, pale):
    """The ground's brightness as a plane a + b x + c y, fitted to the pale pixels (H, W).

    Three times, each time without what lies deep below the last plane. By the normal equations, which are 3 x 3
    however many pixels there are.
    """
    y, x = np.indices(brightness.shape, dtype=np.float64)
    basis = np.stack([np.ones_like(x), x, y]).reshape(3, -1)  # (3, H * W)
    for _ in range(3):
        if pale.sum() < 3:
            return np.full_like(brightness, 255)
        chosen = basis * pale.ravel()  # (3, H * W), 0 where it is not pale
        coefficients = np.linalg.lstsq(chosen @ basis.T, chosen @ brightness.ravel(), rcond=None)[0]  # (3,)
        plane = (coefficients @ basis).reshape(brightness.shape)  # (H, W)
        pale = pale & (brightness > plane - 30)
    return plane


def _outline(mask):
    """The outline that best fits a mask: bool (h, w) -> (name, intersection over union of the two)."""
    h, w = mask.shape
    u = np.abs((np.arange(w) + .5) / w * 2 - 1)[None]   # (1, w), distance from the middle: 0..1
    v = ((np.arange(h) + .5) / h * 2 - 1)[:, None]      # (h, 1), top to bottom: -1..1
    drawn = {"rectangle": np.ones_like(mask),
             "circle": u * u + v * v <= 1,
             "triangle": u <= (v + 1) / 2,
             "cross": (u <= 1 / 3) | (np.abs(v) <= 1 / 3)}
    fits = [(mask & drawn[name]).sum() / (mask | drawn[name]).sum() for name in OUTLINES]
    best = int(np.argmax(fits))
    return OUTLINES[best], float(fits[best])


def _trim(mask):
    """The slices of the smallest box around the mask; one pixel where the mask is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    return found[0] if found else (slice(1), slice(1))


def _sharpen(mask, strength):
    """A small patch is mostly soft edge: redraw it four times larger, its edge where half the ink is.

    mask: (h, w) with one pixel of margin; strength: the same pixels' chroma or shade.
    """
    near = ndimage.binary_dilation(mask, np.ones((3, 3)))
    full = np.percentile(strength[mask], 80)
    ground = strength[~mask].min()
    large = ndimage.zoom(np.where(near, strength - ground, 0), 4, order=1, grid_mode=True, mode="grid-constant")
    patches, n = ndimage.label(large > (full - ground) / 2)
    if n == 0:
        return mask
    largest = patches == np.bincount(patches[patches > 0]).argmax()
    return largest[_trim(largest)]


def _cut(mask):
    """Where to part two shapes of one colour that touch: bool (h, w) -> (axis, position), or None.

    The cut is straight, and the best of those that leave two clear outlines.
    """
    step = max(1, max(mask.shape) // 64)  # bounded time on large patches
    small = mask[::step, ::step]
    least = max(6, max(small.shape) / 4)  # a smaller half is a slice of one odd shape
    best_fit, best_cut = .85, None
    for axis in (0, 1):
        for at in range(2, small.shape[axis] - 1):
            halves = [half[_trim(half)] for half in np.split(small, [at], axis)]
            if min(min(half.shape) for half in halves) < least:
                continue
            fit = min(_outline(half)[1] for half in halves)
            if fit > best_fit:
                best_fit, best_cut = fit, (axis, at * step)
    return best_cut


@dataclass(frozen=True)
class _Patch:
    """Connected pixels of one colour: its index in PALETTE, the box's corner, and which pixels of the box:
    bool (h, w)."""
    color: int
    x: int
    y: int
    mask: np.ndarray


def _patches(ink):
    """The connected patches of every colour, the largest first, at most MAX_SHAPES."""
    found = []  # of (area, _Patch)
    for color in np.unique(ink[ink >= 0]).tolist():
        labels, _ = ndimage.label(ink == color)  # 4-connected: shapes that meet at a corner stay two
        areas = np.bincount(labels.ravel())
        for k, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
            mask = labels[rows, columns] == k
            is_ground = mask.shape == ink.shape  # it reaches all four borders
            if areas[k] >= MIN_AREA and not is_ground:
                found.append((areas[k], _Patch(color, columns.start, rows.start, mask)))
    found.sort(key=lambda entry: -entry[0])
    return [patch for _, patch in found[:MAX_SHAPES]]


def _halves(patch, axis, at):
    """A patch cut in two before row (axis 0) or column (axis 1) `at`."""
    first = np.zeros_like(patch.mask)
    if axis == 0:
        first[:at] = True
    else:
        first[:, :at] = True
    for half in (patch.mask & first, patch.mask & ~first):
        rows, columns = _trim(half)
        yield _Patch(patch.color, patch.x + columns.start, patch.y + rows.start, half[rows, columns])


@lru_cache(maxsize=2048)
def _find(data, height, width):
    """All shapes of a picture: ([Shape], ids (H, W) with k + 1 on the pixels of shape k).

    Cached: a group asks often, and the held-out pictures come back with every evaluation and model; 2,048 of the
    world's are 60 MB.
    """
    pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
    ink, chroma, shade = _ink(pixels)
    patches = _patches(ink)
    shapes = []
    ids = np.zeros((height, width), np.uint8)
    while patches:
        patch = patches.pop(0)
        h, w = patch.mask.shape
        clear = patch.mask
        if min(h, w) < 24:
            strength = np.pad(chroma if patch.color < HUES else shade, 1, mode="edge")
            around = strength[patch.y:patch.y + h + 2, patch.x:patch.x + w + 2]  # (h + 2, w + 2)
            clear = _sharpen(np.pad(patch.mask, 1), around)  # both with one pixel of margin
        outline, fit = _outline(clear)
        cut = None
        if fit < .75 and len(shapes) + len(patches) < MAX_SHAPES - 1:
            cut = _cut(patch.mask)
        if cut is not None:
            patches.extend(_halves(patch, *cut))
            continue
        box = (patch.x, patch.y, patch.x + w, patch.y + h)
        shapes.append(Shape(NAMES[patch.color], outline, fit, box))
        ids[patch.y:patch.y + h, patch.x:patch.x + w][patch.mask] = len(shapes)
    return shapes, ids


def find_shapes(image):
    """image: PIL RGB of any size -> ([Shape], ids, step).

    All in steps of `step` pixels, which is 1 up to 256 x 256. ids: (H, W), k + 1 on the pixels of shape k.
    """
    pixels = np.asarray(image.convert("RGB"))
    step = math.ceil(max(pixels.shape[:2]) / MAX_SIDE)
    pixels = np.ascontiguousarray(pixels[::step, ::step])
    height, width, _ = pixels.shape
    shapes, ids = _find(pixels.tobytes(), height, width)
    return shapes, ids, step


# ---- 3. The pixel teachers ---------------------------------------------------------------------------------
def _named(image, label):
    """The shapes that a label names -> [(number in ids, Shape)], ids, step."""
    shapes, ids, step = find_shapes(image)
    wanted = parse_label(label)
    if wanted is None:
        return [], ids, step
    return [(k, shape) for k, shape in enumerate(shapes, 1) if shape.matches(*wanted)], ids, step


class PixelDetector:
    """See Detector. A box's score is how well the outline fits (intersection over union)."""

    def detect(self, image, labels):
        return [self._detect(image, label) for label in labels]

    def _detect(self, image, label):
        named, _, step = _named(image, label)
        width, height = image.size
        boxes = []
        for _, shape in named:
            x1, y1, x2, y2 = (c * step for c in shape.box)
            boxes.append(Box(x1, y1, min(x2, width), min(y2, height), shape.fit, label))
        return boxes


class PixelSegmenter:
    """See Segmenter. The mask of a box is the largest shape inside it, cut off at the box; of a point, the
    shape under it.

    Where nothing is drawn in the box the mask is the whole box: like SAM, this segmenter always answers, so that a
    detector's false alarm costs what it would cost with real teachers.
    """

    def segment(self, image, boxes):
        width, height = image.size
        _, ids, step = find_shapes(image)
        ids = np.repeat(np.repeat(ids, step, 0), step, 1)[:height, :width]  # (H, W), at full size again
        masks = np.zeros((len(boxes), height, width), bool)
        for mask, box in zip(masks, boxes):
            x1, x2 = np.clip([math.floor(box.x1), math.ceil(box.x2)], 0, width)
            y1, y2 = np.clip([math.floor(box.y1), math.ceil(box.y2)], 0, height)
            is_point = box.x1 == box.x2 and box.y1 == box.y2
            if is_point:
                in_picture = 0 <= box.x1 < width and 0 <= box.y1 < height
                if in_picture and ids[y1, x1]:
                    mask[:] = ids == ids[y1, x1]
                continue
            inside = ids[y1:y2, x1:x2]
            areas = np.bincount(inside.ravel(), minlength=2)[1:]  # of shapes 1, 2, ...; 0 is the ground
            if areas.any():
                mask[y1:y2, x1:x2] = inside == 1 + areas.argmax()
            else:
                mask[y1:y2, x1:x2] = True
        return masks


class PixelPointer:
    """See Pointer. Points lie inside their shape, at its centre where that is possible; read in rows of 28
    px (one token)."""

    def point(self, image, label):
        named, ids, step = _named(image, label)
        width, height = image.size
        points = []
        for k, shape in named:
            x1, y1, x2, y2 = shape.box
            x, y = _inner_point(ids[y1:y2, x1:x2] == k)
            x = (x1 + x) * step + step // 2
            y = (y1 + y) * step + step // 2
            points.append((float(min(x, width - 1)), float(min(y, height - 1))))
        return sorted(points, key=lambda p: (p[1] // 28, p[0]))


def _inner_point(mask):
    """A pixel (x, y) of the mask: its centre of mass, or where that is outside (a ring, a hook) the pixel
    deepest inside."""
    center_y, center_x = ndimage.center_of_mass(mask)
    y, x = int(center_y + .5), int(center_x + .5)
    if not mask[y, x]:
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), mask.shape)
    return x, y
