"""Is the reward being hacked? What to measure and to log while RL runs. (Our choice: the paper does not say.)

A judge that compares free text can be fooled, and RL finds how (foils.py). Asked again at evaluation, the fooled
judge reports success. So a held-out answer to a free question has two scores:

    measured   equal to the truth's text, where a row says "exact": true (drawn worlds do); else what another judge
               says (--eval_judge); else what the judge that rewards says, and the tables say that it is the same
    judged     what the judge that rewards says

All other kinds of questions are decided by rules: there the two are one. What judged is ahead of measured was
hacked, or is a paraphrase that the truth's text does not know: the policy before RL shows how many of those there
are. R_vg has no second measure: what is said about clips is checked by the judge, by --eval_judge if there is one.

During training three things are counted, since hacking shows in them first: free answers that only the judge
accepts, points by their kind of miss, and responses without an answer or without an end.

Before: foils.py, points.py. Next: train_grpo.py (logs all of it), evaluate.py (both columns).
"""
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from verifier.answers import says


# ---- 1. Held-out answers -----------------------------------------------------------------------------------
@dataclass
class Measured:
    """One held-out response."""
    verdict: object         # of the verifier that measures: R_vg, cards
    outcome: float | None   # R_o as measured
    judged: float | None    # R_o as the judge that rewards has it; both are None where a teacher failed


class Measure:
    """Scores held-out responses by something else than the judge that rewards, wherever there is something.

        measure = Measure(rewarding=Argos(..., judge, use=("outcome", "grounding")))   # one judge for both
        measure = Measure(rewarding, other=Argos(..., eval_judge, use=("outcome", "grounding")))
    """

    def __init__(self, rewarding, other=None):
        self.rewarding = rewarding
        self.other = other

    @property
    def verifier(self):
        """The one that measures."""
        return self.other or self.rewarding

    @property
    def failures(self):
        """Errors of teachers and files -> Counter."""
        return self.rewarding.failures + (self.other.failures if self.other else Counter())

    def score(self, samples, responses, media):
        """One response per sample -> a Measured each."""
        groups = [[text] for text in responses]
        measuring = self.verifier.verify_groups(samples, groups, media)
        rewarding = measuring
        if self.other:
            rewarding = self.rewarding.verify_groups(samples, groups, media)
        results = []
        for sample, (verdict,), (as_rewarded,) in zip(samples, measuring, rewarding):
            outcome, judged = by_text(sample, verdict), as_rewarded.outcome
            if outcome is None or judged is None:  # the two columns are means over the same items
                outcome = judged = None
            elif outcome != verdict.outcome:
                verdict.selected["outcome"].why += f"; measured {outcome:g}: not the text of the truth"
            results.append(Measured(verdict, outcome, judged))
        return results

    def remark(self, samples):
        """What rests on the judge that rewards, for whoever reads a table of these samples: one line."""
        if self.other:
            return "Measured without the judge that rewards."
        free = sum(sample.kind == "free" and not sample.exact for sample in samples)
        clips = sum(sample.media == "video" and sample.grounding for sample in samples)
        rests = []
        if free:
            rests.append(f"{free} free answers, in both columns")
        if clips:
            rests.append(f"the R_vg of {clips} clips")
        if not rests:
            return "Measured without the judge that rewards."
        return (f"The judge that rewards also measures {' and '.join(rests)}, of {len(samples)} samples; "
                "--eval_judge names another.")


def same_model(one, other):
    """Do two names of models mean one? Folders are compared by where they lie; "" is no model."""
    return bool(one) and (one == other or Path(one).resolve() == Path(other).resolve())


def by_text(sample, verdict):
    """R_o of a verdict; of a free answer whose only right text is known, 1 where it is that text, else 0."""
    if sample.kind == "free" and sample.exact and verdict.outcome is not None:
        return float(says_truth(sample, verdict))
    return verdict.outcome


def says_truth(sample, verdict):
    """Is the answer the truth, word for word, but for markup, articles, case and punctuation?"""
    answer = verdict.parsed.answer
    return answer is not None and says(answer, sample.answer)


# ---- 2. Signs of hacking -----------------------------------------------------------------------------------
def signs_of(sample, verdict, judged, finished, tau=.5):
    """What is counted of one response -> a dict of plain values, which processes can exchange.

    judged: R_o as the judge that rewards has it. judge_only: does only the judge accept this free answer, whose
    text is not the truth's? None: no free question, or not scored. Of real free text many such answers are right;
    where their share climbs, read some.
    """
    judge_only = None
    if sample.kind == "free" and judged is not None:
        judge_only = judged >= tau and not says_truth(sample, verdict)
    points, misses = 0, Counter()
    if verdict.grounding is not None:  # a reward without grounding looks at no point
        misses.update(point.miss for point in verdict.points if not point.score)
        misses["unreadable"] = sum(verdict.parsed.unreadable.values())
        points = len(verdict.points) + misses["unreadable"]
    return dict(source=sample.source or sample.media, judge_only=judge_only, points=points, misses=misses,
                malformed=verdict.parsed.answer is None, unfinished=not finished)


def signs_together(rows):
    """Many responses' signs_of -> shares, as metrics.jsonl holds them.

    judge_only: of the answers to free questions (None: there was none). misses: of all points, by kind of miss
    (points.py); empty where the reward does not look at points. malformed, unfinished: of the
    responses, by source of the data (the medium, where rows name none).
    """
    by_source = defaultdict(list)
    misses = Counter()
    for row in rows:
        by_source[row["source"]].append(row)
        misses.update(row["misses"])
    points = sum(row["points"] for row in rows)

    def in_sources(name):
        return {source: share([row[name] for row in of]) for source, of in sorted(by_source.items())}

    return dict(judge_only=share([row["judge_only"] for row in rows if row["judge_only"] is not None]),
                misses={kind: count / points for kind, count in sorted(misses.items()) if count},
                malformed=in_sources("malformed"),
                unfinished_in=in_sources("unfinished"))


def share(flags):
    """The share of true values; None of no values."""
    return sum(flags) / len(flags) if flags else None
