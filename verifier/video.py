"""Videos: decoded in a child process of its own, which can be killed.

A damaged file can hang or crash a native decoder, and no Python signal interrupts that. So the parent (the
verifier, or training) starts a child, waits for at most `limit` seconds, and reads its answer from a pipe:

    parent -> child    command line: the path, and JSON [max_frames, pixel limits]
    child  -> parent   standard output: one line of JSON, then raw pixels until the end

    all went well           {"size": [w, h] of the file, "seen": [w, h] of a frame, "seconds": [per frame]}
                            and then len(seconds) x h x w x 3 bytes: RGB, already in the policy's size
    the file is at fault    {"error": what is wrong with it}
    PyAV is missing         {"missing": the error of its import}

A child that dies says nothing; the parent then names the file as one that crashes the decoder.

Each picture must be the one that a player shows at its time. So frames are decoded in order, from the first to
the last, and each brings its own time. Nothing jumps: in files with B-frames, open GOPs or an edit list a jump
lands on another frame, and nothing tells.

    times of the file's packets  ->  which frames to keep  ->  decode all, keep those  ->  are the times the same?

If not, the decoded times are the true ones: choose by them, and decode once more.

Simplified: every frame is decoded, whatever max_frames is. Ten minutes of 640 x 360 take 8 to 16 seconds, four
times what jumps take (tests/benchmark_video.py). Pixels that are not
square, and interlaced ones, stay as they are stored. A decoder cannot know everything: where a file has lost a
key frame, some patch the following frames up and say nothing.

Run:   python -m verifier.video CLIP '[32, {"min_pixels": 7056, "max_pixels": 28224}]' > answer && head -1 answer
Read:  before, verifier/media.py (who calls read_video); next, verifier/cards.py
"""
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from runs.errors import BadInput, BadMedia
from verifier.coordinates import MAX_PIXELS_FILE, Media, seen_size

ROOT = Path(__file__).resolve().parent.parent
DECODE_SECONDS = 60        # a clip that takes longer to decode counts as damaged (our choice)
DECODE_MEMORY = 8 << 30    # bytes that its decoder may use
SAFE = {"protocol_whitelist": "file",  # no network, and no other file that a playlist names
        "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo"}


class Clock(NamedTuple):
    """How a file counts time."""
    tick: float   # seconds
    rate: float   # frames a second, on average; 0 where the file does not say
    first: float  # the first tick that is shown


# ---- The parent --------------------------------------------------------------------------------------------
def read_video(path, max_frames, limit, pixel_limits):
    """Have a child decode a video -> Media. The messages of errors do not name the file: load_media does.

    max_frames: of the clip; limit: seconds; pixel_limits: min_pixels, max_pixels, video_pixels, as in
    seen_size. Raises BadMedia for a file that cannot be decoded, BadInput where PyAV is not installed.
    """
    arguments = [str(Path(path).resolve()), json.dumps([max_frames, pixel_limits])]
    command = [sys.executable, "-m", "verifier.video", *arguments]
    try:  # in the repository's root: "verifier" is found there, whatever folder the caller is in
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, cwd=ROOT,
                              process_group=0)  # Ctrl-C is for us: serve.py still answers what it began
    except subprocess.TimeoutExpired:  # run() has killed it
        raise BadMedia(f"not decoded within {limit:g} seconds; cut it, save it smaller, or leave it out") from None
    line, _, pixels = done.stdout.partition(b"\n")
    if done.returncode or not line:
        raise BadMedia(f"the video decoder crashed (exit code {done.returncode}); save it again as H.264 mp4")
    answer = json.loads(line)
    if "missing" in answer:
        raise BadInput(f"videos are read with PyAV, which is not installed ({answer['missing']}): "
                       "pip install av, or save the clip as an animated PNG")
    if "error" in answer:
        raise BadMedia(f"not a readable video ({answer['error']}); save it again as H.264 mp4")
    width, height = answer["seen"]
    frames = np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)
    if len(frames) != len(answer["seconds"]):
        raise BadMedia("the video decoder did not finish; save it again as H.264 mp4")
    return Media([Image.fromarray(frame) for frame in frames], answer["seconds"], tuple(answer["size"]))


# ---- The child ---------------------------------------------------------------------------------------------
def decode(path, max_frames, pixel_limits):
    """Decode a video -> (the answer's line as a dictionary, raw RGB bytes)."""
    try:
        # Here, not above: a parent needs no decoder, and whoever reads no videos needs none at all.
        import av
    except Exception as error:  # not only ImportError: a wheel of another platform fails while it loads
        return {"missing": error.__class__.__name__}, b""
    try:
        return _sample(av, path, max_frames, pixel_limits)
    except BadInput as error:
        return {"error": str(error)}, b""
    except Exception as error:  # whatever a damaged file makes the libraries raise
        return {"error": error.__class__.__name__}, b""


def _sample(av, path, max_frames, pixel_limits):
    """Choose frames by the times of the file's packets; if others come out of the decoder, by those."""
    stamps, clock = _packet_stamps(av, path)
    for _ in range(2):
        shown, start, length = timeline(stamps, clock)
        chosen = _choose_frames(start, length, max_frames)
        wanted = [shown[i] for i in chosen]
        decoded, size, pictures = _decode_in_order(av, path, wanted, pixel_limits)
        if decoded == stamps:
            seconds = [float(start[i]) for i in chosen]
            answer = {"size": size, "seen": pictures[0].size, "seconds": seconds}
            return answer, b"".join(picture.tobytes() for picture in pictures)
        if _breaks_off(decoded, stamps):
            raise BadMedia("it breaks off before its end")
        stamps = decoded
    raise BadMedia("it is decoded in another way each time")


def _open(av, path):
    """-> (the open file, its video stream): the one that ffmpeg calls best, but no album's cover."""
    file = av.open(path, options=dict(SAFE), metadata_errors="replace")
    stream = file.streams.best("video")
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
        raise BadMedia("there is no video in it")
    if stream.codec_context is None:
        raise BadMedia("it has a codec that is not decoded here")
    return file, stream


def _packet_stamps(av, path):
    """What the file says of its frames, undecoded -> ([(time, duration)] in ticks, as shown; its Clock).

    Packets are stored in the order of decoding, a B-frame after the later frame that it needs: hence sorted.
    Those that an edit list hides are marked "discard". An hour of video takes a second.
    """
    file, stream = _open(av, path)
    with file:
        stamps = []
        for packet in file.demux(stream):
            if packet.pts is not None and not packet.is_discard:
                stamps.append((packet.pts, packet.duration or 0))
        # An edit list can leave frames before time 0, which are not shown; other clocks may start anywhere.
        first = 0 if "mp4" in file.format.name else -np.inf
        rate = stream.average_rate or stream.guessed_rate or 0
        return sorted(stamps), Clock(float(stream.time_base), float(rate), first)


def _decode_in_order(av, path, wanted, pixel_limits):
    """Decode every frame, keep those at the indices `wanted`.

    -> ([(time, duration)] in ticks, of every frame; (width, height) of the file; the wanted pictures, as seen)
    """
    file, stream = _open(av, path)
    wanted = set(wanted)
    stamps = []
    pictures = []
    size = None
    with file:
        stream.thread_type = "AUTO"  # several threads: the same pictures, sooner
        codec = stream.codec_context.codec.canonical_name
        try:
            for frame in file.decode(stream):
                if frame.is_corrupt:
                    raise BadMedia(f"{codec} video: frame {len(stamps)} is damaged")
                if len(stamps) in wanted:
                    picture = _upright(frame)
                    if size is None:  # a later frame of another size is fitted to the first, as players do
                        size = picture.size
                        seen = seen_size(*size, len(wanted), **pixel_limits)
                    pictures.append(picture.resize(seen, Image.BICUBIC))
                stamps.append((frame.pts, frame.duration or 0))
        except av.FFmpegError as error:
            raise BadMedia(f"{codec} video: {error.__class__.__name__}") from None
    return stamps, size, pictures


def _breaks_off(decoded, listed):
    """Is a frame listed after the end of the last decoded one?

    Threads of the decoder keep quiet about an error in the very last frames.
    """
    last = max((time for time, _ in listed if time is not None), default=-np.inf)
    end = max((time + max(duration, 1) for time, duration in decoded if time is not None), default=-np.inf)
    return last >= end


def _upright(frame):
    """A decoded frame -> RGB as the camera was held: a file stores "turned by 90 degrees" as a matrix."""
    if frame.width * frame.height > MAX_PIXELS_FILE:
        raise BadMedia(f"frames of {frame.width} x {frame.height} px are too much")
    picture = frame.to_image(threads=1)  # else each frame starts and ends a pool of threads
    for data in frame.side_data:
        if data.type.name != "DISPLAYMATRIX":
            continue
        a, b, _, c, d = np.frombuffer(data, np.int32)[:5]  # x' = a x + c y and y' = b x + d y
        turned = abs(b) > abs(a)
        if turned:
            picture = picture.transpose(Image.Transpose.TRANSPOSE)  # x' = y and y' = x
        x_scale, y_scale = (c, b) if turned else (a, d)
        if x_scale < 0:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if y_scale < 0:
            picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return picture


def timeline(stamps, clock):
    """When frames come on screen -> (their indices, their starts in seconds (N,), the clip's length in seconds).

    stamps: [(time or None, duration)] in ticks, in the order in which frames are decoded; clock: a Clock.
    Not shown are frames without a time, before clock.first, or replaced in the same moment. Seconds count from
    the first shown frame. Raises BadMedia where nothing tells the times.

    Where times fall, an AVI counted packets instead of frames, or MPEG files were joined and the clock started
    anew. Then frame i starts at i / rate (our choice), if the frames say that they last equally long.

    >>> clock = Clock(tick=.001, rate=25, first=0)
    >>> shown, start, length = timeline([(-40, 40), (0, 40), (40, 60), (100, 40)], clock)
    >>> shown, start.tolist(), length
    ([1, 2, 3], [0.0, 0.04, 0.1], 0.14)
    >>> timeline([(0, 40), (80, 40), (40, 40)], clock)[1].tolist()
    [0.0, 0.04, 0.08]
    """
    shown = [i for i, (time, _) in enumerate(stamps) if time is not None and time >= clock.first]
    if not shown:
        raise BadMedia("none of its frames has a time")
    start = np.array([stamps[i][0] for i in shown]) * clock.tick     # (N,)
    lasts = np.array([stamps[i][1] for i in shown]) * clock.tick     # (N,)
    if (np.diff(start) < 0).any():
        if not clock.rate or np.ptp(lasts) > .002:                   # Matroska rounds to milliseconds
            raise BadMedia("the times of its frames fall")
        start = np.arange(len(shown)) / clock.rate
    start = np.round(start - start[0], 3)  # (N,) milliseconds, in which claims about times are judged
    length = float(start[-1] + lasts[-1])
    seen = np.append(np.diff(start) > 0, True)                       # (N,) else the next replaces it at once
    return [shown[i] for i in np.flatnonzero(seen)], start[seen], length


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
