"""From a laptop to several GPUs by flags alone: presets, several processes, 4 bits, checkpointing, trackers, exports."""
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from runs.errors import BadInput
from runs.files import read_jsonl
from runs.settings import PRESETS, QWEN_7B, parse_config, pixel_budget, preset_arguments, vision_tokens
from verifier.media import load_media
import policy as P
from runs import processes
import train_grpo
import train_sft
from test_training import ROOT, finish, folder, start  # noqa: F401  (folder is the data fixture)


# ---- 1. Presets ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("script", [train_sft, train_grpo])
def test_a_preset_is_values_and_what_is_typed_wins(script):
    name = script.__name__
    read = lambda *words: parse_config(script.Config, "", preset_arguments(name, script.Config, list(words)))
    assert read() == read("--preset", "tiny") == script.Config()
    four, sixteen = read("--preset", "7b"), read("--preset=7b-bf16")
    assert four.dtype == "nf4" and four.checkpointing and sixteen.dtype == "bfloat16" and four.policy == QWEN_7B
    assert read("--preset", "7b", "--lora_rank", "8").lora_rank == read("--lora_rank", "8", "--preset", "7b").lora_rank == 8
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


def test_budgets_become_the_tokens_that_are_printed(folder):
    """The processor's own count of vision tokens, for a picture and a clip that fill the budget."""
    cfg = train_grpo.Config(image_pixels=10 * 784, video_pixels=6 * 5 * 784, max_frames=6, min_pixels=784)
    policy = P.load_policy(ROOT / "tiny/base")
    from PIL import Image
    picture = Image.effect_noise((900, 700), 80).convert("RGB")
    picture.save(folder / "large.png")
    others = [Image.effect_noise((600, 600), 80) for _ in range(9)]
    others[0].save(folder / "long.png", save_all=True, append_images=others[1:], duration=500)
    counts = []
    for path, kind in ((folder / "large.png", "image"), (folder / "long.png", "video")):
        ids = P.encode_prompts(policy, [(load_media(path, **pixel_budget(cfg)), "How many?")]).input_ids
        counts.append(int((ids == policy.tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>")).sum()))
    assert vision_tokens(cfg) == (10, 15) and 6 <= counts[0] <= 10 and counts[1] == 12  # 2 x 2 of 5 a frame, and 3 pairs


# ---- 2. Several processes ------------------------------------------------------------------------------------------------------
# Each prompt is sampled by itself with a seed of its own tokens: the same rollouts, whichever process draws them.
GRPO = """
import torch, policy as P, train_grpo
from runs.errors import run_main
plain, pad = P.sample, lambda x, width, v=0: torch.nn.functional.pad(x, (0, width - x.shape[1]), value=v)
def one_by_one(policy, prompts, group_size, *args, generator=None, **kwargs):
    seeds = (prompts.input_ids * prompts.mask).sum(1).tolist()
    parts = [plain(policy, prompts.select([b]), group_size, *args, generator=torch.Generator().manual_seed(seed), **kwargs)
             for b, seed in enumerate(seeds)]
    width = max(p.ids.shape[1] for p in parts)
    join = lambda name, v=0: torch.cat([pad(getattr(p, name), width, v) for p in parts])
    return P.Rollouts(join("ids", policy.tokenizer.pad_token_id), join("mask"), join("logprobs"), [t for p in parts for t in p.texts],
                      torch.cat([p.finished for p in parts]))
P.sample = one_by_one
run_main(train_grpo.main)
"""
SFT = "import train_sft; from runs.errors import run_main; run_main(train_sft.main)"


def launch(processes, code, folder, *flags):
    """As `accelerate launch` does on several GPUs, on the CPU: torchrun starts them, accelerate joins them (gloo)."""
    script = folder / f"run{processes}.py"
    script.write_text(code)
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), ACCELERATE_USE_CPU="true")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable] if processes == 1 else [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr",
                                                       "127.0.0.1", "--master_port", str(port)]
    return subprocess.Popen([*command, str(script), *map(str, flags)], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("code, flags", [
    (SFT, ["--data", "sft.jsonl", "--batch", 5, "--micro_batch", 2, "--epochs", 1, "--lora_rank", 4, "--warmup", 1]),
    (GRPO, ["--policy", ROOT / "tiny/teacher", "--data", "rl.jsonl", "--val", "val.jsonl", "--steps", 3, "--prompts", 3, "--group_size", 4,
            "--micro_batch", 4, "--eval_every", 3, "--eval_samples", 3, "--cards", 1, "--lora_rank", 4, "--updates", 2, "--beta", .01,
            "--judge", "base", "--temperature", 1.3])])
def test_two_processes_are_one(folder, tmp_path, code, flags):
    """Odd batches, unequal kept groups. Tolerance 1e-4 relative, 1e-6 absolute: float32 sums in another order. Kills a mean over
    processes instead of a sum, counts of one process only, and metrics of the main process alone."""
    flags = [folder / f if str(f).endswith(".jsonl") else f for f in flags]
    for process in [launch(n, code, tmp_path, *flags, "--out", tmp_path / str(n)) for n in (1, 2)]:
        finish(process)
    logs = [[row for _, row in read_jsonl(tmp_path / n / "metrics.jsonl") if row["kind"] != "config"] for n in "12"]
    assert len(logs[0]) == len(logs[1]) >= 3
    for one, two in zip(*logs):
        for key, value in one.items():
            if key not in ("seconds", "sampler_gap") and value is not None:
                assert two[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-6)), key
    assert any(row.get("grad_norm") for row in logs[0])
    one, two = (torch.load(tmp_path / n / "state.pt", weights_only=True)["weights"] for n in "12")
    assert all(torch.allclose(one[k], two[k], atol=2e-4) for k in one)  # AdamW turns a gradient near 0 into a step of either sign


# ---- 3. Exports ----------------------------------------------------------------------------------------------------------------
def random_adapter(policy):
    torch.manual_seed(1)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=.05)
    return policy


def scores(*policies):
    ids, mask = P.encode_completions(policies[0], ["<think>I see that it moves"])
    with torch.no_grad():
        return [P.token_logprobs(p, P.encode_prompts(p, [(None, "Which shape moves? Think and point.")]), 1, ids, mask)[0] for p in policies]


def test_an_adapter_loads_with_peft_alone(tmp_path):
    """What a person does who has only peft and transformers."""
    policy = random_adapter(P.load_policy(ROOT / "tiny/base", lora_rank=4))
    P.save_policy(policy, tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(ROOT / "tiny/base", dtype=torch.float32), tmp_path / "adapter")
    ids = torch.tensor([[70, 80, 90, 65]])
    with torch.no_grad():
        assert torch.equal(theirs(input_ids=ids).logits, policy.model(input_ids=ids).logits)


def test_four_bits_are_merged_through_bfloat16(tmp_path):
    """Kills a merge into the 4-bit weights, which rounds the adapter away, and one that forgets it."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    policy = random_adapter(P.load_policy(ROOT / "tiny/base", lora_rank=4, dtype="nf4"))
    P.save_policy(policy, tmp_path / "adapter")
    P.save_policy(policy, tmp_path / "merged", merged=True)
    merged, plain = P.load_policy(tmp_path / "merged", dtype="bfloat16"), P.load_policy(ROOT / "tiny/base", dtype="bfloat16")
    adapted = P.load_policy(ROOT / "tiny/base", adapter=tmp_path / "adapter", dtype="bfloat16")
    got, right, without = scores(merged, adapted, plain)
    assert (got - right).abs().mean() < .1 * (without - right).abs().mean()
    assert getattr(policy.core, "is_loaded_in_4bit", False)  # the original is untouched
    assert not [n for n, p in merged.model.named_parameters() if p.dtype != torch.bfloat16]


# ---- 4. The rest ---------------------------------------------------------------------------------------------------------------
def test_four_bits_train_from_start_to_end(folder, tmp_path):
    """train_grpo.py with the 7b preset's own machinery (NF4, checkpointing, parts of groups, one judge) on the tiny teacher."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    flags = ["--policy", ROOT / "tiny/teacher", "--data", folder / "rl.jsonl", "--val", folder / "val.jsonl", "--dtype", "nf4", "--checkpointing",
             "True", "--judge", "base", "--pointer", "base", "--steps", 2, "--prompts", 2, "--group_size", 4, "--micro_batch", 3,
             "--sample_batch", 4, "--eval_every", 0, "--lora_rank", 4, "--beta", .01, "--temperature", 1.3, "--out", tmp_path / "out"]
    out, _ = finish(start("train_grpo.py", *flags))
    rows = [row for _, row in read_jsonl(tmp_path / "out/metrics.jsonl") if row["kind"] == "train"]
    assert any(row["grad_norm"] for row in rows) and "at most 36 tokens" in out
    assert max(row["sampler_gap"] or 0 for row in rows) < .2  # bfloat16
    assert P.load_policy(tmp_path / "out/merged").core.dtype == torch.float32 and (tmp_path / "out/adapter").exists()


@pytest.mark.parametrize("kind", train_grpo.LOSSES)
def test_checkpointing_and_small_micro_batches_change_nothing(folder, tmp_path, monkeypatch, capsys, kind):
    """One step with the group's shared prompt, and with checkpointing and 3 of 4 rollouts at a time: the same loss and gradient.
    bnpo averages within a micro-batch by its definition, so there only checkpointing differs."""
    rows = []
    for name, more in (("a", []), ("b", ["--checkpointing", "True", "--micro_batch", "64" if kind == "bnpo" else "3"])):
        words = ["--policy", ROOT / "tiny/teacher", "--data", folder / "rl.jsonl", "--val", folder / "val.jsonl", "--steps", 1, "--prompts", 3,
                 "--group_size", 4, "--eval_every", 0, "--lora_rank", 4, "--temperature", 1.3, "--loss", kind, "--merge", "False", "--out", tmp_path / name, *more]
        monkeypatch.setattr(sys, "argv", ["train_grpo.py", *map(str, words)])
        train_grpo.main()
        rows.append([row for _, row in read_jsonl(tmp_path / name / "metrics.jsonl")][-1])
    assert rows[0]["grad_norm"] > .01
    for key in ("loss", "grad_norm", "entropy"):
        assert rows[1][key] == pytest.approx(rows[0][key], rel=1e-3, abs=1e-5), key
    assert not (tmp_path / "a/merged").exists() and (tmp_path / "a/adapter").exists()


def test_long_examples_are_left_out_and_counted(folder, tmp_path, monkeypatch, capsys):
    words = ["--data", folder / "sft.jsonl", "--batch", 4, "--epochs", 1, "--lora_rank", 4, "--merge", "False"]
    lengths = sorted(len(P.load_policy(ROOT / "tiny/base").tokenizer(text)["input_ids"]) for _, _, text in train_sft.read_chats(folder / "sft.jsonl"))
    middle = lengths[8]
    monkeypatch.setattr(sys, "argv", ["train_sft.py", *map(str, words), "--max_new_tokens", str(middle), "--out", str(tmp_path / "a")])
    train_sft.main()
    assert f"{sum(n >= middle for n in lengths)} of 16 examples" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["train_sft.py", *map(str, words), "--max_new_tokens", "2", "--out", str(tmp_path / "b")])
    with pytest.raises(BadInput, match="--max_new_tokens 2"):
        train_sft.main()


def test_tensorboard_gets_every_number(folder, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    finish(start("train_sft.py", "--data", folder / "sft.jsonl", "--batch", 8, "--epochs", 1, "--lora_rank", 4, "--merge", "False", "--tracker",
                 "tensorboard", "--out", tmp_path / "out"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(next((tmp_path / "out").rglob("events.out.tfevents.*")).parent))
    events.Reload()
    rows = [row for _, row in read_jsonl(tmp_path / "out/metrics.jsonl") if row["kind"] == "train"]
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx([row["loss"] for row in rows])
    assert "train/seconds/update" in events.Tags()["scalars"]


@pytest.mark.parametrize("flags, named", [(["--tracker", "abacus"], "--tracker abacus"), (["--dtype", "nf4", "--lora_rank", 0], "too coarse"),
                                          (["--sample_batch", 0], "--sample_batch 0"), (["--preset", "9b"], "--preset 9b"),
                                          (["--dry_run", "--policy", "nowhere"], "nowhere")])
def test_bad_settings_are_one_clear_line(tmp_path, monkeypatch, flags, named):
    monkeypatch.setattr(sys, "argv", ["train_grpo.py", "--out", str(tmp_path / "out"), *map(str, flags)])
    with pytest.raises(BadInput, match=named) as error:
        train_grpo.main()
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_tracker_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["train_grpo.py", "--tracker", "wandb", "--out", str(tmp_path)])
    with pytest.raises(BadInput, match="pip install wandb"):
        train_grpo.main()
