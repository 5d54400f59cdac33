"""Several processes, one per GPU, and what a step costs.

Who needs it: train_sft.py, train_grpo.py and curate.py; a reader, once there are several GPUs. With one
process `share` is everything, and `gather` and `sum_gradients` change nothing.

`accelerate launch train_grpo.py ...` starts one process per GPU. Each holds the whole model and takes its
share of every batch. Losses are divided by the counts of the whole batch, so gradients only need to be added
up. That is all that is shared, and it is done by hand: DistributedDataParallel hooks into forward passes, and
one loss here takes several of them (prompt, completion, reference).

    accelerate launch train_grpo.py --preset 7b-bf16 ...                     # all GPUs of the machine
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 train_grpo.py ...    # to see it on a laptop

What is simplified: no sharding of weights or optimizer, no offloading.
Before: runs/settings.py. Next: runs/ledger.py
"""
import importlib.util
import time
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object

from runs import files
from runs.errors import BadInput
from runs.files import append_jsonl, claim_run
from runs.settings import vision_tokens

# Settings that --resume may change. "out": the folder of a run may be moved.
FREE_ON_RESUME = ("dry_run", "memory_gb", "tracker", "teacher_cache", "out")


# ---- 1. Begin ----------------------------------------------------------------------------------------------
def start(cfg):
    """Join the processes that `accelerate launch` started, or be the only one. -> Accelerator.

    A tracker draws metrics in a browser; cfg.tracker names it. Raises BadInput for one that is not there.
    """
    tracker = getattr(cfg, "tracker", "none")
    if tracker not in ("none", "tensorboard", "wandb"):
        raise BadInput(f"--tracker {tracker}: choose none, tensorboard or wandb")
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        raise BadInput(f"--tracker {tracker}: the package is missing; pip install {tracker}")
    patient = InitProcessGroupKwargs(timeout=timedelta(days=1))  # one may have longer videos than another
    return Accelerator(log_with=None if tracker == "none" else tracker, project_dir=cfg.out,
                       kwargs_handlers=[patient])


def once(accelerator, act):
    """Do something in the main process. -> what it returned, in every process.

    What it raises is raised in the main process, whose one line is enough; the others end with exit code 2. So
    nobody waits for a process that has gone.
    """
    result = refusal = None
    if accelerator.is_main_process:
        try:
            result = act()
        except Exception as error:
            refusal = error
    result, refused = broadcast_object_list([result, refusal is not None])
    if refusal:
        raise refusal
    if refused:
        raise SystemExit(2)
    return result


@contextmanager
def alone(accelerator, folder):
    """Inside, no other run works on this folder's files; the main process holds the lock. BadInput: one does."""
    with ExitStack() as held:
        def hold():
            held.enter_context(files.alone(folder))

        once(accelerator, hold)
        yield


def claim(accelerator, cfg):
    """Begin or continue the run in cfg.out, once for all. Raises BadInput where it has other settings."""
    settings = {name: value for name, value in vars(cfg).items() if name not in FREE_ON_RESUME}
    # Each process draws and sums its own share, so with another number of them it is another run.
    settings["num_processes"] = accelerator.num_processes

    def begin():
        claim_run(Path(cfg.out, "metrics.jsonl"), settings)

    once(accelerator, begin)
    if cfg.tracker != "none":
        accelerator.init_trackers("argos", config=vars(cfg))
    picture, clip = vision_tokens(cfg)
    accelerator.print(f"{cfg.dtype}; a picture is at most {picture:,} tokens, a clip {clip:,}; "
                      f"{accelerator.num_processes} process(es)")


# ---- 2. What is shared -------------------------------------------------------------------------------------
def share(accelerator, n):
    """Which of n things are this process's. Of 7 things and 2 processes, process 1 has 1, 3, 5."""
    return list(range(accelerator.process_index, n, accelerator.num_processes))


def gather(accelerator, things):
    """The lists of all processes as one list, in every process."""
    if accelerator.num_processes > 1:
        return gather_object(list(things))
    return list(things)


def sum_gradients(accelerator, parameters):
    """Give every process the sum of all processes' gradients; a parameter without one counts as zero.

    One message for all parameters: many small ones would wait for each other. A single process does nothing.
    """
    if accelerator.num_processes == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    summed = accelerator.reduce(flat, "sum")
    sizes = [p.numel() for p in parameters]
    for p, gradient in zip(parameters, summed.split(sizes)):
        p.grad = gradient.view_as(p)


# ---- 3. What happened --------------------------------------------------------------------------------------
def log(accelerator, out, row):
    """Write one row of metrics to metrics.jsonl, and its numbers to the tracker.

    The tracker names them by kind, and nested ones by their path: {"kind": "train", "step": 3, "seconds":
    {"sample": 1.5}} becomes "train/seconds/sample" = 1.5 at step 3.
    """
    if accelerator.is_main_process:
        append_jsonl(Path(out, "metrics.jsonl"), row)
    values = {}
    for name, value in row.items():
        if isinstance(value, dict):
            for part, part_value in value.items():
                values[f"{name}/{part}"] = part_value
        else:
            values[name] = value
    numbers = {}
    for name, value in values.items():
        if isinstance(value, (int, float)) and name != "step":
            numbers[f"{row['kind']}/{name}"] = value
    accelerator.log(numbers, step=row["step"])


class Phases:
    """Seconds and, on a GPU, peak memory in GB (10^9 bytes) of the phases of a step, in this process.

        phases = Phases(device)
        ...                       # draw rollouts
        phases.done("sample")
        ...                       # verify them
        phases.done("verify")
        phases.report()           # {"seconds": {"sample": 3.2, "verify": .8}, "memory_gb": {...} or None}
    """

    def __init__(self, device):
        self.device = device
        self.seconds = {}
        self.memory_gb = {}
        self._restart()

    def _restart(self):
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.clock = time.time()

    def done(self, name):
        """End the phase that began with the last one's end."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # a GPU works on after Python has gone on
            self.memory_gb[name] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)
        self.seconds[name] = round(time.time() - self.clock, 3)
        self._restart()

    def report(self):
        return dict(seconds=self.seconds, memory_gb=self.memory_gb or None)
