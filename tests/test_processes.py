"""runs/processes.py: two processes are one, and a tracker gets every number."""
import os
import socket
import subprocess
import sys

import pytest
import torch

from runs import processes
from runs.errors import BadInput
from runs.files import read_jsonl
import train_grpo
from test_training import ROOT, finish, folder, start  # noqa: F401  (folder is the data fixture)


# ---- 1. Two processes --------------------------------------------------------------------------------------
# Each prompt is sampled by itself with a seed of its own tokens: the same rollouts, whichever process draws them.
GRPO = """
import torch, policy as P, train_grpo
from runs.errors import run_main

plain = P.sample


def pad(x, width, value=0):
    return torch.nn.functional.pad(x, (0, width - x.shape[1]), value=value)


def one_by_one(policy, prompts, group_size, *args, generator=None, **kwargs):
    parts = []
    for b, seed in enumerate((prompts.input_ids * prompts.mask).sum(1).tolist()):
        own = torch.Generator().manual_seed(seed)
        parts.append(plain(policy, prompts.select([b]), group_size, *args, generator=own, **kwargs))
    width = max(p.ids.shape[1] for p in parts)
    return P.Rollouts(
        ids=torch.cat([pad(p.ids, width, policy.tokenizer.pad_token_id) for p in parts]),
        mask=torch.cat([pad(p.mask, width) for p in parts]),
        logprobs=torch.cat([pad(p.logprobs, width) for p in parts]),
        texts=[text for p in parts for text in p.texts],
        finished=torch.cat([p.finished for p in parts]))


P.sample = one_by_one
run_main(train_grpo.main)
"""
SFT = "import train_sft; from runs.errors import run_main; run_main(train_sft.main)"
SFT_FLAGS = ["--data", "sft.jsonl", "--batch", 5, "--micro_batch", 2, "--epochs", 1, "--lora_rank", 4, "--warmup", 1]
GRPO_FLAGS = ["--policy", ROOT / "tiny/teacher", "--data", "rl.jsonl", "--val", "val.jsonl", "--steps", 3,
              "--prompts", 3, "--group_size", 4, "--micro_batch", 4, "--eval_every", 3, "--eval_samples", 3,
              "--cards", 1, "--lora_rank", 4, "--updates", 2, "--beta", .01, "--judge", "base", "--temperature", 1.3]


def launch(number, code, folder, *flags):  # noqa: F811
    """As `accelerate launch` does on several GPUs, on the CPU: torchrun starts them, accelerate joins them (gloo)."""
    script = folder / f"run{number}.py"
    script.write_text(code)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=path, ACCELERATE_USE_CPU="true")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable]
    if number > 1:
        command += ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1",
                    "--master_port", str(port)]
    return subprocess.Popen([*command, str(script), *map(str, flags)], env=env, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


@pytest.mark.parametrize("code, flags", [(SFT, SFT_FLAGS), (GRPO, GRPO_FLAGS)])
def test_two_processes_are_one(folder, tmp_path, code, flags):  # noqa: F811
    """Odd batches, unequal kept groups. Tolerance 1e-4 relative, 1e-6 absolute: float32 sums in another order. Kills
    a mean over processes instead of a sum, counts of one process only, and metrics of the main process alone."""
    flags = [folder / f if str(f).endswith(".jsonl") else f for f in flags]
    for process in [launch(n, code, tmp_path, *flags, "--out", tmp_path / str(n)) for n in (1, 2)]:
        finish(process)
    logs = []
    for n in "12":
        rows = [row for _, row in read_jsonl(tmp_path / n / "metrics.jsonl")]
        logs.append([row for row in rows if row["kind"] != "config"])
    assert len(logs[0]) == len(logs[1]) >= 3
    for one, two in zip(*logs):
        for key, value in one.items():
            if key in ("seconds", "sampler_gap") or value is None:
                continue
            expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-6)
            assert two[key] == expected, key
    assert any(row.get("grad_norm") for row in logs[0])
    if code == GRPO:  # what shows hacking is in every row
        assert all({"judge_only", "misses", "malformed", "unfinished_in"} <= row.keys() for row in logs[0])
        assert all({"answers", "judged"} <= row.keys() for row in logs[0] if row["kind"] == "eval")
    one, two = (torch.load(tmp_path / n / "state.pt", weights_only=True)["weights"] for n in "12")
    # AdamW turns a gradient near 0 into a step of either sign, hence the tolerance.
    assert all(torch.allclose(one[k], two[k], atol=2e-4) for k in one)


# ---- 2. Trackers -------------------------------------------------------------------------------------------
def test_tensorboard_gets_every_number(folder, tmp_path):  # noqa: F811
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    finish(start("train_sft.py", "--data", folder / "sft.jsonl", "--batch", 8, "--epochs", 1, "--lora_rank", 4,
                 "--merge", "False", "--tracker", "tensorboard", "--out", tmp_path / "out"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # optional
    events = EventAccumulator(str(next((tmp_path / "out").rglob("events.out.tfevents.*")).parent))
    events.Reload()
    rows = [row for _, row in read_jsonl(tmp_path / "out/metrics.jsonl") if row["kind"] == "train"]
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx([row["loss"] for row in rows])
    assert "train/seconds/update" in events.Tags()["scalars"]


def test_a_tracker_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["train_grpo.py", "--tracker", "wandb", "--out", str(tmp_path)])
    with pytest.raises(BadInput, match="pip install wandb"):
        train_grpo.main()


def test_the_tracker_gets_numbers_by_kind_and_path_and_nothing_else(tmp_path):
    """The example of processes.log; lists, texts and None are for metrics.jsonl alone."""
    sent = []

    class Accelerator:
        is_main_process = True

        def log(self, numbers, step):
            sent.append((numbers, step))

    row = dict(kind="train", step=3, loss=.5, note="x", gap=None, seconds={"sample": 1.5})
    processes.log(Accelerator(), tmp_path, row)
    assert sent == [({"train/loss": .5, "train/seconds/sample": 1.5}, 3)]
    assert [row for _, row in read_jsonl(tmp_path / "metrics.jsonl")] == [row]
