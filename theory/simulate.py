"""The same quantities by dice: every reward of every action in every batch gets its own noise, the winner is found, and counted.

Written apart from exact.py, so that each can catch the other's mistakes, and going further: noise that is not Gaussian, that is
correlated across rewards or across the actions of a batch, shared by copies of an action, or different for each teacher.

    family               gaussian, rademacher (+-sigma) or uniform (+-sqrt(3) sigma): all sigma-sub-Gaussian with variance sigma^2
    sigma                a number, or (m,): one noise a teacher
    reward_correlation   rho between the noises of two rewards of one action: sqrt(1-rho) own + sqrt(rho) common
    action_correlation   rho between the noises of two actions of one batch; it cancels in comparisons
    action_scale         a number or (K,): how much noisier an action is than sigma
    noise                "fresh" for each draw, or "per_action": copies of an action share one draw

Speed: trials lie along the fast axis, one vectorised pass for each member of the batch, in chunks of about a megabyte; so
memory does not grow with trials or n. Chunks run on all cores (numpy works without Python's lock), each with a stream of its own:
the result depends on the seed, not on the number of cores. Float32 for Gaussian noise: scores are kept relative to the best action that
can be drawn, where its digits suffice. `collapse=True` draws the weighted sum of Gaussian noises at once (its law is known);
False draws every component.

Every function -> Estimate(value, error): error is the standard error (of (hits+1) / (trials+2), so never 0).
Before: exact.py. Next: landscapes.py (where the theorem holds and where it breaks)
"""
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from theory import inputs
from theory.exact import pareto_optimal

FAMILIES = ("gaussian", "rademacher", "uniform")
_CHUNK = 1 << 18  # numbers in one block of noise: large enough that threads seldom wait for each other


class Estimate(NamedTuple):
    value: float  # or an array
    error: float


def _estimate(hits, trials):
    smooth = (np.asarray(hits) + 1) / (trials + 2)
    return Estimate(inputs.shaped(np.asarray(hits) / trials), inputs.shaped(np.sqrt(smooth * (1 - smooth) / trials)))


def _total(work, trials, width, seed):
    """Sum of work(generator, size) over chunks of about _CHUNK numbers, `width` of them a trial."""
    size = max(1, min(trials, _CHUNK // max(1, width)))
    count = -(-trials // size)

    def share(first):  # every `threads`-th chunk
        total = 0
        for i in range(first, count, threads):
            total = total + work(np.random.Generator(np.random.SFC64([seed, i])), min(size, trials - i * size))
        return total
    threads = min(os.cpu_count() or 1, count)
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(share, range(threads)))


def _bits(rng, size):
    """(size,) uint32."""
    return rng.bit_generator.random_raw((size + 1) // 2).view(np.uint32)[:size]


def _normal(rng, shape):
    """Standard normals by Box and Muller, float32: three times as fast as the generator's own, as numpy's log, sqrt, sin and cos
    work on many numbers at once. 31 bits a radius reach 6.6 standard deviations."""
    half = (int(np.prod(shape)) + 1) // 2
    signed = _bits(rng, 2 * half).view(np.int32).astype(np.float32)  # numpy converts signed integers faster
    radius, angle = signed[:half], signed[half:]
    np.abs(radius, out=radius)
    radius += np.float32(.5)
    radius *= np.float32(2. ** -31)  # uniform on (0, 1], finest near 0, where the large normals come from
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle *= np.float32(np.pi * 2. ** -31)
    out = np.empty((2, half), np.float32)
    np.multiply(np.cos(angle, out=out[0]), radius, out=out[0])
    np.multiply(np.sin(angle, out=out[1]), radius, out=out[1])
    return out.reshape(-1)[:int(np.prod(shape))].reshape(shape)


def _draw(rng, shape, family, dtype):
    """Noise of mean 0 and variance 1."""
    if family == "gaussian":
        return _normal(rng, shape) if dtype == np.float32 else rng.standard_normal(shape)
    if family == "uniform":
        return (rng.random(shape) * 2 - 1) * np.sqrt(3)
    return rng.integers(0, 2, shape, np.int8) * 2. - 1


class _Verifier:
    """Noise of weighted rewards: weights (m,), sigma (m,), and the options of the head comment."""

    def __init__(self, weights, sigma, family, reward_correlation, action_correlation, collapse):
        self.family = inputs.choice("family", family, FAMILIES)
        self.own = inputs.scalar("reward_correlation", reward_correlation, low=0, high=1)
        self.shared = inputs.scalar("action_correlation", action_correlation, low=0, high=1)
        self.dtype = np.float32 if family == "gaussian" else np.float64
        self.scale = (weights * sigma).astype(self.dtype)  # (m,)
        if collapse and family != "gaussian":
            raise ValueError("collapse needs gaussian noise: no other family keeps its law when summed")
        self.sum = None
        if collapse:
            self.sum = np.sqrt((1 - self.own) * (self.scale @ self.scale) + self.own * self.scale.sum() ** 2)

    def independent(self, rng, trials):
        """(trials,) noises of one action's weighted reward."""
        if self.sum is not None:
            return self.sum * _draw(rng, trials, self.family, self.dtype)
        noise = self.scale @ _draw(rng, (len(self.scale), trials), self.family, self.dtype)
        if not self.own:
            return noise
        common = self.scale.sum() * _draw(rng, trials, self.family, self.dtype)
        return self.dtype(np.sqrt(1 - self.own)) * noise + self.dtype(np.sqrt(self.own)) * common

    def batch(self, rng, trials):
        """A function that gives (trials,) noises for one action after the other of the same batches."""
        if not self.shared:
            return lambda: self.independent(rng, trials)
        common = self.dtype(np.sqrt(self.shared)) * self.independent(rng, trials)
        return lambda: self.dtype(np.sqrt(1 - self.shared)) * self.independent(rng, trials) + common

    def centre(self, means, policy):
        """means, policy: (K,) -> means less the best that can be drawn, in this noise's precision; their scale is for `tidy`."""
        drawn = means[policy > 0]
        self.grid = 1e-9 * (np.ptp(drawn) + self.scale.sum()) or 1.
        return (means - drawn.max()).astype(self.dtype)

    def tidy(self, scores):
        """Sums of signs tie, but for rounding: make them tie."""
        return scores if self.family == "gaussian" else np.round(scores / self.grid)


def _setup(trials, seed, sigma, size):
    """-> trials, seed, sigma (size,), checked."""
    trials, seed = inputs.count("trials", trials), inputs.count("seed", seed, low=0)
    sigma = inputs.number("sigma", sigma, low=0)
    return trials, seed, np.full(size, sigma) if sigma.ndim == 0 else inputs.vector("sigma", sigma, size)


def _thresholds(policy):
    """Where a 32-bit number passes from one action to the next: (K-1,) uint32. Masses are kept to 2^-32."""
    return np.minimum(np.round(np.cumsum(policy)[:-1] * 2. ** 32), 2 ** 32 - 1).astype(np.uint32)


def _pick(rng, thresholds, size):
    """(size,) actions drawn from the policy: uint8 where they fit, which copy faster."""
    bits = _bits(rng, size)
    if len(thresholds) > 16:
        return np.searchsorted(thresholds, bits, side="right")
    action = np.zeros(size, np.uint8)
    for edge in thresholds:  # a few comparisons are faster than a search
        action += (bits >= edge).view(np.uint8)
    return action


def pair_error(gap, weights, covariance_a, covariance_b=None, family="gaussian", trials=100_000, seed=0):
    """Lemma 1's event: P(Rhat_w(a) <= Rhat_w(b)). As exact.pair_error; another family is mixed to have these covariances.

    gap, weights: (m,). covariances: (m, m). -> Estimate.
    """
    w = inputs.weights(weights)
    m = len(w)
    gap, inputs_a = inputs.vector("gap", gap, m), inputs.covariance("covariance_a", covariance_a, m)
    inputs_b = inputs_a if covariance_b is None else inputs.covariance("covariance_b", covariance_b, m)
    inputs.choice("family", family, FAMILIES)
    trials, seed, _ = _setup(trials, seed, 1., m)
    roots = []
    for c in (inputs_a, inputs_b):
        values, vectors = np.linalg.eigh(c)
        root = vectors * np.sqrt(np.maximum(values, 0))  # root root' = c
        roots.append(root if np.count_nonzero(c - np.diag(c.diagonal())) else np.diag(np.sqrt(c.diagonal())))
    slack = 1e-12 * (np.abs(w * gap).sum() + sum(np.abs(w @ root).sum() for root in roots))  # sums of signs tie

    def misordered(rng, size):
        a, b = (w @ root @ _draw(rng, (m, size), family, np.float64) for root in roots)
        return np.count_nonzero(w @ gap + a - b <= slack)
    return _estimate(_total(misordered, trials, 2 * m, seed), trials)


def argmax_probabilities(means, std, trials=100_000, seed=0):
    """Lemma 2's winner of a fixed batch, as exact.argmax_probabilities. means: (K,), std: number or (K,).
    -> Estimate of (K,) arrays."""
    means = inputs.vector("means", means)
    trials, seed, std = _setup(trials, seed, inputs.number("std", std, low=0), len(means))

    def wins(rng, size):
        scores = means[:, None] + std[:, None] * rng.standard_normal((len(means), size))
        return np.bincount(scores.argmax(0), minlength=len(means))
    return _estimate(_total(wins, trials, len(means), seed), trials)


def success_probability(n, policy, rewards, weights, sigma, eps, noise="fresh", family="gaussian", reward_correlation=0.,
                        action_correlation=0., action_scale=1., collapse=False, trials=100_000, seed=0):
    """Theorem 1's event: P(the winner of n draws is eps-Pareto-optimal among all actions). Options: the head comment.

    n: one number. policy: (K,). rewards: (K, m). weights: (m,). sigma: number or (m,). -> Estimate.
    """
    w = inputs.weights(weights)
    rewards = inputs.rewards(rewards, size=len(w))
    k = len(rewards)
    policy, n = inputs.policy(policy, k), inputs.count("n", n)
    trials, seed, sigma = _setup(trials, seed, sigma, len(w))
    inputs.choice("noise", noise, ("fresh", "per_action"))
    verifier = _Verifier(w, sigma, family, reward_correlation, action_correlation, collapse)
    scale = inputs.number("action_scale", action_scale, low=0)
    scale = np.full(k, scale) if scale.ndim == 0 else inputs.vector("action_scale", scale, k)
    good = pareto_optimal(rewards, eps)
    means = verifier.centre(rewards @ w, policy)
    scale = None if (scale == 1).all() else scale.astype(verifier.dtype)
    thresholds = _thresholds(policy)

    def successes(rng, size):
        noise_of = verifier.batch(rng, size)
        if noise == "per_action":
            table = np.stack([means[a] + noise_of() * (1 if scale is None else scale[a]) for a in range(k)])  # (K, size)
            every = np.arange(size)
        for i in range(n):
            action = _pick(rng, thresholds, size)
            if noise == "per_action":
                score = verifier.tidy(table[action, every])
            else:
                score = verifier.tidy(means.take(action) + noise_of() * (1 if scale is None else scale[action]))
            if i == 0:
                best, winner = score, action
            else:
                np.copyto(winner, action, where=score > best)
                np.maximum(best, score, out=best)
        return np.count_nonzero(good[winner])
    return _estimate(_total(successes, trials, max(1 if collapse else len(w), k * (noise == "per_action")), seed), trials)


def preservation_probability(n, policy, rewards, weights, sigma, eps, family="gaussian", trials=100_000, seed=0):
    """Lemma 2's event: P(the winner is eps-Pareto-optimal within its batch), as exact.preservation_probability. -> Estimate."""
    w, n = inputs.weights(weights), inputs.count("n", n)
    rewards = inputs.rewards(rewards, size=len(w))
    policy = inputs.policy(policy, len(rewards))
    trials, seed, sigma = _setup(trials, seed, sigma, len(w))
    verifier = _Verifier(w, sigma, family, 0., 0., False)
    dominates = np.array([[not pareto_optimal(rewards[[a, b]], eps)[1] for b in range(len(rewards))] for a in range(len(rewards))])
    means, thresholds = verifier.centre(rewards @ w, policy), _thresholds(policy)

    def preserved(rng, size):
        action = _pick(rng, thresholds, n * size).reshape(n, size)
        scores = verifier.tidy(means[action] + verifier.independent(rng, n * size).reshape(n, size))
        winner = action[scores.argmax(0), np.arange(size)]
        return np.count_nonzero(~dominates[action, winner].any(0))
    return _estimate(_total(preserved, trials, n, seed), trials)


def gated_success_probability(n, policy, outcome, rewards, good, tau, outcome_weight, weights, sigma, gate="hard",
                              family="gaussian", trials=100_000, seed=0):
    """Corollary 1's event: P(the winner of n draws is good), rewards counting only behind a noisy gate. As
    exact.gated_success_probability, one noise for the outcome and one for each reward; n: one number. -> Estimate.
    """
    w, n = inputs.weights(weights), inputs.count("n", n)
    rewards = inputs.rewards(rewards, size=len(w))
    k = len(rewards)
    policy, outcome = inputs.policy(policy, k), inputs.vector("outcome", outcome, k)
    good, tau = inputs.mask("good", good, k), inputs.scalar("tau", tau)
    w0 = inputs.scalar("outcome_weight", outcome_weight, above=0)
    inputs.choice("family", family, FAMILIES)
    inputs.choice("gate", gate, ("hard", "soft"))
    trials, seed, sigma = _setup(trials, seed, sigma, len(w) + 1)
    means, thresholds = rewards @ w, _thresholds(policy)

    def successes(rng, size):
        best, won, opened = np.full(size, -np.inf), np.zeros(size, bool), np.zeros(size, bool)
        for _ in range(n):
            action = _pick(rng, thresholds, size)
            o = outcome[action] + sigma[0] * _draw(rng, size, family, np.float64)
            score = w0 * o + means[action] + (w * sigma[1:]) @ _draw(rng, (len(w), size), family, np.float64)
            is_open = o >= tau
            score = np.where(is_open, score, o if gate == "soft" else -np.inf)
            better = score > best
            won, best = np.where(better, good[action], won), np.maximum(best, score)
            opened |= is_open
        return np.count_nonzero(won & opened)
    return _estimate(_total(successes, trials, len(w) + 1, seed), trials)


def positive_advantage(n, p, gap, family="gaussian", trials=100_000, seed=0):
    """Remark 1's event: P(a good response's group-normalised advantage is above 0), as exact.positive_advantage. -> Estimate."""
    n, p, gap = inputs.count("n", n), inputs.scalar("p", p, low=0, high=1), inputs.scalar("gap", gap)
    inputs.choice("family", family, FAMILIES)
    trials, seed, _ = _setup(trials, seed, 1., 1)

    def above(rng, size):
        good = rng.random((n, size)) < p
        good[0] = True  # the response in question
        scores = gap * good + _draw(rng, (n, size), family, np.float64)  # (n, size)
        return np.count_nonzero(scores[0] > scores.mean(0))
    return _estimate(_total(above, trials, n, seed), trials)


def pareto_fraction(actions, size, eps, trials=200, seed=0):
    """How much being eps-Pareto-optimal still says, for `actions` random actions with `size` independent N(0, 1) rewards each (our
    answer to "more rewards approximate global optimality").

    -> Estimate of the share of actions that are optimal (at eps = 0 and two rewards it is H_K / K on average), and Estimate of
    the regret of an optimal one drawn at random, in plain summed reward: 0 is the best action, 1 no better than any action
    drawn at random.
    """
    actions, size, eps = inputs.count("actions", actions), inputs.count("size", size), inputs.scalar("eps", eps, low=0)
    trials, seed, _ = _setup(trials, seed, 1., 1)
    rng = np.random.default_rng(seed)
    share, regret = np.empty(trials), np.empty(trials)
    for t in range(trials):
        rewards = rng.standard_normal((actions, size))
        good, total = pareto_optimal(rewards, eps), rewards.sum(1)
        share[t] = good.mean()
        regret[t] = (total.max() - total[good].mean()) / max(total.max() - total.mean(), 1e-300)
    of = lambda v: Estimate(float(v.mean()), float(v.std() / np.sqrt(trials)))
    return of(share), of(regret)
