"""Coordinates: whose pixels is a point in? Sizes, and the one function that maps a point between them.

"The mug is at (200, 20)" means nothing until we know in which picture. This project has three spaces:

    original   pixels of the file on the disk
    seen       pixels of the picture as the policy saw it, after Qwen2.5-VL's resize
    percent    0..100 along each side, as Molmo answers

Responses, teachers and cards all speak "seen" (the paper: Qwen2.5-VL uses absolute pixels). In each space x
runs to the right and y down, and pixel (0, 0) is the top left one. One and the same point, where a file of
400 x 200 pixels was seen as 200 x 50 (easy numbers; the real resize nearly keeps the aspect):

     original, 400 x 200           seen, 200 x 50        percent
    +--------------------+        +----------+          +----------+
    |          x         |        |     x    |          |     x    |
    |                    |        +----------+          |          |
    |                    |          (100, 5)            |          |
    +--------------------+                              +----------+
          (200, 20)                                       (50, 10)

What a mix-up costs: read the original's (200, 20) as "seen", and the point lies just outside the picture,
whose x runs from 0 to below 200. Nothing raises; the point is simply not on the mug, and the reward is 0 for
a response that was right.

Try:   convert(200, 20, "original", "seen", original=(400, 200), seen=(200, 50))     # (100.0, 5.0)
Next:  verifier/media.py (how a file becomes frames of these sizes), teachers/__init__.py (who speaks "seen")
"""
import math
from dataclasses import dataclass

from runs.errors import BadInput, BadMedia

TOKEN_SIDE = 28            # Qwen2.5-VL makes one token of 28 x 28 pixels, so sides are multiples of it
MAX_ASPECT = 200           # Qwen2.5-VL refuses pictures that are longer than this many times their width
MAX_PIXELS_FILE = 1 << 26  # a picture or frame that unpacks to more is refused as a bomb (our choice)


@dataclass
class Media:
    """A picture (one frame) or a clip (several), as the policy sees it."""
    frames: list          # PIL pictures, RGB, all of one size
    seconds: list         # the exact time of each frame, from the start of the clip
    original_size: tuple  # (width, height) of the file


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, x1 <= x < x2 and y1 <= y < y2. score: the detector's confidence, 0..1.

    A box without area (x1 = x2 and y1 = y2) is a point prompt for a segmenter.
    """
    x1: float
    y1: float
    x2: float
    y2: float
    score: float = 1.0
    label: str = ""


def smart_resize(height, width, factor=TOKEN_SIDE, min_pixels=7056, max_pixels=28224):
    """Qwen2.5-VL's resize -> (height, width): multiples of `factor`, nearly the old aspect, area in limits.

    height, width: of the original. min_pixels, max_pixels: of the result. Example: 200 x 400 (height x width)
    is shrunk to 112 x 224. Raises BadMedia for a picture of more than 200 to 1.
    """
    short, long = min(height, width), max(height, width)
    if short < 1 or long > MAX_ASPECT * short:
        raise BadMedia(f"a picture of {width} x {height} px; "
                       f"the policy takes at most {MAX_ASPECT} to 1, so crop it")
    h = round(height / factor) * factor
    w = round(width / factor) * factor
    if h * w > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        h = max(factor, math.floor(height / shrink / factor) * factor)
        w = max(factor, math.floor(width / shrink / factor) * factor)
    elif h * w < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        h = math.ceil(height * grow / factor) * factor
        w = math.ceil(width * grow / factor) * factor
    return h, w


def seen_size(width, height, count, min_pixels, max_pixels, video_pixels=None):
    """(width, height) in which the policy sees each of `count` frames of a file of this size.

    min_pixels, max_pixels: of a frame. video_pixels: of all frames of a clip together, since a clip's tokens
    add up; each frame gets its equal share, but one token at least.
    """
    if video_pixels and count > 1:
        share = max(TOKEN_SIDE * TOKEN_SIDE, video_pixels // count)
        max_pixels = min(max_pixels, share)
    h, w = smart_resize(height, width, TOKEN_SIDE, min(min_pixels, max_pixels), max_pixels)
    return w, h


def convert(x, y, source, target, original, seen):
    """Map a point between spaces -> (x, y). The only place that does; there and back gives the same point.

    source, target: "original", "seen" or "percent" (see the top of this file). original, seen: the sizes
    (width, height) of the file and of what the policy saw. Raises BadInput for another name or an empty size.

        convert(200, 20, "original", "percent", (400, 200), (200, 50)) -> (50.0, 10.0)
    """
    sizes = {"original": original, "seen": seen, "percent": (100, 100)}
    if source not in sizes or target not in sizes or min(*original, *seen) <= 0:
        raise BadInput(f"convert {source!r} to {target!r}, sizes {original}, {seen}: "
                       f"use the spaces {', '.join(sizes)}")
    # BEGIN SOLUTION ex3
    source_width, source_height = sizes[source]
    target_width, target_height = sizes[target]
    return x * target_width / source_width, y * target_height / source_height
    # END SOLUTION
