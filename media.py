"""Media: everything that touches pixels or the disk, so that argos.py is the verifier alone.

    read_jsonl, append_jsonl, write_atomically   files that survive a kill at any point
    load_media   a file -> the frames that the policy sees, the exact time of each
    convert      a point from one coordinate space to another: pixels of the file, pixels as seen, percent
    draw_card    what the policy saw and what the verifier made of it, in one picture
    draw_points  what the policy saw and where it pointed, with nobody to judge it

argos.py imports all names from here, so `argos.load_media` and `argos.draw_card` work, too.

What is simplified: decord decodes on the CPU, one thread; the frames' alpha, colour profile and HDR are dropped.

Next: argos.py (what the frames are looked at for), policy.py (how a model sees them)
"""
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

MAX_PIXELS_FILE = 1 << 26  # a picture or frame that unpacks to more is refused as a decompression bomb
MAX_FRAMES_FILE = 10_000   # frames of an animation
DECODE_SECONDS = 60        # a video that takes longer to decode counts as damaged (our choice)
DECODE_MEMORY = 8 << 30    # bytes that its decoder may use


# ---- 1. Files ---------------------------------------------------------------------------------------------------------
class BadInput(ValueError):
    """A mistake in a file, a row or an option. The message is one line that names it and its cure."""


class BadMedia(BadInput):
    """A picture or video that cannot be used. Training and evaluation leave its sample out and count it: Argos.usable."""


def clean(text):
    """Drop control, zero-width, bidirectional and surrogate characters (Unicode categories C*); keep line breaks."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if c in "\t\r" else c for c in text if c in "\n\t\r" or unicodedata.category(c)[0] != "C")


def write_atomically(path, data):
    """Write str or bytes to `path` so that a reader sees the old file or the whole new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace"))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_jsonl(path, torn=False):
    """Yield (row number, object) of a JSONL file; blank lines are skipped. BadInput names file, row and cure.

    torn: an append-only log may hold lines cut by a kill; skip them instead.
    """
    try:
        with open(path, encoding="utf-8") as file:  # line by line: a log of long answers does not fit into memory
            for i, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    if torn:
                        continue
                    raise BadInput(f"{path} row {i}: is not JSON ({str(error)[:80]}); write one object per line") from None
                yield i, row
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as a UTF-8 JSONL file ({error.__class__.__name__}); check the path") from None


def append_jsonl(path, row):
    """Append one row. A line left half-written by a crash is ended first, so that it spoils no other."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        _lock(file)  # another process may be in the middle of its row
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        else:
            torn = False
        row = b"\n" * torn + json.dumps(row).encode() + b"\n"
        while row:
            row = row[file.write(row):]


def _lock(file, wait=True):
    """Until the file is closed, or this process dies. -> False where another has it. (Windows has no fcntl: nothing is locked there.)"""
    try:
        import fcntl
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except ImportError:
        pass
    except OSError:
        return False
    return True


def claim_run(log, config):
    """Begin or continue a training log. Without --resume an old run must not be mixed into a new one; with it, settings must agree."""
    rows = [row for _, row in read_jsonl(log, torn=True)] if Path(log).exists() else []
    if not rows:
        append_jsonl(log, dict(kind="config", **config))
        return
    if not config["resume"]:
        raise BadInput(f"{log}: holds a run already; continue it with --resume, or name another --out")
    for name, value in config.items():
        if name != "resume" and rows[0].get(name, value) != value:
            raise BadInput(f"{log}: was made with --{name} {rows[0][name]}, not {value}; resume with the same settings")


@contextmanager
def alone(folder):
    """Inside, no other process is: only one may work on a folder's files, and one that died is not in the way. Raises BadInput."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder, ".lock"), "w") as file:
        if not _lock(file, wait=False):
            raise BadInput(f"{folder}: another run is at work there; wait for it, or name another --out")
        yield


def file_name(text):
    """A sample's id as a safe file name: it comes from a dataset and may hold anything."""
    return re.sub(r"[^\w.-]", "_", text)[:120].lstrip(".") or "_"


def save_figure(figure, path):
    """Write a matplotlib figure or a PIL picture as PNG: complete or absent."""
    data = io.BytesIO()
    if isinstance(figure, Image.Image):
        figure.save(data, "PNG")
    else:
        figure.savefig(data, dpi=150, format="png")
    write_atomically(path, data.getvalue())


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


# ---- 3. Reading pictures and clips -----------------------------------------------------------------------------------
def _rgb(image):
    """Upright RGB on white, as Qwen2.5-VL's own loader shows it; 16-bit greys are scaled, not clipped."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, dtype=np.float32))
        image = Image.fromarray(np.uint8(np.clip(grey / max(255.0, float(grey.max())) * 255, 0, 255)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def seen_size(width, height, count, min_pixels, max_pixels, video_pixels=None):
    """(width, height) in which the policy sees each of `count` frames. video_pixels: of all frames of a clip together."""
    if video_pixels and count > 1:
        max_pixels = min(max_pixels, max(28 * 28, video_pixels // count))
    h, w = smart_resize(height, width, 28, min(min_pixels, max_pixels), max_pixels)
    return w, h


def load_media(path, min_pixels=7056, max_pixels=28224, max_frames=32, video_pixels=None, limit=DECODE_SECONDS):
    """Read a picture; or an mp4, mov, mkv, webm, avi or mpg, or an animated PNG, GIF, WebP or AVIF, as a clip -> Media.

    path: of the file; or bytes, an encoded picture or animation as parquet files hold them.
    A clip longer than max_frames (paper: 32) is sampled uniformly in time; each frame keeps its own exact time.
    min_pixels, max_pixels: of a frame; video_pixels: of a clip's frames together. limit: seconds that decoding a video may
    take. Raises BadMedia, which names the file, for a missing, damaged, empty, too large or too slow one.
    """
    budget = dict(min_pixels=min_pixels, max_pixels=max_pixels, video_pixels=video_pixels)
    name = f"a picture of {len(path)} bytes" if isinstance(path, bytes) else path
    try:
        if isinstance(path, bytes):
            return _read_picture(io.BytesIO(path), max_frames, budget)
        if not Path(path).is_file():  # opening a pipe would wait for its writer
            raise BadMedia("no such file")
        with open(path, "rb") as file:
            video = _VIDEO.match(file.read(16))
        return _read_video(path, max_frames, limit, budget) if video else _read_picture(path, max_frames, budget)
    except BadInput as error:
        raise type(error)(f"{name}: {error}") from None
    except Exception as error:  # a damaged file makes Pillow raise whatever its decoder trips over
        raise BadMedia(f"{name}: not a readable picture, animation or video ({error.__class__.__name__}); save it again as PNG "
                       "or mp4") from None


# Pillow knows dozens of formats; one of them, EPS, is a program that it hands to Ghostscript. These are pictures.
PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM")
# How a video file begins. ffmpeg would also follow a playlist to whatever files it names: only these get to it.
_VIDEO = re.compile(rb"....(?:ftyp(?!avi[fs])|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|RIFF....AVI |\x00\x00\x01[\xba\xb3]", re.S)


def _read_picture(path, max_frames, budget):
    """Savers of animations merge equal neighbours, so a frame held k times as long as the shortest counts as k frames. The
    time of a frame is the sum of the durations before it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
        file = Image.open(path, formats=PICTURES)
    with file:
        # a phone's JPEG (MPO) and a scanned TIFF hold several pictures, too, but are no clips
        moving = file.format in ("PNG", "GIF", "WEBP", "AVIF") and getattr(file, "is_animated", False)
        count, (width, height) = (file.n_frames if moving else 1), file.size
        if width * height > MAX_PIXELS_FILE or count * width * height > 16 * MAX_PIXELS_FILE or count > MAX_FRAMES_FILE:
            raise BadMedia(f"{count} frame(s) of {width} x {height} px are too much; shrink it")
        milliseconds = []
        for i in range(count if moving else 0):
            file.seek(i)
            file.load()
            milliseconds.append(round(file.info.get("duration") or 100))  # 0 means 100 ms, as in browsers
        shortest = min(milliseconds, default=1)
        even = all(ms % shortest == 0 for ms in milliseconds) and sum(milliseconds) // shortest <= MAX_FRAMES_FILE
        shown, clock = [], 0  # (time in ms, index in the file)
        for i, ms in enumerate(milliseconds or [1]):
            shown += [(clock + k * shortest, i) for k in range(ms // shortest if even else 1)]
            clock += ms
        n = min(max_frames, len(shown))
        shown = [shown[i * len(shown) // n] for i in range(n)]
        frames = {}
        for i in sorted({i for _, i in shown}):
            if moving:
                file.seek(i)
            frame = _rgb(file)
            size = seen_size(*frame.size, n, **budget)
            original, frames[i] = frame.size, frame if frame.size == size else frame.resize(size, Image.BICUBIC)
    return Media([frames[i] for _, i in shown], [ms / 1000 for ms, _ in shown], original)


# A video is decoded in a child process: a damaged file can hang or crash a native decoder, which no Python signal interrupts,
# and a process can be killed. The child answers with one line of JSON and the raw pixels, already in the policy's size.
def _read_video(path, max_frames, limit, budget):
    command = [sys.executable, __file__, str(Path(path).resolve()), json.dumps([max_frames, budget])]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit)  # kills it in the end
    except subprocess.TimeoutExpired:
        raise BadMedia(f"not decoded within {limit:g} seconds; save it again, or leave it out") from None
    head, _, pixels = done.stdout.partition(b"\n")
    if done.returncode or not head:
        raise BadMedia(f"the video decoder crashed (exit code {done.returncode}); save it again as mp4")
    answer = json.loads(head)
    if "missing" in answer:
        raise BadInput(f"videos are read with decord, which is not installed ({answer['missing']}): pip install decord, or save "
                       "the clip as an animated PNG")
    if "error" in answer:
        raise BadMedia(f"not a readable video ({answer['error']}); save it again as mp4")
    w, h = answer["seen"]
    frames = np.frombuffer(pixels, np.uint8).reshape(-1, h, w, 3)
    if len(frames) != len(answer["seconds"]):
        raise BadMedia("the video decoder did not finish; save it again as mp4")
    return Media([Image.fromarray(frame) for frame in frames], answer["seconds"], tuple(answer["size"]))


def _decode(path, max_frames, budget):
    """The child: decode a video -> (what to answer as JSON, raw RGB). Frames and times are decord's.

    It cannot know everything: where a file has lost a key frame, some decoders patch the following frames up and say nothing.
    """
    try:
        from decord import VideoReader, cpu
    except Exception as error:  # not only ImportError: a wheel of another platform fails while it loads
        return {"missing": error.__class__.__name__}, b""
    try:
        video = VideoReader(path, ctx=cpu(0), num_threads=1)
        times = np.asarray(video.get_frame_timestamp(range(len(video))), dtype=float).reshape(-1, 2)  # (N, 2) start, end
        start, count = times[:, 0] - times[0, 0], min(max_frames, len(times))
        shown = range(len(times))
        if count < len(times):  # the frame that is on screen at each of `count` evenly spaced moments
            moments = np.arange(count) * (times[-1, 1] - times[0, 0]) / count + 5e-4
            shown = sorted(set(np.searchsorted(start, moments, side="right") - 1))
        frames = []
        for i in shown:  # one by one: 32 frames of 4K would be 800 MB
            frame = Image.fromarray(video[int(i)].asnumpy())
            original = frame.size
            if original[0] * original[1] > MAX_PIXELS_FILE:
                raise BadMedia(f"frames of {original[0]} x {original[1]} px are too much")
            seen = seen_size(*original, len(shown), **budget)
            frames.append(frame.resize(seen, Image.BICUBIC).tobytes())
    except Exception as error:
        return {"error": str(error) if isinstance(error, BadMedia) else error.__class__.__name__}, b""
    return dict(size=original, seen=seen, seconds=[round(float(start[i]), 3) for i in shown]), b"".join(frames)


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
        import matplotlib
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


if __name__ == "__main__":  # the child process of _read_video
    answer_to = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the pixels
    try:
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (DECODE_MEMORY, DECODE_MEMORY))
    except (ImportError, ValueError, OSError):  # Windows, or a lower limit already
        pass
    answer, pixels = _decode(sys.argv[1], *json.loads(sys.argv[2]))
    answer_to.write(json.dumps(answer).encode() + b"\n" + pixels)
    answer_to.close()
    os._exit(0)  # a decoder whose threads hang must not keep the process
