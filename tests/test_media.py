"""Reading pictures and clips: real files written here, damaged ones, and decoders that hang, crash or are missing.

Run: pytest tests/test_media.py     (videos need decord, which is tested, and PyAV, `pip install av`, which writes them
                                     and is the oracle; without either those tests are skipped)
"""
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import time
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

import verifier.media as module  # noqa: E402
from runs.errors import BadInput, BadMedia  # noqa: E402
from runs.files import append_jsonl  # noqa: E402
from verifier.coordinates import convert, seen_size, smart_resize  # noqa: E402
from verifier.media import load_media  # noqa: E402

settings.register_profile("argos", deadline=None, derandomize=True, database=None)  # a busy machine is no failure
settings.load_profile("argos")
needs_video = pytest.mark.skipif(not all(importlib.util.find_spec(name) for name in ("decord", "av")),
                                 reason="needs decord and PyAV (pip install decord av)")


# ---- Sizes and coordinates ---------------------------------------------------------------------------------
@settings(max_examples=500)
@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([(7056, 28224), (3136, 1003520), (784, 784)]))
def test_smart_resize_is_that_of_transformers(height, width, budget):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as theirs
    try:
        want = theirs(height, width, 28, *budget)
    except ValueError:
        with pytest.raises(BadInput):
            smart_resize(height, width, 28, *budget)
    else:
        assert smart_resize(height, width, 28, *budget) == want


sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.permutations(["original", "seen", "percent"]), sizes, sizes)
def test_convert_there_and_back(x, y, spaces, original, seen):
    one, two, three = spaces
    there = convert(x, y, one, two, original, seen)
    assert convert(*there, two, one, original, seen) == pytest.approx((x, y), abs=1e-9)
    assert convert(*there, two, three, original, seen) == pytest.approx(convert(x, y, one, three, original, seen))


def test_convert_by_hand():
    # a 400 x 200 picture seen as 200 x 50: half way across and a tenth down is (200, 20), (100, 5), (50 %, 10 %)
    for target, xy in (("seen", (100, 5)), ("percent", (50, 10)), ("original", (200, 20))):
        assert convert(200, 20, "original", target, (400, 200), (200, 50)) == pytest.approx(xy)
    with pytest.raises(BadInput):
        convert(1, 1, "molmo", "seen", (4, 2), (2, 1))


# ---- Pictures and animations -------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F"])
def test_any_mode_becomes_rgb(tmp_path, mode):
    Image.new(mode, (100, 60)).save(path := tmp_path / f"a.{'tif' if mode in ('CMYK', 'F', 'I') else 'png'}")
    media = load_media(path)
    assert media.frames[0].mode == "RGB" and media.frames[0].size == (112, 84) and media.original_size == (100, 60)
    if mode in ("RGBA", "LA"):  # transparent is white, not black
        assert media.frames[0].getpixel((5, 5)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_pictures_are_upright(tmp_path):
    Image.fromarray(np.full((84, 84), 32768, np.uint16)).save(tmp_path / "deep.png")
    assert load_media(tmp_path / "deep.png").frames[0].getpixel((0, 0))[0] == 255  # brightest value present
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (120, 60)).save(tmp_path / "turned.jpg", exif=exif)
    assert load_media(tmp_path / "turned.jpg").original_size == (60, 120)


@pytest.mark.parametrize("size, ok", [((1, 1), True), ((1, 200), True), ((30000, 20), False), ((1, 201), False),
                                      ((9000, 9000), False)])
def test_extreme_sizes(tmp_path, size, ok):
    Image.new("1", size).save(tmp_path / "x.png")
    if ok:
        w, h = load_media(tmp_path / "x.png").frames[0].size
        assert w % 28 == h % 28 == 0 and w * h >= 7056
    else:
        with pytest.raises(BadInput, match="x.png"):
            load_media(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["empty", "text", "truncated", "missing", "folder", "header"])
def test_bad_files_are_named(tmp_path, name):
    path = tmp_path / f"{name}.png"
    Image.effect_noise((84, 84), 50).save(tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    broken = {"empty": b"", "text": b"<html>", "truncated": good[:len(good) // 2],
              "header": good[:20] + b"\xff" * 30 + good[50:]}
    if name in broken:
        path.write_bytes(broken[name])
    elif name == "folder":
        path.mkdir()
    with pytest.raises(BadInput, match=f"{name}.png") as error:
        load_media(path)
    assert "\n" not in str(error.value) and str(error.value).count(f"{name}.png") == 1


@pytest.mark.parametrize("fmt", ["PNG", "GIF", "WEBP"])
def test_clips_keep_exact_times(tmp_path, fmt):
    frames = [Image.new("RGB", (84, 84), (30 * i, 0, 0)) for i in range(8)]
    frames[4] = frames[3].copy()  # the saver merges these two; the loader takes them apart again
    frames[0].save(tmp_path / "c", fmt, save_all=True, append_images=frames[1:], duration=500, lossless=True)
    media = load_media(tmp_path / "c")
    assert media.seconds == [.5 * i for i in range(8)]
    assert [round(f.getpixel((0, 0))[0] / 30) for f in media.frames] == [0, 1, 2, 3, 3, 5, 6, 7]
    media = load_media(tmp_path / "c", max_frames=3)  # frames 0, 2, 5 of 8
    assert media.seconds == [0, 1, 2.5]
    uneven = [100, 250, 300]
    frames[0].save(tmp_path / "v", fmt, save_all=True, append_images=frames[1:3], duration=uneven, lossless=True)
    assert load_media(tmp_path / "v").seconds == [0, .1, .35]


def test_pictures_of_printers_phones_and_bombers(tmp_path, monkeypatch):
    Image.new("CMYK", (100, 60), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    assert load_media(tmp_path / "print.jpg").frames[0].getpixel((9, 9))[0] > 200  # red, and not inverted
    Image.fromarray(np.full((84, 84), np.nan, np.float32)).save(tmp_path / "nan.tif")
    assert load_media(tmp_path / "nan.tif").frames[0].getpixel((0, 0)) == (0, 0, 0)
    palette = Image.new("P", (84, 84), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    palette.save(tmp_path / "p.png", transparency=0)
    assert load_media(tmp_path / "p.png").frames[0].getpixel((0, 0)) == (10, 200, 30)

    Image.effect_noise((300, 300), 50).convert("RGB").save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:9000])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")  # 50 KB that unpack to 400 million pixels
    text = zlib.compress(bytes(1 << 26))
    chunk = b"zTXt" + b"a\0\0" + text
    length, checksum = len(chunk[4:]).to_bytes(4, "big"), zlib.crc32(chunk).to_bytes(4, "big")
    Image.new("RGB", (84, 84)).save(tmp_path / "text.png")
    png = (tmp_path / "text.png").read_bytes()
    (tmp_path / "text.png").write_bytes(png[:33] + length + chunk + checksum + png[33:])
    first, second = Image.new("1", (1, 1)), Image.new("1", (1, 1), 1)
    first.save(tmp_path / "many.gif", save_all=True, append_images=[second, first] * 30, duration=10)
    monkeypatch.setattr(module, "MAX_FRAMES_FILE", 50)
    # Pillow would hand an EPS, which is a program, to Ghostscript: here is one that tells.
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n(ran) print\n"
    (tmp_path / "run.eps").write_bytes(program)
    for name in ("cut.jpg", "bomb.png", "text.png", "many.gif", "run.eps"):
        start = time.process_time()
        with pytest.raises(BadMedia, match=name) as error:
            load_media(tmp_path / name)
        assert "\n" not in str(error.value) and time.process_time() - start < 10, name
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadMedia, match="pipe.png"):
        load_media(tmp_path / "pipe.png")


@pytest.mark.parametrize("size, count", [((1920, 1080), 32), ((84, 84), 8), ((640, 480), 1), ((300, 400), 100)])
def test_the_pixels_of_a_clip_are_bounded(size, count):
    w, h = seen_size(*size, count, 7056, 1003520, 200704)
    assert w % 28 == h % 28 == 0
    assert w * h * count <= max(200704, 784 * count) if count > 1 else w * h > 200704  # a picture has its own budget
    assert seen_size(*size, count, 7056, 1003520) == smart_resize(size[1], size[0], 28, 7056, 1003520)[::-1]


# ---- Videos ------------------------------------------------------------------------------------------------
def write_video(path, times, codec="libx264", size=(128, 96), noise=0):
    """Frame i has grey level 5 i and is shown at times[i] seconds."""
    import av
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, "yuv420p", 12
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, t in enumerate(times):
            shape = (size[1], size[0], 3)
            grain = rng.integers(0, noise + 1, shape).astype(np.uint8)
            pixels = np.full(shape, 5 * i % 256, np.uint8) + grain
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * t), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def numbers(clip):
    return [round(frame.getpixel((50, 50))[0] / 5) for frame in clip.frames]


UNEVEN = [0, .1, .2, .5, 1.0, 1.033, 1.5, 3.0, 3.1, 4.9]


@needs_video
@pytest.mark.parametrize("name, codec", [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"),
                                         ("a.mov", "mpeg4"), ("name without ending", "libx264")])
def test_frames_and_times_are_those_of_another_library(tmp_path, name, codec):
    import av
    path = tmp_path / (name if "." in name else "a.mp4")
    write_video(path, [i / 25 for i in range(50)], codec)
    if "." not in name:
        path = path.rename(tmp_path / name)
    clip = load_media(path, max_frames=8)
    with av.open(str(path)) as file:
        theirs = []
        for frame in file.decode(video=0):
            theirs.append((frame.time, round(frame.to_ndarray(format="rgb24")[50, 50, 0] / 5)))
    theirs = {round(t - theirs[0][0], 2): number for t, number in theirs}  # 25 frames a second are .04 s apart
    assert [theirs[round(t, 2)] for t in clip.seconds] == numbers(clip)
    gaps = np.diff(clip.seconds)
    assert len(clip.frames) == 8 and clip.original_size == (128, 96)
    assert clip.seconds[0] == 0 and max(gaps) - min(gaps) < .05


@needs_video
def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    write_video(tmp_path / "v.mp4", UNEVEN)
    clip = load_media(tmp_path / "v.mp4")
    assert clip.seconds == pytest.approx(UNEVEN, abs=1e-3) and numbers(clip) == list(range(10))
    # even in time: at k / 5 of 4.93 s frames 0, 3 (from .5 to 1.0), 6 (1.5 to 3.0), 6, 8 (3.1 to 4.9) are on screen
    clip = load_media(tmp_path / "v.mp4", max_frames=5)
    assert clip.seconds == pytest.approx([0, .5, 1.5, 3.1], abs=1e-3) and numbers(clip) == [0, 3, 6, 8]
    write_video(tmp_path / "late.mp4", [t + 5 for t in UNEVEN])  # seconds count from the first frame
    assert load_media(tmp_path / "late.mp4").seconds == pytest.approx(UNEVEN, abs=1e-3)


@needs_video
def test_short_and_long_videos(tmp_path):
    write_video(tmp_path / "one.mp4", [0])
    clip = load_media(tmp_path / "one.mp4")
    assert clip.seconds == [0] and len(clip.frames) == 1
    write_video(tmp_path / "long.mp4", [i / 25 for i in range(50)], size=(640, 360))
    clip = load_media(tmp_path / "long.mp4", max_pixels=1003520, video_pixels=200704)
    assert len(clip.frames) == 32 and sum(f.width * f.height for f in clip.frames) <= 200704
    assert clip.original_size == (640, 360) and clip.frames[0].size == (84, 56)


@needs_video
@pytest.mark.parametrize("name", ["cut.mp4", "zeros.mp4", "noise.mp4", "sound.mp4", "head.mp4", "thin.mp4"])
def test_damaged_videos_are_named(tmp_path, name):
    import av
    path = tmp_path / name
    if name == "sound.mp4":
        with av.open(str(path), "w") as file:
            stream = file.add_stream("aac", rate=44100)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.rate = 44100
            file.mux(stream.encode(sound))
            file.mux(stream.encode())
    elif name == "thin.mp4":
        write_video(path, [0, .1], size=(2, 1000))
    else:
        write_video(path, [i / 25 for i in range(50)], noise=40)
        data = bytearray(path.read_bytes())
        third, half = len(data) // 3, len(data) // 2
        damage = {"cut.mp4": (half, len(data), b""), "head.mp4": (40, len(data), b""),
                  "zeros.mp4": (third, half, bytes(half - third)),
                  "noise.mp4": (100, half, np.random.default_rng(1).bytes(half - 100))}
        start, end, new = damage[name]
        data[start:end] = new
        path.write_bytes(data)
    with pytest.raises(BadMedia, match=name) as error:
        load_media(path)
    assert "\n" not in str(error.value) and str(error.value).count(name) == 1


def test_a_playlist_opens_no_other_file(tmp_path):
    for text in ("#EXTM3U\n#EXTINF:9,\n/etc/passwd\n", "ffconcat version 1.0\nfile /etc/passwd\n"):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(BadMedia, match="list.mp4: not a readable picture"):  # it never reached a video decoder
            load_media(tmp_path / "list.mp4")


def planted(tmp_path, monkeypatch, body):
    """A decord of our own that the child process imports instead, and a file that looks like a video."""
    (tmp_path / "decord").mkdir()
    (tmp_path / "decord" / "__init__.py").write_text("cpu = int\n" + body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    return tmp_path / "a.mp4"


def test_a_decoder_that_hangs_is_killed(tmp_path, monkeypatch):
    path = planted(tmp_path, monkeypatch, f"""
import os, signal, time
for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(name, signal.SIG_IGN)
open({str(tmp_path / 'pid')!r}, "w").write(str(os.getpid()))
def VideoReader(*args, **kwargs):
    time.sleep(600)
""")
    start = time.monotonic()
    with pytest.raises(BadMedia, match="a.mp4: not decoded within 2 seconds"):
        load_media(path, limit=2)
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("body, kind, message", [
    ("import os\ndef VideoReader(*args, **kwargs): os.abort()", BadMedia, "decoder crashed"),
    ("""
import resource
def VideoReader(*args, **kwargs):
    limited = 0 < resource.getrlimit(resource.RLIMIT_AS)[0] <= 8 << 30
    raise MemoryError if limited else RuntimeError
""", BadMedia, "MemoryError"),
    ("def VideoReader(*args, **kwargs): raise RuntimeError('a\\nb')", BadMedia, "RuntimeError"),
    ("raise OSError('libdecord.so: wrong ELF class')", BadInput, "pip install decord")])
def test_decoders_that_crash_or_are_missing(tmp_path, monkeypatch, body, kind, message):
    path = planted(tmp_path, monkeypatch, body)
    with pytest.raises(BadInput, match=message) as error:
        load_media(path)
    assert type(error.value) is kind and "\n" not in str(error.value) and str(path) in str(error.value)


def test_what_a_decoder_prints_is_no_pixel(tmp_path, monkeypatch):
    path = planted(tmp_path, monkeypatch, """
import numpy as np
print("hello from a library")
class Frame:
    def asnumpy(self): return np.full((84, 84, 3), 7, np.uint8)
class VideoReader(list):
    def __init__(self, *args, **kwargs): super().__init__([Frame(), Frame()])
    def get_frame_timestamp(self, ids): print("again"); return np.array([[0, .5], [.5, 1]])
""")
    clip = load_media(path)
    assert clip.seconds == [0, .5] and [f.getpixel((0, 0)) for f in clip.frames] == [(7, 7, 7)] * 2


def test_pictures_need_no_video_library():
    code = ("import sys, argos, verifier.media; "
            "sys.exit(any(name in sys.modules for name in ('decord', 'torch', 'av', 'cv2')))")
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0


def append_many(path, name):
    for i in range(150):
        append_jsonl(path, {"who": name, "n": i, "text": "x" * 200_000})


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")
def test_rows_of_several_processes_stay_whole(tmp_path):
    """Rows of many pages: one process sees the file while another is in the middle of its row."""
    path = tmp_path / "log.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    rows = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    assert all([r["n"] for r in rows if r["who"] == name] == list(range(150)) for name in "ab")
