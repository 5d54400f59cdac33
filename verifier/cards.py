"""The verification card: what the policy saw and what the verifier made of it, in one picture."""
import re
from types import SimpleNamespace

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from runs.files import save_figure
from verifier.answers import clean


# ---- 4. The verification card: what the policy saw and what the verifier made of it, in one picture ------------------
IN, OUT, CLAIMED, INK, FAINT, PAPER = (0, 140, 90), (205, 45, 45), (40, 100, 200), (25, 30, 40), (120, 125, 135), (252, 252, 250)


def draw_card(media, sample, response, verdict, masks, path):
    """Write the card as a PNG. masks: {(frame, label): bool (H, W)}, as in verdict.masks.

    Left: the picture as the policy saw it, or up to 6 frames that the response refers to, enlarged; masks stay bright
    inside a white outline, the rest is dimmed; boxes carry their labels; points are green (in) or red (out) and numbered.
    Right: question, truth, response, the terms as bars, every reason, and the gate's arithmetic.
    """
    sheet = _sheet(media, verdict, masks)
    left, bottom = sheet.size
    title, body, small, mono = load_font(26, "-Bold"), load_font(15), load_font(13), load_font(12, "Mono")
    lines, width = [], 660  # the text panel: (font, colour, text) a line

    def write(text, font=body, colour=INK, indent=""):
        lines.extend((font, colour, line) for line in wrap_text(clean(text), font, width - 40, indent))

    if verdict.reward is None:
        write("no reward: the truth is not known" if sample.answer is None else "no reward: not scored", title)
    else:
        write(f"reward {verdict.reward:.2f}", title, IN if verdict.reward >= .5 else OUT)
    write(f"Q  {sample.question[:400]}", indent="    ")
    write(f"truth  {str(sample.answer)[:200]}   ({sample.kind})\n", small, FAINT)
    long = f"{response[:600]} [... {len(response) - 900} characters ...] {response[-300:]}"
    write(response if len(response) <= 900 else long, small, (70, 75, 90))
    write("")
    bars = {"outcome": verdict.outcome, "grounding": verdict.grounding, "reasoning": verdict.reasoning}
    first_bar = len(lines)
    lines += [(body, INK, name) for name in bars] + [(body, INK, "")]
    reasons = verdict.explain().split("\n")
    for line in reasons[:44]:
        good, bad = line.strip().startswith(("in ", "yes ")), line.strip().startswith(("OUT ", "NO "))
        write(line, mono, IN if good else OUT if bad else INK, " " * 11)
    if len(reasons) > 44:
        write(f"... and {len(reasons) - 44} more lines, among them: {reasons[-1]}", mono, FAINT, " " * 11)

    height = max(sum(_height(font) for font, _, _ in lines) + 40, bottom + 28)
    card = Image.new("RGB", (left + width, height), PAPER)
    card.paste(sheet)
    pen, (w, h), (ow, oh) = ImageDraw.Draw(card), media.frames[0].size, media.original_size
    pen.text((12, bottom), f"{w} x {h} px as the policy saw it; the file has {ow} x {oh}", FAINT, small)
    y, x = 20, left + 110
    for i, (font, colour, text) in enumerate(lines):
        pen.text((left + 12, y), text, colour, font)
        if 0 <= i - first_bar < len(bars):
            pen.rectangle([x, y + 3, x + 400, y + 17], (232, 232, 230))
            if bars[text]:
                pen.rectangle([x, y + 3, x + 400 * bars[text], y + 17], (60, 110, 190))
            value, colour = ("not counted", FAINT) if bars[text] is None else (f"{bars[text]:.2f}", INK)
            if text in verdict.not_scored:
                value, colour = "not scored", OUT
            pen.text((x + 410, y), value, colour, small)
        y += _height(font)
    save_figure(card, path)


def draw_points(media, points, path):
    """Write what the policy saw as a PNG, with points that nobody judged in blue. points: argos.PointVerdicts of score None."""
    save_figure(_sheet(media, SimpleNamespace(points=points, frame_scores=[], segment_scores=[]), {}), path)


def _sheet(media, verdict, masks):
    """The picture, or up to 6 frames that the response refers to, two in a row."""
    frames = [0]
    if len(media.frames) > 1:
        used = {i for v in verdict.frame_scores + verdict.segment_scores for i in v.frames}
        used |= {v.frame for v in verdict.points if v.frame is not None}
        frames = sorted(used)[:6] or range(0, len(media.frames), -(-len(media.frames) // 4))
    tiles = [_tile(media, f, verdict, masks, 640 if len(frames) == 1 else 400) for f in frames]
    columns, (w, h) = min(2, len(tiles)), tiles[0].size
    sheet = Image.new("RGB", (columns * (w + 12) + 12, -(-len(tiles) // columns) * (h + 12) + 12), PAPER)
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (12 + k % columns * (w + 12), 12 + k // columns * (h + 12)))
    return sheet


def _tile(media, frame, verdict, masks, target):
    """One frame, enlarged to about `target` px, with masks, boxes and points; that of a clip has its time above it."""
    image, font = media.frames[frame], load_font(13)
    scale = target / max(image.size)
    scale = max(1, round(scale)) if scale > 1 else scale
    w, h = size = tuple(max(1, round(side * scale)) for side in image.size)
    tile = image.resize(size, Image.NEAREST if scale >= 1 else Image.LANCZOS)
    mine = [np.asarray(mask) for (f, _), mask in masks.items() if f == frame]
    if mine and np.any(mine):
        bright = Image.fromarray(np.uint8(np.any(mine, axis=0)) * 255).resize(size, Image.NEAREST)
        tile = Image.composite(tile, Image.blend(tile, Image.new("RGB", size, (40, 45, 60)), .45), bright)
        rim = np.asarray(bright) > np.asarray(bright.filter(ImageFilter.MinFilter(5)))
        tile.paste((255, 255, 255), mask=Image.fromarray(np.uint8(rim) * 255))
    pen, points = ImageDraw.Draw(tile), [(i, v) for i, v in enumerate(verdict.points, 1) if v.frame == frame]

    def plate(x, y, text, back, colour, flip=0):  # flip: width to jump to the left by, where the right rim is near
        length = pen.textlength(text, font) + 6
        x, y = max(0, x - length - flip if flip and x + length > w else min(x, w - length)), max(0, min(y, h - 17))
        pen.rectangle([x, y, x + length, y + 16], back)
        pen.text((x + 3, y), text, colour, font)

    for box in dict.fromkeys(b for _, v in points for b in v.boxes):
        x1, y1, x2, y2 = (round(c * scale) for c in (box.x1, box.y1, box.x2, box.y2))
        pen.rectangle([x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)], outline=(255, 200, 0), width=2)
        plate(x1, y1 - 17, f"{clean(box.label)[:24]} {box.score:.2f}", (255, 200, 0), INK)
    for i, v in points:
        x, y = (min(max((c + .5) * scale, 0), side - 1) for c, side in zip((v.point.x, v.point.y), size))
        colour, r = CLAIMED if v.score is None else IN if v.score else OUT, 7  # a point outside the picture was moved to its rim
        pen.ellipse([x - r, y - r, x + r, y + r], colour, "white", 2)
        if v.score == 0:
            pen.line([x - 3, y - 3, x + 3, y + 3], "white", 2)
            pen.line([x - 3, y + 3, x + 3, y - 3], "white", 2)
        text = f"{i} {clean(v.point.label)[:24]}" if len(points) <= 8 else str(i)
        plate(x + r + 2, y - 8, text, colour, "white", 2 * r + 4)
    if len(media.frames) == 1:
        return tile
    framed = Image.new("RGB", (w, h + 20), INK)
    framed.paste(tile, (0, 20))
    ImageDraw.Draw(framed).text((6, 2), f"frame {frame} ({media.seconds[frame]:.1f} seconds)", "white", font)
    return framed


def load_font(size, style=""):
    """matplotlib brings DejaVu, which knows more scripts than Pillow's own font."""
    try:
        return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans{style}.ttf", size)
    except (ImportError, OSError):
        return ImageFont.load_default(size)


def _height(font):
    return round(font.size * 1.35)


def wrap_text(text, font, width, indent=""):
    """Lines no wider than `width` px; words of more than 60 characters are broken."""
    lines = []
    for paragraph in text.split("\n")[:60]:
        line = ""
        for word in re.findall(r"\s*\S{1,60}|\s+$", paragraph):
            if line and font.getlength(line + word) > width:
                lines.append(line)
                line = indent + word.lstrip()
            else:
                line += word
        lines.append(line)
    return lines
