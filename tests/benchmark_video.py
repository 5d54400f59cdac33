"""Reading a clip in order (verifier/video.py) against decord's jumps, side by side in one run. A script, not a test.

Jumps are quicker and wrong in many files (tests/test_media.py); this says what right pictures cost. The clip is H.264
without B-frames, one that decord reads right. decord gets a process of its own, since it does not bear PyAV beside it.

Run: python tests/benchmark_video.py --minutes 10
"""
import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from verifier.media import load_media  # noqa: E402

JUMPS = """
import sys
from decord import VideoReader, cpu
video = VideoReader(sys.argv[1], ctx=cpu(0), num_threads=1)
for i in range(32):
    video[i * len(video) // 32].asnumpy()
"""


def write_clip(path, minutes, width, height):
    """30 frames a second of a rough texture that moves: as many bits as a hand-held camera's."""
    coarse = np.random.default_rng(0).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    texture = coarse.repeat(4, 0).repeat(4, 1)[:height, :width]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"preset": "ultrafast", "bf": "0"})
        stream.width = width
        stream.height = height
        stream.pix_fmt = "yuv420p"
        for i in range(round(minutes * 60 * 30)):
            picture = np.ascontiguousarray(np.roll(texture, 3 * i, axis=1))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 360))
    parser.add_argument("--rounds", type=int, default=3)
    cfg = parser.parse_args()
    ours = []
    theirs = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        write_clip(path, cfg.minutes, *cfg.size)
        for _ in range(cfg.rounds):
            start = time.perf_counter()
            load_media(path, limit=3600)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", JUMPS, str(path)], check=True)
            theirs.append(time.perf_counter() - start)
    print(f"{cfg.minutes:g} minutes of {cfg.size[0]} x {cfg.size[1]}, 32 frames: in order {min(ours):.1f} s, "
          f"decord's jumps {min(theirs):.1f} s, ratio {min(ours) / min(theirs):.1f}")


if __name__ == "__main__":
    main()
