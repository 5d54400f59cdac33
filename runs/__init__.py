"""Plumbing: files, flags, processes, memory, intervals. Nothing here is about Argos; skip it at first.

    errors.py      a person's mistake, told in one line               every script
    files.py       files that survive a kill at any point             every script
    settings.py    flags, and presets of flags                        every script
    checkpoints.py weights that fit; the pixels of training           policy.py, teachers/, every script
    processes.py   several GPUs, metrics, seconds per phase           train_sft.py, train_grpo.py, curate.py
    ledger.py      how much memory a run will take, before it starts  train_sft.py, train_grpo.py
    fast.py        sampling and scoring in less time                  policy.py
    costs.py       where the time of a step goes (README.md)          nobody: a command
    statistics.py  means with intervals, paired differences           evaluate.py, benchmarks/
    curves.py      the paper's figure 4                               evaluate.py, benchmarks/, tiny/study.py

The paper trained on 8 H100 and 8 A100. Here: LoRA or QLoRA on one GPU, or on several with a whole copy of the
model on each. No sharding, no offloading.
"""
import logging

# Where it is installed beside no GPU, bitsandbytes says at its import that a faster kernel is missing. It stands
# here, because whatever imports transformers or accelerate imports that.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
