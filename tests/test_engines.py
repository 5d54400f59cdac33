"""benchmarks/engines.py: what it writes, every engine shows unchanged, and the verifier sees the same.

The oracles are the library's own rule and processor, the rules of EasyR1 and qwen_vl_utils (here as formulas; their own
code in tests/checkouts.py), the real `datasets`, and encode_prompts, by which the policy is trained here.
"""
import json
import math
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as library_rule

import policy as P
from verifier.rollouts import read_row
from benchmarks import engines, verifier_costs
from runs.errors import BadInput, BadMedia
from runs.checkpoints import read_budget
from verifier.media import load_media
from verifier.samples import Sample, read_samples

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
BUDGETS = [(7056, 28224), (3136, 512 * 784), (4 * 784, 50 * 784), (784, 16384 * 784)]  # fewest, most pixels


# ---- 1. Sizes ----------------------------------------------------------------------------------------------
def easyr1_rule(width, height, fewest, most):
    """process_image of EasyR1 (b44b311): a factor that brings the area into bounds, cut to whole pixels."""
    for bound, outside in ((most, width * height > most), (fewest, width * height < fewest)):
        factor = math.sqrt(bound / (width * height)) if outside else 1
        width, height = int(width * factor), int(height * factor)
    return width, height


def qwen_vl_utils_rule(width, height, fewest, most):
    """smart_resize of qwen_vl_utils 0.0.14, where the area needs no change: it rounds."""
    assert fewest <= width * height <= most and max(width, height) <= 200 * min(width, height)
    return max(28, round(width / 28) * 28), max(28, round(height / 28) * 28)


def random_sizes(count):
    draw = random.Random(0)
    for i in range(count):
        width, height = [round(math.exp(draw.uniform(0, math.log(4000)))) for _ in range(2)]
        if i % 4 == 0:  # a strip
            width, height = height, min(4000, height * draw.randint(20, 200))
        yield width, height


def test_no_engine_changes_a_final_size():
    """Kills a single application of the rule: a strip is shrunk once more by the next who applies it."""
    strips = kept = 0
    for width, height in random_sizes(400):
        for fewest, most in BUDGETS:
            try:
                size = engines.final_size(width, height, fewest, most)
            except BadMedia:
                assert max(width, height) > 190 * min(width, height)
                continue
            kept += 1
            once = library_rule(height, width, 28, fewest, most)[::-1]
            strips += size != once
            assert library_rule(*size[::-1], 28, fewest, most)[::-1] == size
            assert easyr1_rule(*size, fewest, most) == qwen_vl_utils_rule(*size, fewest, most) == size
    assert kept > 1300 and 20 < strips < kept / 4, (kept, strips)


def test_a_budget_that_fits_no_size_is_said_and_does_not_stall():
    with pytest.raises(BadMedia, match="^a picture of 300 x 100 px: no multiples of 28 .*; crop it, or allow more"):
        engines.final_size(300, 100, 7056, 7056)


def test_the_formulas_are_not_idle():
    changed = [easyr1_rule(*library_rule(h, w, 28, 7056, 28224)[::-1], 7056, 28224) for w, h in ((640, 480), (5600, 28))]
    assert changed == [(168, 140), (1539, 18)]
    assert easyr1_rule(640, 480, 7056, 28224) == (193, 145)


# ---- 2. Files ----------------------------------------------------------------------------------------------
def draw(folder, name, size, mode="RGB", **options):
    """A noisy picture. options: of Pillow's save."""
    width, height = size
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 4), np.uint8)
    Image.fromarray(noise, "RGBA").convert("RGB" if mode in ("P", "L") else mode).convert(mode).save(folder / name, **options)
    return name


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # by 90 degrees
    return exif


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with rl.jsonl, whose questions are about pictures of all sorts."""
    folder = tmp_path_factory.mktemp("data")
    names = [draw(folder, "turned.jpg", (300, 120), exif=turned()), draw(folder, "clear.png", (90, 200), "RGBA"),
             draw(folder, "grey.png", (333, 211), "L"), draw(folder, "palette.gif", (60, 61), "P"),
             draw(folder, "tiny.png", (2, 3)), draw(folder, "strip.png", (1800, 10)),
             draw(folder, "profile.png", (84, 112), icc_profile=b"not a real one"),
             draw(folder, "key.png", (100, 100), transparency=(0, 0, 0))]
    names += [draw(folder, f"{i}.png", (w, h)) for i, (w, h) in enumerate(random_sizes(60))
              if w * h < 400_000 and max(w, h) < 190 * min(w, h)]
    rows = [{"id": f"q{i}", "question": f"What is in picture {i}?", "kind": "free", "answer": f"a thing {i}", "image": name,
             "raw": "not for a reward", "objects": ["thing"], "task": "free"} for i, name in enumerate(names)]
    rows[1].update(kind="choice", options=["red", "blue"], answer="B", question="Which? (A) red (B) blue", drawn=True)
    rows[2].update(kind="count", answer=3, grounding=False, question="How many <|im_end|> are \ud800 there?\u00e9")
    rows[3]["foils"] = []
    (folder / "rl.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(monkeypatch, *typed):
    monkeypatch.setattr(sys, "argv", ["engines", *map(str, typed)])
    engines.main()


@pytest.fixture
def exported(data, tmp_path, monkeypatch):
    def export(engine, *more):
        run(monkeypatch, "--engine", engine, "--data", data / "rl.jsonl", "--policy", ROOT / "tiny/base", "--out", tmp_path / "out", *more)
        path, = (tmp_path / "out").glob(f"rl-{engine}.*")
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path).to_pylist()
        return [json.loads(line) for line in path.read_text().splitlines()]
    return export


def test_the_written_picture_is_what_the_policy_sees(data, exported, tmp_path):
    """Through the library's processor, too. Kills: EXIF, alpha on black, a colour profile, the strip's first size."""
    rows = exported("easyr1")
    samples = read_samples(data / "rl.jsonl")
    assert len(rows) == len(samples) > 40
    processor = AutoProcessor.from_pretrained(ROOT / "tiny/base").image_processor
    once = 0
    for sample, row in zip(samples, rows):
        path, = row["images"]
        with Image.open(path) as written:
            assert written.mode == "RGB" and not written.info
            pixels = np.array(written)
        seen = load_media(sample.path).frames[0]
        if seen.size == written.size:
            once += 1
            assert np.array_equal(pixels, np.asarray(seen))
        verified, = load_media(path).frames
        assert np.array_equal(pixels, np.asarray(verified))
        theirs, plain = [processor(images=[Image.fromarray(pixels)], return_tensors="pt", do_resize=resize)
                         for resize in (True, False)]
        assert torch.equal(theirs["pixel_values"], plain["pixel_values"])
        assert (theirs["image_grid_thw"] * 14).tolist() == [[14, *pixels.shape[:2]]]
    assert len(samples) * .7 < once < len(samples)  # the rest are strips
    assert read_budget(tmp_path / "out") == dict(min_pixels=7056, image_pixels=28224, video_pixels=225792, max_frames=32)


ROW_OF = {"easyr1": lambda row: row["answer"], "verl": lambda row: row["reward_model"]["ground_truth"],
          "trl": lambda row: row["row"], "swift": lambda row: row["row"]}


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_the_row_that_reaches_the_reward_is_the_sample(engine, data, exported, tmp_path):
    """serve.py finds its file in --out. Kills a lost field, foils that are drawn anew, raw, an absolute path."""
    out = tmp_path / "out"
    for sample, row in zip(read_samples(data / "rl.jsonl"), exported(engine)):
        text = ROW_OF[engine](row)
        assert text == json.dumps(json.loads(text), sort_keys=True) and text.isascii()
        got = read_row(json.loads(text), [str(out)])
        assert got == replace(sample, path=got.path, raw="")
        assert Path(got.path).parent == out / "pictures" and json.loads(text)["image"].startswith("pictures/")
        picture = row["images"][0]["image"] if engine == "verl" else row["images"][0]
        assert picture == got.path and Path(picture).is_absolute()
        if engine == "verl":
            assert row["images"][0] | {"image": ""} == {"image": "", "min_pixels": 7056, "max_pixels": 28224}


def content_of(engine, row):
    """The user's message as the engine makes it of a row: parts for the chat template."""
    if engine == "trl":
        prepare = pytest.importorskip("trl.data_utils", reason="TRL is not installed").prepare_multimodal_messages
        return prepare(row["prompt"], images=row["images"])[0]["content"]
    chat = row.get("prompt") or row.get("messages")
    before, text = (chat[0]["content"] if chat else row["problem"]).split("<image>")
    assert before == ""
    return [{"type": "image"}, {"type": "text", "text": text}]


@pytest.mark.parametrize("engine", ["easyr1", "trl"])
def test_the_prompt_has_the_tokens_of_training_here(engine, data, exported, capsys):
    """A question cannot end the user's turn. Kills another prompt, a lost picture, a wrong longest length."""
    policy = P.load_policy(str(ROOT / "tiny/base"))
    rows = exported(engine)[:8]
    items = []
    for sample, row in zip(read_samples(data / "rl.jsonl"), rows):
        media = load_media(row["images"][0])
        items.append((media, P.prompt("tiny", "reason", question=sample.question)))
    prompts = P.encode_prompts(policy, items)
    for row, ids, mask in zip(rows, prompts.input_ids, prompts.mask):
        messages = [{"role": "user", "content": content_of(engine, row)}]
        chat = policy.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        picture = Image.open(row["images"][0])
        theirs = policy.processor(text=[chat], images=[picture], return_tensors="pt")["input_ids"][0]
        assert theirs.tolist() == ids[mask.bool()].tolist()
    said = int(capsys.readouterr().out.split("the longest prompt has ")[1].split()[0])
    assert said >= prompts.lengths().max() and said < 300
    cfg = engines.Config(policy=str(ROOT / "tiny/base"))
    asker = engines.Asker(cfg)
    texts = [asker.text(sample) for sample in read_samples(data / "rl.jsonl")[:8]]
    counted = [asker.count(text, media.frames[0].size) for text, (media, _) in zip(texts, items)]
    assert counted == prompts.lengths().tolist()


def test_the_files_are_read_by_datasets(data, exported, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    for engine, kind, ending in (("easyr1", "json", "jsonl"), ("verl", "parquet", "parquet"), ("trl", "json", "jsonl")):
        rows = exported(engine)
        read = datasets.load_dataset(kind, data_files=str(tmp_path / f"out/rl-{engine}.{ending}"), split="train",
                                     cache_dir=str(tmp_path / "cache"))
        assert [dict(row) for row in read] == rows


# ---- 3. What cannot be used --------------------------------------------------------------------------------
def write(folder, *rows):
    path = folder / "some.jsonl"
    path.write_text("".join(json.dumps({"question": "How many?", "answer": "2", "kind": "count"} | row) + "\n"
                            for row in rows))
    return path


def test_clips_stop_it_or_are_left_out_and_counted(data, tmp_path, monkeypatch, capsys):
    frames = [Image.new("RGB", (90, 90), (40 * i, 0, 0)) for i in range(3)]
    frames[0].save(data / "clip.gif", save_all=True, append_images=frames[1:])
    path = write(data, {"id": "p", "image": "tiny.png"}, {"id": "c", "video": "clip.gif"}, {"id": "g", "image": "clip.gif"})
    common = ["--data", path, "--policy", ROOT / "tiny/base", "--out", tmp_path / "o"]
    for engine, why in (("easyr1", "2 frames a second"), ("trl", "train blind"), ("verl", "other frames")):
        with pytest.raises(BadInput, match=f"some.jsonl: c is about a clip, as are 1 of 3 rows, .*{why}.*; --skip_clips"):
            run(monkeypatch, "--engine", engine, *common)
    assert not (tmp_path / "o").exists()
    run(monkeypatch, *common, "--skip_clips")
    shown = capsys.readouterr()
    assert "1 of 3 rows\nleft out: 1 about clips, 1 that cannot be used" in shown.out
    assert "left out: g: " in shown.err and "is an animation, and EasyR1 takes 2 frames" in shown.err


def test_damaged_files_and_marks_are_named_and_counted(data, tmp_path, monkeypatch, capsys):
    """EasyR1 would cut the question at <image> and count two pictures."""
    (data / "broken.png").write_bytes(b"no picture")
    marked = {"id": "m", "image": "tiny.png", "question": "Is this <image> red?"}
    path = write(data, {"id": "b", "image": "broken.png"}, marked, {"id": "p", "image": "tiny.png"})
    common = ["--data", path, "--policy", ROOT / "tiny/base", "--out", tmp_path / "o"]
    run(monkeypatch, *common)
    shown = capsys.readouterr()
    assert "left out: b: " in shown.err and "broken.png: not a readable picture" in shown.err
    assert "left out: m: its question holds <image>, where EasyR1 would look for another file" in shown.err
    assert "1 of 3 rows\nleft out: 0 about clips, 2 that cannot be used" in shown.out
    run(monkeypatch, "--engine", "trl", *common)  # cuts nothing
    assert "2 of 3 rows" in capsys.readouterr().out
    path = write(data, {"id": "b", "image": "broken.png"})
    with pytest.raises(BadInput, match="none of its 1 rows can be used; no data was written"):
        run(monkeypatch, *common)


def test_wrong_flags_are_one_line(data, tmp_path, monkeypatch):
    path = write(data, {"id": "p", "image": "tiny.png"})
    base = ["--data", path, "--policy", ROOT / "tiny/base", "--out", tmp_path / "o"]
    for typed, said in (
            (["--engine", "other"], "^--engine other: choose easyr1, verl, trl, swift$"),
            (["--out", tmp_path / "a@b"], "^--out .*a@b: EasyR1 takes what follows an @"),
            (["--data", tmp_path / "a@b.jsonl"], "^--data .*a@b.jsonl: EasyR1 takes what follows an @"),
            (["--out", tmp_path / "a,b"], "^--out .*a,b: serve.py --data takes a comma"),
            (["--policy", tmp_path / "none"], "^--policy .*none: no processor can be loaded from there"),
            (["--image_pixels", "39200"], "its processor would resize these pictures, of 7056 to 39200 pixels, to 7056 to 28224")):
        with pytest.raises(BadInput, match=said) as error:
            run(monkeypatch, *base, *typed)
        assert "\n" not in str(error.value)
    run(monkeypatch, *base, "--image_pixels", "14112")
    with pytest.raises(BadInput, match="--image_pixels 28224: .*o was made with 14112"):  # one folder, one budget
        run(monkeypatch, *base, "--image_pixels", "28224")
    run(monkeypatch, *base, "--engine", "verl")  # follows it
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
        ".lock", "argos.json", "pictures", "some-easyr1.jsonl", "some-verl.parquet"]
    assert len(list((tmp_path / "o/pictures").iterdir())) == 1


def test_the_7b_preset_sets_prompt_and_budget(data, tmp_path, monkeypatch):
    """Kills a preset without effect. The tiny processor would resize to its own sizes, so it is given another."""
    policy = P.load_policy(str(ROOT / "tiny/base"))
    policy.budget = dict(min_pixels=4 * 784, image_pixels=512 * 784, video_pixels=32 * 128 * 784, max_frames=32)
    P.save_policy(policy, tmp_path / "model")
    path = write(data, {"id": "p", "image": "turned.jpg"})
    run(monkeypatch, "--preset", "7b", "--data", path, "--policy", tmp_path / "model", "--out", tmp_path / "o")
    row = json.loads((tmp_path / "o/some-easyr1.jsonl").read_text())
    assert "Think first, then answer: <think>" in row["problem"] and row["problem"].startswith("<image>How many?\n\n")
    assert Image.open(row["images"][0]).size == (112, 308)  # upright
    assert Sample.from_row(json.loads(row["answer"]), tmp_path / "o").answer == "2"


# ---- 4. The page's sum -------------------------------------------------------------------------------------
DETECTOR = 1_037_681_242_112  # what detector_flop() counts, in half a minute: too long for a test


def test_the_pages_numbers_are_what_the_command_prints(monkeypatch, capsys):
    """Kills a sum, an assumption or a table that was changed in one of the two places."""
    monkeypatch.setattr(verifier_costs, "detector_flop", lambda: DETECTOR)
    monkeypatch.setattr(sys, "argv", ["verifier_costs"])
    verifier_costs.main()
    text, _, table = capsys.readouterr().out.partition("Seconds:\n")
    page = (ROOT / "benchmarks/engines.md").read_text()
    assert f"```\n{text}Seconds:\n```\n{table}\n" in page
