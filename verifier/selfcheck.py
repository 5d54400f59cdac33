"""A check before any training: are points read in the policy's pixels? The commonest silent bug is another space.

Before: coordinates.py. Used by argos.Argos.self_check, which every script calls first.
"""
import math
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from runs.errors import BadInput
from verifier.coordinates import convert
from verifier.media import load_media
from verifier.samples import Sample


def self_check(verifier, sizes):
    """A red square in the corner of a large drawing must be hit in the policy's pixels, and missed in the file's
    pixels and with x and y swapped. Raises BadInput. Where a detector of photographs does not know the drawing at
    all, nothing was checked: a warning says so.

    verifier: an argos.Argos with detector and segmenter alone. sizes: how the policy sees a file (load_media).
    """
    sizes = sizes | {"max_pixels": min(sizes["max_pixels"], 1 << 18)}
    side = 4 * round(math.sqrt(sizes["max_pixels"]))
    drawing = Image.new("RGB", (side, side), (215, 215, 210))
    ImageDraw.Draw(drawing).rectangle([side * .65, side * .1, side * .85, side * .3], fill=(225, 30, 30))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "check.png")
        drawing.save(path)
        media = load_media(path, **sizes)
    sample = Sample("check", "Where is the red square?", None, "free", path)

    in_file = (side * .75, side * .2)
    as_seen = convert(*in_file, "original", "seen", (side, side), media.frames[0].size)
    swapped = as_seen[::-1]
    responses = []
    for x, y in (as_seen, in_file, swapped):
        responses.append(f'<think><point x1="{x:.2f}" y1="{y:.2f}" alt="red square">red square</point>')
    verdicts = verifier.verify_group(sample, responses, media)
    scores = [v.grounding for v in verdicts]
    if scores == [0, 0, 0] and not verdicts[0].points[0].boxes:
        print("self-check: the detector finds no red square in a drawing, so that points hit is not checked; look "
              "at the cards", file=sys.stderr)
    elif scores != [1, 0, 0]:
        reasons = "".join(f" ({why})" for why in verdicts[0].not_scored.values())
        raise BadInput(f"self-check: a drawn red square scored {scores}, not [1, 0, 0], in the policy's pixels, "
                       "in the file's, and with x and y swapped; use teachers that work in the policy's "
                       f"pixels{reasons}")
