"""Sizes and coordinates: whose pixels a point is in."""
import math
from dataclasses import dataclass

from runs.errors import BadInput, BadMedia


MAX_PIXELS_FILE = 1 << 26  # a picture or frame that unpacks to more is refused as a decompression bomb


# ---- 2. Sizes and coordinates ----------------------------------------------------------------------------------------
@dataclass
class Media:
    """Frames as the policy sees them (RGB, one size), the exact time of each in seconds, and the file's (width, height)."""
    frames: list
    seconds: list
    original_size: tuple


def smart_resize(height, width, factor=28, min_pixels=7056, max_pixels=28224):
    """Qwen2.5-VL's resize -> (height, width): multiples of `factor`, the aspect kept, the area within the pixel budget."""
    if min(height, width) < 1 or max(height, width) > 200 * min(height, width):
        raise BadMedia(f"a picture of {width} x {height} px; the policy takes at most 200 to 1, so crop it")
    h, w = round(height / factor) * factor, round(width / factor) * factor
    if h * w > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        h, w = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif h * w < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        h, w = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return h, w


def convert(x, y, source, target, original, seen):
    """Map a point between coordinate spaces. The only place that does; there and back gives the same point.

    source, target: "original" (pixels of the file), "seen" (pixels after smart_resize: what responses, teachers and cards
    use) or "percent" (0..100, as Molmo answers). original, seen: (width, height).
    """
    sizes = {"original": original, "seen": seen, "percent": (100, 100)}
    if source not in sizes or target not in sizes or min(*original, *seen) <= 0:
        raise BadInput(f"convert {source!r} to {target!r}, sizes {original}, {seen}: use the spaces {', '.join(sizes)}")
    return tuple(v * to / of for v, to, of in zip((x, y), sizes[target], sizes[source]))


def seen_size(width, height, count, min_pixels, max_pixels, video_pixels=None):
    """(width, height) in which the policy sees each of `count` frames. video_pixels: of all frames of a clip together."""
    if video_pixels and count > 1:
        max_pixels = min(max_pixels, max(28 * 28, video_pixels // count))
    h, w = smart_resize(height, width, 28, min(min_pixels, max_pixels), max_pixels)
    return w, h


# ---- 1. The four roles ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Box:
    """Pixels x1 <= x < x2 and y1 <= y < y2. score: 0..1."""
    x1: float
    y1: float
    x2: float
    y2: float
    score: float = 1.0
    label: str = ""
