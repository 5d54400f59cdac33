"""The theory chapter against numbers worked by hand, brute force, other quadrature, dice, and the paper's own claims.

Run: pytest tests/test_theory.py

Three oracles that share nothing with exact.py's integrals: going through every batch, scipy's adaptive quadrature,
and Monte Carlo.
"""
import doctest
import json
import math
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from PIL import Image
from scipy import stats
from scipy.integrate import quad
from scipy.special import ndtr

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from runs.errors import BadInput  # noqa: E402
from theory import audit, bounds, dial, exact, figures, landscapes, simulate  # noqa: E402
from theory.landscapes import (CROWD, GATE, JITTERY, LURED, SAFE, THRESHOLD, TRAP, UNREACHED,  # noqa: E402
                               crowd_without_end, parity_pair_error, trap_without_noise)

settings.register_profile("argos", deadline=None, derandomize=True, database=None)  # a busy machine is no failure
settings.load_profile("argos")


def close(a, b, tolerance=1e-9):
    return np.allclose(a, b, rtol=0, atol=tolerance)


def agrees(truth, estimate):
    """Within 4 standard errors."""
    return np.all(np.abs(np.asarray(truth) - estimate.value) <= 4 * np.asarray(estimate.error))


# ---- 1. Closed forms by hand -----------------------------------------------------------------------------------------
def test_pair_error_by_hand():
    # weights 1, 1, 2: |w|_1^2 = 16, |w|_2^2 = 6; eps .3, sigma .5: 4 sigma^2 = 1. Sharp: exp(-.09 * 16 / 6) =
    # exp(-.24). The paper's c = 1 / (1 * 4), times m = 3: exp(-.25 * 3 * .09) = exp(-.0675), larger: the looser bound.
    assert bounds.pair_error(.3, [1, 1, 2], .5) == pytest.approx(math.exp(-.24))
    assert bounds.pair_error(.3, [1, 1, 2], .5, sharp=False) == pytest.approx(math.exp(-.0675))
    # equal weights
    assert bounds.pair_error(.3, [2, 2], .5) == pytest.approx(bounds.pair_error(.3, [2, 2], .5, sharp=False))
    assert bounds.pair_error(.3, [1], 0) == 0
    assert bounds.pair_error(0, [1], 0) == 1
    assert bounds.pair_error(0, [1], 2) == 1


def test_bounds_by_hand():
    # n = 3, p = .5, e = .1: 1 - 2 * .1 = .8; 1 - .125 = .875; product .7
    assert bounds.batch_bound(3, .1) == pytest.approx(.8) and bounds.pareto_bound(3, .5, .1) == pytest.approx(.7)
    assert bounds.pareto_bound(1, .3, .9) == pytest.approx(.3)  # one draw: p, whatever the noise
    assert bounds.batch_bound(21, .1) == pytest.approx(-1)  # the formula, not clipped
    # theta = .5 quarters the exponent of exp(-.24): exp(-.06) = .941765
    # n = 2, p_theta = .5: .75 * (1 - .941765) = .043677
    assert bounds.corrected_pareto_bound(2, .5, .5, .3, [1, 1, 2], .5) == pytest.approx(.75 * (1 - math.exp(-.06)))


def test_gated_bound_by_hand():
    # n = 2, p = .5, gamma = 1, sigma = .5: exp(-1 / .5) = exp(-2) = .135335 for one gate. weights 1, 2 (outcome first),
    # eps 1, 4 sigma^2 = 1: the paper's pair error exp(-2 * 1 * 1 / 4) = exp(-.5) = .606531; sharp exp(-9 / 5) = .165299
    # paper:     .75 (1 - 4 * .135335 - .606531) = .75 * -.147872
    # corrected: .75 (1 - 2 * .135335 - .165299) = .75 * .564031 = .423023
    assert bounds.gated_bound(2, .5, 1, .5, [1, 2], 1) == pytest.approx(.75 * -.147872, abs=1e-6)
    assert bounds.gated_bound(2, .5, 1, .5, [1, 2], 1, corrected=True) == pytest.approx(.423023, abs=1e-6)


def test_best_group_size_by_hand():
    # p = 1 - 1/e: lambda = 1. The bound (1 - e^-n)(1 - (n-1) E) is stationary where e^-n (1 - (n-1) E + E) = E, so E =
    # 1 / (e^n + n - 2). For n = 2, E = e^-2: the maximum lies at exactly 2. Remark 2's formula: ln 1 - ln E = 2 too.
    found = bounds.best_group_size(1 - math.exp(-1), math.exp(-2))
    assert found.continuous == pytest.approx(2) and found.integer == 2 and found.approximation == pytest.approx(2)
    # n = 3 asks for E = 1 / (e^3 + 1): the formula then says ln(e^3 + 1) = 3.0486
    found = bounds.best_group_size(1 - math.exp(-1), 1 / (math.exp(3) + 1))
    assert found.continuous == pytest.approx(3)
    assert found.integer == 3
    assert found.approximation == pytest.approx(3.0486, abs=1e-4)
    assert bounds.best_group_size(.05, .2).approximation < 0  # lambda = .0513 < E
    # p tiny, E = 1: e^u - 1 + u = 2 lambda with u = lambda n is 2 u = 2 lambda, so n = 1 (a logarithm loses 4 digits)
    assert bounds.best_group_size(1e-12, 1).continuous == pytest.approx(1, rel=1e-9)
    assert bounds.best_group_size(.5, 0).integer == math.inf and bounds.best_group_size(1, .1).integer == 1


@given(st.floats(1e-6, .999), st.floats(1e-9, 1))
def test_best_group_size_maximises_the_bound(p, e):
    found = bounds.best_group_size(p, e)
    n = found.integer
    around = np.concatenate([np.arange(n - 3, n + 4), np.round(n * np.logspace(-2, 2, 30))])
    around = np.unique(np.clip(around, 1, None))
    assert bounds.pareto_bound(n, p, e) >= bounds.pareto_bound(around, p, e).max() - 1e-12
    assert abs(found.continuous - n) <= 1 or found.continuous < 1 == n
    # the equation that defines it, e^u + u = 1 + lambda (1 + 1/e) with u = lambda n: more digits than any difference of
    # bounds
    rate = -math.log1p(-p)
    u = rate * found.continuous
    assert math.expm1(u) + u == pytest.approx(rate * (1 + 1 / e), rel=1e-9)


def test_effective_rewards_by_hand():
    equi = lambda m, rho: (1 - rho) * np.eye(m) + rho
    assert bounds.effective_rewards(np.ones(5), equi(5, 0)) == pytest.approx(5)
    # m / (1 + (m-1) rho), at any scale
    assert bounds.effective_rewards(np.ones(5), 9 * equi(5, .5)) == pytest.approx(5 / 3)
    assert bounds.effective_rewards(np.ones(400), equi(400, .5)) == pytest.approx(2, abs=1e-2)  # saturates at 1 / rho
    assert bounds.effective_rewards([1, 1], [[1, -1], [-1, 1]]) == math.inf  # noise that cancels
    hidden = np.outer([.1, .2, -.3], [.1, .2, -.3])  # .1 + .2 - .3 is not quite 0 in floats
    assert bounds.effective_rewards([1, 1, 1], hidden) == math.inf
    assert exact.pair_error([0, 0, 0], [1, 1, 1], hidden) == 1
    # weights 1, 3, independent, sigma 1: 16 / 10
    assert bounds.effective_rewards([1, 3], np.eye(2)) == pytest.approx(1.6)


def test_exact_pair_error_by_hand():
    # lead 1 * .5 + 2 * .25 = 1; noise 1 + 4 = 5 for each action: Phi(-1 / sqrt(10)) = Phi(-.316228) = .375915
    assert exact.pair_error([.5, .25], [1, 2], np.eye(2)) == pytest.approx(.375915, abs=1e-6)
    # b without noise: Phi(-1 / sqrt(5)) = Phi(-.447214) = .327360
    assert exact.pair_error([.5, .25], [1, 2], np.eye(2), np.zeros((2, 2))) == pytest.approx(.327360, abs=1e-6)
    assert exact.pair_error([0, 0], [1, 1], np.eye(2)) == .5
    assert exact.pair_error([.1, 0], [1, 1], np.zeros((2, 2))) == 0
    assert exact.pair_error([.1, -.1], [1, 1], np.zeros((2, 2))) == 1


def test_pareto_by_hand():
    # D leads C by .15 in both rewards, nobody leads A = (1, 0) by .1 in the first
    assert exact.pareto_optimal(TRAP.rewards, .1).tolist() == [True, False, True]
    assert exact.pareto_optimal(TRAP.rewards, .2).all()  # .15 is no lead of .2
    # a lead of .1, although .9 - .8 < .1 in floats
    assert exact.pareto_optimal([[.9], [.8]], .1).tolist() == [True, False]
    # copies do not dominate each other
    assert exact.pareto_optimal([[1, 1], [1, 1], [1, 0]], 0).tolist() == [True, True, False]
    assert exact.pareto_optimal([[3, 1]], 0).tolist() == [True]


@given(st.integers(1, 8), st.integers(1, 4), st.sampled_from([0., .2, .5]), st.integers(0, 10 ** 6))
def test_pareto_is_the_definition(k, m, eps, seed):
    r = np.random.default_rng(seed).integers(0, 6, (k, m)) / 5
    lead = lambda a, b: all(round(10 * (x - y)) >= round(10 * eps) for x, y in zip(r[a], r[b]))
    dominated = [any(lead(a, b) and (eps or (r[a] != r[b]).any()) for a in range(k) if a != b) for b in range(k)]
    assert exact.pareto_optimal(r, eps).tolist() == [not d for d in dominated]
    assert exact.pareto_optimal(r, eps).any()  # somebody is always optimal


@pytest.mark.parametrize("module", [bounds, exact, simulate, landscapes])
def test_examples_in_docstrings_are_true(module):
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0


# ---- 2. Exact values against other ways of computing them ------------------------------------------------------------
def test_argmax_by_hand_and_by_adaptive_quadrature():
    # two actions, lead 1, noise 1 each: Phi(1 / sqrt 2) = .760250
    assert exact.argmax_probabilities([1, 0], 1)[0] == pytest.approx(.760250, abs=1e-6)
    assert close(exact.argmax_probabilities([5, 5, 5], 2), 1 / 3)
    assert exact.argmax_probabilities([1, 1, 0], 0).tolist() == [.5, .5, 0]
    means, stds = np.array([0., .3, .35, -2]), np.array([.1, 1., .02, 3.])
    for j in range(4):
        def f(x):
            others = [ndtr((x - means[k]) / stds[k]) for k in range(4) if k != j]
            return stats.norm.pdf(x, means[j], stds[j]) * np.prod(others)
        value = quad(f, -30, 30, points=[-2, 0, .25, .3, .33, .35, .4, 1], epsabs=1e-11, limit=500)[0]
        assert exact.argmax_probabilities(means, stds)[j] == pytest.approx(value, abs=1e-8)


def by_every_batch(n, policy, means, stds, good, noise):
    """Success by going through all K^n ordered batches; who wins one is argmax_probabilities' business."""
    total = 0.
    means = np.asarray(means, float)
    stds = np.broadcast_to(stds, len(means))
    for batch in product(range(len(policy)), repeat=n):
        members = sorted(set(batch)) if noise == "per_action" else list(batch)
        chance = np.prod([policy[a] for a in batch])
        total += chance * exact.argmax_probabilities(means[members], stds[members]) @ good[members]
    return total


@pytest.mark.parametrize("noise", ["fresh", "per_action"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_best_of_n_against_every_batch(n, noise):
    policy, means, good = [.5, .3, .15, .05], [1., .8, 1.1, .8], np.array([True, False, True, False])
    for std in (.3, [.1, .2, .05, .6]):
        args = n, policy, means, std, good, noise
        assert close(exact.best_of_n(*args), by_every_batch(*args))


def test_best_of_n_for_large_n_against_adaptive_quadrature():
    policy, means, s, good = np.array([.1, .9]), np.array([.3, 0.]), .2, np.array([True, False])
    for n in (10, 1000, 100_000):
        f = lambda x: n * (policy @ ndtr((x - means) / s)) ** (n - 1) * policy[0] * stats.norm.pdf(x, .3, s)
        value = quad(f, -1, 3, points=np.linspace(.2, 1.6, 29), epsabs=1e-12, limit=400)[0]
        assert exact.best_of_n(n, policy, means, s, good) == pytest.approx(value, abs=1e-9)


def test_shared_noise_against_the_single_action_formula():
    # endlessly many bad actions, each drawn once: 10^5 of them are nearly endless (a repeat has probability < n^2 /
    # 300,000)
    policy = np.append(.2, np.full(100_000, .8 / 100_000))
    means, good = np.append(.5, np.zeros(100_000)), np.arange(100_001) == 0
    for n in (1, 7, 60):
        value = exact.best_of_n(n, policy, means, .25, good, "per_action")
        assert value == pytest.approx(crowd_without_end(n, .2, 2.), abs=1e-3 if n > 7 else 1e-4)
    # so many draws that every action is there: the best of all four
    policy, means = np.array([.1, .3, .3, .3]), np.array([1.5, 1., .8, .8])
    every_action = exact.best_of_n(4000, policy, means, .5, good[:4], "per_action")
    assert close(every_action, exact.argmax_probabilities(means, .5)[0])


def test_an_array_of_group_sizes_is_the_same_as_one_by_one():
    ns = np.array([[1, 2, 9], [300, 17, 2]])
    for noise in ("fresh", "per_action"):
        args = TRAP.policy, TRAP.rewards, [1, 1], .3, .1, noise
        many = exact.success_probability(ns, *args)
        assert many.shape == ns.shape
        for at in np.ndindex(ns.shape):
            one = exact.success_probability(int(ns[at]), *args)
            assert isinstance(one, float) and close(many[at], one, 1e-12)


def test_success_without_noise_and_ties():
    ns = np.arange(1, 30)
    for sigma in (0, 1e-9):  # without, and its limit
        value = exact.success_probability(ns, TRAP.policy, TRAP.rewards, [1, 1], sigma, .1)
        assert close(value, trap_without_noise(ns, TRAP.policy))
    # (1, 0) is optimal and ties with (.5, .5), which (.7, .7) dominates; of two draws, a tie goes either way:
    # .36 both optimal + 2 * .6 * .4 / 2 + 0 = .6
    assert exact.success_probability(2, [.6, .4, 0], [[1, 0], [.5, .5], [.7, .7]], [1, 1], 0, .2) == pytest.approx(.6)


def test_lemma2_exactly():
    # two actions, B ahead of A by 1 in one reward, sigma = 1: of two draws, the batch AB has probability .5 and errs by
    # Phi(-1 / sqrt 2) = .239750
    value = exact.preservation_probability(2, [.5, .5], [[0.], [1.]], [1.], 1., .5)
    assert value == pytest.approx(1 - .5 * .239750, abs=1e-6)
    assert len(exact.batches(5, 3)) == math.comb(7, 2) and (exact.batches(5, 3).sum(1) == 5).all()


def gated_by_hand(n, policy, outcome, reward, good, tau, w0, sigma, gate):
    """The gate with one reward of weight 1, nested adaptive quadrature over an open draw's outcome. Independent of
    exact.py."""
    policy, outcome, reward, good = map(np.asarray, (policy, outcome, reward, good))
    normal = lambda x, mean: math.exp(-((x - mean) / sigma) ** 2 / 2) / sigma / math.sqrt(2 * math.pi)
    top = tau + 12 * sigma + np.abs(outcome - tau).max()

    def up_to(x):  # P(score <= x), a closed hard gate being minus infinity
        total = 0.
        for p, o, r in zip(policy, outcome, reward):
            opened = quad(lambda z: normal(z, o) * ndtr((x - w0 * z - r) / sigma), tau, top, epsabs=1e-11)[0]
            total += p * (opened + ndtr((min(x, tau) - o) / sigma if gate == "soft" else (tau - o) / sigma))
        return total

    def good_density(x, open_only=False):
        total = 0.
        for p, o, r in zip(policy[good], outcome[good], reward[good]):
            total += p * quad(lambda z: normal(z, o) * normal(x - w0 * z, r), tau, top, epsabs=1e-11)[0]
            if gate == "soft" and x < tau and not open_only:
                total += p * normal(x, o)
        return total
    edges = [-3, tau - .3, tau, tau + .3, 1, 1.5, 3]
    value = 0.
    for a, b in zip(edges, edges[1:]):
        value += quad(lambda x: n * up_to(x) ** (n - 1) * good_density(x), a, b, epsabs=1e-8)[0]
    if gate == "soft":
        closed = lambda x: policy @ ndtr((x - outcome) / sigma)
        density = lambda x: sum(p * normal(x, o) for p, o in zip(policy[good], outcome[good]))
        value -= quad(lambda x: n * closed(x) ** (n - 1) * density(x), -3, tau, epsabs=1e-9)[0]
    return value


@pytest.mark.parametrize("gate", ["hard", "soft"])
def test_gate_against_nested_quadrature(gate):
    args = [.3, .7], [.7, .4], np.array([.1, .5]), np.array([True, False]), .5
    value = exact.gated_success_probability(3, args[0], args[1], args[2][:, None], args[3], .5, .6, [1.], .2, gate)
    assert value == pytest.approx(gated_by_hand(3, *args, .6, .2, gate), abs=1e-6)


def test_gate_of_one_draw_by_hand():
    # one draw succeeds if it is good and its noisy outcome reaches tau:
    # .4 Phi((.8 - .5) / .2) = .4 Phi(1.5) = .4 * .933193
    for gate in ("hard", "soft"):
        for w in ([1.], [.3, 2.]):
            args = 1, [.4, .6], [.8, .3], np.ones((2, len(w))), np.array([True, False]), .5, .7, w, .2, gate
            value = exact.gated_success_probability(*args)
            assert value == pytest.approx(.4 * .933193, abs=1e-6)


def test_gate_with_unequal_and_vanishing_noise():
    args = 4, [.4, .6], [.6, .45], [[.2], [.6]], np.array([True, False]), .5, .7, [1.]
    estimate = simulate.gated_success_probability(*args, [.1, .3], trials=100_000)
    assert agrees(exact.gated_success_probability(*args, [.1, .3]), estimate)
    for tiny in ([1e-7, .3], [.1, 1e-7], [1e-7, 1e-7]):  # and its limits: an outcome, rewards, both without noise
        zero = [0. if t == 1e-7 else t for t in tiny]
        assert close(exact.gated_success_probability(*args, tiny), exact.gated_success_probability(*args, zero), 1e-5)
    # no noise, hard: the good one is open, the bad one closed, so one good draw of four suffices: 1 - .6^4
    assert exact.gated_success_probability(*args, 0.) == pytest.approx(1 - .6 ** 4)


def test_chances_add_up_to_one():
    # good and bad winners, and batches with all gates closed: from n = 1 to a hundred million, over six orders of noise
    rng, ns = np.random.default_rng(2), np.array([1, 2, 10, 1000, 10 ** 6, 10 ** 8])
    for i in range(24):
        k = rng.integers(1, 9)
        policy, some = rng.dirichlet(np.full(k, rng.choice([.1, 1, 10]))), rng.random(k) < .5
        means = rng.normal(size=k) * 10 ** rng.uniform(-3, 3)
        stds = 10 ** rng.uniform(-3, 3, k) if i % 2 else 10 ** rng.uniform(-3, 3)
        for noise, few in (("fresh", ns), ("per_action", ns[:4])):
            win = [exact.best_of_n(few, policy, means, stds, who, noise) for who in (some, ~some)]
            assert close(win[0] + win[1], 1, 1e-6)
        sigma, outcome = 10 ** rng.uniform(-3, 1), rng.random(k)
        for gate in ("hard", "soft"):
            args = policy, outcome, rng.normal(size=(k, 2))
            rest = .5, 10 ** rng.uniform(-2, 1), [1., .5], sigma, gate
            win = [exact.gated_success_probability(ns, *args, who, *rest) for who in (some, ~some)]
            assert close(win[0] + win[1], 1 - (policy @ ndtr((.5 - outcome) / sigma)) ** ns, 1e-6)


def test_noise_of_very_different_sizes():
    # two actions, one (almost) without noise and 1 behind: of two draws it wins if drawn twice, or in half of the
    # batches with probability Phi(-1): .25 + .5 * .158655 = .329328
    good = np.array([True, False])
    for tiny in (1e-10, 1e-13, 1e-17, 1e-100):
        for noise in ("fresh", "per_action"):
            assert exact.best_of_n(2, [.5, .5], [0, 1], [tiny, 1], good, noise) == pytest.approx(.329328, abs=1e-6)
        assert exact.argmax_probabilities([0, 1], [tiny, 1])[0] == pytest.approx(.158655, abs=1e-6)
    args = 8, [.3, .7], [.8, .2], [[.3], [.9]]
    win = [exact.gated_success_probability(*args, who, .5, .5, [1.], [1e-20, .2], "soft") for who in (good, ~good)]
    assert win[0] + win[1] == pytest.approx(1 - .7 ** 8, abs=1e-6)  # all closed: a failure


def test_more_copies_than_can_matter():
    # long after every action was drawn nothing changes: the best of all three
    ns = np.array([10 ** 4, 10 ** 8, 10 ** 12])
    value = exact.success_probability(ns, TRAP.policy, TRAP.rewards, [1, 1], .3, .1, "per_action")
    mean = np.array(TRAP.rewards).sum(1)
    assert close(value, exact.argmax_probabilities(mean, .3 * math.sqrt(2))[TRAP.good].sum(), 1e-8)
    # a good response against 10^8 others, half of them good: ahead of their mean by gap / 2
    assert exact.positive_advantage(10 ** 8, .5, 1) == pytest.approx(ndtr(.5), abs=1e-6)


def test_positive_advantage_by_hand():
    # n = 2: against another good one (p) a coin toss, against a bad one Phi(gap / sqrt 2):
    # .25 * .5 + .75 * .760250 = .695188
    assert exact.positive_advantage(2, .25, 1) == pytest.approx(.695188, abs=1e-6)
    assert exact.positive_advantage(8, 1, 5) == pytest.approx(.5)
    assert exact.positive_advantage(8, .3, 0) == pytest.approx(.5)
    # only a group of good ones alone is a toss
    assert exact.positive_advantage(8, .5, 50) == pytest.approx(1 - .5 * .5 ** 7)
    assert exact.positive_advantage(1, .5, 3) == 0


# ---- 3. Exact against dice -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("world,n", [(SAFE, 8), (TRAP, 5), (THRESHOLD, 6), (JITTERY, 27), (TRAP, 1)])
def test_success_against_dice(world, n):
    estimate = simulate.success_probability(n, world.policy, world.rewards, world.weights, world.sigma, world.eps,
                                            world.noise, action_scale=world.action_scale, trials=300_000, seed=3)
    assert agrees(world.success(n), estimate)


def test_every_noise_against_dice():
    r, w = np.array([[.9, .2, .6], [.5, .5, .5], [.7, .7, .8], [.1, .9, .2]]), np.array([1., .5, 2.])
    policy, n = [.4, .3, .1, .2], 4
    good = exact.pareto_optimal(r, .15)

    def roll(sigma=.3, **options):
        return simulate.success_probability(n, policy, r, w, sigma, .15, trials=200_000, seed=5, **options)

    def truth(variance, noise="fresh"):
        return exact.best_of_n(n, policy, r @ w, np.sqrt(variance), good, noise)
    plain = .09 * w @ w
    assert agrees(truth(plain), roll()) and agrees(truth(plain), roll(collapse=True))
    assert agrees(truth(plain, "per_action"), roll(noise="per_action"))
    assert agrees(truth(.09 * (.4 * w @ w + .6 * w.sum() ** 2)), roll(reward_correlation=.6))
    assert agrees(truth(.09 * (.4 * w @ w + .6 * w.sum() ** 2)), roll(reward_correlation=.6, collapse=True))
    assert agrees(truth(plain * .3), roll(action_correlation=.7))  # what is common to a batch cancels
    assert agrees(truth(w ** 2 @ np.array([.1, .4, .2]) ** 2), roll([.1, .4, .2]))  # a noise for each teacher
    assert agrees(exact.success_probability(n, policy, r, w, [.1, .4, .2], .15), roll([.1, .4, .2]))
    assert agrees(audit.with_signs(np.array(n), np.array(policy), r, w, .3, good), roll(family="rademacher"))
    spread = np.array([1., 2., .5, 3.])
    assert agrees(exact.best_of_n(n, policy, r @ w, np.sqrt(plain) * spread, good), roll(action_scale=spread))
    assert agrees(exact.best_of_n(n, policy, r @ w, 0., good), roll(0.))


def test_uniform_noise_by_hand():
    # one reward, two actions .5 apart, uniform noise on +-.5 (sigma = .5 / sqrt 3): the difference of two is triangular
    # on +-1, so the pair is misordered with probability (1 - .5)^2 / 2 = .125
    estimate = simulate.pair_error([.5], [1.], [[.25 / 3]], family="uniform", trials=200_000)
    assert agrees(.125, estimate)
    # and a batch of two, p = .5: 1/4 + 1/2 * .875 = .6875
    args = 2, [.5, .5], [[.5], [0.]], [1.], .5 / math.sqrt(3), .3
    assert agrees(.6875, simulate.success_probability(*args, family="uniform", trials=200_000))


def test_ties_are_ties_although_sums_are_rounded():
    # A = .3, B = .1, signs of .1: A at its lower and B at its upper score tie at .2, though .3 - .1 < .1 + .1 in
    # floats. Of a mixed pair, A loses half of that quarter: .25 + .5 * (1 - 1/8) = .6875
    args = 2, [.5, .5], [[.3], [.1]], [1.], .1
    value = audit.with_signs(2, np.array([.5, .5]), np.array([[.3], [.1]]), np.ones(1), .1, GOOD)
    assert value == pytest.approx(.6875)
    assert agrees(.6875, simulate.success_probability(*args, .15, family="rademacher", trials=100_000))


def test_dice_know_no_scale():
    policy, r = [.5, .5], np.array([[1.], [.4]])

    def best(c, family):
        return simulate.success_probability(3, policy, c * r, [1.], .5 * c, .3 * c, family=family, trials=5000)

    def pair(c):
        return simulate.pair_error([.5 * c], [1.], [[.25 * c * c]], family="rademacher", trials=5000)
    for c in (1e-12, 1e9):
        for family in simulate.FAMILIES:
            assert abs(best(c, family).value - best(1., family).value) < 1e-3
        assert pair(c) == pair(1.)
    # and do not spend their digits on an action that is never drawn
    args = 2, [.5, .5, 0], [[1000., 0], [500.00001, 500], [990., 990]], [1., 1.], 1e-5, .1
    assert agrees(exact.success_probability(*args), simulate.success_probability(*args))


def test_other_quantities_against_dice():
    c = np.array([[.5, .2], [.2, .3]])
    assert agrees(exact.pair_error([.3, .2], [1, 2], c), simulate.pair_error([.3, .2], [1, 2], c, trials=200_000))
    # signs: b overtakes or ties unless ... two rewards of lead .5, noise +-.5: b - a is one of -2 .. 2 halves; P(sum of
    # 4 signs / 2 >= 1) = P(4 signs sum to >= 2) = (4 + 1) / 16
    assert agrees(5 / 16, simulate.pair_error([.5, .5], [1, 1], .25 * np.eye(2), family="rademacher", trials=200_000))
    means, std = [0., .3, .35, -.5], [.1, .5, .2, 1.]
    assert agrees(exact.argmax_probabilities(means, std), simulate.argmax_probabilities(means, std, trials=200_000))
    assert agrees(exact.preservation_probability(4, TRAP.policy, TRAP.rewards, [1, 1], .2, .1),
                  simulate.preservation_probability(4, TRAP.policy, TRAP.rewards, [1, 1], .2, .1, trials=200_000))
    assert agrees(exact.positive_advantage(6, .7, 1.5), simulate.positive_advantage(6, .7, 1.5, trials=200_000))
    for gate in ("hard", "soft"):
        r, good = [[.1, .3], [.5, .2], [.9, .6]], np.array([True, False, False])
        for n in (1, 5):
            args = n, [.2, .3, .5], [.7, .6, .45], r, good, .5, .6, [1., .5], .2, gate
            estimate = simulate.gated_success_probability(*args, trials=200_000)
            assert agrees(exact.gated_success_probability(*args), estimate)


@pytest.mark.parametrize("world,n", [(SAFE, 8), (TRAP, 2), (TRAP, 5), (THRESHOLD, 3),
                                     (replace(SAFE, weights=(.5, 3.), sigma=.3), 4)])
def test_the_plain_simulation_agrees_with_everything(world, n):
    args = n, world.policy, world.rewards, world.weights, world.sigma, world.eps
    plain = simulate.plain_success_probability(*args)
    assert agrees(exact.success_probability(*args), plain)
    fast = simulate.success_probability(*args)
    assert abs(plain.value - fast.value) < 4 * math.hypot(plain.error, fast.error)


def test_fast_normals_are_normal():
    z = simulate._normal(np.random.Generator(np.random.SFC64(1)), (3, 100_001)).astype(float)
    assert z.shape == (3, 100_001) and stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert abs((z ** 4).mean() - 3) < .06 and abs(np.corrcoef(z)[0, 1]) < .02 and 4.2 < np.abs(z).max() < 6.7
    assert abs(np.corrcoef(z.ravel()[:150_001], z.ravel()[150_001:300_002])[0, 1]) < .02  # cosine and sine of one angle


def test_estimates_are_reproducible_and_their_errors_honest():
    args = 4, SAFE.policy, SAFE.rewards, [1, 1], .3, .3
    a, b, c = (simulate.success_probability(*args, trials=2000, seed=s) for s in (0, 0, 1))
    assert a == b and a != c
    many = [simulate.success_probability(*args, trials=2000, seed=s) for s in range(100)]
    spread = np.std([e.value for e in many])
    assert .75 < spread / many[0].error < 1.3
    # sure of nothing after 100 trials
    assert simulate.success_probability(50, [1.], [[1.]], [1.], .1, .1, trials=100).error > 0


def test_the_number_of_cores_changes_nothing(monkeypatch):
    values = []
    for cores in (1, 3):
        monkeypatch.setattr(simulate.os, "cpu_count", lambda: cores)
        values.append((simulate.success_probability(5, SAFE.policy, SAFE.rewards, [1, 1], .3, .3, trials=200_000),
                       simulate.argmax_probabilities([0., .1], .3, trials=200_000).value.tolist()))
    assert values[0] == values[1]


def test_memory_does_not_grow_with_trials():
    tracemalloc.start()
    for noise in ("fresh", "per_action"):
        # 2 million draws
        simulate.success_probability(100, SAFE.policy, SAFE.rewards, [1, 1], .3, .3, noise, trials=20_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


# ---- 4. What the paper says, and what is true ------------------------------------------------------------------------
@st.composite
def worlds(draw, separated=False):
    """-> policy (K,), rewards (K, m), weights (m,), sigma, eps, on grids, so that ties and exact leads are frequent."""
    k, m = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    seed = draw(st.integers(0, 10 ** 6))
    rng = np.random.default_rng(seed)
    rewards = rng.integers(0, 9, (k, m)) / 8 if draw(st.booleans()) else rng.random((k, m))
    policy = rng.dirichlet(np.full(k, draw(st.sampled_from([.2, 1., 5.]))))
    eps = draw(st.sampled_from([.125, .25, .5]))
    if separated:  # good actions lead all others by eps |w|_1 in weighted reward, and in every reward
        good = rng.random(k) < .4
        good[0] = True
        rewards[good] = rewards[good] * eps / 3 + 1 + eps
    return policy, rewards, rng.choice([.5, 1., 2.], m), draw(st.sampled_from([0., .01, .05, .1, .2, .5])), eps


NS = np.array([1, 2, 3, 5, 9, 20, 60])


@settings(max_examples=150)
@given(worlds(), st.sampled_from(["fresh", "per_action", "signs"]))
def test_the_corrected_theorem_is_never_violated(world, noise):
    policy, rewards, weights, sigma, eps = world
    good = exact.pareto_optimal(rewards, eps)
    truth = (audit.with_signs(NS, policy, rewards, weights, sigma, good) if noise == "signs"
             else exact.success_probability(NS, policy, rewards, weights, sigma, eps, noise))
    for theta in (.05, .3, .7, 1.):
        p_theta = bounds.near_optimal_mass(theta, policy, rewards, weights, eps)
        assert (truth >= bounds.corrected_pareto_bound(NS, p_theta, theta, eps, weights, sigma) - 1e-9).all()
    best, _ = bounds.best_corrected_bound(NS, policy, rewards, weights, sigma, eps)
    assert (truth >= best - 1e-9).all()


@settings(max_examples=100)
@given(worlds(separated=True))
def test_the_papers_theorem_holds_where_good_actions_lead_clearly(world):
    policy, rewards, weights, sigma, eps = world
    good, total = exact.pareto_optimal(rewards, eps), rewards @ weights
    assume(good.all() or total[good].min() - total[~good].max() >= eps * weights.sum())
    truth = exact.success_probability(NS, policy, rewards, weights, sigma, eps)
    assert (truth >= bounds.pareto_bound(NS, policy @ good, bounds.pair_error(eps, weights, sigma)) - 1e-9).all()
    assert (np.diff(truth) >= -1e-9).all()  # P(good | score) rises with the score: more samples never hurt


@settings(max_examples=40)
@given(worlds(), st.integers(1, 4))
def test_lemma2_and_the_weaker_conclusion_hold(world, n):
    policy, rewards, weights, sigma, eps = world
    e, good = bounds.pair_error(eps, weights, sigma), exact.pareto_optimal(rewards, eps)
    std = sigma * np.sqrt(weights @ weights)
    weaker = 0.  # "the batch meets P_eps and the winner is optimal within the batch"
    for counts in exact.batches(n, len(policy)):
        drawn = np.flatnonzero(counts)
        chance = math.factorial(n) / np.prod([math.factorial(c) for c in counts]) * np.prod(policy ** counts)
        kept = exact._within(rewards, drawn, eps)
        wins = exact.argmax_probabilities(np.repeat(rewards @ weights, counts), std) @ np.repeat(kept, counts)
        dominated = sum(c for a, c in enumerate(counts) if c and not kept[a])
        assert wins >= 1 - dominated * e - 1e-9  # sharper than lemma 2: only the dominated members count
        weaker += chance * wins * good[drawn].any()
    assert exact.preservation_probability(n, policy, rewards, weights, sigma, eps) >= bounds.batch_bound(n, e) - 1e-9
    assert weaker >= bounds.pareto_bound(n, policy @ good, e) - 1e-9


@given(st.integers(1, 6), st.integers(0, 10 ** 6), st.floats(0, 2), st.floats(.01, 3))
def test_lemma1_holds(m, seed, eps, sigma):
    rng = np.random.default_rng(seed)
    w = rng.uniform(.1, 3, m)
    truth = exact.pair_error(eps + rng.exponential(.1, m), w, sigma ** 2 * np.eye(m))
    assert truth <= bounds.pair_error(eps, w, sigma) <= bounds.pair_error(eps, w, sigma, sharp=False) + 1e-15
    root = rng.normal(size=(m, m))  # any correlation, with m_eff
    c = root @ root.T
    counted = math.exp(-bounds.effective_rewards(w, c) * eps ** 2 / (4 * c.diagonal().max()))
    assert exact.pair_error(np.full(m, eps), w, c) <= counted + 1e-12


@settings(max_examples=60)
@given(st.integers(0, 10 ** 6))
def test_the_corrected_corollary_is_never_violated(seed):
    found, _ = audit.check_gate(np.random.default_rng(seed))
    truth, bound = found["corrected"]
    assert (truth >= bound - 1e-9).all()


def test_theorem1_is_broken_by_the_trap():
    # without noise, n = 2: truth 1 - .95^2 + .6^2 = .4575; theorem 1 promises 1 - .35^2 = .8775
    ns = np.arange(2, 40)
    assert trap_without_noise(2, TRAP.policy) == pytest.approx(.4575)
    assert bounds.pareto_bound(2, TRAP.p, 0) == pytest.approx(.8775)
    assert (trap_without_noise(ns, TRAP.policy) < bounds.pareto_bound(ns, TRAP.p, 0)).all()
    e = bounds.pair_error(TRAP.eps, TRAP.weights, TRAP.sigma)
    assert (TRAP.success(ns) < bounds.pareto_bound(ns, TRAP.p, e)).all()
    # an equality at n = 1
    assert TRAP.success(1) == pytest.approx(TRAP.p) == pytest.approx(bounds.pareto_bound(1, TRAP.p, e))


def test_theorem1_is_broken_with_one_reward_too():
    e = bounds.pair_error(THRESHOLD.eps, THRESHOLD.weights, THRESHOLD.sigma)
    assert THRESHOLD.good.tolist() == [True, True, False]
    assert THRESHOLD.success(2) < bounds.pareto_bound(2, THRESHOLD.p, e) - .05


def test_corollary1_is_broken_in_three_ways():
    good = np.array([True, False])
    # (1) the trap, all answers right: as theorem 1
    value = exact.gated_success_probability(5, TRAP.policy, [1.] * 3, TRAP.rewards, TRAP.good, .5, 1., [1, 1], .02)
    assert value < bounds.gated_bound(5, TRAP.p, .5, .02, [1, 1, 1], .1) - .5
    # (2) the constant counts m + 1 rewards, but nobody leads in the outcome: two right answers, one reward, eps = 4
    # sigma, equal weights. Batch of two: right if the better one is drawn and, in a mixed batch, wins: .25 + .5 Phi(.8
    # / (.2 sqrt 4)) = .25 + .5 Phi(2) = .738625. The paper: .75 (1 - 4 exp(-12.5) - exp(-2 * 16 / 4)) = .75 (1 -
    # .0000149 - .000335) = .749737
    value = exact.gated_success_probability(2, [.5, .5], [1.5, 1.5], [[.8], [0]], good, .5, 1., [1.], .2)
    assert value == pytest.approx(.738625, abs=1e-6)
    assert bounds.gated_bound(2, .5, 1, .2, [1, 1], .8) == pytest.approx(.749737, abs=1e-6)
    # (3) a soft gate whose closed scores lie above open ones: right answers score .2 * 1, wrong ones .45
    args = 2, [.5, .5], [1., .45], [[0.], [0.]], good, .5, .2, [1.], .009
    assert exact.gated_success_probability(*args, "soft") == pytest.approx(.25, abs=1e-6)
    assert bounds.gated_bound(2, .5, .045, .009, [.2, 1.], .1) > .6
    assert exact.gated_success_probability(*args, "hard") == pytest.approx(.75, abs=1e-6)
    # and its gap is an assumption: told 4 sigma where there is half a one, it promises .94 and gets .15
    assert GATE.at(.5).success(8) < .2 < bounds.gated_bound(8, .3, 4 * GATE.sigma, GATE.sigma, GATE.weights, 2.)


def test_the_gap_a_gate_needs_grows_with_n():
    for low, high, n in ((.6, .8, 8), (1.5, 1.8, 64), (2.1, 2.3, 1024)):  # where n draws begin to beat one
        assert GATE.at(low).success(n) < GATE.at(low).success(1) and GATE.at(high).success(n) > GATE.at(high).success(1)


def test_uncorrelated_estimators_are_not_independent_ones():
    # k = 4: overtaken with probability 1/16 * 15/16 = .058594; lemma 1 with m = 15: exp(-256 / 60) = .014028. Checked
    # by all 2^8 sign patterns.
    truth, promised = parity_pair_error(4)
    assert truth == pytest.approx(.058594, abs=1e-6)
    assert promised == pytest.approx(.014028, abs=1e-6)
    assert truth > promised
    signs = np.array(list(product([1, -1], repeat=4)))
    picks = [np.array(pick, bool) for pick in product([0, 1], repeat=4) if any(pick)]
    noise = np.array([[np.prod(s[pick]) for pick in picks] for s in signs])  # (16, 15)
    assert close(noise.T @ noise / 16, np.eye(15))  # uncorrelated
    total = noise.sum(1)
    assert (np.subtract.outer(total, total) >= 16).mean() == pytest.approx(truth)


def test_correlation_breaks_lemma1_as_counted():
    c = .5 * np.eye(32) + .5
    assert exact.pair_error(np.full(32, .7), np.ones(32), c) > bounds.pair_error(.7, np.ones(32), 1.) * 10


def test_five_shapes():
    ns = np.unique(np.round(np.logspace(0, 4, 60)))
    rises = lambda v: (np.diff(v) >= -1e-9).all()
    assert rises(SAFE.success(ns)) and SAFE.success(10_000) > 1 - 1e-6
    good = np.array([True, False, False, False])
    ceiling = exact.best_of_n(ns, [.1, .3, .3, .3], [1.5, 1., .8, .8], .5, good, "per_action")
    assert rises(ceiling) and ceiling[-1] < .7
    assert rises(-UNREACHED.success(ns))
    # a peak with fresh, equal, hardly any noise: A wins unless C was drawn or A was not: .95^n - .8^n
    assert close(LURED.success(ns), .95 ** ns - .8 ** ns, 1e-6)
    u = TRAP.success(ns)
    assert 0 < u.argmin() < len(ns) - 1 and rises(-u[:u.argmin() + 1]) and rises(u[u.argmin():]) and u[-1] > u[0]
    for peaked in (CROWD.success(ns), JITTERY.success(ns), GATE.success(ns), LURED.success(ns)):
        top = peaked.argmax()
        assert 0 < top < len(ns) - 1 and peaked[top] > peaked[0] + .1 and peaked[top] > peaked[-1] + .1
        assert rises(peaked[:top + 1]) and rises(-peaked[top:])


def test_remark2_chooses_badly():
    best = bounds.best_group_size(SAFE.p, bounds.pair_error(SAFE.eps, SAFE.weights, SAFE.sigma)).integer
    assert best == 4 and SAFE.success(best) < .5 < .99 < SAFE.success(64)  # an artefact of the union bound


def test_remark1_credit_is_not_given_with_high_probability():
    assert exact.positive_advantage(8, .9, 2) < .6 and exact.positive_advantage(8, .9, 6) < .7


def test_pareto_optimality_becomes_trivial():
    # without trade-offs (one reward) 1 of K; at two rewards H_K / K: (1 + 1/2 + ... + 1/10) / 10 = .292897
    assert agrees(.1, simulate.pareto_fraction(10, 1, 0, trials=10)[0])
    assert agrees(.292897, simulate.pareto_fraction(10, 2, 0, trials=3000)[0])
    assert exact.pareto_share(10, 1) == .1 and exact.pareto_share(10, 2) == pytest.approx(.292897, abs=1e-6)
    # K = 2: dominated with probability 2^-m
    assert exact.pareto_share(2, 5) == pytest.approx(1 - 2 ** -5)
    assert agrees(exact.pareto_share(30, 5), simulate.pareto_fraction(30, 5, 0, trials=2000)[0])
    # two actions: each is dominated with probability Phi(-eps / sqrt 2)^m; m = 2, eps = .5: .361837^2 = .130926
    assert agrees(1 - .130926, simulate.pareto_fraction(2, 2, .5, trials=4000)[0])
    share, regret = simulate.pareto_fraction(64, 16, .1, trials=40)
    assert share.value > .99 and regret.value > .98


def test_audit_finds_the_paper_broken_and_the_correction_whole():
    found, culprits = audit.audit(60, 1, progress=False)
    assert found["fresh", "paper"][2] > 0 and not culprits
    assert all(row[2] == 0 for (_, bound), row in found.items() if bound == "corrected")
    assert "| corrected | 60 |" in audit.markdown(found)


# ---- 5. Invariances --------------------------------------------------------------------------------------------------
@settings(max_examples=40)
@given(worlds(), st.floats(.1, 20), st.integers(0, 100))
def test_invariances(world, factor, seed):
    policy, rewards, weights, sigma, eps = world
    rng = np.random.default_rng(seed)
    value = lambda *a, noise="fresh": exact.success_probability(np.array([1, 4, 30]), *a, noise=noise)
    for noise in ("fresh", "per_action"):
        truth = value(policy, rewards, weights, sigma, eps, noise=noise)
        # only ratios of weights count
        assert close(truth, value(policy, rewards, weights * factor, sigma, eps, noise=noise), 1e-8)
        column, row = rng.permutation(len(weights)), rng.permutation(len(policy))
        assert close(truth, value(policy, rewards[:, column], weights[column], sigma, eps, noise=noise), 1e-8)
        assert close(truth, value(policy[row], rewards[row], weights, sigma, eps, noise=noise), 1e-8)
        assert close(truth, value(policy, rewards + 3, weights, sigma, eps, noise=noise), 1e-7)  # a shared bias cancels
        assert close(truth, value(policy, rewards * 4, weights, sigma * 4, eps * 4, noise=noise), 1e-8)
    split = np.concatenate([[policy[0] / 2] * 2, policy[1:]])  # one action in two halves: fresh noise cannot tell
    halves = value(split, np.vstack([rewards[:1], rewards]), weights, sigma, eps)
    assert close(value(policy, rewards, weights, sigma, eps), halves, 1e-8)
    for sharp in (True, False):
        scaled = bounds.pair_error(eps, weights * factor, .3, sharp)
        assert scaled == pytest.approx(bounds.pair_error(eps, weights, .3, sharp))


def test_a_shared_bias_does_not_cancel_behind_a_gate():
    args = 4, [.5, .5], [.6, .4], [[0.], [.6]], np.array([True, False]), .5, 1., [1.], .05
    biased = 4, [.5, .5], [.75, .55], [[0.], [.6]], np.array([True, False]), .5, 1., [1.], .05
    assert exact.gated_success_probability(*args) > .85 > .3 > exact.gated_success_probability(*biased)


# ---- 6. Ill-posed input ----------------------------------------------------------------------------------------------
PI, R, W, GOOD = [.5, .5], [[1., 0.], [0., 1.]], [1., 1.], np.array([True, False])


@pytest.mark.parametrize("name,call", [
    ("sigma", lambda: bounds.pair_error(.1, W, -1)),
    ("sigma", lambda: exact.success_probability(2, PI, R, W, -.1, .1)),
    ("sigma", lambda: simulate.success_probability(2, PI, R, W, [.1, -.1], .1)),
    ("sigma", lambda: bounds.pair_error(.1, W, math.nan)),
    ("sigma", lambda: exact.success_probability(2, PI, R, W, [.1, .1, .1], .1)),
    ("weights", lambda: bounds.pair_error(.1, [1, 0], 1)),
    ("weights", lambda: exact.success_probability(2, PI, R, [1, -1], .1, .1)),
    ("weights", lambda: bounds.effective_rewards([], np.eye(2))),
    ("weights", lambda: simulate.pair_error([1, 1], [[1, 1]], np.eye(2))),
    ("policy", lambda: exact.success_probability(2, [.5, .6], R, W, .1, .1)),
    ("policy", lambda: exact.best_of_n(2, [1.5, -.5], [1, 0], .1, GOOD)),
    ("policy", lambda: simulate.success_probability(2, [.2] * 5, R, W, .1, .1)),
    ("rewards", lambda: exact.success_probability(2, PI, [1, 2], W, .1, .1)),
    ("rewards", lambda: exact.pareto_optimal([[]], .1)),
    ("rewards", lambda: exact.success_probability(2, PI, [[1.], [2.]], W, .1, .1)),
    ("rewards", lambda: exact.pareto_optimal([[math.inf]], .1)),
    ("eps", lambda: exact.pareto_optimal(R, -.1)),
    ("eps", lambda: bounds.pair_error(-1, W, 1)),
    ("n", lambda: exact.success_probability(0, PI, R, W, .1, .1)),
    ("n", lambda: bounds.batch_bound(2.5, .1)),
    ("n", lambda: simulate.positive_advantage(0, .5, 1)),
    ("p", lambda: bounds.pareto_bound(2, 1.2, .1)),
    ("p", lambda: bounds.best_group_size(0, .1)),
    ("e", lambda: bounds.batch_bound(2, -.1)),
    ("e", lambda: bounds.best_group_size(.5, 1.5)),
    ("theta", lambda: bounds.corrected_pareto_bound(2, .5, 0, .1, W, 1)),
    ("theta", lambda: bounds.gated_bound(2, .5, 1, 1, W, .1, True, 2.)),
    ("p_theta", lambda: bounds.corrected_pareto_bound(2, -.5, 1, .1, W, 1)),
    ("gamma", lambda: bounds.gated_bound(2, .5, -1, 1, W, .1)),
    ("gap", lambda: exact.pair_error([1.], W, np.eye(2))),
    ("covariance_a", lambda: exact.pair_error([1, 1], W, np.eye(3))),
    ("covariance_a", lambda: exact.pair_error([1, 1], W, [[1, 2], [2, 1]])),
    ("covariance_b", lambda: exact.pair_error([1, 1], W, np.eye(2), [[1, 1], [0, 1]])),
    ("covariance", lambda: bounds.effective_rewards(W, [[1, .5], [.4, 1]])),
    ("std", lambda: exact.argmax_probabilities([1, 2], [.1, 0])),
    ("means", lambda: exact.argmax_probabilities([], 1)),
    ("std", lambda: exact.argmax_probabilities([1, 2], -1)),
    ("good", lambda: exact.best_of_n(2, PI, [1, 0], .1, [1, 0])),
    ("good", lambda: exact.best_of_n(2, PI, [1, 0], .1, np.array([True]))),
    ("noise", lambda: exact.success_probability(2, PI, R, W, .1, .1, "stale")),
    ("family", lambda: simulate.pair_error([1, 1], W, np.eye(2), family="cauchy")),
    ("gate", lambda: exact.gated_success_probability(2, PI, [1, 0], R, GOOD, .5, 1, W, .1, "ajar")),
    ("outcome", lambda: exact.gated_success_probability(2, PI, [1], R, GOOD, .5, 1, W, .1)),
    ("outcome_weight", lambda: exact.gated_success_probability(2, PI, [1, 0], R, GOOD, .5, 0, W, .1)),
    ("trials", lambda: simulate.argmax_probabilities([1, 2], 1, trials=0)),
    ("seed", lambda: simulate.argmax_probabilities([1, 2], 1, seed=-1)),
    ("action_correlation", lambda: simulate.success_probability(2, PI, R, W, .1, .1, action_correlation=1.5)),
    ("collapse", lambda: simulate.success_probability(2, PI, R, W, .1, .1, family="uniform", collapse=True)),
    ("policy", lambda: exact.success_probability(2, [[.5, .5]], R, W, .1, .1)),
    ("p", lambda: simulate.positive_advantage(2, 1.5, 1)),
    ("p", lambda: exact.positive_advantage(2, 1.5, 1)),
    ("tau", lambda: exact.gated_success_probability(2, PI, [1, 0], R, GOOD, math.nan, 1, W, .1))])
def test_ill_posed_input_is_named(name, call):
    with pytest.raises(AssertionError, match=rf"^{name}\b"):
        call()


def test_words_are_no_numbers():
    with pytest.raises(ValueError, match="half"):
        exact.success_probability(2, "half", R, W, .1, .1)


def test_a_sum_of_masses_may_be_off_by_rounding():
    assert bounds.pareto_bound(2, 1 + 2e-16, .1) == bounds.pareto_bound(2, 1, .1)
    assert exact.success_probability(1, np.full(10, .1), np.ones((10, 1)), [1.], .1, .1) == pytest.approx(1)


# ---- 7. The dial and the command line --------------------------------------------------------------------------------
def verdict_file(path, sigma=(0., .1, .05), rho=.5, common=.0, prompts=60, actions=4, repeats=6, seed=0):
    """Verdicts whose noise is known: correlation rho between grounding and reasoning, `common` between a prompt's
    actions."""
    rng, lines = np.random.default_rng(seed), []
    root = np.linalg.cholesky([[1, rho], [rho, 1]])
    for p in range(prompts):
        truth = np.column_stack([rng.random(actions) < .6, rng.uniform(.4, .6, (actions, 2))])
        for r in range(repeats):
            shared = rng.standard_normal(2)
            for a in range(actions):
                z = root @ (np.sqrt(common) * shared + np.sqrt(1 - common) * rng.standard_normal(2))
                o, g, q = truth[a] + np.array(sigma) * [0, *z]
                lines.append(json.dumps(dict(id=f"p{p}", rollout=a, repeat=r, response=f"answer {a}", outcome=o,
                                             grounding=min(1, max(0, g)), reasoning=min(1, max(0, q)))))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_dial_recovers_noise_that_was_put_in(tmp_path):
    noise = dial.estimate_noise(dial.read_verdicts(verdict_file(tmp_path / "v.jsonl", common=.3)), [.5, .25, .25])
    # 60 prompts x 4 actions x 5 degrees of freedom: relative error of a sigma about 1 / sqrt(2400) = 2 %
    assert np.allclose(noise.sigma, [0, .1, .05], rtol=.08, atol=1e-12)
    assert abs(noise.correlation[1, 2] - .5) < .08 and abs(noise.across - .3) < .1
    # m_eff = sigma^2 |w|_1^2 / (w' Sigma w) = .01 / (.0625 (.01 + .0025 + 2 * .5 * .005)) = 9.14
    assert noise.m_eff == pytest.approx(9.14, rel=.12)
    assert len(noise.actions) == 240


def test_dial_reads_both_layouts_and_tells_copies_from_repeats(tmp_path):
    a = dict(text="a", outcome=1., grounding=.5, reasoning=.4)
    b = dict(text="b", outcome=0., grounding=.1, reasoning=None)
    line = json.dumps(dict(id=7, rollouts=[a, a, b]))
    nested = tmp_path / "rollouts.jsonl"
    nested.write_text(line + "\n" + line + "\n")
    found = dial.read_verdicts(nested)
    assert found["7"]["a"][0] == 2 and len(found["7"]["a"][1]) == 2  # two copies in the group, verified twice
    assert found["7"]["b"][0] == 1 and len(found["7"]["b"][1]) == 2
    flat = tmp_path / "flat.jsonl"
    flat.write_text("".join(json.dumps(dict(id="x", response="a", outcome=o)) + "\n" for o in (1., 0.)))
    assert dial.read_verdicts(flat)["x"]["a"][0] == 1 and len(dial.read_verdicts(flat)["x"]["a"][1]) == 2


def test_dial_group_sizes_follow_the_exact_theory(tmp_path):
    # two answers, a right one shown 1 of 4 times; no noise: 1 - (3/4)^n wins
    rows = [dict(id="x", rollout=k, repeat=r, response="wrong" if k else "right", outcome=float(k == 0), grounding=.5,
                 reasoning=.5) for k in range(4) for r in range(2)]
    path = tmp_path / "v.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    prompts = dial.read_verdicts(path)
    noise = dial.estimate_noise(prompts, [.5, .25, .25])
    found = dial.group_sizes(prompts, noise, .5, .1, 10)
    assert close(found.fresh, 1 - .75 ** np.arange(1, 11)) and close(found.shared, found.fresh) and found.p == .25
    text = dial.report(prompts, [.5, .25, .25], .5, .1, 10)
    assert "best at n = 10 of 10" in text and "caveats" in text


@pytest.mark.parametrize("content,cure", [
    ('{"id": 1}', "row 1"),
    ('{"id": 1, "response": "a", "outcome": 3}', r"\[0, 1\]"),
    ('{"id": 1, "response": "a", "outcome": 1}', "two verdicts"),
    ("[1]", "row 1")])
def test_dial_says_what_is_wrong_with_a_file(tmp_path, content, cure):
    path = tmp_path / "v.jsonl"
    path.write_text(content + "\n")
    with pytest.raises(BadInput, match=cure):
        dial.report(dial.read_verdicts(path), [.5, .25, .25], .5, .1, 8)


def test_the_command_line_writes_its_table_and_refuses_nonsense(tmp_path):
    command = [sys.executable, "-m", "theory", "--out", str(tmp_path)]
    run = lambda *args: subprocess.run([*command, *args], cwd=ROOT, capture_output=True, text=True)
    done = run("--only", "table", "--trials", "200")
    assert done.returncode == 0, done.stderr
    assert "**BROKEN**" in (tmp_path / "results.md").read_text() and "theorem 1" in done.stdout
    done = run("--only", "everything")
    assert done.returncode == 2 and "--only" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["geometry", "bounds", "gate"])
def test_figures_are_drawn(tmp_path, name):
    path = figures.draw(name, tmp_path)
    assert min(Image.open(path).size) > 500 and path.stat().st_size < 120_000
