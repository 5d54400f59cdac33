"""runs/settings.py: presets are values, what is typed wins, and flags that cost memory or time change nothing else."""
import sys

import pytest
import torch
from PIL import Image

from runs.errors import BadInput
from runs.files import read_jsonl
from runs.settings import PRESETS, QWEN_7B, parse_config, pixel_budget, preset_arguments, vision_tokens
from verifier.media import load_media
import policy as P
import train_grpo
import train_sft
from test_training import ROOT, finish, folder, start  # noqa: F401  (folder is the data fixture)


# ---- 1. Presets --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("script", [train_sft, train_grpo])
def test_a_preset_is_values_and_what_is_typed_wins(script):
    def read(*words):
        return parse_config(script.Config, "", preset_arguments(script.__name__, script.Config, list(words)))

    assert read() == read("--preset", "tiny") == script.Config()
    four, sixteen = read("--preset", "7b"), read("--preset=7b-bf16")
    assert four.dtype == "nf4" and four.checkpointing and sixteen.dtype == "bfloat16" and four.policy == QWEN_7B
    for words in (["--preset", "7b", "--lora_rank", "8"], ["--lora_rank", "8", "--preset", "7b"]):
        assert read(*words).lora_rank == 8
    assert vars(four) | {"preset": "", "dtype": ""} == vars(sixteen) | {"preset": "", "dtype": ""}
    with pytest.raises(BadInput, match="--preset 70b"):
        read("--preset", "70b")


def test_no_preset_names_a_flag_that_no_script_has():
    known = set(train_sft.Config.__dataclass_fields__) | set(train_grpo.Config.__dataclass_fields__)
    for preset in PRESETS.values():
        for script, module in (("train_sft", train_sft), ("train_grpo", train_grpo)):
            assert set(preset.get(script, {})) <= set(module.Config.__dataclass_fields__)
        assert set(preset.get("all", {})) <= known
    assert PRESETS["7b"]["curate"]["made_up"] == 0


def test_the_values_of_the_presets_and_of_the_shared_flags():
    """They are what runs are compared by, and some are written as products."""
    cfg = train_grpo.Config()
    assert (cfg.min_pixels, cfg.image_pixels, cfg.video_pixels, cfg.max_frames) == (7056, 28224, 225792, 32)
    assert vision_tokens(cfg) == (36, 144)  # the example of vision_tokens
    seven = PRESETS["7b"]["all"]
    assert (seven["min_pixels"], seven["image_pixels"], seven["video_pixels"]) == (3136, 401408, 3211264)
    assert PRESETS["7b-bf16"] == PRESETS["7b"] | {"all": seven | {"dtype": "bfloat16"}}


def test_budgets_become_the_tokens_that_are_printed(folder):  # noqa: F811
    """The processor's own count of vision tokens, for a picture and a clip that fill the budget."""
    cfg = train_grpo.Config(image_pixels=10 * 784, video_pixels=6 * 5 * 784, max_frames=6, min_pixels=784)
    policy = P.load_policy(ROOT / "tiny/base")
    picture = Image.effect_noise((900, 700), 80).convert("RGB")
    picture.save(folder / "large.png")
    others = [Image.effect_noise((600, 600), 80) for _ in range(9)]
    others[0].save(folder / "long.png", save_all=True, append_images=others[1:], duration=500)
    counts = []
    for path, kind in ((folder / "large.png", "image"), (folder / "long.png", "video")):
        ids = P.encode_prompts(policy, [(load_media(path, **pixel_budget(cfg)), "How many?")]).input_ids
        counts.append(int((ids == policy.tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>")).sum()))
    assert vision_tokens(cfg) == (10, 15) and 6 <= counts[0] <= 10
    assert counts[1] == 12  # 2 x 2 of 5 a frame, and 3 pairs


# ---- 2. Flags that change memory and time, not results -----------------------------------------------------
def test_four_bits_train_from_start_to_end(folder, tmp_path):  # noqa: F811
    """train_grpo.py with the 7b preset's machinery (NF4, checkpointing, parts of groups, one judge), tiny."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    flags = ["--policy", ROOT / "tiny/teacher", "--data", folder / "rl.jsonl", "--val", folder / "val.jsonl",
             "--dtype", "nf4", "--checkpointing", "True", "--judge", "base", "--pointer", "base",
             "--steps", 2, "--prompts", 2, "--group_size", 4, "--micro_batch", 3, "--sample_batch", 4,
             "--eval_every", 0, "--lora_rank", 4, "--beta", .01, "--temperature", 1.3, "--out", tmp_path / "out"]
    out, _ = finish(start("train_grpo.py", *flags))
    rows = [row for _, row in read_jsonl(tmp_path / "out/metrics.jsonl") if row["kind"] == "train"]
    assert any(row["grad_norm"] for row in rows) and "at most 36 tokens" in out
    assert max(row["sampler_gap"] or 0 for row in rows) < .2  # bfloat16
    assert P.load_policy(tmp_path / "out/merged").core.dtype == torch.float32
    assert (tmp_path / "out/adapter").exists()


@pytest.mark.parametrize("kind", train_grpo.LOSSES)
def test_checkpointing_and_small_micro_batches_change_nothing(
        folder, tmp_path, monkeypatch, capsys, kind):  # noqa: F811
    """One step with the group's shared prompt, and with checkpointing and 3 of 4 rollouts at a time: the same loss
    and gradient. bnpo averages within a micro-batch by its definition, so there only checkpointing differs."""
    small = "64" if kind == "bnpo" else "3"
    rows = []
    for name, more in (("a", []), ("b", ["--checkpointing", "True", "--micro_batch", small])):
        words = ["--policy", ROOT / "tiny/teacher", "--data", folder / "rl.jsonl", "--val", folder / "val.jsonl",
                 "--steps", 1, "--prompts", 3, "--group_size", 4, "--eval_every", 0, "--lora_rank", 4,
                 "--temperature", 1.3, "--loss", kind, "--merge", "False", "--out", tmp_path / name, *more]
        monkeypatch.setattr(sys, "argv", ["train_grpo.py", *map(str, words)])
        train_grpo.main()
        rows.append([row for _, row in read_jsonl(tmp_path / name / "metrics.jsonl")][-1])
    assert rows[0]["grad_norm"] > .01
    for key in ("loss", "grad_norm", "entropy"):
        assert rows[1][key] == pytest.approx(rows[0][key], rel=1e-3, abs=1e-5), key
    assert not (tmp_path / "a/merged").exists() and (tmp_path / "a/adapter").exists()


def test_long_examples_are_left_out_and_counted(folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    def train(out, longest):
        words = ["--data", folder / "sft.jsonl", "--batch", 4, "--epochs", 1, "--lora_rank", 4, "--merge", "False",
                 "--max_new_tokens", longest, "--out", tmp_path / out]
        monkeypatch.setattr(sys, "argv", ["train_sft.py", *map(str, words)])
        train_sft.main()

    tokenizer = P.load_policy(ROOT / "tiny/base").tokenizer
    texts = [text for _, _, text in train_sft.read_chats(folder / "sft.jsonl")]
    lengths = sorted(len(tokenizer(text)["input_ids"]) for text in texts)
    middle = lengths[8]
    train("a", middle)
    assert f"{sum(n >= middle for n in lengths)} of 16 examples" in capsys.readouterr().out
    with pytest.raises(BadInput, match="--max_new_tokens 2"):
        train("b", 2)


# ---- 3. Bad settings ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("flags, named", [
    (["--tracker", "abacus"], "--tracker abacus"), (["--dtype", "nf4", "--lora_rank", 0], "too coarse"),
    (["--sample_batch", 0], "--sample_batch 0"), (["--preset", "9b"], "--preset 9b"),
    (["--dry_run", "--policy", "nowhere"], "nowhere")])
def test_bad_settings_are_one_clear_line(tmp_path, monkeypatch, flags, named):
    monkeypatch.setattr(sys, "argv", ["train_grpo.py", "--out", str(tmp_path / "out"), *map(str, flags)])
    with pytest.raises(BadInput, match=named) as error:
        train_grpo.main()
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
