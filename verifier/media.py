"""Reading pictures and clips: a file becomes the frames that the policy sees, with the exact time of each."""
import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from runs.errors import BadInput, BadMedia
from verifier.coordinates import MAX_PIXELS_FILE, Media, seen_size
from verifier.video import DECODE_SECONDS, read_video


MAX_FRAMES_FILE = 10_000   # frames of an animation


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
        return read_video(path, max_frames, limit, budget) if video else _read_picture(path, max_frames, budget)
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
