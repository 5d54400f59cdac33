"""The truth, for Gaussian noise: integrals and finite sums instead of bounds. Good to 1e-6 and better.

What the paper says (section 3.3) about best-of-n it says in bounds. Here the same events get their true
values:

    one pair     the error of lemma 1, in closed form
    one batch    who wins it, lemma 2's question
    best of n    theorem 1's question, with noise that is fresh for each draw, or one draw per action that all
                 its copies share, as with a verifier that repeats itself
    the gate     corollary 1's question: rewards count only where the noisy outcome reaches tau
    advantages   remark 1's question

The formula behind most of it. With fresh noise one score is a mixture of Gaussians, and the winner is the
largest of n. With F the mixture's distribution function and f_good the part of its density from good actions,

    P(winner good) = integral of n F(x)^(n-1) f_good(x) dx.

It already says when more samples cannot hurt: it is the average of r(x) = P(good | score x) under F^n, which
moves to the right with n. So where r never falls, success never falls, and the best group size of remark 2
comes from its union bound alone.

What is simplified. Noise is Gaussian (simulate.py knows others). Integrals are Gauss-Legendre sums over
panels at most one noise wide, wherever an action's score can lie within ten noises. Noise below 1e-12 of the
spread of the scores counts as none: the best action drawn wins, and ties are broken evenly among the draws.
Where only some noise is so small, it counts as 1e-11 of the spread, the least that the digits of a score can
resolve.

Run:   python -m theory --only table      # these values beside simulation and bounds
Next:  simulate.py (the same by simulation)
"""
import numpy as np
from numpy.polynomial import legendre
from scipy.special import gammaln, ndtr, xlog1py, xlogy

from theory.bounds import (ROUNDING, as_counts, as_covariance, as_mask, as_noise, as_numbers, as_policy,
                           as_rewards, as_vector, as_weights, as_world, noise_of_sum, unwrap)

_CHUNK = 1 << 21  # numbers in the largest temporary array
_FINEST = 1e-11   # of the spread of the scores: the least noise that panels resolve


# ---- 1. Pareto optimality and pairs ------------------------------------------------------------------------
def pareto_optimal(rewards, eps):
    """Definitions 1 and 2: which actions no other action leads by at least eps in every reward.

    rewards: (K, m). -> bool (K,).

    At eps = 0 a copy would dominate itself, so there one lead must be above 0 (our convention, the usual
    one). A lead that falls short of eps by rounding alone counts.

    >>> pareto_optimal([[1, 0], [.8, .8], [.95, .95]], .1).tolist()     # A, C, D: D leads C by .15 in both
    [True, False, True]
    """
    rewards = as_rewards(rewards)
    assert eps >= 0, f"eps must be at least 0, not {eps}"
    slack = ROUNDING * max(np.abs(rewards).max(), eps)
    dominated = np.zeros(len(rewards), bool)
    step = max(1, _CHUNK // rewards.size)
    for i in range(0, len(rewards), step):
        lead = rewards[None] - rewards[i:i + step, None]  # (step, K, m): of the second over the first
        least = lead.min(-1)                              # (step, K)
        if eps > 0:
            dominates = (least >= eps - slack) & (least > slack)
        else:
            dominates = (least >= -slack) & (lead.max(-1) > slack)
        dominated[i:i + step] = dominates.any(1)
    return ~dominated


def pair_error(gap, weights, covariance_a, covariance_b=None):
    """Lemma 1 without the inequality:
    P(Rhat_w(a) <= Rhat_w(b)) = Phi(-w'gap / sqrt(w'(Sigma_a + Sigma_b) w)).

    gap: (m,) true reward differences a - b. covariance_a: (m, m), the noise of one action over rewards; b's
    is the same unless given. The noises of a and b are independent of each other. -> float.

    >>> round(pair_error([.5, .25], [1, 2], np.eye(2)), 4)     # Phi(-1 / sqrt(10))
    0.3759
    """
    w = as_weights(weights)
    gap = as_vector("gap", gap, len(w))
    covariance_a = as_covariance("covariance_a", covariance_a, len(w))
    if covariance_b is None:
        covariance_b = covariance_a
    covariance_b = as_covariance("covariance_b", covariance_b, len(w))
    lead = w @ gap
    variance = noise_of_sum(w, covariance_a + covariance_b)
    if variance == 0:
        return float(lead <= ROUNDING * np.abs(w * gap).sum())
    return float(ndtr(-lead / np.sqrt(variance)))


def pareto_share(actions, size):
    """Our answer to "more rewards approximate global optimality": the expected share of `actions` random
    actions that are Pareto-optimal (eps = 0), with `size` independent continuous rewards each. -> float.

    a_m(K) / K with a_1 = 1 and a_m(K) = sum over k <= K of a_(m-1)(k) / k; so H_K / K for two rewards. Sort
    by the last reward: the k-th best is optimal if no one before it dominates it in the others, that is, if
    it is optimal among k with m-1 rewards.
    """
    assert actions >= 1 and size >= 1
    optimal = np.ones(actions)  # a_1(1), ..., a_1(K)
    for _ in range(size - 1):
        optimal = np.cumsum(optimal / np.arange(1, actions + 1))
    return float(optimal[-1] / actions)


# ---- 2. One batch, given -----------------------------------------------------------------------------------
def argmax_probabilities(means, std):
    """Who wins a given batch (lemma 2's a_hat): P_j = integral of
    phi((x - mu_j) / s_j) / s_j prod_{k != j} Phi((x - mu_k) / s_k) dx.

    means: (K,) true weighted rewards of the batch's members. std: number or (K,), noise of a weighted reward:
    sigma |w|_2 for independent estimators; all 0 or all above 0. -> (K,), sums to 1; without noise ties are
    split evenly.
    """
    means = as_vector("means", means, np.size(means))
    assert len(means) > 0, "means must not be empty"
    stds = as_noise("std", std, len(means))
    means = means - means.max()
    if _quiet(means, stds):
        best = means >= -ROUNDING * np.ptp(means)
        return best / best.sum()
    nodes, weights, stds = _nodes(means, stds)
    result = np.zeros(len(means))
    step = max(1, _CHUNK // len(means))
    for i in range(0, len(nodes), step):
        z = (nodes[i:i + step, None] - means) / stds  # (step, K)
        phi = ndtr(z)
        # Products over all but one, left times right: to divide by phi would lose its zeros.
        ones = np.ones((len(z), 1))
        left = np.cumprod(np.hstack([ones, phi[:, :-1]]), axis=1)
        right = np.cumprod(np.hstack([ones, phi[:, :0:-1]]), axis=1)[:, ::-1]
        result += weights[i:i + step] @ (np.exp(-z ** 2 / 2) * left * right) / stds / np.sqrt(2 * np.pi)
    return result / result.sum()


def batches(n, actions):
    """Every batch of n draws from so many actions, as counts -> (binomial(n + actions - 1, n), actions).

    >>> batches(2, 2).tolist()
    [[0, 2], [1, 1], [2, 0]]
    """
    if actions == 1:
        return np.array([[n]])
    blocks = []
    for first in range(n + 1):  # copies of the first action
        rest = batches(n - first, actions - 1)
        blocks.append(np.hstack([np.full((len(rest), 1), first), rest]))
    return np.vstack(blocks)


def preservation_probability(n, policy, rewards, weights, sigma, eps):
    """Lemma 2, exactly: P(the winner is eps-Pareto-optimal within its batch), by going through every batch.
    -> float.

    policy: (K,), rewards: (K, m); noise fresh for each draw. Small cases only: binomial(n + K - 1, n)
    batches.
    """
    policy, rewards, w = as_world(policy, rewards, weights)
    std = as_numbers("sigma", sigma, low=0) * np.sqrt(w @ w)
    assert n >= 1, f"n must be at least 1, not {n}"
    total = 0.
    for counts in batches(n, len(policy)):
        drawn = np.flatnonzero(counts)
        if (policy[drawn] == 0).any():
            continue
        log_chance = gammaln(n + 1) - gammaln(counts + 1).sum() + counts[drawn] @ np.log(policy[drawn])
        wins = argmax_probabilities(np.repeat(rewards @ w, counts), std)  # (n,)
        kept = np.repeat(_within(rewards, drawn, eps), counts)            # (n,)
        total += np.exp(log_chance) * wins @ kept
    return total


def _within(rewards, drawn, eps):
    """Which actions are eps-Pareto-optimal among those drawn -> bool (K,); False for the others."""
    kept = np.zeros(len(rewards), bool)
    kept[drawn] = pareto_optimal(rewards[drawn], eps)
    return kept


# ---- 3. Best of n ------------------------------------------------------------------------------------------
def success_probability(n, policy, rewards, weights, sigma, eps, noise="fresh"):
    """What theorem 1 is about: P(the winner of n draws is eps-Pareto-optimal among all actions).

    n: number or array. policy: (K,). rewards: (K, m). weights: (m,). sigma: one estimator's noise, a number
    or (m,). noise: "fresh" for each draw, or "per_action": copies of an action share theirs. -> shape of n.

    >>> acd = [[1, 0], [.8, .8], [.95, .95]]
    >>> round(success_probability(2, [.6, .35, .05], acd, [1, 1], 0, .1), 4)     # 1 - .95^2 + .6^2
    0.4575
    """
    policy, rewards, w = as_world(policy, rewards, weights)
    sigmas = as_noise("sigma", sigma, len(w))
    std = np.sqrt((w ** 2 * sigmas ** 2).sum())
    return best_of_n(n, policy, rewards @ w, std, pareto_optimal(rewards, eps), noise)


def best_of_n(n, policy, means, std, good, noise="fresh"):
    """P(the winner of n draws is good), for any weighted rewards, any noise and any notion of good (ours).

    n: number or array. policy, means: (K,). std: number or (K,), noise of each action's weighted reward, all
    0 or all above 0. good: bool (K,). noise: as success_probability. -> shape of n.
    """
    n = as_counts(n)
    policy = as_policy(policy)
    means = as_vector("means", means, len(policy))
    stds = as_noise("std", std, len(policy))
    good = as_mask(good, len(policy))
    assert noise in ("fresh", "per_action"), f"noise must be fresh or per_action, not {noise}"
    if _quiet(means, stds):
        return unwrap(_noiseless(n, policy, means, good))
    means = means - means.max()  # digits where they count, near the best
    nodes, weights, stds = _nodes(means, stds)
    if noise == "per_action":
        return unwrap(_shared_noise(n, policy, means, stds, good, nodes, weights))
    above, upto, density = _mixture(nodes, policy, means, stds, good)
    return unwrap(_largest(n, above, upto, density * weights))


def _quiet(means, stds):
    """Is the noise too small to matter?"""
    return stds.max() <= ROUNDING * np.ptp(means) or stds.max() == 0


def _noiseless(n, policy, scores, good):
    """Best of n where each action's score is certain; ties broken evenly among the draws. (K,), (K,), (K,) ->
    shape of n.

    P(the best level drawn is l) = F_l^n - F_(l-1)^n, and the winner is any of the draws on it.
    """
    order = np.argsort(scores)
    finite = scores[np.isfinite(scores)]
    tie = 0.
    if len(finite):
        tie = ROUNDING * np.abs(finite).max()
    with np.errstate(invalid="ignore"):  # closed gates: minus infinity less itself
        step = np.diff(scores[order]) > tie
    level = np.concatenate([[0], np.cumsum(step)])        # (K,), in order
    mass = np.bincount(level, policy[order])              # (levels,)
    good_mass = np.bincount(level, (policy * good)[order])
    share = np.divide(good_mass, mass, out=np.zeros_like(mass), where=mass > 0)
    upto = np.minimum(np.concatenate([[0], np.cumsum(mass)]), 1)
    powers = upto ** n[..., None]                         # (..., levels + 1)
    return np.clip(np.diff(powers) @ share, 0, 1)


def _mixture(x, policy, means, stds, good):
    """Scores of one draw. x: (Q,) -> P(score > x), P(score <= x), density of good actions, each (Q,)."""
    above, upto, density = np.empty((3, len(x)))
    step = max(1, _CHUNK // len(means))
    for i in range(0, len(x), step):
        z = (x[i:i + step, None] - means) / stds  # (step, K)
        above[i:i + step] = ndtr(-z) @ policy
        upto[i:i + step] = ndtr(z) @ policy
        density[i:i + step] = np.exp(-z[:, good] ** 2 / 2) @ (policy[good] / stds[good]) / np.sqrt(2 * np.pi)
    return above, upto, density


def _largest(n, above, upto, mass):
    """The integral of n F^(n-1) f as a sum over nodes. n: any shape; above = 1 - F, upto = F, mass = f dx:
    (Q,) -> shape of n."""
    with np.errstate(divide="ignore"):  # whichever of the two keeps its digits
        log_f = np.where(above < .5, np.log1p(-np.minimum(above, .5)), np.log(upto))
    log_f = np.maximum(log_f, -800.)  # exp(-800) is 0 anyway, and 0 * -inf is not a number
    flat = n.reshape(-1)
    result = np.empty(n.size)
    step = max(1, _CHUNK // len(mass))
    for i in range(0, len(flat), step):
        part = flat[i:i + step]
        result[i:i + step] = part * (np.exp(np.outer(part - 1, log_f)) @ mass)
    return np.clip(result, 0, 1).reshape(n.shape)


# ---- 4. The gate -------------------------------------------------------------------------------------------
def gated_success_probability(n, policy, outcome, rewards, good, tau, outcome_weight, weights, sigma,
                              gate="hard"):
    """What corollary 1 is about: P(the winner of n draws is good), where rewards count only behind a noisy
    gate.

    Each draw has a noisy outcome o ~ N(outcome, sigma^2) and noisy rewards. Open (o >= tau): score = w_0 o +
    sum w_i Rhat_i. Closed: score = o (gate="soft"), or minus infinity ("hard"). A batch without an open
    member is a failure, under either gate.

    n: number or array. policy, outcome: (K,). rewards: (K, m). good: bool (K,). weights: (m,),
    outcome_weight: w_0. sigma: a number for all, or (m+1,), the outcome's first (behind a hard gate it may be
    0: no noise). -> shape of n.

    How: an open draw's score x is Gaussian, N(mu, v^2). Given x, the outcome is Gaussian too, so the density
    of "open, and x" is phi((x - mu) / v) / v * Phi((E[o | x] - tau) / sd[o | x]), and everything else is the
    integral of it.
    """
    n = as_counts(n)
    policy, rewards, w = as_world(policy, rewards, weights)
    outcome = as_vector("outcome", outcome, len(policy))
    good = as_mask(good, len(policy))
    sigmas = as_noise("sigma", sigma, len(w) + 1)
    w0 = outcome_weight
    assert np.isfinite(tau), f"tau must be finite, not {tau}"
    assert w0 > 0, f"outcome_weight must be above 0, not {w0}"
    assert gate in ("hard", "soft"), f"gate must be hard or soft, not {gate}"

    s0 = sigmas[0]                                # noise of the outcome
    rest = np.sqrt(w ** 2 @ sigmas[1:] ** 2)      # noise of the weighted rewards
    v = np.hypot(w0 * s0, rest)                   # noise of an open draw's score
    mu = w0 * outcome + rewards @ w               # (K,) mean of an open draw's score
    sure = outcome >= tau - ROUNDING * max(abs(tau), np.abs(outcome).max())  # (K,) open, were there no noise
    spread = max(np.ptp(mu), np.abs(outcome - tau).max())
    if max(v, s0) <= ROUNDING * spread or v == 0:
        return unwrap(_gated_without_noise(n, policy, mu, outcome, sure, good, gate))
    assert s0 > 0 or gate == "hard", "sigma must be above 0 for the outcome, or 0 for all, where gate is soft"
    if s0 > 0:
        s0 = max(s0, _FINEST * spread)
        v = np.hypot(w0 * s0, rest)

    # Where densities live: around each open draw's score, and where its gate begins to open.
    centres = [mu]
    scales = [v]
    breaks = np.array([tau])
    if rest == 0:  # the score tells the outcome, and the gate opens at an edge
        edge = rewards @ w + w0 * tau  # (K,)
        breaks = np.append(edge, tau)
    elif s0 > 0:
        slope = w0 * s0 ** 2 / v ** 2  # E[o | x] = outcome + slope (x - mu)
        doubt = s0 * rest / v          # sd[o | x]
        centres.append(mu + (tau - outcome) / slope)
        scales.append(doubt / slope)
    if gate == "soft":  # the winner of many closed draws crowds against tau: panels that halve towards it
        centres.append(outcome)
        scales.append(s0)
        breaks = np.append(breaks, tau - s0 * .5 ** np.arange(1, 45))
    x, dx = _panels(np.concatenate(centres), np.repeat(scales, len(policy)), breaks)  # (P, 16) each
    at = x[..., None]                                                                 # (P, 16, 1)

    if rest == 0:
        opened = at >= edge  # (P, 16, K): P(open | score x)
    elif s0 > 0:
        opened = ndtr((outcome + slope * (at - mu) - tau) / doubt)
    else:
        opened = sure
    f_open = _normal_density((at - mu) / v, v) * opened * policy  # (P, 16, K): open, and the score is x
    good_open = f_open @ good                                     # (P, 16)
    above = _tail_integral(f_open.sum(-1), dx)                    # (P, 16): P(open, and the score is above x)
    if gate == "hard":  # a closed draw never wins
        return unwrap(_largest(n, above.ravel(), _positive(1 - above).ravel(), (good_open * dx).ravel()))

    below = at < tau
    f_closed = _normal_density((at - outcome) / s0, s0) * below * policy  # (P, 16, K): closed, and score x
    good_closed = f_closed @ good                                         # (P, 16)
    upto_closed = ndtr((np.minimum(at, tau) - outcome) / s0) @ policy     # (P, 16): P(closed, and score <= x)
    above = above + ndtr((tau - outcome) / s0) @ policy - upto_closed
    upto = _positive(1 - above)
    wins = _largest(n, above.ravel(), upto.ravel(), ((good_open + good_closed) * dx).ravel())
    upto_closed = upto_closed.ravel()
    wins_all_closed = _largest(n, 1 - upto_closed, _positive(upto_closed), (good_closed * dx).ravel())
    return unwrap(wins - wins_all_closed)


def _gated_without_noise(n, policy, mu, outcome, sure, good, gate):
    """Corollary 1's event without noise. mu, outcome: (K,) scores where open and closed. -> shape of n."""
    closed_scores = np.full(len(policy), -np.inf)
    if gate == "soft":
        closed_scores = outcome
    scores = np.where(sure, mu, closed_scores)
    wins = _noiseless(n, policy, scores, good)
    if sure.all():
        return wins
    closed = ~sure
    wins_all_closed = _noiseless(n, policy[closed], scores[closed], good[closed])
    return wins - wins_all_closed


def _normal_density(z, s):
    return np.exp(-z ** 2 / 2) / s / np.sqrt(2 * np.pi)


def _positive(probability):
    """Rounding may leave 0 or less, which has no logarithm."""
    return np.maximum(probability, 1e-300)


# ---- 5. Advantages -----------------------------------------------------------------------------------------
def positive_advantage(n, p, gap):
    """Remark 1, exactly: P(a good response's group-normalised advantage is above 0) =
    E_K Phi(gap (1 - K/(n-1)) / sqrt(n / (n-1))), where K ~ Binomial(n-1, p) counts the other good ones.

    Good responses score `gap` above bad ones, in units of one score's noise; each is good with probability p.
    The advantage is positive if the score beats the mean of the other n - 1. For p -> 1 it is a coin toss:
    nobody is left to beat. A group of one has no advantage: 0. n, p, gap: numbers or arrays -> their common
    shape.

    >>> round(positive_advantage(2, .25, 1), 4)     # .25 * .5 + .75 * Phi(1 / sqrt(2))
    0.6952
    """
    p = as_numbers("p", p, low=0)
    assert (p <= 1).all(), f"p must be in [0, 1], not {p}"
    n, p, gap = np.broadcast_arrays(as_counts(n), p, as_numbers("gap", gap))
    result = np.zeros(n.shape)
    for i in np.ndindex(n.shape):
        others = n[i] - 1
        if others == 0:
            continue
        middle = others * p[i]
        reach = 40 + 9 * np.sqrt(others * p[i] * (1 - p[i]))  # beyond lies less than 1e-9
        k = np.arange(max(0, np.floor(middle - reach)), min(others, np.ceil(middle + reach)) + 1)
        log_ways = gammaln(others + 1) - gammaln(k + 1) - gammaln(others - k + 1)
        chance = np.exp(log_ways + xlogy(k, p[i]) + xlog1py(others - k, -p[i]))
        ahead = ndtr(gap[i] * (1 - k / others) / np.sqrt(n[i] / others))
        result[i] = chance @ ahead / chance.sum()
    return unwrap(result)


# ---- 6. Quadrature, the machinery --------------------------------------------------------------------------
_POINTS, _WEIGHTS = legendre.leggauss(16)


def _nodes(means, stds):
    """-> nodes (Q,), weights (Q,), and the noises (K,) none of which is finer than the nodes resolve."""
    assert stds.min() > 0, "std must be all zero or all above 0"
    stds = np.maximum(stds, _FINEST * np.ptp(means))
    nodes, weights = _panels(means, stds)
    return nodes.reshape(-1), weights.reshape(-1), stds


def _panels(centres, scales, breaks=()):
    """Where functions made of Gaussians (centre, scale) live. centres, scales: (G,) -> nodes (P, 16), weights
    (P, 16)."""
    steps = 2. ** np.floor(np.log2(scales))  # powers of two: panels of different actions coincide
    edges = [np.asarray(breaks, float)]
    for step in np.unique(steps):
        cells = np.unique(np.floor(centres[steps == step] / step))
        around = cells[:, None] + np.arange(-20, 22)  # scale < 2 step: ten scales each way
        edges.append(np.unique(around) * step)
    edges = np.unique(np.concatenate(edges))
    half = np.diff(edges)[:, None] / 2
    return edges[:-1, None] + half * (1 + _POINTS), half * _WEIGHTS


def _to_the_right():
    """(16, 16): row i integrates, from node i to 1, the polynomial through 16 values at the nodes."""
    columns = []
    for k in range(16):
        antiderivative = legendre.legint(np.eye(16)[k])  # of the k-th Legendre polynomial
        columns.append(legendre.legval(1, antiderivative) - legendre.legval(_POINTS, antiderivative))
    return np.stack(columns, axis=1) @ np.linalg.inv(legendre.legvander(_POINTS, 15))


_TO_THE_RIGHT = _to_the_right()


def _tail_integral(f, dx):
    """Integral of f from each node to infinity. f, dx: (P, 16) values and weights -> (P, 16)."""
    total = (f * dx).sum(1)
    beyond = np.append(np.cumsum(total[::-1])[::-1][1:], 0)  # of the panels to the right
    return beyond[:, None] + dx[:, :1] / _WEIGHTS[0] * (f @ _TO_THE_RIGHT.T)


# ---- 7. Shared noise, the machinery ------------------------------------------------------------------------
def _shared_noise(n, policy, means, stds, good, nodes, weights):
    """Best of n where copies of an action share one draw of noise (ours). nodes, weights: (Q,) -> shape of n.

    Let good action j score x, and let every other action k be passable (score <= x) with probability c_k =
    Phi((x - mu_k) / s_k). j wins if it was drawn and everything else that was drawn is passable. Were the
    batch's size Poisson(t), the actions' counts would be independent, so that chance would be e^-t G(t) with
        G(t) = (e^(pi_j t) - 1) * prod over k != j of (1 + c_k (e^(pi_k t) - 1)).
    For a batch of exactly n it is n! times the coefficient of t^n in G, which a Fourier transform of G on a
    circle reads off (Cauchy's formula). One circle serves all n within two square roots of its radius.
    """
    types, copies = np.unique(np.stack([policy, means, stds, good], 1), axis=0, return_counts=True)
    pi, mu, s, good = types.T  # (T,) each: identical actions share one c_k
    z = (nodes[:, None] - mu) / s
    c = ndtr(z)  # (Q, T)
    f = weights[:, None] * np.exp(-z ** 2 / 2) / s / np.sqrt(2 * np.pi)  # (Q, T): density times dx
    winners = np.flatnonzero((good > 0) & (pi > 0))
    keep = (f[:, winners] > 1e-24).any(1)  # the other nodes carry nothing
    c = c[keep]
    f = f[keep]
    enough = np.ceil(40 / pi[pi > 0].min())  # from there on every action is drawn, but for e^-40
    flat = np.minimum(n.reshape(-1), enough)
    result = np.empty(flat.size)
    todo = np.unique(flat)
    while len(todo):
        radius = max(8., todo[0] + 2 * np.sqrt(todo[0]))
        now = todo[todo <= radius + 2 * np.sqrt(radius)]
        todo = todo[len(now):]
        # Aliases then lie 14 standard deviations of Poisson(radius) away.
        points = 2 ** int(np.ceil(np.log2(16 * np.sqrt(radius) + 48)))
        g = _on_circle(radius, points, pi, copies, winners, c, f)
        coefficients = np.fft.irfft(np.conj(g), points)  # g_n r^n e^-r, at n modulo `points`
        poisson = np.exp(xlogy(now, radius) - radius - gammaln(now + 1))
        value = coefficients[now.astype(int) % points] / poisson
        mine = np.isin(flat, now)
        result[mine] = value[np.searchsorted(now, flat[mine])]
    return np.clip(result, 0, 1).reshape(n.shape)


def _on_circle(radius, points, pi, copies, winners, c, f):
    """G(t) e^-radius summed over nodes and winners, on the upper half circle |t| = radius: G is real on the
    real line. pi, copies: (T,). c, f: (Q, T). -> complex (points // 2 + 1,)."""
    t = radius * np.exp(2j * np.pi * np.arange(points // 2 + 1) / points)  # (M,)
    # Every factor times e^(-pi_k radius), which makes it at most 1: where k was not drawn, and where it may
    # have been.
    miss = np.exp(-pi * radius)[:, None]          # (T, 1)
    hit = np.exp(pi[:, None] * (t - radius))      # (T, M)
    g = np.zeros(len(t), complex)
    step = max(1, _CHUNK // 8 // len(t))
    for i in range(0, len(c), step):
        chance = c[i:i + step, :, None]  # (step, T, 1)
        factors = [miss[k] + chance[:, k] * (hit[k] - miss[k]) for k in range(len(pi))]  # T of (step, M)
        right = [1.] * len(pi)  # products over the types that follow
        for k in range(len(pi) - 1, 0, -1):
            right[k - 1] = right[k] * _power(factors[k], copies[k])
        left = 1.  # product over the types before
        for j, factor in enumerate(factors):
            if j in winners:
                others = left * right[j] * _power(factor, copies[j] - 1)
                others = np.broadcast_to(others, factor.shape)
                g += copies[j] * (hit[j] - miss[j]) * (f[i:i + step, j] @ others)
            left = left * _power(factor, copies[j])
    return g


def _power(values, k):
    """values ** k; numpy's complex power is slow where there is nothing to do."""
    if k == 0:
        return 1.
    if k == 1:
        return values
    return values ** k
