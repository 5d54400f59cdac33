"""A video is decoded in a child process of its own, which can be killed."""
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


# A video is decoded in a child process: a damaged file can hang or crash a native decoder, which no Python signal interrupts,
# and a process can be killed. The child answers with one line of JSON and the raw pixels, already in the policy's size.
def read_video(path, max_frames, limit, budget):
    command = [sys.executable, "-m", "verifier.video", str(Path(path).resolve()), json.dumps([max_frames, budget])]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, cwd=ROOT)  # kills it in the end
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
