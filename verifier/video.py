"""Videos: decoded in a child process of its own, which can be killed.

A damaged file can hang or crash a native decoder, and no Python signal interrupts that. So the parent (the
verifier, or training) starts a child, waits for at most `limit` seconds, and reads its answer from a pipe:

    parent -> child    command line: the path, and JSON [max_frames, pixel limits]
    child  -> parent   standard output: one line of JSON, then raw pixels until the end

    all went well           {"size": [w, h] of the file, "seen": [w, h] of a frame, "seconds": [per frame]}
                            and then len(seconds) x h x w x 3 bytes: RGB, already in the policy's size
    the file is at fault    {"error": what is wrong with it}
    decord is missing       {"missing": the error of its import}

A child that dies says nothing; the parent then names the file as one that crashes the decoder.

Simplified: decord decodes on the CPU with one thread. It cannot know everything: where a file has lost a key
frame, some decoders patch the following frames up and say nothing.

Run:   python -m verifier.video CLIP '[32, {"min_pixels": 7056, "max_pixels": 28224}]' > answer && head -1 answer
Read:  before, verifier/media.py (who calls read_video); next, verifier/cards.py
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from runs.errors import BadInput, BadMedia
from verifier.coordinates import MAX_PIXELS_FILE, Media, seen_size

ROOT = Path(__file__).resolve().parent.parent
DECODE_SECONDS = 60        # a video that takes longer to decode counts as damaged (our choice)
DECODE_MEMORY = 8 << 30    # bytes that its decoder may use


# ---- The parent --------------------------------------------------------------------------------------------
def read_video(path, max_frames, limit, pixel_limits):
    """Have a child decode a video -> Media. The messages of errors do not name the file: load_media does.

    max_frames: of the clip; limit: seconds; pixel_limits: min_pixels, max_pixels, video_pixels, as in
    seen_size. Raises BadMedia for a file that cannot be decoded, BadInput where decord is not installed.
    """
    arguments = [str(Path(path).resolve()), json.dumps([max_frames, pixel_limits])]
    command = [sys.executable, "-m", "verifier.video", *arguments]
    try:  # in the repository's root: "verifier" is found there, whatever folder the caller is in
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, cwd=ROOT)
    except subprocess.TimeoutExpired:  # run() has killed it
        raise BadMedia(f"not decoded within {limit:g} seconds; save it again, or leave it out") from None
    line, _, pixels = done.stdout.partition(b"\n")
    if done.returncode or not line:
        raise BadMedia(f"the video decoder crashed (exit code {done.returncode}); save it again as mp4")
    answer = json.loads(line)
    if "missing" in answer:
        raise BadInput(f"videos are read with decord, which is not installed ({answer['missing']}): "
                       "pip install decord, or save the clip as an animated PNG")
    if "error" in answer:
        raise BadMedia(f"not a readable video ({answer['error']}); save it again as mp4")
    width, height = answer["seen"]
    frames = np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)
    if len(frames) != len(answer["seconds"]):
        raise BadMedia("the video decoder did not finish; save it again as mp4")
    return Media([Image.fromarray(frame) for frame in frames], answer["seconds"], tuple(answer["size"]))


# ---- The child ---------------------------------------------------------------------------------------------
def decode(path, max_frames, pixel_limits):
    """Decode a video -> (the answer's line as a dictionary, raw RGB bytes). Frames and times are decord's."""
    try:
        # Here, not above: a parent needs no decord, and whoever reads no videos needs none at all.
        from decord import VideoReader, cpu
    except Exception as error:  # not only ImportError: a wheel of another platform fails while it loads
        return {"missing": error.__class__.__name__}, b""
    try:
        video = VideoReader(path, ctx=cpu(0), num_threads=1)
        times = video.get_frame_timestamp(range(len(video)))
        times = np.asarray(times, dtype=float).reshape(-1, 2)  # (N, 2) start and end of each frame, seconds
        start = times[:, 0] - times[0, 0]                      # (N,) counted from the first frame
        chosen = _choose_frames(start, times[-1, 1] - times[0, 0], max_frames)
        pixels = []
        for i in chosen:  # one by one: 32 frames of 4K together would be 800 MB
            frame = Image.fromarray(video[int(i)].asnumpy())
            width, height = frame.size
            if width * height > MAX_PIXELS_FILE:
                raise BadMedia(f"frames of {width} x {height} px are too much")
            seen = seen_size(width, height, len(chosen), **pixel_limits)
            pixels.append(frame.resize(seen, Image.BICUBIC).tobytes())
        seconds = [round(float(start[i]), 3) for i in chosen]
    except BadMedia as error:
        return {"error": str(error)}, b""
    except Exception as error:
        return {"error": error.__class__.__name__}, b""
    return {"size": (width, height), "seen": seen, "seconds": seconds}, b"".join(pixels)


def _choose_frames(start, length, max_frames):
    """Indices of the frames to show: all, or those on screen at max_frames evenly spaced moments.

    start: (N,) when each frame comes on screen, seconds; length: of the clip. The frame rate may vary, so
    frames are chosen by time, never by index. One that is on screen at two of the moments is shown once, so
    there may be fewer.
    """
    if max_frames >= len(start):
        return range(len(start))
    moments = np.arange(max_frames) * length / max_frames + 5e-4   # half a millisecond on: times are rounded
    on_screen = np.searchsorted(start, moments, side="right") - 1  # the last frame that has started by then
    return sorted(set(on_screen))


def answer_parent():
    """The child's main program: command line in, answer out."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the pixels
    _limit_memory()
    path, options = sys.argv[1:3]
    max_frames, pixel_limits = json.loads(options)
    answer, pixels = decode(path, max_frames, pixel_limits)
    output.write(json.dumps(answer).encode() + b"\n" + pixels)
    output.close()
    os._exit(0)  # a decoder whose threads hang must not keep the process


def _limit_memory():
    try:
        import resource  # not on Windows
        resource.setrlimit(resource.RLIMIT_AS, (DECODE_MEMORY, DECODE_MEMORY))
    except (ImportError, ValueError, OSError):  # Windows, or a lower limit already
        pass


if __name__ == "__main__":
    answer_parent()
