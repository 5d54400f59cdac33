"""Closed forms: what the paper promises about best-of-n with noisy rewards, and what can be promised instead.

The setting. An action a has true rewards R(a) in R^m. A verifier sees Rhat(a) = R(a) + noise; each reward's
noise is sigma-sub-Gaussian, and independent of the others'. A batch of n actions is drawn from the policy,
and the one with the largest weighted sum of Rhat wins. Is it eps-Pareto-optimal, that is, does no action
anywhere lead it by eps in every reward? Write p for the policy's mass on the eps-Pareto-optimal actions, and
e for the chance that noise orders one pair wrongly.

What the paper says (section 3.3, appendix E):

    lemma 1      e <= exp(-c m eps^2),  c = w_min^2 / (4 sigma^2 w_max^2)
                 true; a sharper constant costs nothing
    lemma 2      P(winner optimal within its batch) >= 1 - (n-1) e
                 true
    theorem 1    P(winner optimal among all) >= (1 - (1-p)^n) (1 - (n-1) e)
                 false from n = 2 on: see landscapes.TRAP
    corollary 1  the same behind a gate
                 false in the same way, and in one more
    remark 2     best n = (ln lambda - ln e) / lambda,  lambda = -ln(1-p)
                 where e << lambda, nearly the maximiser of the bound; the truth often has none

Why theorem 1 fails. Its proof multiplies "the batch holds an optimal action" by "lemma 2 keeps it". But lemma
2 only says that the winner is not dominated *within the batch*. If the action that dominates it was never
drawn, it may beat every optimal action in the batch. `corrected_pareto_bound` asks for more: that the batch
holds an action whose weighted reward is nearly the best.

What is simplified. The paper's text lost its formulas; these are rebuilt from its prose. Values are the
formulas', not clipped to [0, 1]: a negative bound promises nothing. Wrong arguments fail an assert that names
them.

Run:   python -m theory          # every bound here beside the truth
Next:  exact.py (the truth)
"""
from typing import NamedTuple

import numpy as np
from scipy.special import wrightomega

ROUNDING = 1e-12  # relative: a lead of .9 - .8 counts as .1, and scores this close are tied


# ---- 1. One pair: lemma 1 ----------------------------------------------------------------------------------
def pair_error(eps, weights, sigma, sharp=True):
    """Lemma 1: if a leads b by eps in every reward, P(Rhat_w(a) <= Rhat_w(b)) is at most this.

    The weighted lead is at least eps |w|_1, and the difference of two noises has proxy variance
    2 sigma^2 |w|_2^2. So
        sharp=True   exp(-eps^2 |w|_1^2 / (4 sigma^2 |w|_2^2)): the paper's proof before its last step (ours)
        sharp=False  exp(-m eps^2 w_min^2 / (4 sigma^2 w_max^2)): the paper's constant
    which are the same for equal weights.

    eps, sigma: numbers or arrays, in units of reward. weights: (m,), all above 0. -> their common shape.

    >>> round(pair_error(.3, [1, 1, 2], .5), 4)     # exp(-.09 * 16 / (4 * .25 * 6)) = exp(-.24)
    0.7866
    """
    w = as_weights(weights)
    eps = as_numbers("eps", eps, low=0)
    sigma = as_numbers("sigma", sigma, low=0)
    if sharp:
        ratio = w.sum() ** 2 / (w @ w)
    else:
        ratio = len(w) * w.min() ** 2 / w.max() ** 2
    return unwrap(_tail(eps * np.sqrt(ratio), 4 * sigma ** 2))


def effective_rewards(weights, covariance):
    """Lemma 1 for correlated estimators (our correction): m_eff = sigma^2 |w|_1^2 / (w' Sigma w) in m's
    place.

    covariance: (m, m), one action's noise over rewards; sigma^2 is its largest diagonal entry, the proxy that
    fits every estimator. -> float. Independent and equal: m. Correlated by rho and equal:
    m / (1 + (m-1) rho), never above 1 / rho.

    exp(-m_eff eps^2 / (4 sigma^2)) then bounds the pair error of *jointly* Gaussian or sub-Gaussian noise. To
    be uncorrelated is not enough for other noise: see landscapes.parity_pair_error.
    """
    w = as_weights(weights)
    covariance = as_covariance("covariance", covariance, len(w))
    noise = noise_of_sum(w, covariance)
    if noise == 0:  # noise that cancels in the sum does no harm
        return np.inf
    return float(covariance.diagonal().max() * w.sum() ** 2 / noise)


def noise_of_sum(w, covariance):
    """w' Sigma w, the variance of a weighted sum; exactly 0 where only rounding is left. -> float."""
    variance = w @ covariance @ w
    if variance <= 1e-14 * (w @ np.abs(covariance) @ w):
        return 0.
    return float(variance)


def _tail(lead, scale):
    """exp(-lead^2 / scale). Without noise (scale 0) it is 0, or 1 where there is no lead either."""
    lead, scale = np.broadcast_arrays(lead, scale)
    without_noise = np.where(lead > 0, np.inf, 0.)
    return np.exp(-np.divide(lead ** 2, scale, out=without_noise, where=scale > 0))


# ---- 2. A batch: lemma 2, theorem 1, remark 2 as the paper has them ----------------------------------------
def batch_bound(n, e):
    """Lemma 2: P(the winner is eps-Pareto-optimal within its batch of n) >= 1 - (n-1) e.

    The paper applies lemma 1 to the winner, which is random. The repair: fix one dominator d(b) in the batch
    for each dominated b; if b wins, it beat d(b); take the union over at most n-1 such b.
    -> shape of n and e.
    """
    return unwrap(1 - (as_counts(n) - 1) * as_probability("e", e))


def pareto_bound(n, p, e):
    """Theorem 1 as the paper states it: (1 - (1-p)^n) (1 - (n-1) e). False in general, from n = 2 on.

    Two things save it (ours): ask only for "the batch holds an optimal action, and the winner is optimal
    within the batch"; or assume that every optimal action leads every other one by eps |w|_1 in weighted
    reward. -> shape of n, p and e.
    """
    p = as_probability("p", p)
    return unwrap(_drawn(n, p) * batch_bound(n, e))


def _drawn(n, p):
    """1 - (1-p)^n, the chance that n draws hit a mass of p; written so that a small p keeps its digits."""
    with np.errstate(divide="ignore"):  # p = 1
        return -np.expm1(as_counts(n) * np.log1p(-p))


class GroupSize(NamedTuple):
    """Remark 2's answers."""
    continuous: float     # where the derivative of theorem 1's bound vanishes; may lie below 1
    integer: int          # the whole n >= 1 with the largest bound (inf for e = 0)
    approximation: float  # the paper's formula; may be negative


def best_group_size(p, e):
    """Remark 2: the n that maximises theorem 1's bound (1 - (1-p)^n) (1 - (n-1) e). p in (0, 1], e in [0, 1].

    The paper: (ln lambda - ln e) / lambda with lambda = -ln(1-p), which is negative for e > lambda. Exactly
    (our correction): at the maximum y = (1-p)^-n solves y e^y = exp(1 + lambda (1 + 1/e)), so
    y = wrightomega(1 + lambda (1 + 1/e)) and n = ln(y) / lambda. The bound rises before n and falls after, so
    the best whole number is a neighbour of n. All of it is about a bound that is neither tight nor true in
    general: ask exact.success_probability before you believe it.

    >>> best_group_size(1 - np.exp(-1), np.exp(-2)).integer     # lambda = 1, e = exp(-2): (ln 1 + 2) / 1
    2
    """
    assert 0 < p <= 1, f"p must be in (0, 1], not {p}"
    assert 0 <= e <= 1, f"e must be in [0, 1], not {e}"
    if e < 1e-300:  # no pair is ever misordered: the more the better
        return GroupSize(np.inf, np.inf, np.inf)
    if p == 1:  # the limit
        return GroupSize(0., 1, 0.)
    rate = -np.log1p(-p)  # lambda
    delta = rate * (1 + 1 / e)
    u = float(np.log(wrightomega(1 + delta)))  # lambda n
    # The log lost digits near 1: one Newton step on e^u + u = 1 + delta gives them back.
    u -= (np.expm1(u) + u - delta) / (np.exp(u) + 1)
    continuous = float(u / rate)
    neighbours = np.maximum(1, [np.floor(continuous), np.ceil(continuous)])
    integer = int(neighbours[np.argmax(pareto_bound(neighbours, p, e))])
    return GroupSize(continuous, integer, float((np.log(rate) - np.log(e)) / rate))


# ---- 3. Theorem 1 repaired (ours) --------------------------------------------------------------------------
def near_optimal_mass(theta, policy, rewards, weights, eps):
    """p_theta of our corrected theorem: the policy's mass on { R_w >= max R_w - (1 - theta) eps |w|_1 }.

    The maximum is over all actions, those that the policy never draws included.
    theta: number or array in (0, 1]. policy: (K,). rewards: (K, m). weights: (m,). -> shape of theta.
    """
    policy, rewards, w = as_world(policy, rewards, weights)
    theta = as_theta(theta)
    eps = as_numbers("eps", eps, low=0)
    # BEGIN SOLUTION ex12
    behind = (rewards @ w).max() - rewards @ w  # (K,)
    slack = (1 - theta) * eps * w.sum()
    near = behind <= slack[..., None] + ROUNDING * np.ptp(behind)  # (..., K)
    return unwrap(near @ policy)
    # END SOLUTION


def corrected_pareto_bound(n, p_theta, theta, eps, weights, sigma):
    """Our correction of theorem 1, for every landscape:
    (1 - (1-p_theta)^n) (1 - (n-1) exp(-theta^2 eps^2 |w|_1^2 / (4 sigma^2 |w|_2^2))).

    p_theta: as near_optimal_mass, theta in (0, 1]. Proof: whoever is not eps-Pareto-optimal has a dominator,
    so its R_w is at most max R_w - eps |w|_1. A member of the near-optimal set leads it by theta eps |w|_1.
    Given a batch that holds such a member, take the union over at most n-1 losers. -> shape of n.
    """
    theta = as_theta(theta)
    p_theta = as_probability("p_theta", p_theta)
    eps = as_numbers("eps", eps, low=0)
    # BEGIN SOLUTION ex12
    e = pair_error(theta * eps, weights, sigma)
    return unwrap(_drawn(n, p_theta) * batch_bound(n, e))
    # END SOLUTION


def best_corrected_bound(n, policy, rewards, weights, sigma, eps):
    """Our corrected theorem with, for each n, its best theta: any theta gives a true bound, so the largest is
    true too.

    p_theta only changes where an action enters the set, so it is enough to try those values of theta, and 1.
    n: number or array. policy: (K,). rewards: (K, m). weights: (m,). -> (bound, theta), both of n's shape.
    """
    w = as_weights(weights)
    rewards = as_rewards(rewards)
    n = as_counts(n)
    assert eps > 0, f"eps must be above 0, not {eps}"
    behind = (rewards @ w).max() - rewards @ w  # (K,)
    reach = eps * w.sum()
    entered = behind[behind < reach * (1 - 1e-9)]
    thetas = np.unique(np.append(1 - entered / reach, 1.))  # (T,)
    mass = near_optimal_mass(thetas, policy, rewards, w, eps)
    bounds = corrected_pareto_bound(n[..., None], mass, thetas, eps, w, sigma)  # (..., T)
    best = np.argmax(bounds, axis=-1)
    largest = np.take_along_axis(bounds, best[..., None], -1)[..., 0]
    return unwrap(largest), unwrap(thetas[best])


# ---- 4. Behind a gate: corollary 1 -------------------------------------------------------------------------
def gated_bound(n, p, gamma, sigma, weights, eps, corrected=False, theta=1.0):
    """Corollary 1: best of n behind a gate on the outcome, which is at least gamma away from the threshold.

    corrected=False, the paper's:
        (1 - (1-p)^n) (1 - 2n exp(-gamma^2 / 2 sigma^2) - (n-1) exp(-c (m+1) eps^2)).
        p: the policy's mass on correct actions that are eps-Pareto-optimal in the m reasoning rewards.
    corrected=True, ours:
        (1 - (1-p)^n) (1 - n exp(-gamma^2 / 2 sigma^2) - (n-1) e_theta),
        e_theta = exp(-theta^2 eps^2 |w|_1^2 / (4 sigma^2 |w|_2^2)).
        p: the policy's mass on { R_w >= max R_w - (1 - theta) eps |w|_1 } among correct actions, over all m+1
        rewards. Holds for "the winner is correct and, among correct actions, eps-Pareto-optimal in all m+1
        rewards", where a closed gate's score lies below every open one's. Noise crosses the threshold on one
        side only: hence n, not 2n.

    weights: (m+1,), the outcome's first; both forms need it. n, p, gamma, sigma, eps: numbers or arrays.
    -> their common shape.
    """
    w = as_weights(weights)
    n = as_counts(n)
    p = as_probability("p", p)
    gamma = as_numbers("gamma", gamma, low=0)
    sigma = as_numbers("sigma", sigma, low=0)
    eps = as_numbers("eps", eps, low=0)
    theta = as_theta(theta)
    gate = _tail(gamma, 2 * sigma ** 2)  # one noisy outcome on the wrong side
    if corrected:
        kept = 1 - n * gate - (n - 1) * pair_error(theta * eps, w, sigma)
    else:
        kept = 1 - 2 * n * gate - (n - 1) * pair_error(eps, w, sigma, sharp=False)
    return unwrap(_drawn(n, p) * kept)


# ---- 5. Arguments: lists become arrays, and what makes no sense fails an assert that names it --------------
def as_numbers(name, value, low=-np.inf):
    """Finite numbers, none below `low` -> float64, same shape."""
    value = np.asarray(value, float)
    assert np.isfinite(value).all(), f"{name} must be finite, not {value}"
    assert (value >= low).all(), f"{name} must be at least {low:g}, not {value}"
    return value


def as_vector(name, value, size, low=-np.inf):
    """One number for each of `size` things -> (size,)."""
    value = as_numbers(name, value, low)
    assert value.shape == (size,), f"{name} must have shape ({size},), not {value.shape}"
    return value


def as_noise(name, value, size):
    """Standard deviations: one number for all, or one each -> (size,)."""
    value = as_numbers(name, value, low=0)
    if value.ndim == 0:
        return np.full(size, value)
    return as_vector(name, value, size)


def as_counts(n):
    """Whole numbers from 1 on -> float64, same shape (powers of integers would overflow)."""
    n = as_numbers("n", n, low=1)
    assert (n == np.floor(n)).all(), f"n must be whole, not {n}"
    return n


def as_probability(name, value):
    """In [0, 1]; a sum of masses that is off by rounding is clipped -> float64, same shape."""
    value = np.asarray(value, float)
    assert (np.abs(value - .5) <= .5 + 1e-9).all(), f"{name} must be in [0, 1], not {value}"
    return np.clip(value, 0, 1)


def as_theta(theta):
    """The share of the lead that our correction asks for, in (0, 1]."""
    theta = np.asarray(theta, float)
    assert ((theta > 0) & (theta <= 1)).all(), f"theta must be in (0, 1], not {theta}"
    return theta


def as_weights(weights):
    """-> (m,), all above 0: theorem 1 scalarises with positive weights."""
    w = as_numbers("weights", weights)
    assert w.ndim == 1 and w.size and (w > 0).all(), f"weights must be a vector of numbers above 0, not {w}"
    return w


def as_policy(policy):
    """-> (K,), summing to 1. A sum that is off by rounding is put right."""
    policy = as_numbers("policy", policy, low=0)
    assert policy.ndim == 1, f"policy must be a vector, not of shape {policy.shape}"
    total = policy.sum()
    assert abs(total - 1) <= 1e-8, f"policy must sum to 1, not {total:.10g}"
    return policy / total


def as_rewards(rewards):
    """True rewards -> (K, m): one row per action, one column per reward."""
    rewards = as_numbers("rewards", rewards)
    assert rewards.ndim == 2 and rewards.size, f"rewards must have shape (K, m), not {rewards.shape}"
    return rewards


def as_world(policy, rewards, weights):
    """-> policy (K,), rewards (K, m), weights (m,), which fit each other."""
    w = as_weights(weights)
    rewards = as_rewards(rewards)
    assert rewards.shape[1] == len(w), f"rewards must have {len(w)} columns, not {rewards.shape[1]}"
    policy = as_policy(policy)
    assert len(policy) == len(rewards), f"policy must have {len(rewards)} entries, not {len(policy)}"
    return policy, rewards, w


def as_mask(good, size):
    """Which actions count as good -> bool (size,). Ones and zeros would index, not select: refused."""
    good = np.asarray(good)
    assert good.dtype == bool, f"good must be bool, not {good.dtype}"
    assert good.shape == (size,), f"good must have shape ({size},), not {good.shape}"
    return good


def as_covariance(name, value, size):
    """-> (size, size), symmetric, no negative eigenvalue beyond rounding."""
    value = as_numbers(name, value)
    assert value.shape == (size, size), f"{name} must have shape {(size, size)}, not {value.shape}"
    scale = max(np.abs(value).max(), np.finfo(float).tiny)
    assert np.abs(value - value.T).max() <= 1e-9 * scale, f"{name} must be symmetric"
    assert np.linalg.eigvalsh(value).min() >= -1e-9 * scale, f"{name} must not have a negative eigenvalue"
    return value


def unwrap(values):
    """A result of shape () as a plain float."""
    if np.ndim(values) == 0:
        return float(values)
    return values
