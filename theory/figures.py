"""Seven pictures for a lecture, each of which should speak without its caption. Every curve but those of (f)
is exact.

    a  geometry.png    eps-Pareto optimality, scalarisation lines, and the trap that theorem 1 falls into
    b  lemma1.png      one pair: exact error and bounds over the number of rewards, and what correlation does
    c  bounds.png      truth, the paper's bound and the corrected one over n: where the paper's holds, and
    where it breaks
    d  breaks.png      where theorem 1 breaks, over (mass of the dominator, n)
    e  shapes.png      five shapes of success over n
    f  trivial.png     Pareto-optimal is soon almost everything: share and regret over the number of rewards
    g  gate.png        the gate's failures over its gap, and who gets a positive advantage

What the paper says is drawn in red, the truth in green, our corrections in blue. The paper has no such
figures. What is simplified: worlds of a few actions (landscapes.py). Only plotting happens here; numbers come
from bounds.py and exact.py.

Run:   python -m theory --only figures
Next:  __main__.py (the table), or dial.py (a real verifier)
"""
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from runs.files import save_figure
from theory import bounds, exact, simulate
from theory.landscapes import CROWD, GATE, JITTERY, LURED, SAFE, TRAP, UNREACHED

TRUTH = "#1a7f5a"  # green
PAPER = "#c0392b"  # red
OURS = "#2471a3"   # blue
INK = "#20242c"
FAINT = "#8a8f98"
STYLE = {"font.size": 13, "axes.titlesize": 14, "axes.titlelocation": "left", "axes.spines.top": False,
         "axes.spines.right": False, "axes.grid": True, "grid.alpha": .25, "legend.frameon": False,
         "lines.linewidth": 2.4, "figure.dpi": 130, "figure.constrained_layout.use": True}


def geometry():
    """(a) Definitions 1 and 2, and why theorem 1 fails."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.6), sharey=True)
    a, c, d = np.array(TRAP.rewards)
    eps = TRAP.eps
    left.fill_between([-.1, d[0] - eps], -.1, d[1] - eps, color=OURS, alpha=.13, linewidth=0)
    left.text(.04, .3, "dominated by D:\nbehind it by $\\varepsilon$ = 0.1\nin every reward", color=OURS)
    for axis, shown in ((left, (1, 1, 1)), (right, (1, 1, 0))):
        for at, color, drawn in zip((a, c, d), (TRUTH, PAPER, TRUTH), shown):
            if drawn:
                axis.plot(*at, "o", markersize=15, color=color, markeredgecolor=color, zorder=3)
            else:
                axis.plot(*at, "o", markersize=15, color="white", markeredgecolor=FAINT, zorder=3)
        axis.set(xlim=(-.06, 1.3), ylim=(-.1, 1.16), xlabel="reward 1")
    bold = dict(weight="bold", va="center")
    left.text(.96, .0, "A: optimal, nobody leads\nit by $\\varepsilon$ in reward 1", color=TRUTH, ha="right",
              **bold)
    left.text(c[0] - .04, c[1], "C: not optimal", color=PAPER, ha="right", **bold)
    left.text(d[0], d[1] + .075, "D: optimal", color=TRUTH, ha="center", **bold)
    left.set(ylabel="reward 2", title="$\\varepsilon$-Pareto-optimal are A and D")
    for total in (1.6, 1.0):
        right.plot([total - 1.16, total + .1], [1.16, -.1], "--", color=INK, linewidth=1.3, zorder=1)
    right.text(.54, .48, "equal weighted sum", rotation=-45, rotation_mode="anchor",
               transform_rotates_text=True, va="bottom", ha="center", fontsize=12)
    right.text(c[0] - .04, c[1] - .03, "C wins:\n0.8 + 0.8 = 1.6", color=PAPER, ha="right", **bold)
    right.text(a[0] - .06, a[1] - .02, "A, optimal:\n1 + 0 = 1.0", color=TRUTH, ha="right", **bold)
    right.text(d[0] + .04, d[1] + .01, "D: not in\nthis batch", color=FAINT, va="center")
    right.set_title("a batch without D: the weighted sum picks C")
    return figure


def lemma1():
    """(b) Lemma 1: exact error of one pair against its bounds; what correlated estimators do."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), sharey=True)
    ms = np.arange(1, 33)
    sigma, eps = 1., .7

    # Independent estimators, weights from 1 to 2.
    ramps = [np.linspace(1, 2, m) for m in ms]
    truth = [exact.pair_error(np.full(len(w), eps), w, np.eye(len(w))) for w in ramps]
    left.plot(ms, truth, color=TRUTH, label="exact (Gaussian noise)")
    left.plot(ms, [bounds.pair_error(eps, w, sigma) for w in ramps], color=OURS,
              label="bound, sharp constant")
    left.plot(ms, [bounds.pair_error(eps, w, sigma, sharp=False) for w in ramps], "--", color=PAPER,
              label="bound, the paper's constant")
    left.set(title="independent estimators, weights 1 to 2: it holds", ylabel="P(a pair is ordered wrongly)")

    # Correlated estimators, equal weights.
    for rho, shade in ((0, .4), (.1, .7), (.4, 1.)):
        truth = [exact.pair_error(np.full(m, eps), np.ones(m), equicorrelated(m, rho)) for m in ms]
        right.plot(ms, truth, color=TRUTH, alpha=shade)
        right.text(32.5, truth[-1], f"exact, $\\rho$ = {rho}", color=TRUTH, va="center")
    counts_m = [bounds.pair_error(eps, np.ones(m), sigma) for m in ms]
    m_eff = np.array([bounds.effective_rewards(np.ones(m), equicorrelated(m, .4)) for m in ms])
    right.plot(ms, counts_m, "--", color=PAPER, label="bound that counts m rewards")
    right.plot(ms, np.exp(-m_eff * eps ** 2 / 4), color=OURS,
               label="bound that counts $m_{eff}$ ($\\rho$ = 0.4)")
    right.set(title="correlated estimators: counting m is wrong", xlim=(0, 44))
    for axis in (left, right):
        axis.set(yscale="log", ylim=(2e-4, 1.3), xlabel="m, number of reward estimators")
        axis.legend(loc="lower left")
    right.set_xticks(range(0, 31, 5))
    return figure


def equicorrelated(m, rho):
    """(m, m): variance 1, covariance rho."""
    return (1 - rho) * np.eye(m) + rho * np.ones((m, m))


def over_n():
    """(c) Theorem 1, as stated and corrected, over n."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharey=True)
    ns = np.unique(np.round(np.logspace(0, 2, 60)))
    dashed = dict(linestyle=(0, (5, 2)), linewidth=1.6)  # where our bound lies on the paper's
    for axis, world, title, line in ((axes[0], SAFE, "a safe landscape: true, and misleading", dashed),
                                     (axes[1], TRAP, "the A/C/D trap: broken", {})):
        e = bounds.pair_error(world.eps, world.weights, world.sigma, sharp=False)
        truth = world.success(ns)
        paper = bounds.pareto_bound(ns, world.p, e)
        ours, _ = bounds.best_corrected_bound(ns, world.policy, world.rewards, world.weights, world.sigma,
                                              world.eps)
        axis.fill_between(ns, truth, paper, where=paper > truth, color=PAPER, alpha=.13, linewidth=0)
        axis.plot(ns, truth, color=TRUTH, label="truth")
        axis.plot(ns, paper, "--", color=PAPER, label="the paper's bound")
        axis.plot(ns, ours, color=OURS, label="corrected bound", **line)
        axis.set(xscale="log", ylim=(0, 1.03), xlim=(1, 100), xlabel="n, group size", title=title)
        axis.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes[0].set_ylabel("P(the winner is $\\varepsilon$-Pareto-optimal)")
    best = bounds.best_group_size(SAFE.p, bounds.pair_error(SAFE.eps, SAFE.weights, SAFE.sigma))
    axes[0].axvline(best.integer, color=FAINT, linewidth=1.3, linestyle=":")
    axes[0].text(best.integer * 1.06, .98, f"the bound's\nbest: n = {best.integer}", color=FAINT, va="top")
    axes[0].legend(loc="center right", bbox_to_anchor=(1, .35))
    axes[1].text(2.6, .62, "promised,\nnot kept", color=PAPER)
    return figure


def breaks():
    """(d) Theorem 1's bound less the truth, in the trap, over the dominator's mass and n."""
    figure, axis = plt.subplots(figsize=(9, 5.6))
    ns = np.unique(np.round(np.logspace(0, 3, 70)))
    masses = np.logspace(-4, np.log10(.9), 60)
    mean = np.array(TRAP.rewards) @ TRAP.weights
    std = TRAP.sigma * np.sqrt(2)
    e = bounds.pair_error(TRAP.eps, TRAP.weights, TRAP.sigma, sharp=False)
    excess = np.empty((len(masses), len(ns)))
    for i, d in enumerate(masses):
        truth = exact.best_of_n(ns, [.6 * (1 - d), .4 * (1 - d), d], mean, std, TRAP.good)
        excess[i] = bounds.pareto_bound(ns, 1 - .4 * (1 - d), e) - truth
    shades = axis.pcolormesh(masses, ns, np.maximum(excess, 0).T, cmap="Reds", vmin=0, vmax=1,
                             shading="nearest", rasterized=True)
    axis.contour(masses, ns, excess.T, levels=[.01], colors=INK, linewidths=1.3)
    axis.set(xscale="log", yscale="log", ylabel="n, group size",
             xlabel="the policy's mass on D, which dominates C  (A : C = 6 : 4)",
             title="How far theorem 1 promises too much in the A/C/D trap", ylim=(1, 1000))
    axis.grid(False)
    axis.text(.15, 300, "at most 0.01\ntoo much:\nD is drawn", ha="center", va="center")
    axis.text(5e-4, 30, "broken:\nC beats A, and\nD was not drawn", ha="center", va="center", color="white",
              weight="bold")
    figure.colorbar(shades, label="bound - truth")
    return figure


def shapes():
    """(e) Theorem 1's event over n, exactly: rises, rises to a ceiling, U, falls, peaks."""
    ns = np.unique(np.round(np.logspace(0, 4, 120)))
    ceiling = exact.best_of_n(ns, [.1, .3, .3, .3], [1.5, 1., .8, .8], .5, np.arange(4) == 0, "per_action")
    worlds = [("rises: good actions score higher", SAFE.success(ns)),
              ("rises to a ceiling: 4 answers, each scored once", ceiling),
              ("U: the A/C/D trap, D drawn now and then", TRAP.success(ns)),
              ("falls: the A/C/D trap, D never drawn", UNREACHED.success(ns)),
              ("peak: a wrong answer slips through the gate", GATE.success(ns))]
    figure, axes = plt.subplots(2, 3, figsize=(14, 7.2), sharex=True, sharey=True)
    for axis, (title, values) in zip(axes.flat, worlds):
        axis.plot(ns, values, color=TRUTH)
        axis.set_title(title, fontsize=13)
    last = axes[1, 2]
    small = dict(va="center", fontsize=12)
    last.plot(ns, CROWD.success(ns), color=OURS)
    last.text(9e3, .93, "copies share noise,\n1,000 bad answers", color=OURS, ha="right", **small)
    last.plot(ns, JITTERY.success(ns), color=PAPER)
    last.text(130, .33, "bad answers\nare noisier", color=PAPER, ha="left", **small)
    last.plot(ns, LURED.success(ns), color=FAINT)
    last.text(130, .08, "poor answers, and\nthe trap without D", color=FAINT, ha="left", **small)
    last.set_title("peak: three more causes", fontsize=13)
    for axis in axes.flat:
        axis.set(xscale="log", ylim=(0, 1.05), xlim=(1, 1e4))
        axis.set_xticks([1, 10, 100, 1000, 10000], ["1", "10", "100", "1k", "10k"])
    for axis in axes[1]:
        axis.set_xlabel("n, group size")
    for axis in axes[:, 0]:
        axis.set_ylabel("P(the winner is good)")
    return figure


def trivial():
    """(f) What is left of theorem 1's "approximate global optimality" as rewards are added (our question)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5))
    ms = np.array([1, 2, 3, 4, 6, 8, 10, 12, 16, 20])
    for eps, color in ((0., TRUTH), (.2, OURS), (.5, PAPER)):
        found = [simulate.pareto_fraction(64, int(m), eps, trials=120, seed=int(m)) for m in ms]
        line = dict(marker="o", markersize=4, color=color, label=f"$\\varepsilon$ = {eps:g}")
        left.plot(ms, [share.value for share, _ in found], **line)
        right.plot(ms, [regret.value for _, regret in found], **line)
    left.set(title="share of 64 random actions that are optimal",
             ylabel="$\\varepsilon$-Pareto-optimal share")
    right.axhline(1, color=FAINT, linestyle=":", linewidth=1.3)
    right.text(20, .87, "1: no better than a random action", color=FAINT, ha="right", va="top")
    right.text(1.9, .02, "0: the best action", color=FAINT)
    right.set(title="how far an optimal one lies behind the best", ylabel="regret in summed reward")
    for axis in (left, right):
        axis.set(ylim=(0, 1.06), xlabel="m, number of independent rewards",
                 xticks=[1, 2, 4, 6, 8, 10, 12, 16, 20])
    left.legend(loc="lower right")
    return figure


def gate():
    """(g) Corollary 1 when its gap shrinks; remark 1's positive advantages."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 5.2))
    gaps = np.linspace(0, 4, 81)
    for n, color in ((1, FAINT), (8, OURS), (64, TRUTH), (1024, INK)):
        left.plot(gaps, [1 - GATE.at(g).success(n) for g in gaps], color=color, label=f"n = {n}")
    # so large an eps that no pair is misordered: what is left is the gate's part
    promised = bounds.gated_bound(8, GATE.policy[0], gaps * GATE.sigma, GATE.sigma, GATE.weights, eps=10.)
    left.plot(gaps, np.minimum(1, 1 - promised), "--", color=PAPER, label="corollary 1, n = 8")
    left.set(title="the gate: the more samples, the wider its gap must be",
             xlabel="gap $\\gamma$ between outcome and threshold, in $\\sigma$",
             ylabel="P(the right answer does not win)",
             ylim=(0, 1.25), xlim=(0, 4), yticks=[0, .2, .4, .6, .8, 1])
    left.legend(loc="upper center", ncols=3, fontsize=12)
    ps = np.linspace(0, 1, 101)
    for gap, color in ((4, TRUTH), (2, OURS), (1, FAINT)):
        right.plot(ps, exact.positive_advantage(8, ps, gap), color=color,
                   label=f"good scores lead by {gap} $\\sigma$")
    right.axhline(.5, color=PAPER, linestyle="--", linewidth=1.6, label="a coin toss")
    right.set(title="remark 1: the better the policy, the blinder the credit",
              xlabel="p, share of good responses (groups of 8)",
              ylabel="P(a good response's advantage is > 0)", ylim=(.45, 1.03), xlim=(0, 1))
    right.legend(loc="lower left", bbox_to_anchor=(0, .08), fontsize=12)
    return figure


FIGURES = {"geometry": geometry, "lemma1": lemma1, "bounds": over_n, "breaks": breaks, "shapes": shapes,
           "trivial": trivial, "gate": gate}


def draw(name, folder):
    """Write one figure as PNG -> its path."""
    path = Path(folder) / f"{name}.png"
    with plt.rc_context(STYLE):
        figure = FIGURES[name]()
        figure.canvas.draw()
        picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
        plt.close(figure)
    few_colours = picture.quantize(128, dither=Image.Dither.NONE)  # a third of the bytes, no visible loss
    save_figure(few_colours, path)
    return path
