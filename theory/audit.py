"""Thousands of random worlds: how often is the paper's bound violated, and is the corrected one ever?

What the paper says: theorem 1 and corollary 1 hold in every world. One counterexample settles that
(landscapes.TRAP); this file asks how common they are, and looks for one against our corrections. A violated
corrected bound would be a bug or a false theorem, so the world that did it is printed.

Each world has 2 to 12 actions (or 20 to 40), 1 to 6 rewards, random weights, noise, eps and policy; rewards
are independent, correlated, or on a coarse grid (ties and exact leads). The truth is exact: integrals for
Gaussian noise; a finite sum over every action and sign pattern for noise of fair signs, which is sub-Gaussian
too; and a hard gate with an outcome that keeps its distance from tau.

What is simplified. A bound at or below 0 says nothing and cannot be violated, so how often it says something
is printed beside. "How often" is a property of this random generator: with many actions and a precise
verifier the paper's bound breaks in most worlds, with few and a noisy one in some.

Run:   python -m theory.audit --worlds 5000
Next:  figures.py
"""
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from runs.errors import BadInput, run_main
from runs.settings import flag, parse_config
from theory import bounds, exact

GROUPS = np.array([1, 2, 4, 8, 16, 32, 64])
SLACK = 1e-9  # of integrals and rounding
SETTINGS = {"fresh": "fresh noise, Gaussian",
            "many": "the same, 20 to 40 actions, sigma = eps / 10",
            "signs": "fresh noise, fair signs",
            "per_action": "one draw an action, Gaussian",
            "gate": "hard gate, Gaussian"}


@dataclass
class Config:
    worlds: int = flag(2000, "random worlds of each kind of noise")
    seed: int = flag(0, "seed of the worlds")


# ---- 1. One world ------------------------------------------------------------------------------------------
def random_world(rng, many=False):
    """-> policy (K,), rewards (K, m), weights (m,), sigma, eps (our choice). many: 20 to 40 actions, a
    precise verifier."""
    k = rng.integers(20, 41) if many else rng.integers(2, 13)
    m = rng.integers(1, 7)
    kind = rng.integers(3)
    own = rng.random((k, m))
    common = rng.random((k, 1))
    rewards = [own, .7 * common + .3 * own, np.round(own * 5) / 5][kind]
    weights = np.ones(m) if rng.random() < .5 else rng.uniform(.3, 1, m)
    policy = rng.dirichlet(np.full(k, rng.choice([.3, 1., 3.])))
    eps = float(rng.choice([.1, .2, .4]) if kind == 2 else 10 ** rng.uniform(-1.5, -.2))
    log_precision = -1 if many else rng.uniform(-1.2, .3)
    return policy, rewards, weights, float(eps * 10 ** log_precision), eps


def with_signs(n, policy, rewards, weights, sigma, good):
    """Theorem 1's event for noise of +-sigma, exactly (ours): every action with every one of 2^m sign
    patterns is an atom.

    policy: (K,), rewards: (K, m), weights: (m,), good: bool (K,). -> shape of n.
    """
    m = len(weights)
    signs = 1 - 2. * (np.arange(2 ** m)[:, None] >> np.arange(m) & 1)                # (2^m, m)
    scores = np.add.outer(rewards @ weights, sigma * signs @ weights).ravel()        # (K 2^m,)
    atoms = np.repeat(policy, 2 ** m) / 2 ** m                                       # (K 2^m,)
    return exact.best_of_n(n, atoms, scores, 0., np.repeat(good, 2 ** m))


def check_theorem(rng, noise):
    """One world, theorem 1 with the paper's constant, with the sharp one, and as we correct it.

    noise: "fresh", "many", "signs" or "per_action", see SETTINGS. -> {bound: (truth, bound)}, each
    (len(GROUPS),); the world.
    """
    policy, rewards, weights, sigma, eps = world = random_world(rng, noise == "many")
    good = exact.pareto_optimal(rewards, eps)
    if noise == "signs":
        truth = with_signs(GROUPS, policy, rewards, weights, sigma, good)
    else:
        kind = "per_action" if noise == "per_action" else "fresh"
        truth = exact.success_probability(GROUPS, policy, rewards, weights, sigma, eps, kind)
    p = policy @ good
    paper = bounds.pareto_bound(GROUPS, p, bounds.pair_error(eps, weights, sigma, sharp=False))
    sharp = bounds.pareto_bound(GROUPS, p, bounds.pair_error(eps, weights, sigma))
    corrected, _ = bounds.best_corrected_bound(GROUPS, policy, rewards, weights, sigma, eps)
    return {"paper": (truth, paper), "sharp": (truth, sharp), "corrected": (truth, corrected)}, world


def check_gate(rng):
    """One world, corollary 1 behind a hard gate. -> {bound: (truth, bound)}, each (len(GROUPS),); the world.

    Good is, for the paper's bound, what the paper says: correct, and eps-Pareto-optimal in the m reasoning
    rewards. For the corrected bound it is ours: correct, and among correct actions eps-Pareto-optimal in all
    m+1 rewards.
    """
    policy, rewards, weights, sigma, eps = random_world(rng)
    k = len(policy)
    correct = rng.random(k) < .5
    correct[rng.integers(k)] = True
    tau = .5
    gamma = float(sigma * rng.uniform(1, 6))
    side = np.where(correct, 1, -1)
    outcome = tau + side * gamma + side * rng.choice([0., 1.]) * rng.random(k)  # at least gamma away from tau
    w0 = float(rng.uniform(.3, 1))

    setting = tau, w0, weights, sigma
    theirs = correct & exact.pareto_optimal(rewards, eps)
    truth = exact.gated_success_probability(GROUPS, policy, outcome, rewards, theirs, *setting)
    all_weights = np.append(w0, weights)
    paper = bounds.gated_bound(GROUPS, policy @ theirs, gamma, sigma, all_weights, eps)

    all_rewards = np.hstack([outcome[:, None], rewards])  # (K, m + 1)
    ours = np.zeros(k, bool)
    ours[correct] = exact.pareto_optimal(all_rewards[correct], eps)
    our_truth = exact.gated_success_probability(GROUPS, policy, outcome, rewards, ours, *setting)
    corrected = _best_gated_bound(policy, correct, all_rewards, all_weights, gamma, sigma, eps)
    world = policy, outcome, rewards, all_weights, sigma, eps, gamma
    return {"paper": (truth, paper), "corrected": (our_truth, corrected)}, world


def _best_gated_bound(policy, correct, rewards, weights, gamma, sigma, eps):
    """The corrected corollary with its best theta, as bounds.best_corrected_bound; here all m+1 rewards and
    their weights. -> (len(GROUPS),)."""
    total = rewards @ weights
    behind = total[correct].max() - total  # (K,)
    reach = eps * weights.sum()
    thetas = np.append(1 - behind[correct & (behind < reach * (1 - 1e-9))] / reach, 1.)
    best = np.full(len(GROUPS), -np.inf)
    for theta in thetas:
        p_theta = policy @ (correct & (behind <= (1 - theta) * reach + 1e-12))
        bound = bounds.gated_bound(GROUPS, p_theta, gamma, sigma, weights, eps, corrected=True, theta=theta)
        best = np.maximum(best, bound)
    return best


# ---- 2. Many worlds ----------------------------------------------------------------------------------------
def audit(worlds, seed, progress=True):
    """Theorem 1, corollary 1 and our corrections in random worlds.

    -> {(setting, bound): [worlds, worlds where the bound is above 0 for some n >= 2, worlds where it is
    violated, largest violation]}; and the worlds that violate a corrected bound, by setting.
    """
    jobs = []
    for i in range(worlds):
        jobs += ["fresh", "signs", "gate"]
        if i % 4 == 0:  # these are slow
            jobs += ["per_action", "many"]
    rng = np.random.default_rng(seed)
    table = {}
    culprits = {}
    for setting in tqdm(jobs, desc="audit", unit="world", disable=not progress):
        if setting == "gate":
            found, world = check_gate(rng)
        else:
            found, world = check_theorem(rng, setting)
        for name, (truth, bound) in found.items():
            margin = (truth - bound)[1:]  # n = 1 is an equality for theorem 1
            violated = bool((margin < -SLACK).any())
            row = table.setdefault((setting, name), [0, 0, 0, 0.])
            row[0] += 1
            row[1] += bool((bound[1:] > SLACK).any())
            row[2] += violated
            row[3] = max(row[3], float(-margin.min()))
            if violated and name == "corrected":
                culprits[setting] = world
    return table, culprits


def markdown(table):
    """The audit's table, settings in a fixed order."""
    lines = ["| noise | bound | worlds | it says something (> 0) in | it is violated in | by at most |",
             "|---" * 6 + "|"]
    for setting, name in SETTINGS.items():
        for bound in ("paper", "sharp", "corrected"):
            if (setting, bound) not in table:
                continue
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
        print(f"\na corrected bound was violated ({setting}): a bug, or a theorem to fix. The world:")
        print(world)


if __name__ == "__main__":
    run_main(main)
