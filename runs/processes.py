"""Several processes, and what a step costs."""
import importlib.util
import time
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object

from runs.errors import BadInput
from runs.files import append_jsonl, claim_run
from runs.settings import vision_tokens


# ---- 2. Several processes, and what a step costs ---------------------------------------------------------------------
# `accelerate launch train_grpo.py ...` starts one process a GPU. Each holds the whole model and takes every n-th prompt of a batch;
# losses are divided by the counts of the whole batch, so gradients only need to be added up. That is all that is shared, and it is
# done by hand: DistributedDataParallel would hook into forwards, and here one loss takes several (prompt, completion, reference).
# On CPUs: ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 train_grpo.py ...
def start(cfg):
    """One process, or one of those that `accelerate launch` started, with the tracker that was asked for. -> Accelerator."""
    tracker = getattr(cfg, "tracker", "none")
    if tracker not in ("none", "tensorboard", "wandb"):
        raise BadInput(f"--tracker {tracker}: choose none, tensorboard or wandb")
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        raise BadInput(f"--tracker {tracker}: the package is missing; pip install {tracker}")
    patient = InitProcessGroupKwargs(timeout=timedelta(days=1))  # one may have longer videos than the other
    return Accelerator(log_with=None if tracker == "none" else tracker, project_dir=cfg.out, kwargs_handlers=[patient])


def claim(accelerator, cfg):
    """Begin or continue the run in --out: once for all processes."""
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            Path(cfg.out).mkdir(parents=True, exist_ok=True)
            free = ("dry_run", "memory_gb", "tracker", "teacher_cache")  # what --resume may change
            claim_run(Path(cfg.out, "metrics.jsonl"), {k: v for k, v in vars(cfg).items() if k not in free}
                      | dict(num_processes=accelerator.num_processes))  # each draws and sums its own share: another number, another run
    if cfg.tracker != "none":
        accelerator.init_trackers("argos", config=vars(cfg))
    picture, clip = vision_tokens(cfg)
    accelerator.print(f"{cfg.dtype}; a picture is at most {picture:,} tokens, a clip {clip:,}; {accelerator.num_processes} process(es)")


def log(accelerator, out, row):
    """One row of metrics: to metrics.jsonl, and its numbers to the tracker (nested ones as "train/seconds/sample")."""
    if accelerator.is_main_process:
        append_jsonl(Path(out, "metrics.jsonl"), row)
    flat = {f"{k}/{name}".rstrip("/"): n for k, v in row.items() for name, n in (v.items() if isinstance(v, dict) else [("", v)])}
    accelerator.log({f"{row['kind']}/{k}": n for k, n in flat.items() if isinstance(n, (int, float)) and k != "step"}, step=row["step"])


def share(accelerator, n):
    """Which of n things are this process's: every num_processes-th."""
    return list(range(accelerator.process_index, n, accelerator.num_processes))


def gather(accelerator, things):
    """The lists of all processes as one, in every process."""
    return gather_object(list(things)) if accelerator.num_processes > 1 else list(things)


def sum_gradients(accelerator, parameters):
    """Every process gets the sum of all processes' gradients; one without any counts as zero. Nothing happens in a single process."""
    if accelerator.num_processes > 1:
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        summed = accelerator.reduce(torch.cat([g.flatten() for g in grads]), "sum")
        for p, g in zip(parameters, summed.split([p.numel() for p in parameters])):
            p.grad = g.view_as(p)


class Phases:
    """Seconds and, on a GPU, peak memory in GB (10^9 bytes) of the phases of a step, in this process."""

    def __init__(self, device):
        self.device, self.seconds, self.memory_gb = device, {}, {}
        self._restart()

    def _restart(self):
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.clock = time.time()

    def done(self, name):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.memory_gb[name] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)
        self.seconds[name] = round(time.time() - self.clock, 3)
        self._restart()

    def report(self):
        return dict(seconds=self.seconds, memory_gb=self.memory_gb or None)
