"""Simulation and quadrature against a plain loop, side by side in one run. A script, not a test.

The peer is what one would write first: one trial after the other in plain Python, the same actions, rewards and noise. Rounds
alternate, so that a busy machine is busy for both; the best round counts. `all components` draws every reward's noise;
`collapsed` draws their weighted sum, whose law is known for Gaussian noise (the peer could do that too).

Run:   python tests/benchmark_theory.py
"""
import random
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runs.errors import BadInput, run_main  # noqa: E402
from runs.settings import parse_config  # noqa: E402
from theory import exact, simulate  # noqa: E402


@dataclass
class Config:
    trials: int = field(default=1_000_000, metadata={"help": "trials of the vectorised simulation, a round"})
    loop_trials: int = field(default=20_000, metadata={"help": "trials of the plain loop, a round"})
    n: int = field(default=8, metadata={"help": "actions a batch"})
    m: int = field(default=4, metadata={"help": "rewards"})
    actions: int = field(default=6, metadata={"help": "actions to draw from"})
    rounds: int = field(default=5, metadata={"help": "rounds; the best counts"})


def plain(trials, n, policy, rewards, weights, sigma, good):
    """The same success probability, trial by trial. Lists and floats only."""
    rng, hits, actions = random.Random(0), 0, range(len(policy))
    for _ in range(trials):
        best = -1e300
        for action in rng.choices(actions, policy, k=n):
            score = 0.
            for w, r in zip(weights, rewards[action]):
                score += w * (r + rng.gauss(0, sigma))
            if score > best:
                best, winner = score, action
        hits += good[winner]
    return hits / trials


def main():
    cfg = parse_config(Config, __doc__)
    if min(cfg.trials, cfg.loop_trials, cfg.n, cfg.m, cfg.actions, cfg.rounds) < 1:
        raise BadInput("every setting must be at least 1")
    rng = np.random.default_rng(0)
    rewards, policy = rng.random((cfg.actions, cfg.m)), np.full(cfg.actions, 1 / cfg.actions)
    weights, sigma, eps = np.ones(cfg.m), .3, .1
    good = exact.pareto_optimal(rewards, eps)
    args = cfg.n, policy, rewards, weights, sigma, eps
    lists = policy.tolist(), rewards.tolist(), weights.tolist(), sigma, good.tolist()
    jobs = {"plain loop": (cfg.loop_trials, lambda: plain(cfg.loop_trials, cfg.n, *lists)),
            "all components": (cfg.trials, lambda: simulate.success_probability(*args, trials=cfg.trials).value),
            "collapsed": (cfg.trials, lambda: simulate.success_probability(*args, trials=cfg.trials, collapse=True).value)}
    best, value = dict.fromkeys(jobs, np.inf), {}
    for _ in range(cfg.rounds):
        for name, (_, job) in jobs.items():
            start = time.perf_counter()
            value[name] = job()
            best[name] = min(best[name], time.perf_counter() - start)
    truth = exact.success_probability(*args)
    print(f"n = {cfg.n}, m = {cfg.m}, {cfg.actions} actions; exact success {truth:.5f}")
    peer = jobs["plain loop"][0] / best["plain loop"]
    for name, (trials, _) in jobs.items():
        rate = trials / best[name]
        print(f"{name:15} {trials:9,} trials in {best[name]:6.3f} s   {rate:12,.0f} a second   {rate / peer:6.1f} x   "
              f"({value[name]:.5f})")

    for noise in ("fresh", "per_action"):
        start = time.perf_counter()
        exact.success_probability(np.arange(1, 10_001), *args[1:], noise=noise)
        print(f"exact success for n = 1 .. 10,000, noise {noise}: {time.perf_counter() - start:.2f} s")
    draws = 10 ** 8
    start = time.perf_counter()
    simulate.success_probability(*args, trials=draws // cfg.n)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    print(f"{draws:,} draws of all components: {time.perf_counter() - start:.1f} s; the process never held more than {peak:.2f} GB")


if __name__ == "__main__":
    run_main(main)
