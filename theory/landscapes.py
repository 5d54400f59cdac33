"""Small worlds to compute by hand: where theorem 1 holds, and each way in which it or its neighbours break.

What the paper says: theorem 1 holds in all of them. What happens:

    SAFE       every optimal action leads all that are not: the paper's bound holds
    TRAP       C beats A in weighted reward but is not optimal, as D dominates it: a U over n
    UNREACHED  TRAP with D never drawn: more samples only make it worse
    LURED      TRAP with D never drawn and mostly poor actions: A must be drawn, C must not be: a peak
    THRESHOLD  one reward, no trade-off, and broken: two actions near the eps-edge are hard to tell apart
    CROWD      one good action, a thousand bad ones, copies share noise: the luckiest bad one wins in the end
    JITTERY    fresh noise, larger for bad actions: their tails win in the end
    GATE       a wrong answer that looks better than the right one, once the noisy gate lets it in

What is simplified: a few actions, one or two rewards, no model anywhere. All of them are ours.

Run:   python -m theory --only table      # theorem 1 in each of them
Next:  audit.py (random worlds)
"""
from dataclasses import dataclass, replace

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr

from theory import exact


# ---- 1. Theorem 1 ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Landscape:
    name: str
    rewards: list              # (K, m)
    policy: list               # (K,)
    eps: float
    sigma: float               # of one estimator
    weights: tuple = (1., 1.)
    noise: str = "fresh"
    action_scale: object = 1.  # number or (K,): how much noisier an action is than sigma

    @property
    def good(self):
        """bool (K,): eps-Pareto-optimal."""
        return exact.pareto_optimal(self.rewards, self.eps)

    @property
    def p(self):
        """The policy's mass on eps-Pareto-optimal actions: theorem 1's p."""
        return float(np.asarray(self.policy) @ self.good)

    @property
    def proxy(self):
        """The sigma that fits every action's noise: what assumption 1 asks for."""
        return float(self.sigma * np.max(self.action_scale))

    def success(self, n):
        """P(winner of n draws is eps-Pareto-optimal), exactly. -> shape of n."""
        w = np.asarray(self.weights)
        std = self.sigma * np.sqrt(w @ w) * np.asarray(self.action_scale)
        return exact.best_of_n(n, self.policy, np.asarray(self.rewards) @ w, std, self.good, self.noise)


SAFE = Landscape("safe", [[1, 1], [.6, .7], [.5, .3]], [.15, .5, .35], eps=.3, sigma=.15)
TRAP = Landscape("trap", [[1, 0], [.8, .8], [.95, .95]], [.6, .35, .05], eps=.1, sigma=.02)  # A, C, D
UNREACHED = replace(TRAP, name="unreached", policy=[.6, .4, 0])
LURED = Landscape("lured", TRAP.rewards + [[.2, .1]], [.15, .05, 0, .8], eps=.1, sigma=.02)
THRESHOLD = Landscape("threshold", [[1], [.91], [.89]], [.1, .45, .45], eps=.1, sigma=.03, weights=(1.,))
CROWD = Landscape("crowd", [[1, 1]] + [[.5, .5]] * 1000, [.2] + [.8e-3] * 1000, eps=.3, sigma=.2,
                  noise="per_action")
JITTERY = Landscape("jittery", [[1, 1], [.5, .5]], [.2, .8], eps=.3, sigma=.2, action_scale=[1., 2.])


# ---- 2. Corollary 1 ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Gate:
    """Two actions: a right answer with little to show, and a wrong one that shines if let in."""
    gap: float = 1.5           # |outcome - tau| in units of sigma: corollary 1's gamma / sigma
    policy: tuple = (.3, .7)
    rewards: tuple = (.3, .9)
    sigma: float = .2
    tau: float = .5
    weights: tuple = (.5, 1.)  # of the outcome, and of the reward

    def at(self, gap):
        return replace(self, gap=float(gap))

    def success(self, n, gate="hard"):
        """P(the right answer wins), exactly. -> shape of n."""
        outcome = [self.tau + self.gap * self.sigma, self.tau - self.gap * self.sigma]
        rewards = np.array(self.rewards)[:, None]  # (2, 1)
        right = np.array([True, False])
        return exact.gated_success_probability(n, self.policy, outcome, rewards, right, self.tau,
                                               self.weights[0], self.weights[1:], self.sigma, gate)


GATE = Gate()


# ---- 3. By hand --------------------------------------------------------------------------------------------
def trap_without_noise(n, policy):
    """P(the winner of n draws is eps-Pareto-optimal) in TRAP for sigma = 0, where A and D are optimal.

    D wins wherever it is drawn. Without it C beats A, so only a batch of A alone succeeds. That is less than
    theorem 1's 1 - pi_C^n from n = 2 on, as (pi_A + pi_C)^n > pi_A^n + pi_C^n. policy: A, C, D. -> shape of n.

    >>> round(float(trap_without_noise(2, [.6, .35, .05])), 4)     # theorem 1 promises .8775
    0.4575
    """
    # BEGIN SOLUTION ex12
    a, _, d = policy
    n = np.asarray(n)
    return 1 - (1 - d) ** n + a ** n
    # END SOLUTION


def crowd_without_end(n, p, gap):
    """CROWD's limit: one good action with a single draw of noise against endlessly many distinct bad ones
    (ours), integral of phi(z) { [p + (1-p) Phi(z + gap)]^n - [(1-p) Phi(z + gap)]^n } dz, gap in units of one
    score's noise. -> float."""
    def f(z):
        bad = (1 - p) * ndtr(z + gap)
        return np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * ((p + bad) ** n - bad ** n)
    return quad(f, -12, 12, epsabs=1e-12, limit=400)[0]


def parity_pair_error(k):
    """Uncorrelated is not independent: why m_eff needs jointly sub-Gaussian noise (ours).

    The m = 2^k - 1 products of k fair signs are pairwise uncorrelated, of variance 1, and sub-Gaussian one by
    one. Their sum is 2^k - 1 if all signs are +, else -1. Take two actions with such noise, the better one
    ahead by 2^k / m in every reward: it is overtaken if b's signs are all + and a's are not, with probability
    2^-k (1 - 2^-k). -> (that, lemma 1's bound with m_eff = m).
    """
    m = 2 ** k - 1
    overtaken = 2. ** -k * (1 - 2. ** -k)
    promised = np.exp(-(2 ** k) ** 2 / (4 * m))
    return overtaken, float(promised)
