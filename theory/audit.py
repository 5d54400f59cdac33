"""Thousands of random worlds: how often is the paper's bound violated, and is the corrected one ever?

Each world has 2 to 12 actions, 1 to 6 rewards, random weights, noise, eps, policy and group sizes; rewards are independent,
correlated or on a coarse grid (ties and exact leads). The truth is exact, not simulated: Gaussian noise by quadrature; noise of
fair signs (sub-Gaussian too) as a finite sum over every action and sign pattern; and a hard gate with an outcome that
keeps its distance from tau.

A violated corrected bound would be a bug or a false theorem; `audit` then prints the world that did it. A bound at or below 0
says nothing and cannot be violated, so how often it says something is printed too. "How often" is a property of this random
generator: with many actions and a precise verifier the paper's bound breaks in most worlds, with few and a noisy one in some.
The theorem is settled by one counterexample.

    python -m theory.audit --worlds 5000

Before: landscapes.py. Next: figures.py
"""
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from theory import bounds, exact
from runs.errors import BadInput, run_main
from runs.settings import parse_config

GROUPS = np.array([1, 2, 4, 8, 16, 32, 64])
SLACK = 1e-9  # quadrature and rounding


@dataclass
class Config:
    worlds: int = field(default=2000, metadata={"help": "random worlds of each kind of noise"})
    seed: int = field(default=0, metadata={"help": "seed of the worlds"})


def random_world(rng, many=False):
    """-> policy (K,), rewards (K, m), weights (m,), sigma, eps (our choice). many: 20 to 40 actions, a precise verifier."""
    k, m = rng.integers(20, 41) if many else rng.integers(2, 13), rng.integers(1, 7)
    kind = rng.integers(3)
    own = rng.random((k, m))
    rewards = [own, .7 * rng.random((k, 1)) + .3 * own, np.round(own * 5) / 5][kind]
    weights = np.ones(m) if rng.random() < .5 else rng.uniform(.3, 1, m)
    policy = rng.dirichlet(np.full(k, rng.choice([.3, 1., 3.])))
    eps = float(rng.choice([.1, .2, .4]) if kind == 2 else 10 ** rng.uniform(-1.5, -.2))
    return policy, rewards, weights, float(eps * 10 ** (-1 if many else rng.uniform(-1.2, .3))), eps


def with_signs(n, policy, rewards, weights, sigma, good):
    """Theorem 1's event for noise of +-sigma, exactly (our form): every action with every one of 2^m sign patterns is an atom.
    policy: (K,), rewards: (K, m), weights: (m,), good: bool (K,). -> shape of n."""
    m = len(weights)
    signs = 1 - 2. * (np.arange(2 ** m)[:, None] >> np.arange(m) & 1)  # (2^m, m)
    scores = np.add.outer(rewards @ weights, sigma * signs @ weights).ravel()  # (K 2^m,)
    spread = lambda x: np.repeat(x, 2 ** m)
    return exact.best_of_n(n, spread(policy) / 2 ** m, scores, 0., spread(good))


def check_theorem(rng, noise):
    """One world -> {bound: (truth, bound)}, each (len(GROUPS),), for theorem 1 with the paper's and the sharp constant and for our
    correction; and the world."""
    policy, rewards, weights, sigma, eps = world = random_world(rng, noise == "many")
    good = exact.pareto_optimal(rewards, eps)
    if noise == "signs":
        truth = with_signs(GROUPS, policy, rewards, weights, sigma, good)
    else:
        kind = "per_action" if noise == "per_action" else "fresh"
        truth = exact.success_probability(GROUPS, policy, rewards, weights, sigma, eps, kind)
    paper, sharp = (bounds.pareto_bound(GROUPS, policy @ good, bounds.pair_error(eps, weights, sigma, s)) for s in (False, True))
    corrected, _ = bounds.best_corrected_bound(GROUPS, policy, rewards, weights, sigma, eps)
    return {"paper": (truth, paper), "sharp": (truth, sharp), "corrected": (truth, corrected)}, world


def check_gate(rng):
    """As check_theorem, for corollary 1 behind a hard gate: good is the paper's (correct, and eps-Pareto-optimal in the m
    reasoning rewards) for its bound, and ours (correct, and among correct actions optimal in all m+1 rewards) for the corrected
    one. -> {bound: (truth, bound)}, and the world."""
    policy, rewards, weights, sigma, eps = random_world(rng)
    k = len(policy)
    correct = rng.random(k) < .5
    correct[rng.integers(k)] = True
    tau, gamma = .5, float(sigma * rng.uniform(1, 6))
    outcome = np.where(correct, tau + gamma, tau - gamma) + np.where(correct, 1, -1) * rng.choice([0., 1.]) * rng.random(k)
    w0 = float(rng.uniform(.3, 1))
    all_weights, all_rewards = np.append(w0, weights), np.hstack([outcome[:, None], rewards])
    truth = lambda good: exact.gated_success_probability(GROUPS, policy, outcome, rewards, good, tau, w0, weights, sigma)
    theirs = correct & exact.pareto_optimal(rewards, eps)
    paper = bounds.gated_bound(GROUPS, policy @ theirs, gamma, sigma, all_weights, eps)
    ours = np.zeros(k, bool)
    ours[correct] = exact.pareto_optimal(all_rewards[correct], eps)
    r = all_rewards @ all_weights
    behind, reach = r[correct].max() - r, eps * all_weights.sum()
    best = np.full(len(GROUPS), -np.inf)
    for theta in np.append(1 - behind[correct & (behind < reach * (1 - 1e-9))] / reach, 1.):
        p_theta = policy @ (correct & (behind <= (1 - theta) * reach + 1e-12))
        best = np.maximum(best, bounds.gated_bound(GROUPS, p_theta, gamma, sigma, all_weights, eps, corrected=True, theta=theta))
    world = policy, outcome, rewards, all_weights, sigma, eps, gamma
    return {"paper": (truth(theirs), paper), "corrected": (truth(ours), best)}, world


SETTINGS = {"fresh": "fresh noise, Gaussian", "many": "the same, 20 to 40 actions, sigma = eps / 10",
            "signs": "fresh noise, fair signs", "per_action": "one draw an action, Gaussian", "gate": "hard gate, Gaussian"}


def audit(worlds, seed, progress=True):
    """Theorem 1, corollary 1 and our corrections in random worlds -> {(setting, bound): [worlds, worlds where the
    bound is above 0 for some n >= 2, worlds where it is violated, largest violation]} and the worlds that violate a corrected
    bound, by setting."""
    rng, table, culprits = np.random.default_rng(seed), {}, {}
    jobs = [s for i in range(worlds) for s in ("fresh", "signs", "gate") + ("per_action", "many") * (i % 4 == 0)]  # these are slow
    for setting in tqdm(jobs, desc="audit", unit="world", disable=not progress):
        if setting == "gate":
            found, world = check_gate(rng)
        else:
            found, world = check_theorem(rng, setting)
        for name, (truth, bound) in found.items():
            margin = (truth - bound)[1:]  # n = 1 is an equality for theorem 1
            row = table.setdefault((setting, name), [0, 0, 0, 0.])
            row[0] += 1
            row[1] += bool((bound[1:] > SLACK).any())
            row[2] += bool((margin < -SLACK).any())
            row[3] = max(row[3], float(-margin.min()))
            if name == "corrected" and (margin < -SLACK).any():
                culprits[setting] = world
    return table, culprits


def markdown(table):
    """The audit's table, settings in a fixed order."""
    lines = ["| noise | bound | worlds | it says something (> 0) in | it is violated in | by at most |", "|---" * 6 + "|"]
    for setting, name in SETTINGS.items():
        for bound in ("paper", "sharp", "corrected"):
            if (setting, bound) in table:
                worlds, telling, violated, worst = table[setting, bound]
                share = f"{violated} ({violated / worlds:.1%}) | {worst:.2f}" if violated else "0 | -"
                lines.append(f"| {name} | {bound} | {worlds} | {telling} | {share} |")
    return "\n".join(lines)


def main():
    cfg = parse_config(Config, __doc__)
    if cfg.worlds < 1:
        raise BadInput(f"--worlds {cfg.worlds}: must be at least 1")
    table, culprits = audit(cfg.worlds, cfg.seed)
    print(markdown(table))
    for setting, world in culprits.items():
        print(f"\na corrected bound was violated ({setting}): a bug, or a theorem to fix. The world:\n{world}")


if __name__ == "__main__":
    run_main(main)
