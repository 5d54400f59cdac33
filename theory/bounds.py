"""Closed forms: what the paper promises about best-of-N with noisy rewards, and what can be promised instead.

An action a has true rewards R(a) in R^m; a verifier sees Rhat(a) = R(a) + noise, each reward's noise sigma-sub-Gaussian and
independent. A batch of n actions is drawn from the policy, and the one with the largest weighted sum of Rhat wins. Is it
eps-Pareto-optimal, that is, does no action anywhere lead it by eps in every reward? Writing p for the policy's mass on the
eps-Pareto-optimal actions and e for the chance that one pair is ordered wrongly:

    lemma 1      e <= exp(-c m eps^2),  c = w_min^2 / (4 sigma^2 w_max^2)             true; a sharper constant costs nothing
    lemma 2      P(winner optimal within its batch) >= 1 - (n-1) e                    true
    theorem 1    P(winner optimal among all) >= (1 - (1-p)^n) (1 - (n-1) e)           false from n = 2 on: see landscapes.TRAP
    corollary 1  the same behind a gate                                               false in the same way, and in one more
    remark 2     best n = (ln lambda - ln e) / lambda, lambda = -ln(1-p)              where e << lambda, nearly the maximiser of
                                                                                      the bound; the truth often has none

Why theorem 1 fails: its proof multiplies "the batch holds an optimal action" with "lemma 2 keeps it". But lemma 2 only says that
the winner is not dominated *within the batch*. If the action that dominates it was never drawn, it may beat every optimal action
in the batch. `corrected_pareto_bound` asks for more: that the batch holds an action whose weighted reward is nearly the best.

The paper's formulas are lost from its text; these are rebuilt from its prose. Values are the formulas', not clipped to [0, 1]: a
negative "bound" promises nothing. Arguments may be arrays where a figure sweeps over them. Next: exact.py
"""
from typing import NamedTuple

import numpy as np
from scipy.special import wrightomega

from theory import inputs


def pair_error(eps, weights, sigma, sharp=True):
    """Lemma 1: if a leads b by eps in every reward, P(Rhat_w(a) <= Rhat_w(b)) is at most this.

    sharp=True:  exp(-eps^2 |w|_1^2 / (4 sigma^2 |w|_2^2)), what the paper's proof gives before its last step (our correction).
    sharp=False: exp(-m eps^2 w_min^2 / (4 sigma^2 w_max^2)), the paper's constant. Equal for equal weights.
    The weighted lead is at least eps |w|_1, and the difference of two noises has proxy variance 2 sigma^2 |w|_2^2.
    weights: (m,). eps, sigma: numbers or arrays. -> their common shape.
    """
    w = inputs.weights(weights)
    eps, sigma = inputs.number("eps", eps, low=0), inputs.number("sigma", sigma, low=0)
    ratio = w.sum() ** 2 / (w @ w) if sharp else len(w) * w.min() ** 2 / w.max() ** 2
    return inputs.shaped(_tail(eps * np.sqrt(ratio), 4 * sigma ** 2))


def _tail(lead, scale):
    """exp(-lead^2 / scale); without noise 0, and 1 where there is no lead either."""
    lead, scale = np.broadcast_arrays(lead, scale)
    quotient = np.divide(lead ** 2, scale, out=np.where(lead > 0, np.inf, 0.), where=scale > 0)
    return np.exp(-quotient)


def batch_bound(n, e):
    """Lemma 2: P(winner eps-Pareto-optimal within its batch of n) >= 1 - (n-1) e.

    The paper applies lemma 1 to the winner, which is random. The repair: fix one dominator d(b) in the batch for each
    dominated b; if b wins, it beat d(b); union over at most n-1 such b. -> shape of n and e.
    """
    n, e = inputs.counts("n", n), inputs.probability("e", e)
    return inputs.shaped(1 - (n - 1) * e)


def pareto_bound(n, p, e):
    """Theorem 1 as the paper states it: (1 - (1-p)^n) (1 - (n-1) e). False in general, from n = 2 on.

    True for the event "the batch meets P_eps and the winner is optimal within the batch"; and true as stated where every
    optimal action leads every one that is not by eps |w|_1 in weighted reward (both: our correction). -> shape of n, p and e.
    """
    p = inputs.probability("p", p)
    return inputs.shaped(_drawn(n, p) * batch_bound(n, e))


def _drawn(n, p):
    """1 - (1-p)^n without cancellation."""
    with np.errstate(divide="ignore"):
        return -np.expm1(inputs.counts("n", n) * np.log1p(-p))


def corrected_pareto_bound(n, p_theta, theta, eps, weights, sigma):
    """Our correction of theorem 1; no condition on the landscape.

    p_theta: the policy's mass on { R_w >= sup R_w - (1 - theta) eps |w|_1 }, theta in (0, 1]. Proof: whoever is not
    eps-Pareto-optimal has a dominator, so its R_w is at most sup R_w - eps |w|_1; a member of the set leads it by
    theta eps |w|_1; given a batch that holds one, union over at most n-1 losers. The set lies in P_eps.
    The supremum is over all actions, those that the policy never draws included. -> shape of n.
    """
    theta = inputs.number("theta", theta, above=0, high=1)
    p_theta = inputs.probability("p_theta", p_theta)
    return inputs.shaped(_drawn(n, p_theta) * batch_bound(n, pair_error(theta * inputs.number("eps", eps, low=0), weights, sigma)))


def gated_bound(n, p, gamma, sigma, weights, eps, corrected=False, theta=1.0):
    """Corollary 1: best of n behind a gate on the outcome, which is at least gamma away from the threshold.

    weights: (m+1,), the outcome's first, as both forms need it. p: the policy's mass on ...
    corrected=False: ... correct actions that are eps-Pareto-optimal in the m reasoning rewards; the paper's
        (1 - (1-p)^n) (1 - 2n exp(-gamma^2 / 2 sigma^2) - (n-1) exp(-c (m+1) eps^2)).
    corrected=True: ... { R_w >= sup R_w - (1 - theta) eps |w|_1 } among correct actions, over all m+1 rewards (our correction):
        (1 - (1-p)^n) (1 - n exp(-gamma^2 / 2 sigma^2) - (n-1) exp(-theta^2 eps^2 |w|_1^2 / (4 sigma^2 |w|_2^2))).
        Holds for "the winner is correct and, among correct actions, eps-Pareto-optimal in all m+1 rewards", where a closed
        gate's score lies below every open one's. One side of the noise can cross the threshold, hence n and not 2n.
    -> shape of n.
    """
    w = inputs.weights(weights)
    n, p, gamma, sigma, eps = (inputs.counts("n", n), inputs.probability("p", p), inputs.number("gamma", gamma, low=0),
                               inputs.number("sigma", sigma, low=0), inputs.number("eps", eps, low=0))
    theta = inputs.number("theta", theta, above=0, high=1)
    gate = _tail(gamma, 2 * sigma ** 2)
    if not corrected:
        return inputs.shaped(_drawn(n, p) * (1 - 2 * n * gate - (n - 1) * pair_error(eps, w, sigma, sharp=False)))
    return inputs.shaped(_drawn(n, p) * (1 - n * gate - (n - 1) * pair_error(theta * eps, w, sigma)))


class GroupSize(NamedTuple):
    """Remark 2."""
    continuous: float     # where the derivative of theorem 1's bound vanishes; may lie below 1
    integer: int          # the whole n >= 1 with the largest bound (inf for e = 0)
    approximation: float  # the paper's remark 2; may be negative


def best_group_size(p, e):
    """Remark 2: the n that maximises theorem 1's bound (1 - (1-p)^n) (1 - (n-1) e).

    Paper: (ln lambda - ln e) / lambda with lambda = -ln(1-p), which is negative for e > lambda. Exactly (our correction): at
    the maximum y = (1-p)^-n solves y e^y = exp(1 + lambda (1 + 1/e)), so y = wrightomega(1 + lambda (1 + 1/e)) and n = ln(y) /
    lambda. The bound rises before n and falls after, so the best whole number is a neighbour. e = 0 (or below 1e-300): no
    misranking, no best size: inf. p = 1: the limit. All of it is about a bound that is neither tight nor true in general: ask
    exact.success_probability before believing it.
    """
    p, e = inputs.scalar("p", p, above=0, high=1), inputs.scalar("e", e, low=0, high=1)
    if e < 1e-300:
        return GroupSize(np.inf, np.inf, np.inf)
    if p == 1:
        return GroupSize(0., 1, 0.)
    rate = -np.log1p(-p)
    delta = rate * (1 + 1 / e)
    u = float(np.log(wrightomega(1 + delta)))
    u -= (np.expm1(u) + u - delta) / (np.exp(u) + 1)  # a Newton step on e^u + u = 1 + delta: the log lost digits for small delta
    n = float(u / rate)
    near = np.maximum(1, [np.floor(n), np.ceil(n)])
    return GroupSize(n, int(near[np.argmax(pareto_bound(near, p, e))]), float((np.log(rate) - np.log(e)) / rate))


def effective_rewards(weights, covariance):
    """Our correction of lemma 1 for correlated estimators: m_eff = sigma^2 |w|_1^2 / (w' Sigma w), to stand where m stands.

    covariance: (m, m), one action's noise over rewards; sigma^2 is its largest diagonal entry, the proxy that fits every
    estimator. Independent and equal: m. Equicorrelated by rho: m / (1 + (m-1) rho), which never exceeds 1 / rho.
    exp(-m_eff eps^2 / (4 sigma^2)) then bounds the pair error of *jointly* Gaussian or sub-Gaussian noise. Being uncorrelated is
    not enough for other noise: 2^k - 1 products of k fair signs have m_eff = m, and break it (landscapes.parity_pair_error).
    """
    w = inputs.weights(weights)
    c = inputs.covariance("covariance", covariance, len(w))
    noise, sigma2 = inputs.noise_of_sum(w, c), c.diagonal().max()
    if not noise:  # noise that cancels in the sum does no harm
        return np.inf
    return float(sigma2 * w.sum() ** 2 / noise)


def near_optimal_mass(theta, policy, rewards, weights, eps):
    """p_theta of our corrected theorem: the policy's mass on { R_w >= max R_w - (1 - theta) eps |w|_1 }.

    theta: number or array. policy: (K,). rewards: (K, m). -> shape of theta.
    """
    w = inputs.weights(weights)
    rewards = inputs.rewards(rewards, size=len(w))
    policy = inputs.policy(policy, len(rewards))
    theta = inputs.number("theta", theta, above=0, high=1)
    behind = (rewards @ w).max() - rewards @ w  # (K,)
    slack = (1 - theta) * inputs.scalar("eps", eps, low=0) * w.sum()
    return inputs.shaped((behind <= slack[..., None] + inputs.ROUNDING * np.ptp(behind)) @ policy)


def best_corrected_bound(n, policy, rewards, weights, sigma, eps):
    """Our corrected theorem with, for each n, its best theta: any theta gives a true bound, so the largest one is true too.

    p_theta only changes where an action enters the set, so theta runs over those values and 1. -> (bound, theta), shape of n.
    """
    w = inputs.weights(weights)
    rewards = inputs.rewards(rewards, size=len(w))
    behind = (rewards @ w).max() - rewards @ w
    reach = inputs.scalar("eps", eps, above=0) * w.sum()
    thetas = np.unique(np.append(1 - behind[behind < reach * (1 - 1e-9)] / reach, 1.))  # (T,)
    mass = near_optimal_mass(thetas, policy, rewards, w, eps)
    n = inputs.counts("n", n)
    bounds = corrected_pareto_bound(n[..., None], mass, thetas, eps, w, sigma)
    best = np.argmax(bounds, axis=-1)
    return inputs.shaped(np.take_along_axis(bounds, best[..., None], -1)[..., 0]), inputs.shaped(thetas[best])
