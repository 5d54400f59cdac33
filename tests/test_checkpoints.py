"""runs/checkpoints.py: a checkpoint keeps the pixels it was trained with, and every script follows them or refuses.

The oracle is the library's plain path: AutoProcessor.from_pretrained(folder)(images=...), as a server or another
trainer calls it. (Weights that do not fit: tests/test_policy.py, tests/test_names.py, tests/test_judges.py.)
"""
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

import curate
import evaluate
import policy as P
import train_grpo
import train_sft
from benchmarks import embodied, libero
from benchmarks import run as paper_benchmarks
from runs.checkpoints import add_older_names, budget_of, follow_budget, read_budget
from runs.errors import BadInput
from verifier.media import load_media

torch.set_num_threads(1)
BASE = str(Path(__file__).parent.parent / "tiny/base")
BUDGET = dict(min_pixels=4 * 784, image_pixels=50 * 784, video_pixels=8 * 20 * 784, max_frames=8)


def trained(folder, budget=BUDGET, lora_rank=0):
    """A checkpoint that was "trained" with this budget."""
    policy = P.load_policy(BASE, lora_rank=lora_rank)
    policy.budget = dict(budget)
    P.save_policy(policy, folder)
    return folder


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_the_librarys_plain_path_sees_what_training_saw(lora_rank, tmp_path):
    """Kills a processor that keeps the base's sizes. Odd sizes; too small, too large, and clips of max_frames."""
    folder = trained(tmp_path / "model", lora_rank=lora_rank)
    processor = AutoProcessor.from_pretrained(folder)
    sizes = dict(min_pixels=BUDGET["min_pixels"], max_pixels=BUDGET["image_pixels"],
                 video_pixels=BUDGET["video_pixels"], max_frames=BUDGET["max_frames"])
    for width, height in ((333, 517), (41, 23), (1201, 97), (200, 200), (84, 84), (900, 601)):
        image = Image.new("RGB", (width, height))
        image.save(tmp_path / "a.png")
        ours, = load_media(tmp_path / "a.png", **sizes).frames
        theirs = processor.image_processor(images=[image], return_tensors="pt")["image_grid_thw"]
        assert (theirs * 14).tolist() == [[14, ours.height, ours.width]]
    for width, height in ((300, 201), (1000, 400), (30, 50)):
        frames = [Image.fromarray(np.full((height, width, 3), 9 * k, np.uint8)) for k in range(8)]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=500)
        ours = load_media(tmp_path / "a.gif", **sizes).frames[0]
        theirs = processor.video_processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
        assert (theirs["video_grid_thw"] * 14).tolist() == [[4 * 14, ours.height, ours.width]]


def test_another_trainers_copy_and_a_merged_adapter_keep_the_budget(tmp_path):
    folder = trained(tmp_path / "a")
    assert read_budget(folder) == BUDGET and read_budget(BASE) is None
    policy = P.load_policy(folder, lora_rank=4)
    assert policy.budget == BUDGET and policy.processor.image_processor.size["longest_edge"] == 50 * 784
    P.save_policy(policy, tmp_path / "adapter")
    P.save_policy(policy, tmp_path / "merged", merged=True)
    assert read_budget(tmp_path / "adapter") == read_budget(tmp_path / "merged") == BUDGET
    assert P.load_policy(BASE, adapter=tmp_path / "adapter").budget == BUDGET  # as the adapter was trained
    assert P.load_policy(BASE).budget is None


def test_training_writes_its_own_budget(tmp_path):
    cfg = SimpleNamespace(**BUDGET, out=str(tmp_path), merge=True, lora_rank=0)
    accelerator = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None, end_training=lambda: None,
                                  print=lambda text: None)
    P.finish(accelerator, cfg, P.load_policy(BASE), trained=True)
    assert read_budget(tmp_path / "merged") == budget_of(cfg) == BUDGET


def other(tmp_path):
    return trained(tmp_path / "other", BUDGET | dict(image_pixels=60 * 784))


def test_flags_that_nobody_typed_follow_and_others_must_agree(tmp_path, monkeypatch, capsys):
    folder = trained(tmp_path / "model")
    cfg = SimpleNamespace(min_pixels=9 * 784, image_pixels=36 * 784, video_pixels=BUDGET["video_pixels"], max_frames=8)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--min_pixels", "3136", "--models", "x"])
    cfg.min_pixels = 3136
    follow_budget(cfg, BASE, folder, folder)
    assert vars(cfg) == BUDGET and f"--image_pixels 39200, as {folder} was made" in capsys.readouterr().err
    for typed in (["--image_pixels", "784"], ["--image_pixels=784"], ["--image_p", "784"], ["--image-pixels", "784"]):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *typed])
        cfg.image_pixels = 784
        with pytest.raises(BadInput, match=f"^--image_pixels 784: {folder} was made with 39200, .*; leave the flag"):
            follow_budget(cfg, folder)
    monkeypatch.setattr(sys, "argv", ["evaluate.py"])
    with pytest.raises(BadInput, match="image_pixels 47040, .* with 39200; use them in runs of their own"):
        follow_budget(cfg, folder, other(tmp_path))
    (folder / "argos.json").unlink()
    cfg.image_pixels = 784
    follow_budget(cfg, folder)
    assert cfg.image_pixels == 784


@pytest.mark.parametrize("text", ["", "[]", "{}", "\xff", "[" * 100_000, '{"min_pixels": 1}', json.dumps(
    BUDGET | dict(max_frames=0)), json.dumps(BUDGET | dict(max_frames=True)), json.dumps(BUDGET | dict(x=1))],
    ids=range(9))
def test_a_damaged_budget_is_one_line(text, tmp_path):
    (tmp_path / "argos.json").write_text(text, encoding="latin-1")
    with pytest.raises(BadInput, match=f"^{tmp_path}/argos.json: is no pixel budget .*; copy it again") as error:
        read_budget(tmp_path)
    assert "\n" not in str(error.value)


def test_a_name_of_the_hub_asks_no_network(monkeypatch):
    import socket
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail(f"asked the network: {a}"))
    for name in ("Qwen/Qwen2.5-VL-7B-Instruct", "/nowhere/at/all", "a//b", ""):
        assert read_budget(name) is None


@pytest.mark.parametrize("script, flag", [
    (curate, "--teacher"), (train_sft, "--policy"), (train_grpo, "--policy"), (evaluate, "--models"),
    (paper_benchmarks, "--model"), (embodied, "--model"), (libero, "--policy")])
def test_every_script_refuses_pixels_that_its_model_never_saw(script, flag, tmp_path, monkeypatch):
    folder = trained(tmp_path / "model")
    model = f"x={folder}" if flag == "--models" else str(folder)
    more = {libero: ["--do", "tokens"], paper_benchmarks: ["--data", str(tmp_path)]}.get(script, [])
    typed = [script.__name__, flag, model, "--out", str(tmp_path / "out"), "--max_frames", "4", *more]
    monkeypatch.setattr(sys, "argv", typed)
    with pytest.raises(BadInput, match=f"^--max_frames 4: {folder} was made with 8, "):
        script.main()


def test_curated_data_states_its_pixels_and_sft_follows(tmp_path, monkeypatch):
    """Its responses hold points. Kills an SFT that shows the pictures in another size."""
    curate.write_budget(tmp_path, BUDGET)
    typed = ["train_sft", "--data", str(tmp_path / "sft.jsonl"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*typed, "--max_frames", "4"])
    with pytest.raises(BadInput, match=f"^--max_frames 4: {tmp_path} was made with 8, "):
        train_sft.main()
    seen = []
    monkeypatch.setattr(train_sft, "work", lambda cfg, accelerator: seen.append(budget_of(cfg)))
    monkeypatch.setattr(sys, "argv", typed)
    train_sft.main()
    assert seen == [BUDGET]


# ---- Version 4 of the library ------------------------------------------------------------------------------
SIZES = ((333, 517), (41, 23), (1201, 97), (84, 84), (900, 601))


def ask(folder):
    """What a version of the library makes of a folder: text, pixels, logits, greedy tokens."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    content = [{"type": "image"}, {"type": "text", "text": "How many red squares? Think and point. \u00e9 \u6570"}]
    chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    colors = np.random.default_rng(0).integers(0, 256, (131, 97, 3), np.uint8)
    inputs = processor(text=[chat], images=[Image.fromarray(colors)], return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
        tokens = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    pictures = [Image.new("RGB", size) for size in SIZES]
    own = AutoTokenizer.from_pretrained(folder)
    return {"ids": inputs["input_ids"], "pixels": inputs["pixel_values"], "logits": logits, "tokens": tokens,
            "own ids": torch.tensor([own(chat)["input_ids"]]), "text": own.batch_decode(tokens),
            "sizes": processor.image_processor(images=pictures, return_tensors="pt")["image_grid_thw"]}


VERSION_4 = """
import sys, numpy as np, torch, transformers
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
assert transformers.__version__.startswith("4."), transformers.__version__
torch.set_num_threads(1)
folder, out, again, code = sys.argv[1:]
exec(code)
torch.save(ask(folder), out)
AutoModelForImageTextToText.from_pretrained(folder).save_pretrained(again)
"""


@pytest.fixture
def merged(tmp_path):
    """merged/ of a trained adapter, and beside it the same as the library alone would have written it."""
    policy = P.load_policy(BASE, lora_rank=4)
    policy.budget = dict(BUDGET)
    for name, p in P.trainable(policy).items():
        p.data.normal_(std=.05, generator=torch.Generator().manual_seed(len(name)))
    P.save_policy(policy, tmp_path / "merged", merged=True)
    model = P.merge(policy).model
    model.save_pretrained(tmp_path / "plain")
    policy.processor.save_pretrained(tmp_path / "plain")
    return tmp_path / "merged"


def same(one, other, exactly=True):
    assert one["text"] == other["text"]
    for name in ("ids", "own ids", "tokens"):
        assert one[name].tolist() == other[name].tolist()
    tolerance = {} if not exactly else dict(rtol=0, atol=0)
    torch.testing.assert_close(one["logits"], other["logits"], **tolerance)


def test_older_names_change_nothing_for_this_version(merged):
    """Kills names that version 5 takes for something else: rope_scaling goes before rope_parameters there."""
    plain = merged.with_name("plain")
    ours, theirs = [AutoConfig.from_pretrained(folder).to_dict() | {"_name_or_path": ""} for folder in (merged, plain)]
    assert ours["text_config"].pop("architectures") == ours["architectures"]  # nothing of this version reads it there
    assert theirs["text_config"].pop("architectures") is None
    assert ours == theirs and ours["text_config"]["rope_parameters"]["rope_theta"] == 1000
    assert type(AutoTokenizer.from_pretrained(merged)) is type(AutoTokenizer.from_pretrained(plain))
    written = [json.loads((folder / "config.json").read_text()) for folder in (merged, plain)]
    assert written[0]["text_config"].pop("architectures") == written[0]["architectures"]
    assert written[0]["text_config"].pop("rope_theta") == 1000
    assert written[0]["text_config"].pop("rope_scaling") == {"rope_type": "default", "mrope_section": [4, 6, 6]}
    assert written[0] == written[1]
    same(ask(merged), ask(plain))


@pytest.mark.parametrize("config", [{}, {"text_config": {"rope_parameters": None}}, {"architectures": ["Other"],
                                    "text_config": {"rope_parameters": {"full_attention": {"rope_theta": 1.}}}}])
def test_a_model_of_another_kind_is_saved_as_it_is(config, tmp_path):
    """Kills a KeyError at the end of a long training."""
    for name, content in (("config.json", config), ("tokenizer_config.json", {})):
        (tmp_path / name).write_text(json.dumps(content))
    add_older_names(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == config


@pytest.mark.skipif("ARGOS_TRANSFORMERS4" not in os.environ, reason="ARGOS_TRANSFORMERS4 names no folder with it: "
                    "tests/requirements-transformers4.txt")
def test_version_4_loads_merged_and_what_it_saves_loads_here(merged, tmp_path):
    """As EasyR1 does before and after its training. Kills a merged/ without its older names."""
    import inspect
    where = os.environ["ARGOS_TRANSFORMERS4"]
    environment = os.environ | {"PYTHONPATH": where, "HF_HUB_OFFLINE": "1"}
    code = f"SIZES = {SIZES}\n{inspect.getsource(ask)}"
    made = subprocess.run([sys.executable, "-c", VERSION_4, merged, tmp_path / "v4.pt", tmp_path / "again", code],
                          env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-2000:]
    here, there = ask(merged), torch.load(tmp_path / "v4.pt")
    same(here, there, exactly=False)
    assert here["sizes"].tolist() == there["sizes"].tolist()
    torch.testing.assert_close(here["pixels"], there["pixels"], rtol=0, atol=.02)  # a step of 8 bits is .015
    AutoProcessor.from_pretrained(merged).save_pretrained(tmp_path / "again")  # the tiny tokenizer is not Qwen's
    same(here, ask(tmp_path / "again"), exactly=False)
