"""Teachers that are wrong on purpose, by as much as ordered: wrap any detector, pointer or judge.

What the paper says: the estimators' noise is independent and sub-Gaussian (assumption 1). What a network gets
wrong it gets wrong again, so here an error is drawn once for each (seed, picture, question) and shared by all
who ask, unless fresh=True, which draws anew at every call. Where each dial stands in the theory:

    jitter, fresh       independent noise of every action, the sigma of lemma 1: a larger group only helps
    jitter, shared      duplicates of an action share one draw: best of n can get worse as n grows
    miss, false_alarm   rare, large errors: true points earn 0, invented ones 1, and a policy can seek those
    bias                one shift for all: cancels in a group's advantage, except at the edge of a mask
    flip                the outcome R_o lands on the wrong side of the gate, whatever corollary 1's gap gamma

What is simplified: errors are Gaussian shifts, drops and inventions, not those of a trained network.

Run:   python -m tiny.measure --noise        # each dial by itself, against the world's truth
Next:  dial.py (the noise of a real verifier)
"""
import hashlib
from dataclasses import dataclass, replace

import numpy as np

from verifier.coordinates import Box


class _Noisy:
    calls = 0

    def _rng(self, *about):
        """The draw that belongs to a question. about: PIL pictures and strings."""
        self.calls += 1
        call = self.calls if self.fresh else 0
        digest = hashlib.blake2b(repr((self.seed, call)).encode(), digest_size=8)
        for thing in about:
            if isinstance(thing, str):
                part = thing.encode("utf-8", "replace")
            else:
                part = repr(thing.size).encode() + thing.tobytes()
            length = len(part).to_bytes(8, "little")  # keeps ("ab", "c") and ("a", "bc") apart
            digest.update(length + part)
        return np.random.default_rng(int.from_bytes(digest.digest(), "little"))


@dataclass
class _NoisyPlaces(_Noisy):
    teacher: object             # the Detector or Pointer that is right
    miss: float = 0.0           # probability that a box or point is dropped
    false_alarm: float = 0.0    # probability that a question gets one invented box or point
    jitter: float = 0.0         # pixels: standard deviation of the shift of each box or point
    bias: tuple = (0.0, 0.0)    # pixels: (dx, dy) added to all
    seed: int = 0
    fresh: bool = False

    def _draw(self, image, label, found):
        """-> ([(found, dx, dy)] of what is kept, the invented place (fx, fy, side) in 0..1 or None).

        Every dial spends its draws even at 0, so that turning one leaves the others' errors where they are.
        """
        rng = self._rng(image, label)
        alarm = rng.random() < self.false_alarm
        place = (*rng.random(2), rng.uniform(.15, .3))
        kept = []
        for thing in found:
            missed = rng.random() < self.miss
            dx, dy = rng.normal(size=2) * self.jitter + self.bias
            if not missed:
                kept.append((thing, float(dx), float(dy)))
        if not alarm:
            place = None
        return kept, place


class NoisyDetector(_NoisyPlaces):
    """See Detector. Boxes are cut off at the border; what is left outside is dropped."""

    def detect(self, image, labels):
        true = self.teacher.detect(image, labels)
        return [self._spoil(image, label, boxes) for label, boxes in zip(labels, true)]

    def _spoil(self, image, label, boxes):
        w, h = image.size
        kept, place = self._draw(image, label, boxes)
        shifted = [replace(b, x1=b.x1 + dx, x2=b.x2 + dx, y1=b.y1 + dy, y2=b.y2 + dy) for b, dx, dy in kept]
        if place is not None:
            fx, fy, side = place
            x, y, side = fx * w, fy * h, side * min(w, h)
            shifted.append(Box(x, y, x + side, y + side, .5, label))
        inside = []
        for b in shifted:
            b = replace(b, x1=max(b.x1, 0), y1=max(b.y1, 0), x2=min(b.x2, w), y2=min(b.y2, h))
            if b.x1 < b.x2 and b.y1 < b.y2:
                inside.append(b)
        return inside


class NoisyPointer(_NoisyPlaces):
    """See Pointer. Points pushed out of the picture are dropped."""

    def point(self, image, label):
        w, h = image.size
        kept, place = self._draw(image, label, self.teacher.point(image, label))
        points = [(x + dx, y + dy) for (x, y), dx, dy in kept]
        if place is not None:
            points.append((place[0] * w, place[1] * h))
        return [(x, y) for x, y in points if 0 <= x < w and 0 <= y < h]


@dataclass
class NoisyJudge(_Noisy):
    """See Judge."""
    teacher: object
    flip: float = 0.0    # probability that a yes or no is turned round
    jitter: float = 0.0  # standard deviation of the error in answer_probability, which stays in 0..1
    bias: float = 0.0    # added to every answer_probability
    seed: int = 0
    fresh: bool = False

    def _spoil(self, verdict, *about):
        return bool(verdict) != (self._rng(*about).random() < self.flip)

    def equivalent(self, question, truth, prediction):
        return self._spoil(self.teacher.equivalent(question, truth, prediction), question, truth, prediction)

    def frame_claim(self, image, claim):
        return self._spoil(self.teacher.frame_claim(image, claim), image, claim)

    def segment_claim(self, frames, seconds, claim):
        return self._spoil(self.teacher.segment_claim(frames, seconds, claim), *frames, claim)

    def answer_probability(self, media, question, thinks, answers, length_normalized=False):
        ps = self.teacher.answer_probability(media, question, thinks, answers, length_normalized)
        noisy = []
        for p, think, answer in zip(ps, thinks, answers):
            z = self._rng(*media.frames, question, think or "", answer or "").normal()
            noisy.append(float(min(1, max(0, p + self.bias + self.jitter * z))))
        return noisy
