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
import policy as P
import train_grpo
from test_training import ROOT, as_command, finish, folder, forking, join, start  # noqa: F401  (folder is the data fixture)


# ---- 1. Two processes --------------------------------------------------------------------------------------
plain_sample = P.sample


def pad(x, width, value=0):
    return torch.nn.functional.pad(x, (0, width - x.shape[1]), value=value)


def one_by_one(policy, prompts, group_size, *args, generator=None, **kwargs):
    """P.sample, with a seed for each prompt, of its own tokens: the same rollouts, whichever process draws them."""
    parts = []
    for b, seed in enumerate((prompts.input_ids * prompts.mask).sum(1).tolist()):
        own = torch.Generator().manual_seed(seed)
        parts.append(plain_sample(policy, prompts.select([b]), group_size, *args, generator=own, **kwargs))
    width = max(p.ids.shape[1] for p in parts)
    return P.Rollouts(
        ids=torch.cat([pad(p.ids, width, policy.tokenizer.pad_token_id) for p in parts]),
        mask=torch.cat([pad(p.mask, width) for p in parts]),
        logprobs=torch.cat([pad(p.logprobs, width) for p in parts]),
        texts=[text for p in parts for text in p.texts],
        finished=torch.cat([p.finished for p in parts]))


def one_of(number, rank, port, script, flags, said):
    """The target of a child process: one of those that torchrun would start."""
    if number > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number),
                          MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")
    if script == "train_grpo":
        P.sample = one_by_one
    as_command(script, flags, said)


SFT_FLAGS = ["--data", "sft.jsonl", "--batch", 5, "--micro_batch", 2, "--epochs", 1, "--lora_rank", 4, "--warmup", 1]
GRPO_FLAGS = ["--policy", ROOT / "tiny/teacher", "--data", "rl.jsonl", "--val", "val.jsonl", "--steps", 3,
              "--prompts", 3, "--group_size", 4, "--micro_batch", 4, "--eval_every", 3, "--eval_samples", 3,
              "--cards", 1, "--lora_rank", 4, "--updates", 2, "--beta", .01, "--judge", "base", "--temperature", 1.3]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def launch(number, script, folder, *flags):  # noqa: F811
    """Run a script in as many processes that share the work, on the CPU: accelerate joins them (gloo). -> what each said.

    It writes folder/NUMBER.
    """
    flags = [*map(str, flags), "--out", str(folder / str(number))]
    port = free_port()
    said = [folder / f"said-{number}-{rank}" for rank in range(number)]
    children = [forking().Process(target=one_of, args=(number, rank, port, script, flags, said[rank]))
                for rank in range(number)]
    for child in children:
        child.start()
    for child, its in zip(children, said):
        join(child, its)
    return [its.read_text() for its in said]


def same_run(folder):  # noqa: F811
    """Are folder/1, by one process, and folder/2, by two, the same run? Tolerance 1e-4 relative, 1e-6 absolute: float32
    sums in another order."""
    logs = []
    for n in "12":
        rows = [row for _, row in read_jsonl(folder / n / "metrics.jsonl")]
        logs.append([row for row in rows if row["kind"] != "config"])
    assert len(logs[0]) == len(logs[1]) >= 3
    for one, two in zip(*logs):
        for key, value in one.items():
            if key in ("seconds", "sampler_gap") or value is None:
                continue
            expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-6)
            assert two[key] == expected, key
    assert any(row.get("grad_norm") for row in logs[0])
    one, two = (torch.load(folder / n / "state.pt", weights_only=True)["weights"] for n in "12")
    # AdamW turns a gradient near 0 into a step of either sign, hence the tolerance.
    assert all(torch.allclose(one[k], two[k], atol=2e-4) for k in one)
    return logs[0]


def test_two_processes_of_grpo_are_one(folder, tmp_path):  # noqa: F811
    """Unequal kept groups. Kills a mean over processes instead of a sum, counts of one process only, and metrics of the
    main process alone."""
    flags = [folder / f if str(f).endswith(".jsonl") else f for f in GRPO_FLAGS]
    for number in (1, 2):
        launch(number, "train_grpo", tmp_path, *flags)
    log = same_run(tmp_path)
    # What shows hacking is in every row.
    assert all({"judge_only", "misses", "malformed", "unfinished_in"} <= row.keys() for row in log)
    assert all({"answers", "judged"} <= row.keys() for row in log if row["kind"] == "eval")


def test_two_processes_of_sft_are_one(folder, tmp_path):  # noqa: F811
    """Odd batches, and torchrun, as `accelerate launch` uses it on several GPUs. Kills what the test above does."""
    flags = [folder / f if str(f).endswith(".jsonl") else f for f in SFT_FLAGS]
    launch(1, "train_sft", tmp_path, *flags)
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1", "--master_port",
               free_port(), ROOT / "train_sft.py", *flags, "--out", tmp_path / "2"]
    env = dict(os.environ, OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="true")
    finish(subprocess.Popen([sys.executable, *map(str, command)], env=env, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE))
    same_run(tmp_path)


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
