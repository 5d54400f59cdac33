"""The dial between theory and training: how noisy is this verifier, and which group size does that ask for?

Theory wants sigma, the correlation between estimators and the policy's mass on good answers. All can be measured: let the
verifier judge the same responses several times, with teachers that err a little differently each time, and look at how the
verdicts scatter.

    python -m theory.dial --rollouts out/curated/rollouts.jsonl --data out/data/curate.jsonl --jitter 3
    python -m theory.dial --verdicts out/verdicts.jsonl          # again, from the verdicts alone

Reads verdicts as JSONL, one a line: {"id": prompt, "response" or "text": ..., "outcome": .., "grounding": .., "reasoning": ..},
and where known "rollout" (its place in the group; the same text twice is then a copy, not a second verdict) and "repeat". Rows
as curate.py writes them, {"id", "rollouts": [...]}, are read too: several such files in a row are repeats. With --rollouts they
are made first: every response is verified --repeats times by teachers made wrong by --jitter, --miss and --flip.

What is estimated: the noise of each term, of single actions, across terms and across actions; m_eff; and, with the mean
verdicts in the place of the unknown true rewards, the exact success probability over n. What that cannot see is printed with
it, under "caveats".

Before: landscapes.py. Next: README.md (theory)
"""
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from runs.errors import BadInput, run_main
from runs.files import read_jsonl, write_atomically
from runs.settings import parse_config
from teachers.judges import VLMJudge
from teachers.names import load_teachers
from verifier.samples import read_samples
import argos
from theory import bounds, exact

TERMS = ("outcome", "grounding", "reasoning")


@dataclass
class Config:
    verdicts: str = field(default="out/verdicts.jsonl", metadata={"help": "repeated verdicts: read; with --rollouts, written"})
    weights: list[float] = field(default_factory=lambda: [.5, .25, .25], metadata={"help": "w_o w_vg w_rq of eq. 9"})
    tau: float = field(default=.5, metadata={"help": "the gate's threshold"})
    eps: float = field(default=.1, metadata={"help": "the lead that counts, in every term"})
    most: int = field(default=64, metadata={"help": "largest group size to consider"})
    # making the verdicts
    rollouts: str = field(default="", metadata={"help": "rollouts to verify again: curate.py's, or rows of id and response"})
    data: str = field(default="out/data/curate.jsonl", metadata={"help": "the samples of those rollouts"})
    judge: str = field(default=str(Path(__file__).parent.parent / "tiny/teacher"), metadata={"help": "VLM that judges"})
    repeats: int = field(default=8, metadata={"help": "verdicts a response"})
    limit: int = field(default=40, metadata={"help": "use the first so many samples (0: all)"})
    jitter: float = field(default=3., metadata={"help": "pixels of random error in every box and point"})
    judge_jitter: float = field(default=.03, metadata={"help": "random error in R_rq"})
    miss: float = field(default=.02, metadata={"help": "probability that a thing is not found"})
    flip: float = field(default=.0, metadata={"help": "probability that the outcome lands on the wrong side of the gate"})
    fresh: bool = field(default=False, metadata={"help": "a new error for every question asked, not one shared by all who ask it"})
    seed: int = field(default=0, metadata={"help": "seed of the errors"})


# ---- 1. Verdicts ----------------------------------------------------------------------------------------------------------
def rows_of(path):
    """One entry a verdict, either layout -> [(id, response, rollout or None, repeat or None, (3,) terms, nan where not judged)]."""
    found = []
    for i, row in read_jsonl(path, torn=True):
        nested = isinstance(row, dict) and isinstance(row.get("rollouts"), list)
        for k, one in enumerate(row["rollouts"] if nested else [row]):
            text = one.get("response", one.get("text")) if isinstance(one, dict) else None
            if not isinstance(text, str) or not isinstance(row.get("id"), str | int):
                raise BadInput(f'{path} row {i}: needs "id" and "response" (or "text"); see python -m theory.dial --help')
            terms = [one.get(t) for t in TERMS]
            if not all(v is None or isinstance(v, int | float) and 0 <= v <= 1 for v in terms):
                raise BadInput(f"{path} row {i}: {', '.join(TERMS)} must be numbers in [0, 1] or null, not {terms}")
            place, repeat = one.get("rollout", k if nested else None), one.get("repeat")
            found.append((str(row["id"]), text, place, repeat, np.array([np.nan if v is None else float(v) for v in terms])))
    return found


def read_verdicts(path):
    """-> {prompt: {response: (copies in its group, {repeat: (3,) terms})}}."""
    prompts, seen = defaultdict(dict), defaultdict(int)
    for prompt, text, place, repeat, terms in rows_of(path):
        places, verdicts = prompts[prompt].setdefault(text, (set(), {}))
        if repeat is None:  # in the order of the file
            repeat = seen[prompt, text, place]
            seen[prompt, text, place] += 1
        places.add(place)
        verdicts.setdefault(repeat, terms)
    return {p: {t: (len(places), verdicts) for t, (places, verdicts) in actions.items()} for p, actions in prompts.items()}


def verify_again(cfg):
    """Verdicts of the same responses by teachers that err differently each time -> cfg.verdicts."""
    import policy as P
    from theory.noise import NoisyDetector, NoisyJudge, NoisyPointer
    samples = {s.id: s for s in read_samples(cfg.data)}
    groups = defaultdict(dict)
    for k, (prompt, text, place, _, _) in enumerate(rows_of(cfg.rollouts)):
        groups[prompt].setdefault(k if place is None else place, text)
    missing = next((p for p in groups if p not in samples), None)
    if missing is not None:
        raise BadInput(f"{cfg.rollouts}: sample {missing!r} is not in {cfg.data}; give its --data")
    detector, segmenter, pointer = load_teachers()
    judge = VLMJudge(P.load_policy(cfg.judge))
    lines, jobs = [], list(groups.items())[:cfg.limit or None]
    for repeat in tqdm(range(cfg.repeats), desc="verify", unit="repeat"):
        wrong = dict(jitter=cfg.jitter, miss=cfg.miss, seed=cfg.seed * 1000 + repeat, fresh=cfg.fresh)
        verifier = argos.Argos(NoisyDetector(detector, **wrong), segmenter, NoisyPointer(pointer, **wrong),
                               NoisyJudge(judge, jitter=cfg.judge_jitter, seed=wrong["seed"], fresh=cfg.fresh),
                               weights=argos.Weights(*cfg.weights), tau=cfg.tau)
        rng = np.random.default_rng([cfg.seed, repeat])
        for prompt, group in jobs:
            verdicts = verifier.verify_group(samples[prompt], list(group.values()))
            for (place, text), v in zip(group.items(), verdicts):
                outcome = 1 - v.outcome if rng.random() < cfg.flip else v.outcome
                lines.append(json.dumps(dict(id=prompt, rollout=place, repeat=repeat, response=text, outcome=outcome,
                                             grounding=v.grounding, reasoning=v.reasoning)))
    write_atomically(cfg.verdicts, "\n".join(lines) + "\n")
    print(f"wrote {len(lines)} verdicts to {cfg.verdicts}")


# ---- 2. Noise -------------------------------------------------------------------------------------------------------------
def estimate_noise(prompts, weights):
    """Assumption 1, measured. prompts: as read_verdicts; weights: (3,). Scatter of repeated verdicts about their own action's
    mean, pooled.

    -> dict(terms: names used; weights: theirs; sigma: (m,) one number a term; correlation: (m, m) between terms; covariance:
    (m, m); actions: (A,) noise of each action's weighted score; across: correlation between the scores of two actions of one
    prompt; m_eff).
    """
    blocks = [np.array([v for _, v in sorted(verdicts.items(), key=lambda kv: str(kv[0]))])  # (repeats, 3)
              for actions in prompts.values() for _, verdicts in actions.values()]
    used = [i for i in range(3) if any(np.isfinite(b[:, i]).sum() > 1 for b in blocks)]
    if not used:
        raise BadInput("no response has two verdicts: noise shows only in repeats")
    w = np.asarray(weights, float)[used]
    squares, freedom = np.zeros(len(used)), np.zeros(len(used))
    for b in blocks:
        for j, i in enumerate(used):
            x = b[np.isfinite(b[:, i]), i]
            if len(x) > 1:
                squares[j] += ((x - x.mean()) ** 2).sum()
                freedom[j] += len(x) - 1
    sigma = np.sqrt(squares / np.maximum(freedom, 1))
    cross, per_action = np.zeros((len(used), len(used))), []
    for b in blocks:
        x = b[np.isfinite(b[:, used]).all(1)][:, used]  # verdicts with every term: where the gate was open
        if len(x) > 1:
            x = x - x.mean(0)
            cross += x.T @ x
            per_action.append(np.sqrt(((x @ w) ** 2).sum() / (len(x) - 1)))
    scale = np.sqrt(np.maximum(cross.diagonal(), 1e-300))
    correlation = cross / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1)
    covariance = correlation * np.outer(sigma, sigma)
    return dict(terms=[TERMS[i] for i in used], weights=w, sigma=sigma, correlation=correlation, covariance=covariance,
                actions=np.array(per_action), across=_across_actions(prompts, used, w),
                m_eff=bounds.effective_rewards(w, covariance) if sigma.any() else np.inf)


def _across_actions(prompts, used, w):
    """Correlation between the scores of two actions of one prompt, judged in the same repeat; nan where no two were."""
    together = own = 0.
    pairs = singles = 0
    for actions in prompts.values():
        rows = [{r: v[used] @ w for r, v in verdicts.items() if np.isfinite(v[used]).all()} for _, verdicts in actions.values()]
        rows = [r for r in rows if len(r) > 1]
        common = sorted(set.intersection(*map(set, rows)), key=str) if len(rows) > 1 else []
        if len(common) < 2:
            continue
        x = np.array([[r[c] for c in common] for r in rows])  # (actions, repeats)
        x = x - x.mean(1, keepdims=True)
        own, singles = own + (x ** 2).sum(), singles + x.size
        together, pairs = together + (x.sum(0) ** 2).sum() - (x ** 2).sum(), pairs + x.size * (len(x) - 1)
    return together / pairs / (own / singles) if pairs and own else np.nan


# ---- 3. Group size --------------------------------------------------------------------------------------------------------
def group_sizes(prompts, noise, tau, eps, most):
    """Exact success over n with the mean verdicts as true rewards, averaged over the prompts where anything can be won.

    Good: correct, and among correct actions eps-Pareto-optimal in all terms (our correction of corollary 1). -> dict(n:
    (most,), fresh, shared: (most,) success with noise fresh for each draw, and with one draw an action; p: mass of good,
    averaged; telling, hopeless, easy: prompts).
    """
    ns, w = np.arange(1, most + 1), noise["weights"]
    used = [TERMS.index(t) for t in noise["terms"]]
    rest = [j for j, t in enumerate(noise["terms"]) if t != "outcome"]
    if "outcome" not in noise["terms"] or not rest:
        raise BadInput("the dial needs repeated verdicts of the outcome and of one more term")
    o = noise["terms"].index("outcome")
    quiet = np.sqrt(1 - np.clip(np.nan_to_num(noise["across"]), 0, 1))  # what a prompt's actions share cancels in comparisons
    cov = noise["covariance"][np.ix_(rest, rest)]
    summed, apart = w[rest] @ cov @ w[rest], w[rest] ** 2 @ cov.diagonal()
    sigma = np.append(noise["sigma"][o], noise["sigma"][rest] * quiet * np.sqrt(max(summed, 0) / apart if apart else 1))
    everyone = np.array([v for actions in prompts.values() for _, verdicts in actions.values() for v in verdicts.values()])
    usual = np.array([np.nanmean(everyone[:, i]) for i in used])  # of a term never judged: what a wrongly opened gate would find
    curves, shared, masses, hopeless, easy = [], [], [], 0, 0
    for actions in prompts.values():
        copies = np.array([c for c, _ in actions.values()], float)
        means = np.array([[np.nanmean(x) if np.isfinite(x := np.array([v[i] for v in verdicts.values()])).any() else usual[j]
                           for j, i in enumerate(used)] for _, verdicts in actions.values()])  # (K, m)
        correct, good = means[:, o] >= tau, np.zeros(len(means), bool)
        if correct.any():
            good[correct] = exact.pareto_optimal(means[correct], eps)
        hopeless, easy = hopeless + (not good.any()), easy + bool(good.all())
        if not good.any() or good.all():
            continue
        policy = copies / copies.sum()
        masses.append(policy @ good)
        curves.append(exact.gated_success_probability(ns, policy, means[:, o], means[:, rest], good, tau, w[o], w[rest], sigma))
        score = np.where(correct, means @ w, w[o] * means[:, o])
        std = np.sqrt(w[rest] ** 2 @ sigma[1:] ** 2)
        stds = np.where(correct, std, 1e-3 * std)
        shared.append(exact.best_of_n(ns, policy, score, stds, good, "per_action"))
    mean = lambda x: np.mean(x, axis=0) if len(x) else np.full(most, np.nan)
    return dict(n=ns, fresh=mean(curves), shared=mean(shared), p=float(np.mean(masses)) if masses else np.nan, telling=len(masses),
                hopeless=hopeless, easy=easy)


def report(prompts, weights, tau, eps, most):
    """Everything above as lines of text."""
    noise = estimate_noise(prompts, weights)
    actions = sum(map(len, prompts.values()))
    lines = [f"{len(prompts)} prompts, {actions} distinct responses, "
             f"{sum(len(v) for a in prompts.values() for _, v in a.values())} verdicts", "", "noise of one verdict (sigma)"]
    lines += [f"  {t:10} {s:.4f}   weight {w:g}" for t, s, w in zip(noise["terms"], noise["sigma"], noise["weights"])]
    scores = noise["actions"]
    if len(scores):
        low, middle, high = np.quantile(scores, [.1, .5, .9])
        lines.append(f"  of single actions, in the weighted score: 10 % below {low:.4f}, half below {middle:.4f}, 10 % above "
                     f"{high:.4f}; {np.mean(scores < 1e-12):.0%} have none")
    for i in range(len(noise["terms"])):
        for j in range(i):
            if noise["sigma"][i] and noise["sigma"][j]:
                lines.append(f"correlation {noise['terms'][j]} with {noise['terms'][i]}: {noise['correlation'][i, j]:+.2f}")
    lines += [f"correlation between two actions of one prompt: {noise['across']:+.2f}" if np.isfinite(noise["across"]) else
              "correlation between two actions of one prompt: not to be told from these verdicts",
              f"m = {len(noise['terms'])} terms count as m_eff = {noise['m_eff']:.2f} independent ones of the largest sigma"]
    found = group_sizes(prompts, noise, tau, eps, most)
    lines += ["", f"{found['telling']} prompts where something can be won or lost (of the others, {found['easy']} have only good "
              f"responses, {found['hopeless']} none)"]
    if found["telling"]:
        sigma = noise["sigma"].max()
        e = bounds.pair_error(eps, noise["weights"], sigma, sharp=False)
        e_eff = float(np.exp(-noise["m_eff"] * eps ** 2 / (4 * sigma ** 2))) if sigma else 0.
        star, star_eff = bounds.best_group_size(found["p"], e), bounds.best_group_size(found["p"], e_eff)
        powers = [n for n in found["n"] if n & (n - 1) == 0]
        best = {k: int(found["n"][np.argmax(found[k])]) for k in ("fresh", "shared")}
        enough = {k: int(found["n"][np.argmax(found[k] >= found[k].max() - .01)]) for k in ("fresh", "shared")}
        lines += [f"mean mass of good responses p = {found['p']:.3f}; lemma 1's pair error for the largest sigma: e = {e:.3g} with "
                  f"the paper's constant, {e_eff:.3g} with m_eff",
                  f"best group by remark 2's formula: {star.approximation:.1f}; maximiser of the paper's bound: {star.integer}, "
                  f"with m_eff: {star_eff.integer}",
                  *(f"exact success, {name}: best at n = {best[k]} of {most}; within .01 of that at n = {enough[k]}"
                    for k, name in (("fresh", "fresh noise"), ("shared", "one draw an action"))),
                  "       n  " + "  ".join(f"{n:5d}" for n in powers)]
        lines += [f"  {k:6}  " + "  ".join(f"{found[k][n - 1]:.3f}" for n in powers) for k in ("fresh", "shared")]
    lines += ["", "caveats", "  Mean verdicts stand for true rewards: a bias that all repeats share is not seen.",
              "  The finite group stands for the policy: what it never wrote cannot be won; p is an average over unlike prompts.",
              "  Noise is taken as Gaussian and equal for all actions; verdicts live in [0, 1], mostly at its ends.",
              "  \"shared\" takes the gate at the mean outcome: it cannot open wrongly there.",
              "  Success of the group's winner is not progress in training: GRPO learns from every member, not from the best one."]
    return "\n".join(lines)


def main():
    cfg = parse_config(Config, __doc__)
    if len(cfg.weights) != 3 or min(cfg.weights) <= 0:
        raise BadInput(f"--weights {cfg.weights}: give three numbers above 0, w_o w_vg w_rq")
    if cfg.repeats < 2 or cfg.most < 1 or cfg.eps < 0:
        raise BadInput("--repeats must be at least 2, --most at least 1, --eps at least 0")
    if cfg.rollouts:
        verify_again(cfg)
    print(report(read_verdicts(cfg.verdicts), cfg.weights, cfg.tau, cfg.eps, cfg.most))


if __name__ == "__main__":
    run_main(main)
