"""The theorem, simulated, broken and repaired: a table, an audit over random worlds, seven figures.

What the paper says stands in the table's rows, one per lemma, theorem, corollary or remark and world; the
columns are what is asked, its exact value, the same by simulation with a standard error, what the paper
promises (a lower bound) and whether it keeps it, and what can be promised instead. A dash: there is nothing
of the kind. "says nothing": a promise of at most 0. "broken (assumption off)": the paper's assumptions do not
hold there (correlated noise, a gap that is not there).

What is simplified: worlds of a few actions, see landscapes.py.

Run:   python -m theory                   # everything, to out/theory; under two minutes on two cores
       python -m theory --only table      # or audit, or figures
Next:  dial.py (the noise of a real verifier)
"""
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from runs.errors import BadInput, run_main
from runs.files import write_atomically
from runs.settings import flag, parse_config
from theory import audit, bounds, exact, figures, simulate
from theory.landscapes import CROWD, GATE, JITTERY, LURED, SAFE, THRESHOLD, TRAP, UNREACHED, parity_pair_error


@dataclass
class Config:
    out: str = flag("out/theory", "folder to write: results.md and figures/")
    only: str = flag("", "table, audit or figures; empty: all")
    trials: int = flag(400_000, "Monte Carlo trials per row")
    worlds: int = flag(2000, "random worlds of the audit, for each kind of noise")
    seed: int = flag(0, "seed of simulation and worlds")


@dataclass
class Row:
    what: str
    parameters: str
    exact: float
    simulated: simulate.Estimate | None = None
    paper: float | None = None
    corrected: float | None = None
    verdict: str = ""          # in place of "holds" or "broken", where a row is about something else
    asked: bool = True         # do the paper's assumptions hold?


# ---- 1. The kinds of rows ----------------------------------------------------------------------------------
def lemma1(m, eps, sigma, weights=None, rho=0., *, trials, seed):
    """Lemma 1, one pair. weights: (m,). rho: correlation between two rewards' noises; then m_eff corrects the
    bound."""
    text = f"m = {m}, eps = {eps:g}, sigma = {sigma:g}"
    if weights is None:
        w = np.ones(m)
    else:
        w = np.array(weights, float)
        text += f", weights {weights}"
    if rho:
        text += f", rho = {rho:g}"
    gap = np.full(m, eps)
    covariance = sigma ** 2 * ((1 - rho) * np.eye(m) + rho * np.ones((m, m)))
    wrong = simulate.pair_error(gap, w, covariance, trials=trials, seed=seed)
    corrected = 1 - np.exp(-bounds.effective_rewards(w, covariance) * eps ** 2 / (4 * sigma ** 2))
    truth = 1 - exact.pair_error(gap, w, covariance)
    simulated = simulate.Estimate(1 - wrong.value, wrong.error)
    paper = 1 - bounds.pair_error(eps, w, sigma, sharp=False)
    return Row("lemma 1: a pair in order", text, truth, simulated, paper, corrected, asked=rho == 0)


def parity(k, *, trials, seed):
    """Lemma 1 where noise is uncorrelated but dependent (our counterexample): products of k fair signs."""
    truth, promised = parity_pair_error(k)
    text = f"m = {2 ** k - 1}, products of {k} signs"
    return Row("lemma 1: uncorrelated, not independent", text, 1 - truth, paper=1 - promised, asked=False)


def lemma2(world, n, *, trials, seed):
    """Lemma 2; corrected: with lemma 1's sharper constant."""
    args = n, world.policy, world.rewards, world.weights, world.sigma, world.eps
    e = bounds.pair_error(world.eps, world.weights, world.sigma, sharp=False)
    sharp = bounds.pair_error(world.eps, world.weights, world.sigma)
    return Row("lemma 2: optimal within the batch", f"{world.name}, n = {n}, sigma = {world.sigma:g}",
               exact.preservation_probability(*args),
               simulate.preservation_probability(*args, trials=trials, seed=seed),
               bounds.batch_bound(n, e), bounds.batch_bound(n, sharp))


def theorem1(world, n, family="gaussian", *, trials, seed):
    """Theorem 1; corrected: with its best theta."""
    policy, rewards, w = np.array(world.policy), np.array(world.rewards), np.array(world.weights)
    text = f"{world.name}, n = {n}, sigma = {world.sigma:g}"
    truth = world.success(n)
    if family == "rademacher":
        text += ", fair signs"
        truth = audit.with_signs(n, policy, rewards, w, world.sigma, world.good)
    if len(policy) > 100 and world.noise == "per_action":  # the noise of every action is drawn: slow
        trials = trials // 20
    simulated = simulate.success_probability(n, policy, rewards, w, world.sigma, world.eps, world.noise,
                                             family, action_scale=world.action_scale, trials=trials,
                                             seed=seed)
    paper = bounds.pareto_bound(n, world.p, bounds.pair_error(world.eps, w, world.proxy, sharp=False))
    corrected, _ = bounds.best_corrected_bound(n, policy, rewards, w, world.proxy, world.eps)
    return Row("theorem 1: optimal among all", text, truth, simulated, paper, corrected)


def corollary1(text, n, policy, outcome, rewards, good, claimed, eps, weights, sigma, gate="hard",
               p_theta=None, asked=True, *, trials, seed):
    """Corollary 1. good: bool (K,), as the paper has it. claimed: the gap gamma, in sigma, that the bounds
    are told. p_theta: for theta = 1; None where our correction does not apply (a false gap, a soft gate) or
    speaks of other actions."""
    right = np.array(good)
    args = n, policy, outcome, rewards, right, .5, weights[0], weights[1:], sigma, gate
    paper = bounds.gated_bound(n, np.array(policy) @ right, claimed * sigma, sigma, weights, eps)
    corrected = None
    if p_theta is not None:
        corrected = bounds.gated_bound(n, p_theta, claimed * sigma, sigma, weights, eps, corrected=True)
    truth = exact.gated_success_probability(*args)
    simulated = simulate.gated_success_probability(*args, trials=trials, seed=seed)
    text = f"{text}, n = {n}"
    return Row("corollary 1: right and optimal", text, truth, simulated, paper, corrected, asked=asked)


def gate(gap, n, claimed=None, *, trials, seed):
    """Corollary 1 in landscapes.GATE. gap, claimed: the true gap and the one that the bounds are told, in
    sigma."""
    text = f"gap {gap:g} sigma"
    told = gap
    p_theta = GATE.policy[0]
    if claimed is not None:
        text += f", taken for {claimed:g} sigma"
        told = claimed
        p_theta = None
    outcome = [.5 + gap * GATE.sigma, .5 - gap * GATE.sigma]
    return corollary1(text, n, GATE.policy, outcome, np.array(GATE.rewards)[:, None], FIRST, told, 2.,
                      GATE.weights, GATE.sigma, p_theta=p_theta, asked=claimed is None, trials=trials,
                      seed=seed)


def remark1(n, p, gap, *, trials, seed):
    """Remark 1: who gets a positive advantage."""
    truth = exact.positive_advantage(n, p, gap)
    simulated = simulate.positive_advantage(n, p, gap, trials=trials, seed=seed)
    text = f"n = {n}, p = {p:g}, gap {gap:g} sigma"
    verdict = "likely" if truth > .9 else "not w.h.p."
    return Row("remark 1: good, and advantage > 0", text, truth, simulated, verdict=verdict)


def remark2(world, most=4096, *, trials, seed):
    """Remark 2 beside the truth: the best of 200 group sizes up to `most`."""
    star = bounds.best_group_size(world.p, bounds.pair_error(world.eps, world.weights, world.proxy))
    ns = np.unique(np.round(np.logspace(0, np.log10(most), 200)))
    truth = world.success(ns)
    best = "the largest"
    if truth[-1] < truth.max() - 1e-6:
        best = f"{ns[np.argmax(truth >= truth.max() - 1e-9)]:.0f}"
    text = f"{world.name}: formula {star.approximation:.1f}, of the bound {star.integer}, truly {best}"
    verdict = f"success there {world.success(star.integer):.3f}"
    return Row("remark 2: best n", text, truth.max(), verdict=verdict)


def more_rewards(m, actions=64, *, trials, seed):
    """What theorem 1's conclusion is worth (our question): how many of random actions are optimal, and how
    good they are."""
    share, regret = simulate.pareto_fraction(actions, m, 0., trials=max(10, trials // 1000), seed=seed)
    return Row("more rewards: share that is optimal", f"{actions} random actions, m = {m}, eps = 0",
               exact.pareto_share(actions, m), share, verdict=f"regret {regret.value:.2f} of a random one's")


# ---- 2. The table ------------------------------------------------------------------------------------------
FIRST = [True, False]
ROWS = [partial(lemma1, 4, .5, .5),
        partial(lemma1, 3, .5, .5, [1, 2, 4]),
        partial(lemma1, 16, .5, .5, rho=.5),
        partial(parity, 4),
        partial(lemma2, replace(TRAP, sigma=.05), 4),
        partial(lemma2, replace(SAFE, sigma=.3), 4),
        partial(theorem1, SAFE, 1),
        partial(theorem1, SAFE, 4),
        partial(theorem1, SAFE, 16),
        partial(theorem1, TRAP, 1),
        partial(theorem1, TRAP, 2),
        partial(theorem1, TRAP, 5),
        partial(theorem1, TRAP, 64),
        partial(theorem1, UNREACHED, 8),
        partial(theorem1, THRESHOLD, 3),
        partial(theorem1, replace(TRAP, sigma=.04), 5, "rademacher"),
        partial(theorem1, CROWD, 20),
        partial(theorem1, JITTERY, 27),
        partial(gate, 4, 8),
        partial(gate, 2, 8),
        partial(gate, .5, 8, claimed=4),
        partial(corollary1, "A, C, D all right", 5, TRAP.policy, [1., 1., 1.], TRAP.rewards, TRAP.good,
                claimed=25, eps=.1, weights=[1., 1., 1.], sigma=.02, p_theta=.05),
        partial(corollary1, "counts the outcome as a lead", 2, [.5, .5], [1.5, 1.5], [[.8], [0]], FIRST,
                claimed=5, eps=.8, weights=[1., 1.], sigma=.2),
        partial(corollary1, "soft gate, closed beats open", 2, [.5, .5], [1., .45], [[0.], [0.]], FIRST,
                claimed=5, eps=.1, weights=[.2, 1.], sigma=.009, gate="soft"),
        partial(remark1, 8, .1, 2),
        partial(remark1, 8, .5, 2),
        partial(remark1, 8, .9, 2),
        partial(remark1, 8, .9, 6),
        partial(remark2, SAFE),
        partial(remark2, TRAP),
        partial(remark2, LURED),
        partial(remark2, CROWD),
        partial(remark2, JITTERY),
        partial(more_rewards, 2),
        partial(more_rewards, 10)]


def table(rows):
    """The rows as markdown."""
    lines = ["| what | parameters | exact | Monte Carlo | the paper promises | kept? | corrected | kept? |",
             "|---" * 8 + "|"]
    for row in rows:
        simulated = "-"
        if row.simulated is not None:
            simulated = f"{row.simulated.value:.4f} +- {row.simulated.error:.5f}"
        paper = judged(row, row.paper)
        if row.verdict:
            paper = f"- | {row.verdict}"
        corrected = judged(row, row.corrected)
        start = f"| {row.what} | {row.parameters} | {row.exact:.4f}"
        lines.append(f"{start} | {simulated} | {paper} | {corrected} |")
    return "\n".join(lines)


def judged(row, promise):
    """A promise and whether the exact value keeps it: two cells of the table."""
    if promise is None:
        return "- | -"
    if row.exact >= promise - 1e-9:
        kept = "holds" if promise > 0 else "says nothing"
    else:
        kept = "**BROKEN**" if row.asked else "broken (assumption off)"
    return f"{promise:.4f} | {kept}"


# ---- 3. The run --------------------------------------------------------------------------------------------
def print_table(trials, seed):
    rows = []
    for i, make in enumerate(tqdm(ROWS, desc="table", unit="row")):
        rows.append(make(trials=trials, seed=seed + i))
    text = table(rows)
    print(text, flush=True)
    simulated = [row for row in rows if row.simulated is not None]
    apart = [row for row in simulated if abs(row.exact - row.simulated.value) > 4 * row.simulated.error]
    print(f"exact and Monte Carlo more than 4 standard errors apart: {len(apart)} of {len(simulated)} rows\n",
          flush=True)
    return text


def print_audit(worlds, seed):
    found, culprits = audit.audit(worlds, seed)
    groups = ", ".join(str(n) for n in audit.GROUPS[1:])
    text = f"Random worlds, group sizes {groups}, exact:\n\n" + audit.markdown(found)
    print(text, flush=True)
    verdict = f"a bug, or a theorem to fix: {culprits}" if culprits else "never"
    print(f"a corrected bound was violated: {verdict}\n", flush=True)
    return text


def main():
    cfg = parse_config(Config, __doc__)
    if cfg.only not in ("", "table", "audit", "figures"):
        raise BadInput(f"--only {cfg.only}: choose table, audit or figures")
    if cfg.trials < 20 or cfg.worlds < 1:
        raise BadInput("--trials must be at least 20, --worlds at least 1")
    out = Path(cfg.out)
    clock = time.time()
    parts = []
    if cfg.only in ("", "table"):
        parts.append(print_table(cfg.trials, cfg.seed))
    if cfg.only in ("", "audit"):
        parts.append(print_audit(cfg.worlds, cfg.seed))
    if parts:
        write_atomically(out / "results.md", "\n\n".join(parts) + "\n")
        print(f"wrote {out}/results.md")
    if cfg.only in ("", "figures"):
        for name in tqdm(figures.FIGURES, desc="figures", unit="figure"):
            figures.draw(name, out / "figures")
        print(f"wrote {len(figures.FIGURES)} figures to {out}/figures")
    print(f"[{time.time() - clock:.0f} s]")


if __name__ == "__main__":
    run_main(main)
