"""Reading pictures and clips: real files written here, damaged ones, and decoders that hang, crash or are missing.

Run: pytest tests/test_media.py     (videos need PyAV, `pip install av`, which writes and reads them; decord is
                                     the outside oracle: without either, tests that need it are skipped)
"""
import importlib.util
import itertools
import json
import multiprocessing
import os
import struct
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
from verifier.video import Clock, decode, timeline  # noqa: E402

settings.register_profile("argos", deadline=None, derandomize=True, database=None)  # a busy machine is no failure
settings.load_profile("argos")
needs_video = pytest.mark.skipif(not importlib.util.find_spec("av"), reason="needs PyAV (pip install av)")
needs_decord = pytest.mark.skipif(not importlib.util.find_spec("decord"), reason="needs decord")


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


@pytest.mark.parametrize("fmt", ["PNG", "GIF", "WEBP", "AVIF"])
@pytest.mark.parametrize("limit, ok", [(7.5, False), (13.5, False), (20, True)])  # durations, frames, enough
def test_an_animation_has_a_clock(tmp_path, monkeypatch, fmt, limit, ok):
    frames = [Image.new("RGB", (84, 84), (30 * i, 0, 0)) for i in range(8)]
    frames[0].save(tmp_path / "c", fmt, save_all=True, append_images=frames[1:], duration=500)
    seconds = itertools.count()
    monkeypatch.setattr(module, "monotonic", lambda: next(seconds))  # each look at it takes a second
    if ok:
        assert len(load_media(tmp_path / "c", limit=limit).frames) == 8
    else:
        with pytest.raises(BadMedia, match=f"c: not decoded within {limit:g} seconds; cut it"):
            load_media(tmp_path / "c", limit=limit)
    frames[0].save(tmp_path / "still", fmt)
    assert load_media(tmp_path / "still", limit=0).seconds == [0]  # one picture is bounded by its pixels


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


# In a process of its own: decord brings another libvpx, which PyAV would call in the place of its own.
DECORD = """
import json, sys
from decord import VideoReader
video = VideoReader(sys.argv[1], num_threads=1)
times = video.get_frame_timestamp(range(len(video)))[:, 0]
print(json.dumps([[float(t - times[0]), int(video.next().asnumpy()[50, 50, 0])] for t in times]))
"""


@needs_video
@needs_decord
@pytest.mark.parametrize("name, codec", [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"),
                                         ("a.mov", "mpeg4"), ("name without ending", "libx264")])
def test_frames_and_times_are_those_of_another_library(tmp_path, name, codec):
    """Plain files, which decord reads rightly as long as it reads in order."""
    path = tmp_path / (name if "." in name else "a.mp4")
    write_video(path, [i / 25 for i in range(50)], codec)
    if "." not in name:
        path = path.rename(tmp_path / name)
    clip = load_media(path, max_frames=8)
    read = subprocess.run([sys.executable, "-c", DECORD, str(path)], capture_output=True, check=True).stdout
    theirs = {round(t, 2): round(grey / 5) for t, grey in json.loads(read)}  # 25 frames a second are .04 s apart
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


# ---- Videos: each picture is the one that a player shows at its time ----------------------------------------
COUNT, FPS, WIDE, HIGH = 100, 25, 112, 84       # of the clips below; 112 x 84 is also the size seen
LIMITS = dict(min_pixels=7056, max_pixels=28224, video_pixels=None)
CUT = 37                                        # the first frame of a cut; the key frame before it is 25
KINDS = {  # file: (codec, its options)
    "h264.mp4": ("libx264", dict(bf="3", g="25", sc_threshold="0")),
    "open.mp4": ("libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=25"}),
    "h264.avi": ("libx264", dict(bf="3")),      # an AVI holds no times: packets are counted as they are decoded
    "mpeg1.mpg": ("mpeg1video", dict(bf="2", qmax="8")),
    "mpeg2.mpg": ("mpeg2video", dict(bf="2", qmax="8")),
    "interlaced.mpg": ("mpeg2video", dict(bf="2", qmax="8", flags="+ilme+ildct")),
    "mpeg4.avi": ("mpeg4", dict(bf="2", qmax="8")),
    "mpeg4.mp4": ("mpeg4", dict(bf="2", qmax="8")),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=30:log-level=none"}),
    "vp9.webm": ("libvpx-vp9", dict(deadline="realtime")),
    "av1.webm": ("libsvtav1", {"preset": "10", "crf": "10", "svtav1-params": "lp=1"}),
}


def numbered(i, width=WIDE, height=HIGH):
    """A picture that tells its number: eight blocks, a bit each, black or white."""
    pixels = np.full((height, width, 3), 20, np.uint8)
    for bit in range(8):
        row, column = divmod(bit, 4)
        if i >> bit & 1:
            pixels[row * height // 2:(row + 1) * height // 2, column * width // 4:(column + 1) * width // 4] = 235
    return pixels


def number(pixels):
    height, width, _ = pixels.shape
    bits = [pixels[(2 * row + 1) * height // 4, (2 * column + 1) * width // 8, 0] > 128
            for row in range(2) for column in range(4)]
    return sum(bool(bit) << k for k, bit in enumerate(bits))


def write_numbered(path, codec="libx264", options=(), times=None, size=(WIDE, HIGH), sound=False, container=None):
    """Frame i shows the number i, and comes on screen at times[i] (default: i / 25) seconds."""
    import av
    times = [i / FPS for i in range(COUNT)] if times is None else times
    with av.open(str(path), "w", options=container or {}) as file:
        if sound:
            file.add_stream("aac", rate=44100)
        video = file.add_stream(codec, rate=FPS, options=dict(options))
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.thread_count = 1  # quicker for clips so small
        even = np.allclose(np.diff(times), 1 / FPS)
        video.codec_context.time_base = Fraction(1, FPS) if even else Fraction(1, 1000)
        for i, t in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(i, *size), format="rgb24")
            frame.time_base = video.codec_context.time_base
            frame.pts = round(Fraction(t) / frame.time_base)
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if sound:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate = 44100
            file.mux(file.streams[0].encode(silence))
            file.mux(file.streams[0].encode())


def shown(path, max_frames=1000):
    """Decoded in this process, which is quicker -> (seconds, numbers of the pictures)."""
    answer, pixels = decode(str(path), max_frames, LIMITS)
    assert "error" not in answer, answer
    width, height = answer["seen"]
    return answer["seconds"], [number(p) for p in np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)]


def check_even(path, first=0, count=COUNT):
    """Frame `first` is at second 0, the others follow 25 times a second: all of them, and seven of them."""
    seconds, numbers = shown(path)
    assert numbers == list(range(first, first + count))
    assert seconds == pytest.approx([i / FPS for i in range(count)], abs=1e-3)
    seconds, numbers = shown(path, 7)
    assert numbers == [first + int(k * count / 7) for k in range(7)]
    assert seconds == pytest.approx([(n - first) / FPS for n in numbers], abs=1e-3)


def cut_without_coding(source, path, **container):
    """What `ffmpeg -ss 1.48 -c copy` does: packets from the key frame before the cut on; time 0 is the cut's."""
    import av
    with av.open(str(source)) as old, av.open(str(path), "w", **container) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        start = round(CUT / FPS / stream.time_base)
        key = max(packet.pts for packet in old.demux(stream) if packet.is_keyframe and packet.pts <= start)
        old.seek(key, stream=stream)
        for packet in old.demux(stream):
            if packet.pts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
                new.mux(packet)


@needs_video
@pytest.mark.parametrize("name", KINDS)
def test_a_picture_is_that_of_its_time(tmp_path, name):
    write_numbered(tmp_path / name, *KINDS[name])
    check_even(tmp_path / name)


@needs_video
@pytest.mark.parametrize("name", ["cut.mp4", "cut.mov", "fragments.mp4"])
def test_frames_before_time_0_of_a_cut_are_not_shown(tmp_path, name):
    import av
    write_numbered(tmp_path / "whole.mp4", *KINDS["h264.mp4"])
    options = {"movflags": "frag_keyframe+delay_moov"} if name == "fragments.mp4" else {}
    cut_without_coding(tmp_path / "whole.mp4", tmp_path / name, options=options)
    with av.open(str(tmp_path / name)) as file:
        hidden = [packet for packet in file.demux(video=0) if packet.pts is not None and packet.pts < 0]
    assert len(hidden) == CUT - 25
    check_even(tmp_path / name, CUT, COUNT - CUT)
    cut_without_coding(tmp_path / "whole.mp4", tmp_path / "cut.mkv")  # it cannot hide frames: a player shows them
    check_even(tmp_path / "cut.mkv", 25, COUNT - 25)


@needs_video
def test_uneven_times_with_b_frames_are_exact(tmp_path):
    times = np.cumsum([0] + [.04, .04, .2, .033, .5] * 12).round(3)
    write_numbered(tmp_path / "a.mp4", "libx264", dict(bf="3"), times)
    seconds, numbers = shown(tmp_path / "a.mp4")
    assert numbers == list(range(61)) and seconds == pytest.approx(times, abs=1e-3)
    seconds, numbers = shown(tmp_path / "a.mp4", 9)
    assert seconds == pytest.approx(times[numbers], abs=1e-3) and len(numbers) == 9 and max(np.diff(seconds)) < 1.8


@needs_video
def test_clocks_that_start_anywhere_and_clocks_that_start_anew(tmp_path):
    write_numbered(tmp_path / "late.mkv", times=[7 + i / FPS for i in range(COUNT)])
    check_even(tmp_path / "late.mkv")
    write_numbered(tmp_path / "half.mpg", *KINDS["mpeg2.mpg"])
    half = (tmp_path / "half.mpg").read_bytes()
    (tmp_path / "joined.mpg").write_bytes(half + half)
    seconds, numbers = shown(tmp_path / "joined.mpg")
    assert seconds == pytest.approx([i / FPS for i in range(2 * COUNT)], abs=1e-3)
    assert numbers == 2 * list(range(COUNT))
    write_numbered(tmp_path / "small.mpg", *KINDS["mpeg2.mpg"], size=(WIDE // 2, HIGH // 2))
    (tmp_path / "sizes.mpg").write_bytes(half + (tmp_path / "small.mpg").read_bytes())
    numbers = shown(tmp_path / "sizes.mpg")[1]  # the decoder may lose a frame where the size changes
    assert numbers[:99] == list(range(99)) and numbers[-100:] == list(range(100))


EVEN = Clock(tick=.001, rate=25, first=0)


@pytest.mark.parametrize("stamps, clock, indices, seconds", [
    ([(-80, 40), (-40, 40), (0, 40), (40, 40)], EVEN, [2, 3], [0, .04]),               # before a cut
    ([(-80, 40), (-40, 40)], EVEN._replace(first=-np.inf), [0, 1], [0, .04]),          # a clock that ran over
    ([(None, 40), (1400, 40), (None, 40), (1440, 40)], EVEN, [1, 3], [0, .04]),        # some without a time
    ([(0, 40), (40, 40), (40, 40), (80, 40)], EVEN, [0, 2, 3], [0, .04, .08]),         # replaced at once
    ([(0, 40), (80, 41), (40, 40), (120, 40)], EVEN, [0, 1, 2, 3], [0, .04, .08, .12]),
    ([(0, 40), (40, 40), (0, 40), (40, 40)], EVEN, [0, 1, 2, 3], [0, .04, .08, .12]),
    ([(0, 40), (80, 90), (40, 40)], EVEN, "the times of its frames fall", None),
    ([(0, 40), (80, 40), (40, 40)], EVEN._replace(rate=0), "the times of its frames fall", None),
    ([(None, 40), (None, 40)], EVEN, "none of its frames has a time", None),
    ([], EVEN, "none of its frames has a time", None)])
def test_times_that_are_missing_repeat_or_fall(stamps, clock, indices, seconds):
    if seconds is None:
        with pytest.raises(BadMedia, match=indices):
            timeline(stamps, clock)
    else:
        which, start, length = timeline(stamps, clock)
        assert which == indices and start.tolist() == pytest.approx(seconds)
        assert length == pytest.approx(seconds[-1] + .04)


@needs_video
@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0),   # quarter turns
                                    (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)])  # and mirrored
def test_pictures_come_out_upright(tmp_path, matrix):
    write_numbered(tmp_path / "a.mp4", times=[0, .04])
    answer, pixels = decode(str(tmp_path / "a.mp4"), 2, LIMITS)
    stored = np.frombuffer(pixels, np.uint8).reshape(2, HIGH, WIDE, 3)[1]  # number 1: one corner is white
    assert number(stored) == 1
    a, b, c, d = matrix
    y, x = np.mgrid[:HIGH, :WIDE]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    upright = np.zeros((to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    upright[to_y, to_x] = stored
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    start = data.index(b"tkhd") + 44  # of the track's matrix: nine numbers
    data[start:start + 20] = struct.pack(">5i", a << 16, b << 16, 0, c << 16, d << 16)
    (tmp_path / "a.mp4").write_bytes(data)
    answer, pixels = decode(str(tmp_path / "a.mp4"), 2, LIMITS)
    height, width, _ = upright.shape
    assert answer["size"] == answer["seen"] == (width, height) and pixels.endswith(upright.tobytes())


@needs_video
def test_the_video_is_found_beside_sound_and_covers(tmp_path):
    import av
    write_numbered(tmp_path / "sound.mp4", sound=True)
    check_even(tmp_path / "sound.mp4")
    for name, streams in (("song.mp4", ["mjpeg"]), ("film.mp4", ["mjpeg", "libx264"])):
        with av.open(str(tmp_path / name), "w") as file:
            streams = [file.add_stream(codec, rate=FPS) for codec in streams]
            for stream in streams:
                stream.width, stream.height = WIDE, HIGH
                stream.pix_fmt = "yuvj420p" if stream is streams[0] else "yuv420p"
            streams[0].disposition = av.stream.Disposition.attached_pic
            for stream in streams:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(9), format="rgb24")))
                file.mux(stream.encode())
    assert shown(tmp_path / "film.mp4") == ([0], [9])
    assert decode(str(tmp_path / "song.mp4"), 8, LIMITS)[0] == {"error": "there is no video in it"}


FAST = {"movflags": "faststart"}  # the table of frames comes first


@needs_video
@pytest.mark.parametrize("name, kind, container, message", [
    ("short.mp4", "h264.mp4", FAST, "it breaks off before its end"),
    ("short.avi", "mpeg4.avi", {}, "mpeg4 video: frame [0-9]+ is damaged"),
    ("hole.mpg", "mpeg2.mpg", {}, "mpeg2video video: (frame [0-9]+ is damaged|InvalidDataError)"),
    ("codec.mp4", "h264.mp4", {}, "it has a codec that is not decoded here")])
def test_what_is_wrong_with_a_video_is_said_in_one_line(tmp_path, name, kind, container, message):
    write_numbered(tmp_path / name, *KINDS[kind], container=container)
    data = (tmp_path / name).read_bytes()
    middle = len(data) // 2
    damaged = {"short": data[:middle], "hole": data[:middle] + bytes(300) + data[middle + 300:],
               "codec": data.replace(b"avc1", b"zz9x")}
    data = damaged[name.split(".")[0]]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadMedia, match=f"{name}: not a readable video .{message}.; save it again as H.264 mp4$"):
        load_media(tmp_path / name)


@needs_video
def test_what_a_file_says_of_itself_opens_no_other_file_and_stops_nothing(tmp_path):
    write_numbered(tmp_path / "a.mp4", times=[0, .04])
    assert shown(tmp_path / "a.mp4")[1] == [0, 1]
    (tmp_path / "title.mp4").write_bytes((tmp_path / "a.mp4").read_bytes().replace(b"Lavf", b"\xe9\xff\xe9\xff"))
    assert shown(tmp_path / "title.mp4")[1] == [0, 1]  # "the encoder's name", in no alphabet
    # Past the check of how a video begins, the demuxers of playlists are locked out once more.
    for text in ("#EXTM3U\n#EXTINF:9,\na.mp4\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile a.mp4\n"):
        (tmp_path / "list").write_text(text)
        assert "error" in decode(str(tmp_path / "list"), 8, LIMITS)[0]


def test_a_playlist_opens_no_other_file(tmp_path):
    for text in ("#EXTM3U\n#EXTINF:9,\n/etc/passwd\n", "ffconcat version 1.0\nfile /etc/passwd\n"):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(BadMedia, match="list.mp4: not a readable picture"):  # it never reached a video decoder
            load_media(tmp_path / "list.mp4")


def planted(tmp_path, monkeypatch, body):
    """A PyAV of our own that the child process imports instead, and a file that looks like a video."""
    (tmp_path / "av").mkdir()
    (tmp_path / "av" / "__init__.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    return tmp_path / "a.mp4"


def test_a_decoder_that_hangs_is_killed(tmp_path, monkeypatch):
    path = planted(tmp_path, monkeypatch, f"""
import os, signal, time
for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(name, signal.SIG_IGN)
with open({str(tmp_path / 'pid')!r}, "w") as file:
    file.write(str(os.getpid()))
def open(*args, **kwargs):
    time.sleep(600)
""")
    start = time.monotonic()
    with pytest.raises(BadMedia, match="a.mp4: not decoded within 2 seconds"):
        load_media(path, limit=2)
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("body, kind, message", [
    ("import os\ndef open(*args, **kwargs): os.abort()", BadMedia, "decoder crashed"),
    ("""
import resource
def open(*args, **kwargs):
    limited = 0 < resource.getrlimit(resource.RLIMIT_AS)[0] <= 8 << 30
    raise MemoryError if limited else RuntimeError
""", BadMedia, "MemoryError"),
    ("def open(*args, **kwargs): raise RuntimeError('a\\nb')", BadMedia, "RuntimeError"),
    ("raise OSError('libavcodec.so: wrong ELF class')", BadInput, "pip install av")])
def test_decoders_that_crash_or_are_missing(tmp_path, monkeypatch, body, kind, message):
    path = planted(tmp_path, monkeypatch, body)
    with pytest.raises(BadInput, match=message) as error:
        load_media(path)
    assert type(error.value) is kind and "\n" not in str(error.value) and str(path) in str(error.value)


@needs_video
def test_what_a_decoder_prints_is_no_pixel(tmp_path, monkeypatch):
    path = planted(tmp_path, monkeypatch, f"""
import os, sys
print("hello from a library")
os.write(1, b"and from below")
sys.path.remove({str(tmp_path)!r})
del sys.modules["av"]
import av  # the real one; `import av` of the child gets it too
""")
    write_video(path, [0, .5])
    clip = load_media(path)
    assert clip.seconds == [0, .5] and numbers(clip) == [0, 1]


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
