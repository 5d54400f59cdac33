"""The theorem, simulated, broken and repaired: a table, an audit over random worlds, seven figures. Under two minutes on two cores.

    python -m theory                   # everything, to out/theory
    python -m theory --only table      # or audit, or figures

The table's columns: what is asked, exactly; the same by Monte Carlo with its standard error; what the paper promises (a lower
bound) and whether it keeps it; what can be promised instead. A dash: there is nothing of the kind. "says nothing": a promise of
at most 0. "broken (assumption off)": its assumptions do not hold there (correlated noise, a gap that is not there).

Read bounds.py first, then exact.py, simulate.py, landscapes.py, audit.py, figures.py; dial.py measures a verifier's noise.
"""
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from runs.errors import BadInput, run_main
from runs.files import write_atomically
from runs.settings import parse_config
from theory import audit, bounds, exact, simulate
from theory.landscapes import CROWD, GATE, JITTERY, LURED, SAFE, THRESHOLD, TRAP, UNREACHED, parity_pair_error


@dataclass
class Config:
    out: str = field(default="out/theory", metadata={"help": "folder to write: results.md and figures/"})
    only: str = field(default="", metadata={"help": "table, audit or figures; empty: all"})
    trials: int = field(default=400_000, metadata={"help": "Monte Carlo trials a row"})
    worlds: int = field(default=2000, metadata={"help": "random worlds of the audit, for each kind of noise"})
    seed: int = field(default=0, metadata={"help": "seed of dice and worlds"})


@dataclass
class Row:
    what: str
    parameters: str
    exact: float
    dice: object = None        # simulate.Estimate
    paper: float | None = None
    corrected: float | None = None
    verdict: str = ""          # in place of "holds" or "broken", where a row is about something else
    asked: bool = True         # do the paper's assumptions hold?


# ---- 1. The rows, each a function of (trials, seed), so that a bar can tell them apart ----------------------------------------
def lemma1(m, eps, sigma, weights=None, rho=0.):
    """Lemma 1, one pair. weights: (m,); rho: correlation between two rewards' noises; corrected: with m_eff."""
    w = np.ones(m) if weights is None else np.asarray(weights, float)
    c = sigma ** 2 * ((1 - rho) * np.eye(m) + rho * np.ones((m, m)))

    def row(trials, seed):
        e_eff = np.exp(-bounds.effective_rewards(w, c) * eps ** 2 / (4 * sigma ** 2))
        dice = simulate.pair_error(np.full(m, eps), w, c, trials=trials, seed=seed)
        text = f"m = {m}, eps = {eps:g}, sigma = {sigma:g}"
        text += f", weights {weights}" * (weights is not None) + f", rho = {rho:g}" * bool(rho)
        return Row("lemma 1: a pair in order", text, 1 - exact.pair_error(np.full(m, eps), w, c),
                   simulate.Estimate(1 - dice.value, dice.error), 1 - bounds.pair_error(eps, w, sigma, sharp=False), 1 - e_eff,
                   asked=not rho)
    return row


def parity(k):
    """Lemma 1 where noise is uncorrelated and dependent (our counterexample): products of k fair signs."""
    def row(trials, seed):
        truth, promised = parity_pair_error(k)
        return Row("lemma 1: uncorrelated, not independent", f"m = {2 ** k - 1}, products of {k} signs", 1 - truth,
                   paper=1 - promised, asked=False)
    return row


def lemma2(world, n):
    """Lemma 2; corrected: with lemma 1's sharper constant."""
    def row(trials, seed):
        args = n, world.policy, world.rewards, world.weights, world.sigma, world.eps
        e = bounds.pair_error(world.eps, world.weights, world.sigma, sharp=False)
        sharp = bounds.pair_error(world.eps, world.weights, world.sigma)
        return Row("lemma 2: optimal within the batch", f"{world.name}, n = {n}, sigma = {world.sigma:g}",
                   exact.preservation_probability(*args), simulate.preservation_probability(*args, trials=trials, seed=seed),
                   bounds.batch_bound(n, e), bounds.batch_bound(n, sharp))
    return row


def theorem1(world, n, family="gaussian"):
    """Theorem 1; corrected: with its best theta."""
    def row(trials, seed):
        sigma = world.proxy
        w, rewards, policy = np.asarray(world.weights), np.asarray(world.rewards), np.asarray(world.policy)
        truth = (world.success(n) if family == "gaussian" else
                 float(audit.with_signs(np.array(n), policy, rewards, w, world.sigma, world.good)))
        few = trials // 20 if len(policy) > 100 and world.noise == "per_action" else trials  # every action's noise is drawn
        dice = simulate.success_probability(n, policy, rewards, w, world.sigma, world.eps, world.noise, family,
                                            action_scale=world.action_scale, trials=few, seed=seed)
        paper = bounds.pareto_bound(n, world.p, bounds.pair_error(world.eps, w, sigma, sharp=False))
        text = f"{world.name}, n = {n}, sigma = {world.sigma:g}" + ", fair signs" * (family != "gaussian")
        return Row("theorem 1: optimal among all", text, truth, dice, paper,
                   bounds.best_corrected_bound(n, policy, rewards, w, sigma, world.eps)[0])
    return row


def corollary1(text, n, policy, outcome, rewards, good, claimed, eps, weights, sigma, gate="hard", p_theta=None, asked=True):
    """Corollary 1. good: bool (K,), as the paper has it. claimed: the gap gamma, in sigma, that the bounds are told. p_theta: for
    theta = 1; None where our correction does not apply (a false gap, a soft gate) or speaks of another set of good actions."""
    def row(trials, seed):
        args, rest = (n, policy, outcome, rewards), (.5, weights[0], weights[1:], sigma, gate)
        right = np.array(good)
        bound = lambda p, corrected: bounds.gated_bound(n, p, claimed * sigma, sigma, weights, eps, corrected)
        return Row("corollary 1: right and optimal", f"{text}, n = {n}", exact.gated_success_probability(*args, right, *rest),
                   simulate.gated_success_probability(*args, right, *rest, trials=trials, seed=seed),
                   bound(np.asarray(policy) @ right, False), None if p_theta is None else bound(p_theta, True), asked=asked)
    return row


def gate(gap, n, claimed=None):
    """Corollary 1 in landscapes.GATE; gap, claimed: the true gap and the one that the bounds are told, in sigma."""
    g, claimed = GATE.at(gap), gap if claimed is None else claimed
    text = f"gap {gap:g} sigma" + f", taken for {claimed:g} sigma" * (claimed != gap)
    outcome = [.5 + gap * g.sigma, .5 - gap * g.sigma]
    return corollary1(text, n, g.policy, outcome, np.array(g.rewards)[:, None], [True, False], claimed, 2., g.weights, g.sigma,
                      p_theta=g.policy[0] if claimed == gap else None, asked=claimed == gap)


def remark1(n, p, gap):
    """Remark 1: who gets a positive advantage."""
    def row(trials, seed):
        truth = exact.positive_advantage(n, p, gap)
        return Row("remark 1: good, and advantage > 0", f"n = {n}, p = {p:g}, gap {gap:g} sigma", truth,
                   simulate.positive_advantage(n, p, gap, trials=trials, seed=seed),
                   verdict="likely" if truth > .9 else "not w.h.p.")
    return row


def remark2(world, most=4096):
    """Remark 2 beside the truth: the best of 200 group sizes up to `most`."""
    def row(trials, seed):
        star = bounds.best_group_size(world.p, bounds.pair_error(world.eps, world.weights, world.proxy))
        ns = np.unique(np.round(np.logspace(0, np.log10(most), 200)))
        truth = world.success(ns)
        best = ns[np.argmax(truth >= truth.max() - 1e-9)]
        return Row("remark 2: best n", f"{world.name}: formula {star.approximation:.1f}, of the bound {star.integer}, truly "
                   + (f"{best:.0f}" if truth[-1] < truth.max() - 1e-6 else "the largest"), float(truth.max()),
                   verdict=f"success there {world.success(star.integer):.3f}")
    return row


def more_rewards(m, actions=64):
    """What theorem 1's conclusion is worth (our question): how many of random actions are optimal, and how good they are."""
    def row(trials, seed):
        share, regret = simulate.pareto_fraction(actions, m, 0., trials=max(10, trials // 1000), seed=seed)
        return Row("more rewards: share that is optimal", f"{actions} random actions, m = {m}, eps = 0",
                   exact.pareto_share(actions, m), share, verdict=f"regret {regret.value:.2f} of a random one's")
    return row


FIRST = [True, False]
ROWS = [lemma1(4, .5, .5), lemma1(3, .5, .5, [1, 2, 4]), lemma1(16, .5, .5, rho=.5), parity(4),
        lemma2(replace(TRAP, sigma=.05), 4), lemma2(replace(SAFE, sigma=.3), 4),
        theorem1(SAFE, 1), theorem1(SAFE, 4), theorem1(SAFE, 16),
        theorem1(TRAP, 1), theorem1(TRAP, 2), theorem1(TRAP, 5), theorem1(TRAP, 64),
        theorem1(UNREACHED, 8), theorem1(THRESHOLD, 3), theorem1(replace(TRAP, sigma=.04), 5, "rademacher"), theorem1(CROWD, 20),
        theorem1(JITTERY, 27),
        gate(4, 8), gate(2, 8), gate(.5, 8, claimed=4),
        corollary1("A, C, D all right", 5, TRAP.policy, [1.] * 3, TRAP.rewards, TRAP.good, 25, .1, [1., 1., 1.], .02, p_theta=.05),
        corollary1("counts the outcome as a lead", 2, [.5, .5], [1.5, 1.5], [[.8], [0]], FIRST, 5, .8, [1., 1.], .2),
        corollary1("soft gate, closed beats open", 2, [.5, .5], [1., .45], [[0.], [0.]], FIRST, 5, .1, [.2, 1.], .009, "soft"),
        remark1(8, .1, 2), remark1(8, .5, 2), remark1(8, .9, 2), remark1(8, .9, 6),
        remark2(SAFE), remark2(TRAP), remark2(LURED), remark2(CROWD), remark2(JITTERY),
        more_rewards(2), more_rewards(10)]


def table(rows):
    """The rows as markdown. Broken: the exact value lies below the promise."""
    lines = ["| what | parameters | exact | Monte Carlo | the paper promises | kept? | corrected | kept? |", "|---" * 8 + "|"]

    def judged(truth, promise):
        if promise is None:
            return "- | -"
        broken = "**BROKEN**" if r.asked else "broken (assumption off)"
        kept = broken if truth < promise - 1e-9 else "holds" if promise > 0 else "says nothing"
        return f"{promise:.4f} | {kept}"
    for r in rows:
        dice = "-" if r.dice is None else f"{r.dice.value:.4f} +- {r.dice.error:.5f}"
        paper = f"- | {r.verdict}" if r.verdict else judged(r.exact, r.paper)
        lines.append(f"| {r.what} | {r.parameters} | {r.exact:.4f} | {dice} | {paper} | {judged(r.exact, r.corrected)} |")
    return "\n".join(lines)


def main():
    cfg = parse_config(Config, __doc__)
    if cfg.only not in ("", "table", "audit", "figures"):
        raise BadInput(f"--only {cfg.only}: choose table, audit or figures")
    if cfg.trials < 20 or cfg.worlds < 1:
        raise BadInput("--trials must be at least 20, --worlds at least 1")
    out, clock, parts = Path(cfg.out), time.time(), []
    if cfg.only in ("", "table"):
        rows = [row(cfg.trials, cfg.seed + i) for i, row in enumerate(tqdm(ROWS, desc="table", unit="row"))]
        parts.append(table(rows))
        print(parts[-1], flush=True)
        thrown = [r for r in rows if r.dice is not None]
        apart = sum(abs(r.exact - r.dice.value) > 4 * r.dice.error for r in thrown)
        print(f"exact and Monte Carlo more than 4 standard errors apart: {apart} of {len(thrown)} rows\n", flush=True)
    if cfg.only in ("", "audit"):
        found, culprits = audit.audit(cfg.worlds, cfg.seed)
        parts.append(f"Random worlds, group sizes {', '.join(map(str, audit.GROUPS[1:]))}, exact:\n\n" + audit.markdown(found))
        print(parts[-1], flush=True)
        print("a corrected bound was violated:", f"a bug, or a theorem to fix: {culprits}\n" if culprits else "never\n", flush=True)
    if parts:
        write_atomically(out / "results.md", "\n\n".join(parts) + "\n")
        print(f"wrote {out}/results.md")
    if cfg.only in ("", "figures"):
        from theory import figures
        for name in tqdm(figures.FIGURES, desc="figures", unit="figure"):
            figures.draw(name, out / "figures")
        print(f"wrote {len(figures.FIGURES)} figures to {out}/figures")
    print(f"[{time.time() - clock:.0f} s]")


if __name__ == "__main__":
    run_main(main)
