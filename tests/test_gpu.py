"""What only a GPU can show; skipped with a reason where there is none. The 7B: benchmark_gpu.py."""
import json
import os
import subprocess
import sys

import pytest
import torch

from runs.files import read_jsonl
from verifier.media import load_media
from verifier.samples import read_samples
import policy as P
import benchmark_gpu
from test_benchmark_gpu import undone  # noqa: F401
from test_training import ROOT, finish, folder  # noqa: F401  (folder is the data fixture)

GPUS = torch.cuda.device_count()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="no GPU here")]
GRPO = ["--policy", ROOT / "tiny/teacher", "--steps", 2, "--prompts", 4, "--group_size", 4, "--eval_every", 2,
        "--eval_samples", 4, "--cards", 1, "--lora_rank", 4, "--temperature", 1.3, "--beta", .01]


def rows(path):
    return [row for _, row in read_jsonl(path / "metrics.jsonl") if row["kind"] == "train"]


def test_logits_are_those_of_the_cpu(folder):  # noqa: F811
    """float32 on both, without TF32: the same model to rounding, prompts padded, pictures and clips."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    samples, found = read_samples(folder / "rl.jsonl")[:8], []
    for device in ("cpu", "cuda:0"):
        policy = P.load_policy(ROOT / "tiny/teacher", device=device)
        items = [(load_media(s.path), P.prompt("tiny", "reason", question=s.question)) for s in samples]
        prompts = P.encode_prompts(policy, items)
        ids, mask = P.encode_completions(policy, ["<think>I see that it moves"] * len(samples))
        with torch.no_grad():
            found.append(P.token_logprobs(policy, prompts, 1, ids, mask)[0].cpu())
    assert torch.allclose(*found, atol=1e-3)


def test_fast_paths_are_exact(undone, capsys):  # noqa: F811
    """What test_fast.py shows on a CPU, here with the GPU's kernels, and with graphs that are captured anew."""
    benchmark_gpu.exact(tiny=False)
    said = capsys.readouterr().out
    assert "adapter changed: sampler beside scorer" in said and "BAD" not in said and "FAILED" not in said


@pytest.mark.parametrize("dtype, gap", [("float32", 1e-3), ("bfloat16", .5), ("nf4", .5)])
def test_grpo_steps_on_the_gpu(folder, tmp_path, dtype, gap):  # noqa: F811
    """Two steps in each number format: finite, something learned, sampler and trainer near each other, memory within
    the ledger."""
    if dtype == "nf4":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    flags = [*GRPO, "--data", folder / "rl.jsonl", "--val", folder / "val.jsonl", "--dtype", dtype,
             "--judge", "base", "--out", tmp_path / "out"]
    env = {"CUDA_VISIBLE_DEVICES": "0"} | os.environ
    process = subprocess.Popen([sys.executable, str(ROOT / "train_grpo.py"), *map(str, flags)], cwd=ROOT, env=env,
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, _ = finish(process)
    for row in rows(tmp_path / "out"):
        assert row["sampler_gap"] is None or row["sampler_gap"] < gap
        assert set(row["memory_gb"]) == {"sample", "verify", "update"} and max(row["memory_gb"].values()) < 4
    assert any(row["grad_norm"] for row in rows(tmp_path / "out"))


@pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs, here are {GPUS}")
def test_accelerate_launches_on_two_gpus(folder, tmp_path):  # noqa: F811
    """The command of the README. (That two processes give one's losses, test_processes.py tests on the CPU.)"""
    flags = [*GRPO, "--data", folder / "rl.jsonl", "--val", folder / "val.jsonl", "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
               str(ROOT / "train_grpo.py")]
    done = subprocess.run([*command, *map(str, flags)], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    config = json.loads((tmp_path / "out/metrics.jsonl").read_text().splitlines()[0])
    assert config["num_processes"] == 2 and len(rows(tmp_path / "out")) == 2
