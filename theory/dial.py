"""The dial between theory and training: how noisy is this verifier, and which group size does that ask for?

What the paper says: theorem 1 needs sigma, the noise of one estimator; independent estimators (assumption 1);
and p, the policy's mass on good answers; remark 2 turns them into a group size. All can be measured: let the
verifier judge the same responses several times, with teachers that err a little differently each time, and
look at how the verdicts scatter.

What is estimated: the noise of each term, of single actions, across terms and across actions; m_eff; and,
with the mean verdicts in the place of the unknown true rewards, the exact success probability over n. What is
simplified is printed below the numbers, under "caveats".

Run:   python -m theory.dial --rollouts out/curated/rollouts.jsonl --data out/data/curate.jsonl --jitter 3
       python -m theory.dial --verdicts out/verdicts.jsonl          # again, from the verdicts alone

Reads verdicts as JSONL, one per line: {"id": prompt, "response" or "text": ..., "outcome": .., "grounding":
.., "reasoning": ..}, and where known "rollout" (its place in the group; the same text twice is then a copy,
not a second verdict) and "repeat". Rows as curate.py writes them, {"id", "rollouts": [...]}, are read too:
several such files in a row are repeats. With --rollouts they are made first: every response is verified
--repeats times by teachers made wrong by --jitter, --miss and --flip.

Next:  dial.md (what it says about a real verifier, and how to read that)
"""
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import argos
import policy as P
from runs.errors import BadInput, run_main
from runs.files import read_jsonl, write_atomically
from runs.settings import flag, parse_config
from teachers.judges import VLMJudge
from teachers.names import load_teachers
from theory import bounds, exact
from theory.noise import NoisyDetector, NoisyJudge, NoisyPointer
from verifier.samples import read_samples

TERMS = ("outcome", "grounding", "reasoning")


@dataclass
class Config:
    verdicts: str = flag("out/verdicts.jsonl", "repeated verdicts: read; with --rollouts, written")
    weights: list[float] = field(default_factory=lambda: [.5, .25, .25],
                                 metadata={"help": "w_o w_vg w_rq of eq. 9"})
    tau: float = flag(.5, "the gate's threshold")
    eps: float = flag(.1, "the lead that counts, in every term")
    most: int = flag(64, "largest group size to consider")
    # making the verdicts
    rollouts: str = flag("", "rollouts to verify again: curate.py's, or rows of id and response")
    data: str = flag("out/data/curate.jsonl", "the samples of those rollouts")
    judge: str = flag(str(Path(__file__).parent.parent / "tiny/teacher"), "VLM that judges")
    repeats: int = flag(8, "verdicts per response")
    limit: int = flag(40, "use the first so many samples (0: all)")
    jitter: float = flag(3., "pixels of random error in every box and point")
    judge_jitter: float = flag(.03, "random error in R_rq")
    miss: float = flag(.02, "probability that a thing is not found")
    flip: float = flag(.0, "probability that the outcome lands on the wrong side of the gate")
    fresh: bool = flag(False, "a new error for every question asked, not one shared by all who ask it")
    seed: int = flag(0, "seed of the errors")


# ---- 1. Verdicts -------------------------------------------------------------------------------------------
class Row(NamedTuple):
    """One verdict as it stands in a file."""
    prompt: str
    response: str
    place: object      # in its group; None if not told
    repeat: object     # None if not told
    terms: np.ndarray  # (3,), nan where not judged


class Action(NamedTuple):
    """One response to a prompt, and all that was said about it."""
    copies: int     # in its group
    verdicts: dict  # repeat -> (3,) terms, nan where not judged


def rows_of(path):
    """Verdicts in either layout -> [Row]."""
    rows = []
    for i, line in read_jsonl(path, torn=True):
        nested = isinstance(line.get("rollouts"), list)
        entries = line["rollouts"] if nested else [line]
        for k, entry in enumerate(entries):
            rows.append(_row(f"{path} row {i}", line.get("id"), entry, k if nested else None))
    if not rows:
        raise BadInput(f"{path}: no row holds a verdict, from row 1 on; write one {{...}} per line")
    return rows


def _row(where, prompt, entry, place):
    """One verdict -> Row; BadInput if it is none. place: what its position in a group says, or None."""
    text = None
    if isinstance(entry, dict):
        text = entry.get("response", entry.get("text"))
    if not isinstance(text, str) or not isinstance(prompt, str | int):
        raise BadInput(f'{where}: needs "id" and "response" (or "text"); '
                             "see python -m theory.dial --help")
    terms = [entry.get(term) for term in TERMS]
    for value in terms:
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            names = ", ".join(TERMS)
            raise BadInput(f"{where}: {names} must be numbers in [0, 1] or null, not {terms}")
    numbers = np.array([np.nan if value is None else float(value) for value in terms])
    return Row(str(prompt), text, entry.get("rollout", place), entry.get("repeat"), numbers)


def read_verdicts(path):
    """-> {prompt: {response: Action}}."""
    places = defaultdict(set)      # (prompt, response) -> places in the group
    seen = defaultdict(int)        # (prompt, response, place) -> verdicts so far
    verdicts = {}                  # prompt -> {response: {repeat: terms}}
    for row in rows_of(path):
        repeat = row.repeat
        if repeat is None:  # in the order of the file
            repeat = seen[row.prompt, row.response, row.place]
            seen[row.prompt, row.response, row.place] += 1
        places[row.prompt, row.response].add(row.place)
        responses = verdicts.setdefault(row.prompt, {})
        responses.setdefault(row.response, {}).setdefault(repeat, row.terms)
    prompts = defaultdict(dict)
    for prompt, responses in verdicts.items():
        for response, repeats in responses.items():
            prompts[prompt][response] = Action(len(places[prompt, response]), repeats)
    return prompts


def verify_again(cfg):
    """Verdicts of the same responses by teachers that err differently each time -> cfg.verdicts."""
    samples = {s.id: s for s in read_samples(cfg.data)}
    groups = defaultdict(dict)  # prompt -> {place: response}
    for k, row in enumerate(rows_of(cfg.rollouts)):
        place = k if row.place is None else row.place
        groups[row.prompt].setdefault(place, row.response)
    for prompt in groups:
        if prompt not in samples:
            raise BadInput(f"{cfg.rollouts}: sample {prompt!r} is not in {cfg.data}; give its --data")
    jobs = list(groups.items())
    if cfg.limit:
        jobs = jobs[:cfg.limit]
    detector, segmenter, pointer = load_teachers()
    judge = VLMJudge(P.load_policy(cfg.judge))
    lines = []
    for repeat in tqdm(range(cfg.repeats), desc="verify", unit="repeat"):
        seed = cfg.seed * 1000 + repeat
        wrong = dict(jitter=cfg.jitter, miss=cfg.miss, seed=seed, fresh=cfg.fresh)
        noisy_judge = NoisyJudge(judge, jitter=cfg.judge_jitter, seed=seed, fresh=cfg.fresh)
        verifier = argos.Argos(NoisyDetector(detector, **wrong), segmenter, NoisyPointer(pointer, **wrong),
                               noisy_judge, weights=argos.Weights(*cfg.weights), tau=cfg.tau)
        rng = np.random.default_rng([cfg.seed, repeat])
        for prompt, group in jobs:
            verdicts = verifier.verify_group(samples[prompt], list(group.values()))
            for (place, text), verdict in zip(group.items(), verdicts):
                outcome = verdict.outcome
                if rng.random() < cfg.flip:
                    outcome = 1 - outcome
                line = dict(id=prompt, rollout=place, repeat=repeat, response=text, outcome=outcome,
                            grounding=verdict.grounding, reasoning=verdict.reasoning)
                lines.append(json.dumps(line))
    write_atomically(cfg.verdicts, "\n".join(lines) + "\n")
    print(f"wrote {len(lines)} verdicts to {cfg.verdicts}")


# ---- 2. Noise ----------------------------------------------------------------------------------------------
class Noise(NamedTuple):
    """Assumption 1, measured, for the m of the three terms that were judged twice anywhere."""
    terms: list              # names
    weights: np.ndarray      # (m,)
    sigma: np.ndarray        # (m,) one number per term
    correlation: np.ndarray  # (m, m) between terms
    covariance: np.ndarray   # (m, m)
    actions: np.ndarray      # (A,) noise of each action's weighted score
    across: float            # correlation between the scores of two actions of one prompt; nan if unknown
    m_eff: float             # see bounds.effective_rewards


def estimate_noise(prompts, weights):
    """Scatter of repeated verdicts about their own action's mean, pooled over actions.

    prompts: as read_verdicts. weights: (3,). -> Noise.
    """
    blocks = []  # one (repeats, 3) per action
    for actions in prompts.values():
        for action in actions.values():
            blocks.append(np.array([action.verdicts[repeat] for repeat in sorted(action.verdicts, key=str)]))
    used = [i for i in range(3) if any(np.isfinite(block[:, i]).sum() > 1 for block in blocks)]
    if not used:
        raise BadInput("no response has two verdicts: noise shows only in repeats")
    w = np.array(weights, float)[used]
    sigma = np.array([_pooled_sigma(blocks, i) for i in used])

    products = np.zeros((len(used), len(used)))  # of deviations, summed
    per_action = []
    for block in blocks:
        x = block[:, used]
        x = x[np.isfinite(x).all(1)]  # verdicts with every term: where the gate was open
        if len(x) > 1:
            x = x - x.mean(0)
            products += x.T @ x
            per_action.append(np.sqrt(((x @ w) ** 2).sum() / (len(x) - 1)))
    scale = np.sqrt(np.maximum(products.diagonal(), 1e-300))
    correlation = products / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1)
    covariance = correlation * np.outer(sigma, sigma)
    m_eff = np.inf
    if sigma.any():
        m_eff = bounds.effective_rewards(w, covariance)
    return Noise([TERMS[i] for i in used], w, sigma, correlation, covariance, np.array(per_action),
                 _across_actions(prompts, used, w), m_eff)


def _pooled_sigma(blocks, i):
    """Noise of term i -> float."""
    squares = 0.
    freedom = 0
    for block in blocks:
        x = block[np.isfinite(block[:, i]), i]  # (repeats,)
        if len(x) > 1:
            squares += ((x - x.mean()) ** 2).sum()
            freedom += len(x) - 1
    return np.sqrt(squares / max(freedom, 1))


def _across_actions(prompts, used, w):
    """Correlation between the scores of two actions of one prompt, judged in the same repeat; nan where no
    two were."""
    own = 0.       # squared deviations of single scores
    singles = 0
    together = 0.  # products of deviations of two actions
    pairs = 0
    for actions in prompts.values():
        rows = []  # one {repeat: score} per action
        for action in actions.values():
            scores = {r: v[used] @ w for r, v in action.verdicts.items() if np.isfinite(v[used]).all()}
            if len(scores) > 1:
                rows.append(scores)
        if len(rows) < 2:
            continue
        common = sorted(set.intersection(*map(set, rows)), key=str)
        if len(common) < 2:
            continue
        x = np.array([[scores[repeat] for repeat in common] for scores in rows])  # (actions, repeats)
        x = x - x.mean(1, keepdims=True)
        squares = (x ** 2).sum()
        own += squares
        singles += x.size
        together += (x.sum(0) ** 2).sum() - squares
        pairs += x.size * (len(x) - 1)
    if pairs == 0 or own == 0:
        return np.nan
    return together / pairs / (own / singles)


# ---- 3. Group size -----------------------------------------------------------------------------------------
class Sizes(NamedTuple):
    """Success over the group size, averaged over the prompts where something can be won or lost."""
    n: np.ndarray       # (most,) 1, 2, ...
    fresh: np.ndarray   # (most,) with noise fresh for each draw
    shared: np.ndarray  # (most,) with one draw of noise per action
    p: float            # the policy's mass on good responses
    telling: int        # such prompts
    hopeless: int       # prompts without a good response
    easy: int           # prompts with no other


def group_sizes(prompts, noise, tau, eps, most):
    """Exact success over n, the mean verdicts taken for true rewards. -> Sizes.

    Good: correct, and among correct actions eps-Pareto-optimal in all terms (our correction of corollary 1).
    """
    if "outcome" not in noise.terms or len(noise.terms) < 2:
        raise BadInput("the dial needs repeated verdicts of the outcome and of one more term")
    o = noise.terms.index("outcome")
    rest = [j for j in range(len(noise.terms)) if j != o]
    w = noise.weights
    sigma = _comparable_noise(noise, o, rest)  # (m,), the outcome's first
    std = np.sqrt(w[rest] ** 2 @ sigma[1:] ** 2)
    ns = np.arange(1, most + 1)
    usual = _usual_terms(prompts, noise)
    fresh = []
    shared = []
    masses = []
    hopeless = 0
    easy = 0
    for actions in prompts.values():
        means = np.array([_mean_terms(action, noise, usual) for action in actions.values()])  # (K, m)
        correct = means[:, o] >= tau
        good = np.zeros(len(means), bool)
        if correct.any():
            good[correct] = exact.pareto_optimal(means[correct], eps)
        if not good.any():
            hopeless += 1
            continue
        if good.all():
            easy += 1
            continue
        copies = np.array([action.copies for action in actions.values()], float)
        policy = copies / copies.sum()
        masses.append(policy @ good)
        fresh.append(exact.gated_success_probability(ns, policy, means[:, o], means[:, rest], good, tau, w[o],
                                                     w[rest], sigma))
        scores = np.where(correct, means @ w, w[o] * means[:, o])
        stds = np.where(correct, std, 1e-3 * std)  # a closed gate shows the outcome alone
        shared.append(exact.best_of_n(ns, policy, scores, stds, good, "per_action"))
    if not masses:
        unknown = np.full(most, np.nan)
        return Sizes(ns, unknown, unknown, np.nan, 0, hopeless, easy)
    return Sizes(ns, np.mean(fresh, axis=0), np.mean(shared, axis=0), float(np.mean(masses)), len(masses),
                 hopeless, easy)


def _comparable_noise(noise, o, rest):
    """The noise that matters when two actions are compared -> (m,), the outcome's first (our choice).

    What a prompt's actions share cancels, and what terms share does not: the terms are scaled so that, taken
    as independent, they give their weighted sum the noise that was measured.
    """
    quiet = np.sqrt(1 - np.clip(np.nan_to_num(noise.across), 0, 1))
    w = noise.weights[rest]
    covariance = noise.covariance[np.ix_(rest, rest)]
    summed = w @ covariance @ w
    independent = w ** 2 @ covariance.diagonal()
    stretch = 1.
    if independent > 0:
        stretch = np.sqrt(max(summed, 0) / independent)
    return np.append(noise.sigma[o], noise.sigma[rest] * quiet * stretch)


def _usual_terms(prompts, noise):
    """Each term's mean over all verdicts -> (m,)."""
    everyone = []
    for actions in prompts.values():
        for action in actions.values():
            everyone.extend(action.verdicts.values())
    everyone = np.array(everyone)
    return np.array([np.nanmean(everyone[:, TERMS.index(term)]) for term in noise.terms])


def _mean_terms(action, noise, usual):
    """One action's mean verdict -> (m,). A term that was never judged gets the usual value: what a wrongly
    opened gate would find."""
    means = usual.copy()
    for j, term in enumerate(noise.terms):
        x = np.array([terms[TERMS.index(term)] for terms in action.verdicts.values()])  # (repeats,)
        if np.isfinite(x).any():
            means[j] = np.nanmean(x)
    return means


# ---- 4. The report -----------------------------------------------------------------------------------------
CAVEATS = [
    "Mean verdicts stand for true rewards: a bias that all repeats share is not seen.",
    "The finite group stands for the policy: what it never wrote cannot be won; p is an average over unlike "
    "prompts.",
    "Noise is taken as Gaussian and equal for all actions; verdicts live in [0, 1], mostly at its ends.",
    '"shared" takes the gate at the mean outcome: it cannot open wrongly there.',
    "Success of the group's winner is not progress in training: GRPO learns from every member, not from the "
    "best one."]


def report(prompts, weights, tau, eps, most):
    """Everything above as text."""
    noise = estimate_noise(prompts, weights)
    sizes = group_sizes(prompts, noise, tau, eps, most)
    actions = [action for group in prompts.values() for action in group.values()]
    verdicts = sum(len(action.verdicts) for action in actions)
    lines = [f"{len(prompts)} prompts, {len(actions)} distinct responses, {verdicts} verdicts"]
    lines += _noise_lines(noise)
    lines += ["", f"{sizes.telling} prompts where something can be won or lost (of the others, "
                  f"{sizes.easy} have only good responses, {sizes.hopeless} none)"]
    if sizes.telling:
        lines += _size_lines(noise, sizes, eps)
    lines += ["", "caveats"]
    lines += [f"  {caveat}" for caveat in CAVEATS]
    return "\n".join(lines)


def _noise_lines(noise):
    lines = ["", "noise of one verdict (sigma)"]
    for term, sigma, weight in zip(noise.terms, noise.sigma, noise.weights):
        lines.append(f"  {term:10} {sigma:.4f}   weight {weight:g}")
    if len(noise.actions):
        low, middle, high = np.quantile(noise.actions, [.1, .5, .9])
        silent = np.mean(noise.actions < 1e-12)
        lines.append(f"  of single actions, in the weighted score: 10 % below {low:.4f}, half below "
                     f"{middle:.4f}, 10 % above {high:.4f}; {silent:.0%} have none")
    for i in range(len(noise.terms)):
        for j in range(i):
            if noise.sigma[i] and noise.sigma[j]:
                pair = f"{noise.terms[j]} with {noise.terms[i]}"
                lines.append(f"correlation {pair}: {noise.correlation[i, j]:+.2f}")
    across = "not to be told from these verdicts"
    if np.isfinite(noise.across):
        across = f"{noise.across:+.2f}"
    lines.append(f"correlation between two actions of one prompt: {across}")
    lines.append(f"m = {len(noise.terms)} terms count as m_eff = {noise.m_eff:.2f} independent ones of the "
                 "largest sigma")
    return lines


def _size_lines(noise, sizes, eps):
    sigma = noise.sigma.max()
    e = bounds.pair_error(eps, noise.weights, sigma, sharp=False)
    e_eff = 0.
    if sigma > 0:
        e_eff = float(np.exp(-noise.m_eff * eps ** 2 / (4 * sigma ** 2)))
    star = bounds.best_group_size(sizes.p, e)
    star_eff = bounds.best_group_size(sizes.p, e_eff)
    lines = [f"mean mass of good responses p = {sizes.p:.3f}; lemma 1's pair error for the largest sigma: "
             f"e = {e:.3g} with the paper's constant, {e_eff:.3g} with m_eff",
             f"best group by remark 2's formula: {star.approximation:.1f}; maximiser of the paper's bound: "
             f"{star.integer}, with m_eff: {star_eff.integer}"]
    for curve, name in ((sizes.fresh, "fresh noise"), (sizes.shared, "one draw an action")):
        best = sizes.n[np.argmax(curve)]
        enough = sizes.n[np.argmax(curve >= curve.max() - .01)]
        lines.append(f"exact success, {name}: best at n = {best} of {sizes.n[-1]}; within .01 of that at "
                     f"n = {enough}")
    powers = [n for n in sizes.n if n & (n - 1) == 0]
    lines.append("       n  " + "  ".join(f"{n:5d}" for n in powers))
    lines.append("  fresh   " + "  ".join(f"{sizes.fresh[n - 1]:.3f}" for n in powers))
    lines.append("  shared  " + "  ".join(f"{sizes.shared[n - 1]:.3f}" for n in powers))
    return lines


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
