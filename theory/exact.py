"""The truth, for Gaussian noise: quadrature and finite sums instead of bounds. Good to 1e-6 and better (tests/test_theory.py).

Best of n, in three settings:

    fresh        each of the n draws gets its own noise: a mixture of Gaussians, and the winner is its maximum. With F the
                 mixture's distribution function and f_good the part of its density that comes from good actions,
                     P(winner good) = integral of n F(x)^(n-1) f_good(x) dx
    per_action   copies of one action share one draw of noise (a deterministic verifier): who wins depends on *which* actions
                 were drawn
    gated        fresh noise, and the other rewards only count where the noisy outcome reaches tau

The first form already says when more samples cannot hurt: it is the average of r(x) = P(good | score x) under F^n, which moves
to the right with n. So where r never falls, success never falls, and the best group size of remark 2 is an artefact of its
union bound.

Nodes: Gauss-Legendre panels, one noise wide or less, wherever an action's score can lie within ten noises. Where all noise is below
1e-12 of the spread of the scores it counts as none: then the winner is the best action drawn, ties broken evenly among the draws.
Where only some is, it counts as 1e-11 of the spread, the least that the digits of a score can resolve.

Before: bounds.py. Next: simulate.py (the same by dice)
"""
import numpy as np
from scipy.special import gammaln, ndtr, xlog1py, xlogy

from theory import inputs

_CHUNK = 1 << 21  # numbers in the largest temporary array
_FINEST = 1e-11  # of the spread of the scores: the least noise that panels resolve


# ---- 1. Pareto optimality and pairs ---------------------------------------------------------------------------------------
def pareto_optimal(rewards, eps):
    """Definitions 1 and 2: which actions no other action leads by at least eps in every reward. rewards: (K, m) -> bool (K,).

    At eps = 0 a copy would dominate itself, so there one lead must be above 0 (our convention, the usual one). A lead that falls
    short of eps by rounding alone counts.
    """
    rewards, eps = inputs.rewards(rewards), inputs.scalar("eps", eps, low=0)
    slack = inputs.ROUNDING * max(np.abs(rewards).max(), eps)
    dominated = np.zeros(len(rewards), bool)
    step = max(1, _CHUNK // rewards.size)
    for i in range(0, len(rewards), step):
        lead = rewards[None] - rewards[i:i + step, None]  # (step, K, m): of the second over the first
        least = lead.min(-1)
        dominated[i:i + step] = ((least >= eps - slack) & (least > slack) if eps else
                                 (least >= -slack) & (lead.max(-1) > slack)).any(1)
    return ~dominated


def pair_error(gap, weights, covariance_a, covariance_b=None):
    """Lemma 1 without the inequality: P(Rhat_w(a) <= Rhat_w(b)) = Phi(-w'gap / sqrt(w'(Sigma_a + Sigma_b) w)).

    gap: (m,) true reward differences a - b. covariance_a: (m, m), one action's noise over rewards; b's defaults to a's, and
    a's and b's noises are independent. -> float.
    """
    w = inputs.weights(weights)
    gap, covariance_a = inputs.vector("gap", gap, len(w)), inputs.covariance("covariance_a", covariance_a, len(w))
    covariance_b = covariance_a if covariance_b is None else inputs.covariance("covariance_b", covariance_b, len(w))
    lead, variance = w @ gap, inputs.noise_of_sum(w, covariance_a + covariance_b)
    if not variance:
        return float(lead <= inputs.ROUNDING * np.abs(w * gap).sum())
    return float(ndtr(-lead / np.sqrt(variance)))


def pareto_share(actions, size):
    """Our answer to "more rewards approximate global optimality": the expected share of `actions` random actions that are
    Pareto-optimal (eps = 0), for `size` independent continuous rewards each. -> float.

    a_m(K) / K with a_1 = 1, a_m(K) = sum over k <= K of a_(m-1)(k) / k; so H_K / K for two rewards. In order of the last reward,
    the k-th best is optimal if no one before it dominates it in the others: if it is optimal among k, with m-1 rewards.
    """
    actions, size = inputs.count("actions", actions), inputs.count("size", size)
    optimal = np.ones(actions)  # a_1(1), ..., a_1(K)
    for _ in range(size - 1):
        optimal = np.cumsum(optimal / np.arange(1, actions + 1))
    return float(optimal[-1] / actions)


# ---- 2. Quadrature --------------------------------------------------------------------------------------------------------
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(16)


def _to_the_right():
    """(16, 16): row i integrates, from node i to 1, the polynomial through 16 values at the nodes."""
    from numpy.polynomial import legendre as L
    upto = [L.legint(np.eye(16)[k]) for k in range(16)]  # antiderivative of each Legendre polynomial
    rows = np.stack([L.legval(1, c) - L.legval(_POINTS, c) for c in upto], axis=1)
    return rows @ np.linalg.inv(L.legvander(_POINTS, 15))


_TO_THE_RIGHT = _to_the_right()


def _panels(centres, scales, breaks=()):
    """Where functions made of Gaussians (centre, scale) live. centres, scales: (G,) -> nodes (P, 16), weights (P, 16)."""
    steps = 2. ** np.floor(np.log2(scales))  # powers of two: panels of different actions coincide
    edges = [np.asarray(breaks, float)]
    for step in np.unique(steps):
        cells = np.unique(np.floor(centres[steps == step] / step))
        edges.append(np.unique(cells[:, None] + np.arange(-20, 22)) * step)  # scale < 2 step: ten scales each way
    edges = np.unique(np.concatenate(edges))
    half = np.diff(edges)[:, None] / 2
    return edges[:-1, None] + half * (1 + _POINTS), half * _WEIGHTS


def _mixture(x, policy, means, stds, good):
    """Scores of one draw. x: (Q,) -> P(score > x) (Q,), P(score <= x) (Q,), density of good actions (Q,)."""
    above, upto, density = np.empty((3, len(x)))
    step = max(1, _CHUNK // len(means))
    for i in range(0, len(x), step):
        z = (x[i:i + step, None] - means) / stds  # (step, K)
        above[i:i + step], upto[i:i + step] = ndtr(-z) @ policy, ndtr(z) @ policy
        density[i:i + step] = np.exp(-z[:, good] ** 2 / 2) @ (policy[good] / stds[good]) / np.sqrt(2 * np.pi)
    return above, upto, density


def _largest(n, above, upto, mass):
    """sum over nodes of n F^(n-1) mass. n: any shape; above = 1 - F, upto = F, mass = density x weight: (Q,) -> shape of n."""
    with np.errstate(divide="ignore"):
        log_f = np.where(above < .5, np.log1p(-np.minimum(above, .5)), np.log(upto))
    log_f = np.maximum(log_f, -800.)  # exp(-800) is 0 anyway, and 0 * -inf is not a number
    flat, result = n.reshape(-1), np.empty(n.size)
    step = max(1, _CHUNK // len(mass))
    for i in range(0, len(flat), step):
        part = flat[i:i + step]
        result[i:i + step] = part * (np.exp(np.outer(part - 1, log_f)) @ mass)
    return np.clip(result, 0, 1).reshape(n.shape)


def _noiseless(n, policy, scores, good):
    """Best of n where each draw's score is certain; ties broken evenly among the draws. (K,), (K,), (K,) -> shape of n.

    P(the best level drawn is l) = F_l^n - F_(l-1)^n, and the winner is any of the draws there.
    """
    order = np.argsort(scores)
    finite = scores[np.isfinite(scores)]
    with np.errstate(invalid="ignore"):  # closed gates: minus infinity less itself
        step = np.diff(scores[order]) > inputs.ROUNDING * (np.abs(finite).max() if len(finite) else 0)
    level = np.concatenate([[0], np.cumsum(step)])  # (K,), in order
    mass = np.bincount(level, policy[order])
    share = np.divide(np.bincount(level, (policy * good)[order]), mass, out=np.zeros_like(mass), where=mass > 0)
    below = np.minimum(np.concatenate([[0], np.cumsum(mass)]), 1)
    powers = below ** n[..., None]
    return np.clip(np.diff(powers) @ share, 0, 1)


def _quiet(means, stds):
    return stds.max() <= inputs.ROUNDING * np.ptp(means) or stds.max() == 0


# ---- 3. One batch, given --------------------------------------------------------------------------------------------------
def argmax_probabilities(means, std):
    """Who wins a fixed batch (lemma 2's a_hat): P_j = integral of
    phi((x - mu_j) / s_j) / s_j prod_{k != j} Phi((x - mu_k) / s_k) dx.

    means: (K,) true weighted rewards of the batch's members. std: number or (K,), noise of a weighted reward: sigma |w|_2 for
    independent estimators; all 0 or all above 0. -> (K,), sums to 1; without noise ties are split evenly.
    """
    means = inputs.vector("means", means)
    stds = np.broadcast_to(inputs.number("std", std, low=0), means.shape) if np.ndim(std) == 0 else inputs.vector(
        "std", std, len(means), low=0)
    means = means - means.max()
    if _quiet(means, stds):
        best = means >= -inputs.ROUNDING * np.ptp(means)
        return best / best.sum()
    if stds.min() <= 0:
        raise ValueError("std must be all zero or all above 0")
    stds = np.maximum(stds, _FINEST * np.ptp(means))
    nodes, weights = (a.reshape(-1) for a in _panels(means, stds))
    result = np.zeros(len(means))
    step = max(1, _CHUNK // len(means))
    for i in range(0, len(nodes), step):
        z = (nodes[i:i + step, None] - means) / stds  # (step, K)
        phi = ndtr(z)
        # products over all but one: from the left times from the right, as dividing by phi would lose its zeros
        left = np.cumprod(np.hstack([np.ones((len(z), 1)), phi[:, :-1]]), axis=1)
        right = np.cumprod(np.hstack([np.ones((len(z), 1)), phi[:, :0:-1]]), axis=1)[:, ::-1]
        result += weights[i:i + step] @ (np.exp(-z ** 2 / 2) * left * right) / stds / np.sqrt(2 * np.pi)
    return result / result.sum()


def batches(n, actions):
    """For lemma 2: every batch of n draws from so many actions, as counts: (C, actions),
    C = binomial(n + actions - 1, n). For small cases."""
    if actions == 1:
        return np.array([[n]])
    rest = [batches(n - k, actions - 1) for k in range(n + 1)]
    return np.vstack([np.hstack([np.full((len(r), 1), k), r]) for k, r in enumerate(rest)])


def preservation_probability(n, policy, rewards, weights, sigma, eps):
    """Lemma 2, exactly: P(the winner is eps-Pareto-optimal within its batch), by going through every batch. -> float.

    policy: (K,), rewards: (K, m); noise fresh for each draw. Small cases only: binomial(n + K - 1, n) batches.
    """
    n, w, rewards, policy = inputs.count("n", n), inputs.weights(weights), inputs.rewards(rewards), inputs.policy(policy)
    inputs.rewards(rewards, len(policy), len(w))
    std, total = inputs.scalar("sigma", sigma, low=0) * np.sqrt(w @ w), 0.
    for counts in batches(n, len(policy)):
        drawn = np.flatnonzero(counts)
        if (policy[drawn] == 0).any():
            continue
        log_p = gammaln(n + 1) - gammaln(counts + 1).sum() + counts[drawn] @ np.log(policy[drawn])
        wins = argmax_probabilities(np.repeat(rewards @ w, counts), std)  # (n,)
        total += np.exp(log_p) * wins @ np.repeat(_within(rewards, drawn, eps), counts)
    return total


def _within(rewards, drawn, eps):
    """Which actions are eps-Pareto-optimal among those drawn -> bool (K,); False for the others."""
    kept = np.zeros(len(rewards), bool)
    kept[drawn] = pareto_optimal(rewards[drawn], eps)
    return kept


# ---- 4. Best of n ---------------------------------------------------------------------------------------------------------
def success_probability(n, policy, rewards, weights, sigma, eps, noise="fresh"):
    """What theorem 1 is about: P(the winner of n draws is eps-Pareto-optimal among all actions).

    n: number or array of them. policy: (K,). rewards: (K, m). weights: (m,). sigma: one estimator's noise, a number or (m,).
    noise: "fresh" for each draw, or "per_action": copies of an action share theirs. -> shape of n.
    """
    w = inputs.weights(weights)
    rewards = inputs.rewards(rewards, size=len(w))
    policy = inputs.policy(policy, len(rewards))
    sigma = inputs.number("sigma", sigma, low=0)
    if sigma.ndim:
        inputs.vector("sigma", sigma, len(w))
    std = np.sqrt((w ** 2 * sigma ** 2).sum())
    return best_of_n(n, policy, rewards @ w, std, pareto_optimal(rewards, eps), noise)


def best_of_n(n, policy, means, std, good, noise="fresh"):
    """P(the winner of n draws is good), for any weighted rewards, noise and notion of good (our form of theorem 1's event).

    policy, means: (K,). std: number or (K,), noise of each action's weighted reward. good: bool (K,). -> shape of n.
    """
    n, policy = inputs.counts("n", n), inputs.policy(policy)
    means = inputs.vector("means", means, len(policy))
    good = inputs.mask("good", good, len(policy))
    stds = inputs.number("std", std, low=0)
    stds = np.full(len(policy), stds) if stds.ndim == 0 else inputs.vector("std", stds, len(policy))
    inputs.choice("noise", noise, ("fresh", "per_action"))
    if _quiet(means, stds):
        return inputs.shaped(_noiseless(n, policy, means, good))
    if stds.min() <= 0:
        raise ValueError("std must be all zero or all above 0")
    means = means - means.max()  # digits where they count, near the best
    stds = np.maximum(stds, _FINEST * np.ptp(means))
    nodes, weights = (a.reshape(-1) for a in _panels(means, stds))
    if noise == "per_action":
        return inputs.shaped(_shared_noise(n, policy, means, stds, good, nodes, weights))
    above, upto, density = _mixture(nodes, policy, means, stds, good)
    return inputs.shaped(_largest(n, above, upto, density * weights))


def _shared_noise(n, policy, means, stds, good, nodes, weights):
    """Best of n where copies of an action share one draw of noise (our correction). nodes, weights: (Q,) -> shape of n.

    Let good action j score x, and let each other action k be passable (score <= x) with probability c_k = Phi((x - mu_k) / s_k).
    j wins if it was drawn and everything else drawn is passable. Were the batch's size Poisson(t), the actions' counts would be
    independent, so that chance is e^-t G(t) with
        G(t) = (e^(pi_j t) - 1) * prod over k != j of (1 + c_k (e^(pi_k t) - 1)),
    and for a batch of exactly n it is n! times the coefficient of t^n in G: read off by a Fourier transform of G on a circle of
    radius about n (Cauchy's formula). One circle serves all n within two square roots of its radius.
    """
    types, copies = np.unique(np.stack([policy, means, stds, good], 1), axis=0, return_counts=True)
    pi, mu, s, good = types.T  # (T,): identical actions share one c_k
    c = ndtr((nodes[:, None] - mu) / s)  # (Q, T)
    f = weights[:, None] * np.exp(-((nodes[:, None] - mu) / s) ** 2 / 2) / s / np.sqrt(2 * np.pi)  # (Q, T)
    winners = np.flatnonzero((good > 0) & (pi > 0))
    keep = (f[:, winners] > 1e-24).any(1)  # the other nodes carry nothing
    c, f = c[keep], f[keep]
    flat = np.minimum(n.reshape(-1), np.ceil(40 / pi[pi > 0].min()))  # from there on every action is drawn, but for e^-40
    result = np.empty(flat.size)
    todo = np.unique(flat)
    while len(todo):
        r = max(8., todo[0] + 2 * np.sqrt(todo[0]))
        now = todo[todo <= r + 2 * np.sqrt(r)]
        todo = todo[len(now):]
        points = 2 ** int(np.ceil(np.log2(16 * np.sqrt(r) + 48)))  # aliases lie 14 standard deviations of Poisson(r) away
        t = r * np.exp(2j * np.pi * np.arange(points // 2 + 1) / points)  # (M,) the upper half circle: G is real on the real line
        # every factor times e^(-pi_k r), which makes it at most 1: where k was not drawn, and where it may have been
        miss, hit = np.exp(-pi * r)[:, None], np.exp(pi[:, None] * (t - r))  # (T, 1), (T, M)
        g = np.zeros(len(t), complex)
        step = max(1, _CHUNK // 8 // len(t))
        for i in range(0, len(c), step):
            chance = c[i:i + step, :, None]  # (step, T, 1)
            factors = [miss[k] + chance[:, k] * (hit[k] - miss[k]) for k in range(len(pi))]  # each (step, M)
            right = [1.] * len(pi)  # products over the types that follow
            for k in range(len(pi) - 1, 0, -1):
                right[k - 1] = right[k] * _power(factors[k], copies[k])
            left = 1.
            for j, factor in enumerate(factors):
                if j in winners:
                    others = left * right[j] * _power(factor, copies[j] - 1)
                    g += copies[j] * (hit[j] - miss[j]) * (f[i:i + step, j] @ np.broadcast_to(others, factor.shape))
                left = left * _power(factor, copies[j])
        coefficients = np.fft.irfft(np.conj(g), points)  # g_n r^n e^-r, at n modulo `points`
        poisson = np.exp(xlogy(now, r) - r - gammaln(now + 1))
        value = coefficients[now.astype(int) % points] / poisson
        result[np.isin(flat, now)] = value[np.searchsorted(now, flat[np.isin(flat, now)])]
    return np.clip(result, 0, 1).reshape(n.shape)


def _power(values, k):
    """numpy's complex power is slow where there is nothing to do."""
    return values if k == 1 else values ** k if k else 1.


# ---- 5. The gate ----------------------------------------------------------------------------------------------------------
def gated_success_probability(n, policy, outcome, rewards, good, tau, outcome_weight, weights, sigma, gate="hard"):
    """What corollary 1 is about: P(the winner of n draws is good), where rewards count only behind a noisy gate.

    Each draw has noisy outcome o ~ N(outcome, sigma^2) and noisy rewards; open (o >= tau): score = w_0 o + sum w_i Rhat_i;
    closed: score = o (gate="soft"), or minus infinity ("hard"). A batch without an open member is a failure, under either gate.
    policy, outcome: (K,). rewards: (K, m). good: bool (K,). weights: (m,), outcome_weight: w_0. sigma: a number for all, or
    (m+1,), the outcome's first (behind a hard gate it may be 0: no noise). n: number or array. -> shape of n.

    An open draw's score x is Gaussian, N(mu, v^2); given x, the outcome is Gaussian too, so the density of "open, and x" is
    phi((x - mu) / v) / v * Phi((E[o | x] - tau) / sd[o | x]), and everything else is the integral of it.
    """
    n, policy, w = inputs.counts("n", n), inputs.policy(policy), inputs.weights(weights)
    k = len(policy)
    outcome, rewards = inputs.vector("outcome", outcome, k), inputs.rewards(rewards, k, len(w))
    good, tau = inputs.mask("good", good, k), inputs.scalar("tau", tau)
    w0 = inputs.scalar("outcome_weight", outcome_weight, above=0)
    sigma = inputs.number("sigma", sigma, low=0)
    sigma = np.full(len(w) + 1, sigma) if sigma.ndim == 0 else inputs.vector("sigma", sigma, len(w) + 1)
    inputs.choice("gate", gate, ("hard", "soft"))

    s0, rest = sigma[0], np.sqrt(w ** 2 @ sigma[1:] ** 2)  # noise of the outcome, and of the weighted rewards
    mu, v = w0 * outcome + rewards @ w, np.hypot(w0 * s0, rest)
    surely = outcome >= tau - inputs.ROUNDING * max(abs(tau), np.abs(outcome).max())  # open, were there no noise
    if max(v, s0) <= inputs.ROUNDING * max(np.ptp(mu), np.abs(outcome - tau).max()) or v == 0:
        scores = np.where(surely, mu, outcome if gate == "soft" else -np.inf)
        all_closed = _noiseless(n, policy[~surely], scores[~surely], good[~surely]) if not surely.all() else 0.
        return inputs.shaped(_noiseless(n, policy, scores, good) - all_closed)
    if s0 == 0 and gate == "soft":
        raise ValueError("sigma must be above 0 for the outcome, or 0 for all, where gate is 'soft'")
    s0 = max(s0, _FINEST * max(np.ptp(mu), np.abs(outcome - tau).max())) if s0 else s0
    v = np.hypot(w0 * s0, rest)

    breaks = [tau]
    if rest == 0:  # the score tells the outcome
        edge = rewards @ w + w0 * tau
        centres, scales, opened, breaks = [mu], [v], lambda x: x >= edge, np.append(edge, tau)
    elif s0:
        slope, spread = w0 * s0 ** 2 / v ** 2, s0 * rest / v  # E[o | x] = outcome + slope (x - mu), and sd[o | x]
        centres, scales = [mu, mu + (tau - outcome) / slope], [v, spread / slope]
        opened = lambda x: ndtr((outcome + slope * (x - mu) - tau) / spread)
    else:
        centres, scales, opened = [mu], [v], lambda x: surely
    if gate == "soft":  # the winner of many closed ones crowds against tau: panels that halve towards it
        centres, scales, breaks = centres + [outcome], scales + [s0], np.append(breaks, tau - s0 * .5 ** np.arange(1, 45))
    x, dx = _panels(np.concatenate(centres), np.repeat(scales, k), breaks)
    normal = lambda z, s: np.exp(-z ** 2 / 2) / s / np.sqrt(2 * np.pi)
    f = normal((x[..., None] - mu) / v, v) * opened(x[..., None]) * policy  # (P, 16, K): open, and the score is x
    every, winning = f.sum(-1), f @ good  # (P, 16)
    above = _tail_integral(every, dx)
    if gate == "hard":
        return inputs.shaped(_largest(n, above.ravel(), np.maximum(1 - above, 1e-300).ravel(), (winning * dx).ravel()))

    low = (x < tau)[..., None]
    closed = normal((x[..., None] - outcome) / s0, s0) * low * policy                          # closed, and the score is x
    upto_closed = ndtr((np.minimum(x, tau)[..., None] - outcome) / s0) @ policy                # (P, 16)
    above = above + ndtr((tau - outcome) / s0) @ policy - upto_closed
    wins = _largest(n, above.ravel(), np.maximum(1 - above, 1e-300).ravel(), ((winning + closed @ good) * dx).ravel())
    lost = _largest(n, 1 - upto_closed.ravel(), np.maximum(upto_closed, 1e-300).ravel(), (closed @ good * dx).ravel())
    return inputs.shaped(wins - lost)  # less the batches without an open member


def _tail_integral(f, dx):
    """integral of f from each node to infinity. f, dx: (P, 16) values and weights -> (P, 16)."""
    total = (f * dx).sum(1)
    beyond = np.append(np.cumsum(total[::-1])[::-1][1:], 0)  # of the panels to the right
    return beyond[:, None] + dx[:, :1] / _WEIGHTS[0] * (f @ _TO_THE_RIGHT.T)


# ---- 6. Advantages --------------------------------------------------------------------------------------------------------
def positive_advantage(n, p, gap):
    """Remark 1, exactly: P(a good response's group-normalised advantage is above 0) =
    E_K Phi(gap (1 - K/(n-1)) / sqrt(n / (n-1))), K ~ Binomial(n-1, p) the other good ones.

    Good responses score gap above bad ones, gap in units of one score's noise; each is good with probability p. The advantage is
    positive if the score beats the mean of the other n - 1. For p -> 1 it is a coin toss: there is nobody left to beat. A group of
    one has no advantage: 0. n, p, gap: numbers or arrays -> their common shape.
    """
    n, p, gap = np.broadcast_arrays(inputs.counts("n", n), inputs.number("p", p, low=0, high=1), inputs.number("gap", gap))
    result = np.zeros(n.shape)
    for i in np.ndindex(n.shape):
        others = n[i] - 1
        if others:
            middle, reach = others * p[i], 40 + 9 * np.sqrt(others * p[i] * (1 - p[i]))  # beyond lies less than 1e-9
            k = np.arange(max(0, np.floor(middle - reach)), min(others, np.ceil(middle + reach)) + 1)
            choose = gammaln(others + 1) - gammaln(k + 1) - gammaln(others - k + 1)
            chance = np.exp(choose + xlogy(k, p[i]) + xlog1py(others - k, -p[i]))
            result[i] = chance @ ndtr(gap[i] * (1 - k / others) / np.sqrt(n[i] / others)) / chance.sum()
    return inputs.shaped(result)
