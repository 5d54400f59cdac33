"""The same quantities by simulation: draw batches, add noise, find the winner, count.

What the paper says (section 3.3): many weak, independent reward estimators are as good as one strong one.
Here its events are played out. Written apart from exact.py, so that each catches the other's mistakes, and it
goes further: noise that is not Gaussian, that is correlated, shared by copies, or different for each teacher.

Section 1 is the plain simulation, one trial after the other: read it first. Section 2 asks the same and more
for many trials at once, more than a hundred times as fast; section 3 is the machinery behind that. Section
2's options:

    family               gaussian, rademacher (+-sigma) or uniform (+-sqrt(3) sigma), all of variance sigma^2
    sigma                a number, or (m,): one noise per teacher
    reward_correlation   rho between two rewards of one action: noise is sqrt(1-rho) own + sqrt(rho) common
    action_correlation   rho between the noises of two actions of one batch; it cancels in comparisons
    action_scale         a number or (K,): how much noisier an action is than sigma
    noise                "fresh" for each draw, or "per_action": copies of an action share one draw
    collapse             True: draw the weighted sum of Gaussian noises at once, as its law is known
    trials, seed         the result depends on them, and not on the number of cores

What is simplified: the worlds, which are a few actions and no model. Gaussian noise is float32.

Run:   python tests/benchmark_theory.py      # section 2 against section 1
Next:  landscapes.py (where the theorem holds and where it breaks)
"""
import math
import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from theory.bounds import (as_counts, as_covariance, as_mask, as_noise, as_vector, as_weights, as_world,
                           unwrap)
from theory.exact import pareto_optimal


class Estimate(NamedTuple):
    value: float  # or an array
    error: float  # standard error, of (hits + 1) / (trials + 2), so that it is never 0


# ---- 1. The plain simulation -------------------------------------------------------------------------------
def plain_success_probability(n, policy, rewards, weights, sigma, eps, trials=20_000, seed=0):
    """Theorem 1's event: P(the winner of n draws is eps-Pareto-optimal among all actions). Gaussian noise.

    policy: K numbers. rewards: K lists of m. weights: m numbers. sigma: one estimator's noise. -> Estimate.

    >>> acd = [[1, 0], [.8, .8], [.95, .95]]     # the truth is .4575: see exact.success_probability
    >>> round(plain_success_probability(2, [.6, .35, .05], acd, [1, 1], .02, .1).value, 2)
    0.46
    """
    rng = random.Random(seed)
    actions = range(len(policy))
    good = pareto_optimal(rewards, eps).tolist()
    hits = 0
    for _ in range(trials):
        best = -math.inf
        for action in rng.choices(actions, policy, k=n):  # a batch
            score = 0.  # Rhat_w(action)
            for weight, reward in zip(weights, rewards[action]):
                score += weight * (reward + rng.gauss(0, sigma))
            if score > best:
                best = score
                winner = action
        hits += good[winner]
    return _estimate(hits, trials)


# ---- 2. Many trials at once --------------------------------------------------------------------------------
def success_probability(n, policy, rewards, weights, sigma, eps, noise="fresh", family="gaussian",
                        reward_correlation=0., action_correlation=0., action_scale=1., collapse=False,
                        trials=100_000, seed=0):
    """Theorem 1's event, as above, with the options that the head of this file explains.

    n: one number. policy: (K,). rewards: (K, m). weights: (m,). sigma: number or (m,). -> Estimate.
    """
    n = int(as_counts(n))
    policy, rewards, w = as_world(policy, rewards, weights)
    sigmas = as_noise("sigma", sigma, len(w))
    scale = as_noise("action_scale", action_scale, len(policy))
    assert noise in ("fresh", "per_action"), f"noise must be fresh or per_action, not {noise}"
    verifier = _Verifier(policy, rewards, w, sigmas, family, reward_correlation, action_correlation, collapse)
    scale = scale.astype(verifier.dtype)
    scaled = (scale != 1).any()
    good = pareto_optimal(rewards, eps)
    thresholds = _thresholds(policy)

    def successes(rng, size):
        common = verifier.common(rng, size)
        trial = np.arange(size)
        if noise == "per_action":
            table = np.stack([verifier.means[a] + verifier.noise(rng, size, common) * scale[a]
                              for a in range(len(policy))])  # (K, size)

        def scores(action):
            if noise == "per_action":
                return verifier.tidy(table[action, trial])
            eta = verifier.noise(rng, size, common)
            if scaled:
                eta = eta * scale[action]
            return verifier.tidy(verifier.means.take(action) + eta)

        winner = _pick(rng, thresholds, size)  # (size,): one trial each
        best = scores(winner)
        for _ in range(n - 1):
            action = _pick(rng, thresholds, size)
            score = scores(action)
            np.copyto(winner, action, where=score > best)
            np.maximum(best, score, out=best)
        return np.count_nonzero(good[winner])

    numbers = len(w)
    if collapse:
        numbers = 1
    if noise == "per_action":
        numbers = max(numbers, len(policy))
    return _estimate(_count(successes, trials, numbers, seed), trials)


def pair_error(gap, weights, covariance_a, covariance_b=None, family="gaussian", trials=100_000, seed=0):
    """Lemma 1's event: P(Rhat_w(a) <= Rhat_w(b)), as exact.pair_error.

    gap, weights: (m,). covariances: (m, m); noise of any family is mixed to have them. -> Estimate.
    """
    w = as_weights(weights)
    gap = as_vector("gap", gap, len(w))
    root_a = _root(as_covariance("covariance_a", covariance_a, len(w)))
    root_b = root_a
    if covariance_b is not None:
        root_b = _root(as_covariance("covariance_b", covariance_b, len(w)))
    largest_noises = np.abs(w @ root_a).sum() + np.abs(w @ root_b).sum()
    slack = 1e-12 * (np.abs(w * gap).sum() + largest_noises)  # sums of signs tie, but for rounding

    def misordered(rng, size):
        a = w @ root_a @ _draw(rng, (len(w), size), family, np.float64)  # (size,)
        b = w @ root_b @ _draw(rng, (len(w), size), family, np.float64)
        return np.count_nonzero(w @ gap + a - b <= slack)
    return _estimate(_count(misordered, trials, 2 * len(w), seed), trials)


def argmax_probabilities(means, std, trials=100_000, seed=0):
    """Who wins a given batch, as exact.argmax_probabilities.

    means: (K,), std: number or (K,). -> Estimate of (K,) arrays.
    """
    means = as_vector("means", means, np.size(means))
    stds = as_noise("std", std, len(means))

    def wins(rng, size):
        scores = means[:, None] + stds[:, None] * rng.standard_normal((len(means), size))  # (K, size)
        return np.bincount(scores.argmax(0), minlength=len(means))
    return _estimate(_count(wins, trials, len(means), seed), trials)


def preservation_probability(n, policy, rewards, weights, sigma, eps, family="gaussian", trials=100_000,
                             seed=0):
    """Lemma 2's event: P(the winner is eps-Pareto-optimal within its batch). -> Estimate.

    As exact.preservation_probability; n: one number, not necessarily small.
    """
    n = int(as_counts(n))
    policy, rewards, w = as_world(policy, rewards, weights)
    verifier = _Verifier(policy, rewards, w, as_noise("sigma", sigma, len(w)), family, 0., 0., False)
    thresholds = _thresholds(policy)
    dominates = np.zeros((len(policy), len(policy)), bool)
    for a in range(len(policy)):
        for b in range(len(policy)):
            dominates[a, b] = not pareto_optimal(rewards[[a, b]], eps)[1]

    def preserved(rng, size):
        action = _pick(rng, thresholds, n * size).reshape(n, size)
        noise = verifier.independent(rng, n * size).reshape(n, size)
        scores = verifier.tidy(verifier.means[action] + noise)
        winner = action[scores.argmax(0), np.arange(size)]  # (size,)
        return np.count_nonzero(~dominates[action, winner].any(0))
    return _estimate(_count(preserved, trials, n, seed), trials)


def gated_success_probability(n, policy, outcome, rewards, good, tau, outcome_weight, weights, sigma,
                              gate="hard", family="gaussian", trials=100_000, seed=0):
    """Corollary 1's event: P(the winner of n draws is good), rewards counting only behind a noisy gate.

    As exact.gated_success_probability, with one noise for the outcome and one for each reward; n: one number.
    -> Estimate.
    """
    n = int(as_counts(n))
    policy, rewards, w = as_world(policy, rewards, weights)
    outcome = as_vector("outcome", outcome, len(policy))
    good = as_mask(good, len(policy))
    sigmas = as_noise("sigma", sigma, len(w) + 1)
    assert outcome_weight > 0, f"outcome_weight must be above 0, not {outcome_weight}"
    assert gate in ("hard", "soft"), f"gate must be hard or soft, not {gate}"
    means = rewards @ w  # (K,)
    thresholds = _thresholds(policy)

    def successes(rng, size):
        best = np.full(size, -np.inf)
        won = np.zeros(size, bool)
        opened = np.zeros(size, bool)
        for _ in range(n):
            action = _pick(rng, thresholds, size)
            o = outcome[action] + sigmas[0] * _draw(rng, size, family, np.float64)
            noise = (w * sigmas[1:]) @ _draw(rng, (len(w), size), family, np.float64)
            closed_score = -np.inf
            if gate == "soft":
                closed_score = o
            score = np.where(o >= tau, outcome_weight * o + means[action] + noise, closed_score)
            won = np.where(score > best, good[action], won)
            best = np.maximum(best, score)
            opened |= o >= tau
        return np.count_nonzero(won & opened)
    return _estimate(_count(successes, trials, len(w) + 1, seed), trials)


def positive_advantage(n, p, gap, family="gaussian", trials=100_000, seed=0):
    """Remark 1's event: P(a good response's group-normalised advantage is above 0). -> Estimate.

    As exact.positive_advantage; numbers only.
    """
    n = int(as_counts(n))
    assert 0 <= p <= 1, f"p must be in [0, 1], not {p}"

    def above(rng, size):
        good = rng.random((n, size)) < p
        good[0] = True  # the response in question
        scores = gap * good + _draw(rng, (n, size), family, np.float64)  # (n, size)
        return np.count_nonzero(scores[0] > scores.mean(0))
    return _estimate(_count(above, trials, n, seed), trials)


def pareto_fraction(actions, size, eps, trials=200, seed=0):
    """How much being eps-Pareto-optimal still says, for `actions` random actions with `size` independent N(0,
    1) rewards each (our answer to "more rewards approximate global optimality").

    -> Estimate of the share of actions that are optimal (at eps = 0 and two rewards it is H_K / K on
    average), and Estimate of the regret of an optimal one drawn at random, in plain summed reward: 0 is the
    best action, 1 no better than any action drawn at random.
    """
    rng = np.random.default_rng(seed)
    share = np.empty(trials)
    regret = np.empty(trials)
    for t in range(trials):
        rewards = rng.standard_normal((actions, size))
        good = pareto_optimal(rewards, eps)
        total = rewards.sum(1)
        share[t] = good.mean()
        regret[t] = (total.max() - total[good].mean()) / max(total.max() - total.mean(), 1e-300)
    return _mean(share), _mean(regret)


# ---- 3. The machinery --------------------------------------------------------------------------------------
# Trials lie along the fast axis: one vectorised pass for each member of the batch, in chunks of about a
# megabyte, so that memory does not grow with trials or n. Chunks run on all cores (numpy works without
# Python's lock), each with random numbers of its own. Float32 is precise enough because scores are kept
# relative to the best action that can be drawn.
FAMILIES = ("gaussian", "rademacher", "uniform")
_CHUNK = 1 << 18  # numbers in one block of noise: large enough that threads seldom wait for each other


def _estimate(hits, trials):
    hits = np.asarray(hits)
    smooth = (hits + 1) / (trials + 2)
    return Estimate(unwrap(hits / trials), unwrap(np.sqrt(smooth * (1 - smooth) / trials)))


def _mean(values):
    return Estimate(float(values.mean()), float(values.std() / np.sqrt(len(values))))


def _count(work, trials, numbers, seed):
    """Sum of work(generator, size) over chunks of about _CHUNK numbers, so many of them to a trial."""
    assert trials >= 1, f"trials must be at least 1, not {trials}"
    assert seed >= 0, f"seed must be at least 0, not {seed}"
    size = max(1, min(trials, _CHUNK // numbers))
    chunks = -(-trials // size)
    threads = min(os.cpu_count() or 1, chunks)

    def share(first):  # every `threads`-th chunk
        total = 0
        for i in range(first, chunks, threads):
            rng = np.random.Generator(np.random.SFC64([seed, i]))
            total = total + work(rng, min(size, trials - i * size))
        return total
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(share, range(threads)))


class _Verifier:
    """Noisy weighted rewards. policy: (K,), rewards: (K, m), weights, sigmas: (m,); options as in the head of
    this file."""

    def __init__(self, policy, rewards, weights, sigmas, family, reward_correlation, action_correlation,
                 collapse):
        assert 0 <= reward_correlation <= 1, f"reward_correlation must be in [0, 1], not {reward_correlation}"
        assert 0 <= action_correlation <= 1, f"action_correlation must be in [0, 1], not {action_correlation}"
        assert family == "gaussian" or not collapse, "collapse: only Gaussian noise keeps its law when summed"
        self.family = family
        self.reward_correlation = reward_correlation
        self.action_correlation = action_correlation
        self.dtype = np.float64
        if family == "gaussian":
            self.dtype = np.float32
        self.scale = (weights * sigmas).astype(self.dtype)  # (m,)
        self.std_of_sum = None
        if collapse:
            own = (1 - reward_correlation) * (self.scale @ self.scale)
            self.std_of_sum = np.sqrt(own + reward_correlation * self.scale.sum() ** 2)
        means = rewards @ weights
        drawn = means[policy > 0]
        self.means = (means - drawn.max()).astype(self.dtype)  # (K,)
        self.grid = 1e-9 * (np.ptp(drawn) + self.scale.sum())
        if self.grid == 0:
            self.grid = 1.

    def independent(self, rng, size):
        """(size,) noises of one action's weighted reward."""
        if self.std_of_sum is not None:
            return self.std_of_sum * _draw(rng, size, self.family, self.dtype)
        noise = self.scale @ _draw(rng, (len(self.scale), size), self.family, self.dtype)
        rho = self.reward_correlation
        if rho == 0:
            return noise
        common = self.scale.sum() * _draw(rng, size, self.family, self.dtype)
        return self.dtype(np.sqrt(1 - rho)) * noise + self.dtype(np.sqrt(rho)) * common

    def common(self, rng, size):
        """(size,): what the noises of all actions of a batch share. None if they share nothing."""
        if self.action_correlation == 0:
            return None
        return self.dtype(np.sqrt(self.action_correlation)) * self.independent(rng, size)

    def noise(self, rng, size, common):
        """(size,) noises of one action of batches with this common part."""
        own = self.independent(rng, size)
        if common is None:
            return own
        return self.dtype(np.sqrt(1 - self.action_correlation)) * own + common

    def tidy(self, scores):
        """Sums of signs tie, but for rounding: make them tie."""
        if self.family == "gaussian":
            return scores
        return np.round(scores / self.grid)


def _root(covariance):
    """root root' = covariance. (m, m) -> (m, m); a diagonal one stays diagonal."""
    if np.count_nonzero(covariance - np.diag(covariance.diagonal())) == 0:
        return np.diag(np.sqrt(covariance.diagonal()))
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


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


def _draw(rng, shape, family, dtype):
    """Noise of mean 0 and variance 1."""
    assert family in FAMILIES, f"family must be one of {FAMILIES}, not {family}"
    if family == "uniform":
        return (rng.random(shape) * 2 - 1) * np.sqrt(3)
    if family == "rademacher":
        return rng.integers(0, 2, shape, np.int8) * 2. - 1
    if dtype == np.float32:
        return _normal(rng, shape)
    return rng.standard_normal(shape)


def _bits(rng, size):
    """(size,) uint32."""
    return rng.bit_generator.random_raw((size + 1) // 2).view(np.uint32)[:size]


def _normal(rng, shape):
    """Standard normals by Box and Muller, float32 -> shape.

    Three times as fast as the generator's own, as numpy's log, sqrt, sin and cos work on many numbers at once
    and in place. 31 bits for a radius reach 6.6 standard deviations.
    """
    count = int(np.prod(shape))
    half = (count + 1) // 2
    signed = _bits(rng, 2 * half).view(np.int32).astype(np.float32)  # numpy converts signed integers faster
    radius = signed[:half]
    np.abs(radius, out=radius)
    radius += np.float32(.5)
    radius *= np.float32(2. ** -31)  # uniform on (0, 1], finest near 0, where the large normals come from
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle = signed[half:]
    angle *= np.float32(np.pi * 2. ** -31)
    normals = np.empty((2, half), np.float32)
    np.cos(angle, out=normals[0])
    np.sin(angle, out=normals[1])
    normals *= radius
    return normals.reshape(-1)[:count].reshape(shape)
