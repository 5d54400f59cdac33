"""The verification card: what the policy saw and what the verifier made of it, in one picture.

A reward is a number; a card is how a person sees whether it is the right one. Points in the wrong pixels, a
detector that finds everything, a truth in the wrong form: what hides in a mean reward is plain on a dozen
cards. So look at them.

    +-----------------------+---------------------------------------+
    | sheet                 | panel                                 |
    |   tile    tile        |   reward, question, truth, response   |
    |   tile    tile        |   a bar per term of the reward        |
    |                       |   every reason, the gate's arithmetic |
    +-----------------------+---------------------------------------+

The sheet holds one tile: the picture as the policy saw it. Of a clip it holds up to 6, the frames that the
response refers to. Inside a tile what is on a mask stays bright within a white outline, the rest is dimmed;
boxes are yellow and carry their label and score; points are numbered as in the reasons: green is on the mask,
red is off, blue nobody judged.

Run:   python argos.py tiny/example.png QUESTION RESPONSE --answer ANSWER --card card.png
Read:  before, verifier/media.py; next, argos.py (how a verdict comes about)
"""
import math
import re
from dataclasses import dataclass

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from runs.files import save_figure
from verifier.answers import clean
from verifier.explain import reasons

IN = (0, 140, 90)          # a point on its mask, a claim that is true
OUT = (205, 45, 45)        # a point off its mask, a claim that is false
CLAIMED = (40, 100, 200)   # a point that nobody judged
INK = (25, 30, 40)
REASON_INK = {True: IN, False: OUT, None: INK}
FAINT = (120, 125, 135)
RESPONSE_INK = (70, 75, 90)
PAPER = (252, 252, 250)
DIMMED = (40, 45, 60)      # what is off the masks is blended with this
BOX = (255, 200, 0)
BAR = (60, 110, 190)
BAR_BACK = (232, 232, 230)

PANEL = 660                # px: the width of the panel on the right
GAP = 12                   # px between tiles, and around them
PLATE = 16                 # px: the height of the plate behind a label
RADIUS = 7                 # px: of a point
MAX_RESPONSE = 900         # characters; of a longer response the beginning and the end are shown
MAX_REASONS = 44           # lines
MAX_TILES = 6              # frames of a clip


def draw_card(media, sample, response, verdict, masks, path):
    """Write the card of one verdict as a PNG.

    media: what the policy saw; sample, response: what was asked and said; verdict: an argos.Verdict.
    masks: {(frame index, label): bool (H, W)}, as in verdict.masks, pixels of the frame as seen.
    path: of the PNG.
    """
    claims = verdict.frame_scores + verdict.segment_scores
    sheet = _draw_sheet(media, verdict.points, claims, masks)
    panel = _write_panel(sample, response, verdict)

    left, bottom = sheet.size
    small = load_font(13)
    text_height = sum(_line_height(line.font) for line in panel)
    card = Image.new("RGB", (left + PANEL, max(text_height + 40, bottom + 28)), PAPER)
    card.paste(sheet)
    pen = ImageDraw.Draw(card)
    w, h = media.frames[0].size
    file_w, file_h = media.original_size
    sizes = f"{w} x {h} px as the policy saw it; the file has {file_w} x {file_h}"
    pen.text((GAP, bottom), sizes, FAINT, small)
    y = 20
    for line in panel:
        pen.text((left + GAP, y), line.text, line.colour, line.font)
        if line.term:
            _draw_bar(pen, left + 110, y, verdict, line.term)
        y += _line_height(line.font)
    save_figure(card, path)


def draw_points(media, points, path):
    """Write what the policy saw as a PNG, with points that nobody judged: PointVerdicts of score None."""
    save_figure(_draw_sheet(media, points, claims=[], masks={}), path)


# ---- The panel: text and bars ------------------------------------------------------------------------------
@dataclass
class Line:
    """One line of the panel. term: "outcome", "grounding" or "reasoning", whose bar stands on this line."""
    text: str
    font: object
    colour: tuple
    term: str = ""


def _write_panel(sample, response, verdict):
    """-> the Lines of the panel, from top to bottom."""
    title = load_font(26, "-Bold")
    body = load_font(15)
    small = load_font(13)
    mono = load_font(12, "Mono")
    lines = []

    def write(text, font=body, colour=INK, indent=""):
        for line in wrap_text(clean(text), font, PANEL - 40, indent):
            lines.append(Line(line, font, colour))

    if verdict.reward is not None:
        write(f"reward {verdict.reward:.2f}", title, IN if verdict.reward >= .5 else OUT)
    elif sample.answer is None:
        write("no reward: the truth is not known", title)
    else:
        write("no reward: not scored", title)

    write(f"Q  {sample.question[:400]}", indent="    ")
    write(f"truth  {str(sample.answer)[:200]}   ({sample.kind})\n", small, FAINT)  # and an empty line
    write(_shorten(response), small, RESPONSE_INK)
    write("")

    for term in ("outcome", "grounding", "reasoning"):
        lines.append(Line(term, body, INK, term))
    write("")

    under = " " * 11  # a line of reasons begins with a name in a column of 11
    lines_of_reasons = reasons(verdict)
    for line, good in lines_of_reasons[:MAX_REASONS]:
        write(line, mono, REASON_INK[good], under)
    if len(lines_of_reasons) > MAX_REASONS:
        left_out = len(lines_of_reasons) - MAX_REASONS
        gate, _ = lines_of_reasons[-1]
        write(f"... and {left_out} more lines, among them: {gate}", mono, FAINT, under)
    return lines


def _shorten(response):
    if len(response) <= MAX_RESPONSE:
        return response
    return f"{response[:600]} [... {len(response) - 900} characters ...] {response[-300:]}"


def _draw_bar(pen, x, y, verdict, term):
    """The score of one term, 0..1, as a bar of up to 400 px, and behind it as a number."""
    score = getattr(verdict, term)
    pen.rectangle([x, y + 3, x + 400, y + 17], BAR_BACK)
    if score:
        pen.rectangle([x, y + 3, x + 400 * score, y + 17], BAR)
    if term in verdict.not_scored:
        text, colour = "not scored", OUT
    elif score is None:
        text, colour = "not counted", FAINT
    else:
        text, colour = f"{score:.2f}", INK
    pen.text((x + 410, y), text, colour, load_font(13))


# ---- The sheet: what the policy saw ------------------------------------------------------------------------
def _draw_sheet(media, points, claims, masks):
    """Tiles, two in a row. points: PointVerdicts; claims: ClaimVerdicts; masks: as in draw_card."""
    frames = frames_to_show(media, points, claims)
    side = 640 if len(frames) == 1 else 400
    tiles = [_draw_tile(media, frame, points, masks, side) for frame in frames]
    columns = min(2, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    w, h = tiles[0].size
    sheet = Image.new("RGB", (columns * (w + GAP) + GAP, rows * (h + GAP) + GAP), PAPER)
    for k, tile in enumerate(tiles):
        row, column = divmod(k, columns)
        sheet.paste(tile, (GAP + column * (w + GAP), GAP + row * (h + GAP)))
    return sheet


def frames_to_show(media, points, claims):
    """Indices: of a clip those that the response refers to, else about four evenly spaced ones."""
    if len(media.frames) == 1:
        return [0]
    used = {point.frame for point in points if point.frame is not None}
    for claim in claims:
        used.update(claim.frames)
    if used:
        return sorted(used)[:MAX_TILES]
    return range(0, len(media.frames), math.ceil(len(media.frames) / 4))


def _draw_tile(media, frame, points, masks, side):
    """One frame, its longer side about `side` px, with masks, boxes and points; in a clip, its time above."""
    image = media.frames[frame]
    scale = _enlargement(image.size, side)
    w, h = (max(1, round(length * scale)) for length in image.size)
    tile = image.resize((w, h), Image.NEAREST if scale >= 1 else Image.LANCZOS)
    tile = _light_masks(tile, [np.asarray(mask) for (of, _), mask in masks.items() if of == frame])
    numbered = [(number, point) for number, point in enumerate(points, 1) if point.frame == frame]
    _draw_boxes(tile, scale, [point for _, point in numbered])
    _draw_points(tile, scale, numbered)
    if len(media.frames) == 1:
        return tile
    framed = Image.new("RGB", (w, h + 20), INK)
    framed.paste(tile, (0, 20))
    caption = f"frame {frame} ({media.seconds[frame]:.1f} seconds)"
    ImageDraw.Draw(framed).text((6, 2), caption, "white", load_font(13))
    return framed


def _enlargement(size, side):
    """By how much to scale a frame: a small one by a whole number, so that its pixels can be counted."""
    scale = side / max(size)
    return max(1, round(scale)) if scale > 1 else scale


def _light_masks(tile, masks):
    """Dim all but the masks' union, which gets a white rim. masks: list of bool (H, W), before scaling."""
    if not masks or not np.any(masks):
        return tile
    union = np.uint8(np.any(masks, axis=0)) * 255  # (H, W)
    bright = Image.fromarray(union).resize(tile.size, Image.NEAREST)
    dark = Image.blend(tile, Image.new("RGB", tile.size, DIMMED), .45)
    tile = Image.composite(tile, dark, bright)
    core = bright.filter(ImageFilter.MinFilter(5))  # the masks without their outermost 2 px
    rim = np.asarray(bright) > np.asarray(core)
    tile.paste((255, 255, 255), mask=Image.fromarray(np.uint8(rim) * 255))
    return tile


def _draw_boxes(tile, scale, points):
    """The detector's boxes for the labels of these points, each once, its label and score above it."""
    pen = ImageDraw.Draw(tile)
    boxes = dict.fromkeys(box for point in points for box in point.boxes)  # a set that keeps its order
    for box in boxes:
        x1, y1, x2, y2 = (round(c * scale) for c in (box.x1, box.y1, box.x2, box.y2))
        last_x, last_y = max(x1, x2 - 1), max(y1, y2 - 1)  # x2 and y2 are the first outside
        pen.rectangle([x1, y1, last_x, last_y], outline=BOX, width=2)
        text = f"{clean(box.label)[:24]} {box.score:.2f}"
        _draw_plate(pen, tile.size, x1, y1 - PLATE - 1, text, BOX, INK)


def _draw_points(tile, scale, numbered):
    """numbered: [(number in the reasons, PointVerdict)]. More than 8 points carry their number only."""
    pen = ImageDraw.Draw(tile)
    r = RADIUS
    for number, verdict in numbered:
        x = (verdict.point.x + .5) * scale  # the middle of the pixel
        y = (verdict.point.y + .5) * scale
        x = min(max(x, 0), tile.width - 1)  # a point outside the picture is shown on its rim
        y = min(max(y, 0), tile.height - 1)
        colour = _point_colour(verdict.score)
        pen.ellipse([x - r, y - r, x + r, y + r], colour, "white", 2)
        if verdict.score == 0:  # a cross, for who cannot tell red from green
            pen.line([x - 3, y - 3, x + 3, y + 3], "white", 2)
            pen.line([x - 3, y + 3, x + 3, y - 3], "white", 2)
        text = f"{number} {clean(verdict.point.label)[:24]}" if len(numbered) <= 8 else str(number)
        _draw_plate(pen, tile.size, x + r + 2, y - PLATE / 2, text, colour, "white", left_end=x - r - 2)


def _point_colour(score):
    if score is None:
        return CLAIMED
    return IN if score else OUT


def _draw_plate(pen, size, x, y, text, back, ink, left_end=None):
    """A text on a coloured plate, its top left corner at (x, y), or where it still fits into the tile.

    left_end: where it would cross the right rim, the plate ends here instead: to the left of the point that
    it names, which it would cover if it were only pushed back.
    """
    width, height = size
    font = load_font(13)
    length = pen.textlength(text, font) + 6
    if left_end is not None and x + length > width:
        x = left_end - length
    x = max(0, min(x, width - length))
    y = max(0, min(y, height - PLATE - 1))
    pen.rectangle([x, y, x + length, y + PLATE], back)
    pen.text((x + 3, y), text, ink, font)


# ---- Text --------------------------------------------------------------------------------------------------
def load_font(size, style=""):
    """DejaVu Sans, which matplotlib brings: it knows more scripts than Pillow's. style: "-Bold", "Mono"."""
    try:
        return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans{style}.ttf", size)
    except (ImportError, OSError):
        return ImageFont.load_default(size)


def _line_height(font):
    return round(font.size * 1.35)


def wrap_text(text, font, width, indent=""):
    """Text -> list of lines no wider than `width` px. Words of more than 60 characters are broken.

    indent: what the second and later lines of a paragraph begin with. At most 60 paragraphs: a text is
    somebody else's.
    """
    lines = []
    for paragraph in text.split("\n")[:60]:
        line = ""
        for word in re.findall(r"\s*\S{1,60}|\s+$", paragraph):  # each word with the spaces before it
            if line and font.getlength(line + word) > width:
                lines.append(line)
                line = indent + word.lstrip()
            else:
                line += word
        lines.append(line)
    return lines
