"""Simulation and quadrature against a plain loop, side by side in one run. A script, not a test.

The peer is simulate.plain_success_probability: one trial after the other in plain Python, with the same actions,
rewards and noise. Rounds alternate, so that a busy machine is busy for all; the best round counts. `all components`
draws every reward's noise; `collapsed` draws their weighted sum, whose law is known for Gaussian noise (the peer could,
too).

Run:   python tests/benchmark_theory.py
"""
import resource
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runs.errors import BadInput, run_main  # noqa: E402
from runs.settings import parse_config  # noqa: E402
from theory import exact, simulate  # noqa: E402


@dataclass
class Config:
    trials: int = field(default=1_000_000, metadata={"help": "trials of the vectorised simulation, per round"})
    loop_trials: int = field(default=20_000, metadata={"help": "trials of the plain loop, per round"})
    n: int = field(default=8, metadata={"help": "actions per batch"})
    m: int = field(default=4, metadata={"help": "rewards"})
    actions: int = field(default=6, metadata={"help": "actions to draw from"})
    rounds: int = field(default=5, metadata={"help": "rounds; the best counts"})


def main():
    cfg = parse_config(Config, __doc__)
    if min(cfg.trials, cfg.loop_trials, cfg.n, cfg.m, cfg.actions, cfg.rounds) < 1:
        raise BadInput("every setting must be at least 1")
    rng = np.random.default_rng(0)
    rewards = rng.random((cfg.actions, cfg.m))
    policy = np.full(cfg.actions, 1 / cfg.actions)
    weights = np.ones(cfg.m)
    sigma, eps = .3, .1
    args = cfg.n, policy, rewards, weights, sigma, eps
    lists = cfg.n, policy.tolist(), rewards.tolist(), weights.tolist(), sigma, eps
    truth = exact.success_probability(*args)
    print(f"n = {cfg.n}, m = {cfg.m}, {cfg.actions} actions; exact success {truth:.5f}")

    plain = partial(simulate.plain_success_probability, *lists, trials=cfg.loop_trials)
    fast = partial(simulate.success_probability, *args, trials=cfg.trials)
    jobs = [("plain loop", cfg.loop_trials, plain),
            ("all components", cfg.trials, fast),
            ("collapsed", cfg.trials, partial(fast, collapse=True))]
    best = {name: np.inf for name, _, _ in jobs}
    value = {}
    for _ in range(cfg.rounds):
        for name, _, job in jobs:
            start = time.perf_counter()
            value[name] = job().value
            best[name] = min(best[name], time.perf_counter() - start)
    peer = cfg.loop_trials / best["plain loop"]
    for name, trials, _ in jobs:
        rate = trials / best[name]
        print(f"{name:15} {trials:9,} trials in {best[name]:6.3f} s   {rate:12,.0f} per second   "
              f"{rate / peer:6.1f} x   ({value[name]:.5f})")

    for noise in ("fresh", "per_action"):
        start = time.perf_counter()
        exact.success_probability(np.arange(1, 10_001), *args[1:], noise=noise)
        print(f"exact success for n = 1 .. 10,000, noise {noise}: {time.perf_counter() - start:.2f} s")

    draws = 10 ** 8
    start = time.perf_counter()
    simulate.success_probability(*args, trials=draws // cfg.n)
    seconds = time.perf_counter() - start
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes there, kilobytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(f"{draws:,} draws of all components: {seconds:.1f} s; the process never held more than {peak:.2f} GB")


if __name__ == "__main__":
    run_main(main)
