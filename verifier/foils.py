"""Foils: an answer that also means another truth means neither. (Beside eq. 6; our choice, not the paper's.)

A judge that compares free text can be fooled, and RL finds how: without foils the embedded world's policy learned
to answer every free question with one word, "3" or "up", of which the judge said that it means "a red square". So
the judge is also asked whether the answer means k other truths, of other samples in the same file. An answer is
right if it means the truth and none of the foils.

    truth "a red square", foils "a blue square", "a green cross"
    "a crimson square"   means the truth, no foil           -> 1
    "3"                  means all three, says the judge    -> 0: also means 'a blue square'

What it costs: k more questions about each different answer, asked in the same batch. And where another sample's
truth is a paraphrase of this one's, right answers are lost: give such rows "foils" of their own, or none, [].

Before: answers.py. Next: samples.py (draws the foils), argos.py (asks).
"""
import hashlib
import random

from runs.errors import BadInput
from verifier.answers import says
from verifier.asking import ItemFailed, TeacherFailed
from verifier.texts import normalise

MAX_FOILS = 8   # drawn per sample; Argos(foils=k) uses the first k
MAX_FOIL = 300  # characters


def check_foils(k):
    """Raises BadInput for a number of foils that cannot be had."""
    if not 0 <= k <= MAX_FOILS:
        raise BadInput(f"--foils {k}: use 0 (the paper's judge) to {MAX_FOILS}")


def draw_foils(samples):
    """Give every sample of kind "free" whose row brings no list of foils up to MAX_FOILS: other samples' truths.

    They differ from its truth and from each other after normalisation, and are no longer than MAX_FOIL. Which ones
    depends on the sample's id and the set of truths alone, so a run can be repeated.
    """
    truths = {}  # normalised -> as written
    for sample in samples:
        if sample.kind == "free" and sample.answer is not None and len(sample.answer) <= MAX_FOIL:
            key = normalise(sample.answer)
            known = truths.get(key, sample.answer)
            truths[key] = min(sample.answer, known)  # of several spellings always the same
    ordered = sorted(truths)
    for sample in samples:
        if sample.kind != "free" or sample.answer is None or sample.foils is not None:
            continue
        digest = hashlib.blake2b(sample.id.encode("utf-8", "backslashreplace"), digest_size=8).digest()
        drawn = random.Random(int.from_bytes(digest, "big")).sample(ordered, min(len(ordered), MAX_FOILS + 1))
        others = [truths[key] for key in drawn if key != normalise(sample.answer)]
        sample.foils = others[:MAX_FOILS]


def texts_to_compare(sample, k):
    """What the judge compares an answer with: the truth, then the first k foils."""
    return [sample.answer, *(sample.foils or [])[:k]]


def foil_said(answer, texts):
    """Is the answer, word for word, one of the foils? Then it is wrong, and no judge is asked."""
    return any(says(answer, foil) for foil in texts[1:])


def outcome_against(texts, replies, k):
    """R_o of an answer that the judge has compared with each of texts_to_compare -> (score or None, why).

    texts: the truth, then the foils that are known, k at most. replies: one per text, each a bool, ItemFailed or
    TeacherFailed. None: the judge does not work.

    >>> texts = ["a red square", "a blue square", "a green cross"]
    >>> outcome_against(texts, [True, False, False], k=2)
    (1.0, '; means none of 2 foils')
    >>> outcome_against(texts, [True, False, True], k=2), outcome_against(texts, [False, False, True], k=2)
    ((0.0, "; also means 'a green cross'"), (0.0, ''))
    >>> outcome_against(texts[:1], [True], k=2), outcome_against(texts[:1], [True], k=0)
    ((1.0, '; no foils: no other truth is known'), (1.0, ''))
    """
    for reply in replies:
        if isinstance(reply, TeacherFailed):
            return None, str(reply)
    for reply in replies:
        if isinstance(reply, ItemFailed):
            return 0.0, f"; on this answer {reply.why}"
    # BEGIN SOLUTION ex10
    means_truth, *means_foils = replies
    if not means_truth:
        return 0.0, ""
    for foil, means in zip(texts[1:], means_foils):
        if means:
            return 0.0, f"; also means {foil[:60]!r}"
    if k == 0:
        return 1.0, ""  # the paper's
    if not means_foils:
        return 1.0, "; no foils: no other truth is known"
    return 1.0, f"; means none of {len(means_foils)} foil{'s' if len(means_foils) > 1 else ''}"
    # END SOLUTION
