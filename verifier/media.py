"""Media: a file becomes the frames that the policy sees, each with its exact time.

    picture     PNG, JPEG, GIF, WebP, AVIF, BMP, TIFF, PPM        -> one frame at second 0
    animation   PNG, GIF, WebP, AVIF with several frames          -> a clip
    video       mp4, mov, mkv, webm, avi, mpg                     -> a clip, decoded in verifier/video.py

A dataset is somebody else's bytes, so each limit answers a file that really occurs:

    no EPS or the like    Pillow would hand an EPS, which is a program, to Ghostscript: only PICTURES
    no playlists          ffmpeg follows one to whatever files it names: it gets what begins like a video
    regular files only    opening a pipe waits for its writer, forever
    pixels, frames        50 KB can unpack to 400 million pixels (a decompression bomb)
    seconds               10,000 frames can be minutes of work, and a damaged video hangs its decoder
    200 to 1              Qwen2.5-VL takes no longer ones (verifier/coordinates.py)

The paper samples at most 32 frames per clip. Simplified: alpha becomes white; colour profiles and HDR are
dropped.

Try:   python argos.py clip.gif QUESTION RESPONSE --judge none --card card.png    # shows what was read
Read:  before, verifier/coordinates.py; next, verifier/video.py, then verifier/cards.py
"""
import io
import re
import warnings
from pathlib import Path
from time import monotonic

import numpy as np
from PIL import Image, ImageOps

from runs.errors import BadInput, BadMedia
from verifier.coordinates import MAX_PIXELS_FILE, Media, seen_size
from verifier.video import DECODE_SECONDS, read_video

PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM")
MOVING_PICTURES = ("PNG", "GIF", "WEBP", "AVIF")  # a phone's JPEG, a scanned TIFF of many pages: no clip
MAX_FRAMES_FILE = 10_000                          # frames of an animation (our choice)
MAX_PIXELS_ANIMATION = 16 * MAX_PIXELS_FILE       # pixels of all its frames together (our choice)
DEFAULT_DURATION = 100                            # milliseconds, of a frame that says none: as in browsers

VIDEO_START = re.compile(  # how a video file begins
    rb"....(?:ftyp(?!avi[fs])|moov|mdat|wide|free|skip)"  # mp4, mov; "ftypavif", "ftypavis" are AVIF
    rb"|\x1aE\xdf\xa3"                                    # mkv, webm
    rb"|RIFF....AVI "                                     # avi
    rb"|\x00\x00\x01[\xba\xb3]", re.DOTALL)               # mpg


def load_media(path, min_pixels=7056, max_pixels=28224, max_frames=32, video_pixels=None,
               limit=DECODE_SECONDS):
    """Read a picture, an animation or a video -> Media.

    path: of the file; or bytes, an encoded picture or animation as parquet files hold them.
    min_pixels, max_pixels: of a frame as the policy sees it; video_pixels: of a clip's frames together.
    max_frames: a longer clip is sampled uniformly in time (paper: 32); each frame keeps its own exact time.
    limit: seconds that decoding a video or an animation may take.
    Raises BadMedia, which names the file, for a missing, damaged, empty, too large or too slow one; BadInput
    where PyAV, which reads videos, is not installed.
    """
    pixel_limits = dict(min_pixels=min_pixels, max_pixels=max_pixels, video_pixels=video_pixels)
    name = f"a picture of {len(path)} bytes" if isinstance(path, bytes) else path
    try:
        if isinstance(path, bytes):
            return _read_picture(io.BytesIO(path), max_frames, limit, pixel_limits)
        if not Path(path).is_file():
            raise BadMedia("no such file")
        if _is_video(path):
            return read_video(path, max_frames, limit, pixel_limits)
        return _read_picture(path, max_frames, limit, pixel_limits)
    except BadInput as error:
        raise type(error)(f"{name}: {error}") from None
    except Exception as error:  # a damaged file makes Pillow raise whatever its decoder trips over
        raise BadMedia(f"{name}: not a readable picture, animation or video ({error.__class__.__name__}); "
                       "save it again as PNG or H.264 mp4") from None


def _is_video(path):
    """By how the file begins: its name may say anything."""
    with open(path, "rb") as file:
        return VIDEO_START.match(file.read(16)) is not None


# ---- Pictures and animations -------------------------------------------------------------------------------
def _read_picture(file, max_frames, limit, pixel_limits):
    """A picture, or an animation sampled to max_frames -> Media. file: a path or an open binary file.

    Pillow decodes here, in the verifier's own process: unlike a video's, its decoders end. What may not end in
    time is their number of calls, so an animation's clock is looked at between two frames.
    """
    start = monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
        picture = Image.open(file, formats=PICTURES)
    with picture:
        moving = picture.format in MOVING_PICTURES and getattr(picture, "is_animated", False)
        count = picture.n_frames if moving else 1
        _refuse_bombs(picture.size, count)
        durations = _durations(picture, count, start, limit) if moving else [1]
        shown = _evenly(_on_screen(durations), max_frames)
        frames = {}  # index in the file -> frame as seen; one that is shown several times is read once
        for index in sorted({index for _, index in shown}):
            if moving:
                picture.seek(index)
                _refuse_late(start, limit)
            frame = _upright_rgb(picture)
            original_size = frame.size
            size = seen_size(*frame.size, len(shown), **pixel_limits)
            frames[index] = frame if frame.size == size else frame.resize(size, Image.BICUBIC)
    return Media(frames=[frames[index] for _, index in shown],
                 seconds=[milliseconds / 1000 for milliseconds, _ in shown],
                 original_size=original_size)


def _refuse_bombs(size, count):
    """Before anything is unpacked. size: (width, height); count: of frames."""
    width, height = size
    pixels = width * height
    if pixels > MAX_PIXELS_FILE or count * pixels > MAX_PIXELS_ANIMATION or count > MAX_FRAMES_FILE:
        raise BadMedia(f"{count} frame(s) of {width} x {height} px are too much; shrink it")


def _refuse_late(start, limit):
    if monotonic() - start > limit:
        raise BadMedia(f"not decoded within {limit:g} seconds; cut it, save it smaller, or leave it out")


def _durations(picture, count, start, limit):
    """How many milliseconds each frame stays on screen. WebP and AVIF tell it only once a frame is decoded."""
    durations = []
    for index in range(count):
        picture.seek(index)
        picture.load()
        _refuse_late(start, limit)
        durations.append(round(picture.info.get("duration") or DEFAULT_DURATION))
    return durations


def _on_screen(durations):
    """What is on screen, at an even pace where there is one -> [(time in milliseconds, index in the file)].

    Savers of animations merge equal neighbours: eight frames of 500 ms, the fourth and fifth alike, are
    written as seven, one of them 1000 ms long. So a frame held k times as long as the shortest counts as k
    frames:

        durations 500, 1000, 500  ->  (0, 0), (500, 1), (1000, 1), (1500, 2)

    Where the durations are no multiples of the shortest, or would repeat too often, each frame counts once.
    """
    shortest = min(durations)
    multiples = all(duration % shortest == 0 for duration in durations)
    even = multiples and sum(durations) // shortest <= MAX_FRAMES_FILE
    timeline = []
    start = 0  # of this frame: the sum of the durations before it
    for index, duration in enumerate(durations):
        repeats = duration // shortest if even else 1
        for k in range(repeats):
            timeline.append((start + k * shortest, index))
        start += duration
    return timeline


def _evenly(items, most):
    """At most `most` of the items, at even steps from the first: 3 of 8 are those at 0, 2 and 5."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _upright_rgb(image):
    """RGB on white, as Qwen2.5-VL's own loader shows it; but 16-bit greys are scaled, not clipped."""
    image = ImageOps.exif_transpose(image)  # a phone stores "turned by 90 degrees" beside the pixels
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, dtype=np.float32))
        brightest = max(255.0, float(grey.max()))
        image = Image.fromarray(np.uint8(np.clip(grey / brightest * 255, 0, 255)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
