"""Teachers that are wrong on purpose, by as much as ordered: wrap any detector, pointer or judge (the roles are in teachers.py).

What a network gets wrong it gets wrong again: an error is drawn once for each (seed, picture, question) and shared by all who
ask, unless fresh=True, which draws anew at every call. Where each dial stands in the theory:
  jitter, fresh       independent noise eta(a) of every action, the sigma of lemma 1: a larger group only helps
  jitter, shared      duplicates of an action share one draw: best of N can get worse as N grows
  miss, false_alarm   rare, large errors: true points earn 0, invented things earn 1, and a policy can learn to seek the second
  bias                one shift for every action: cancels in a group's advantage, except where it crosses the edge of a mask
  flip                the outcome R_o lands on the wrong side of the gate, whatever the gap gamma of corollary 1

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
        digest = hashlib.blake2b(repr((self.seed, self.calls * self.fresh)).encode(), digest_size=8)
        for thing in about:
            part = thing.encode("utf-8", "replace") if isinstance(thing, str) else repr(thing.size).encode() + thing.tobytes()
            digest.update(len(part).to_bytes(8, "little") + part)  # lengths keep ("ab", "c") and ("a", "bc") apart
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

        Every dial spends its draws even at 0, so that turning one leaves the errors of the others where they are."""
        rng = self._rng(image, label)
        alarm, place = rng.random(), (*rng.random(2), rng.uniform(.15, .3))
        kept = []
        for thing in found:
            missed, (dx, dy) = rng.random() < self.miss, rng.normal(size=2) * self.jitter + self.bias
            kept += [] if missed else [(thing, float(dx), float(dy))]
        return kept, place if alarm < self.false_alarm else None


class NoisyDetector(_NoisyPlaces):
    """See Detector. Boxes are cut off at the border; what is left outside is dropped."""

    def detect(self, image, labels):
        return [self._spoil(image, label, boxes) for label, boxes in zip(labels, self.teacher.detect(image, labels))]

    def _spoil(self, image, label, boxes):
        (w, h), (kept, place) = image.size, self._draw(image, label, boxes)
        boxes = [replace(b, x1=b.x1 + dx, x2=b.x2 + dx, y1=b.y1 + dy, y2=b.y2 + dy) for b, dx, dy in kept]
        if place:
            x, y, side = place[0] * w, place[1] * h, place[2] * min(w, h)
            boxes.append(Box(x, y, x + side, y + side, .5, label))
        boxes = [replace(b, x1=max(b.x1, 0), y1=max(b.y1, 0), x2=min(b.x2, w), y2=min(b.y2, h)) for b in boxes]
        return [b for b in boxes if b.x1 < b.x2 and b.y1 < b.y2]


class NoisyPointer(_NoisyPlaces):
    """See Pointer. Points pushed out of the picture are dropped."""

    def point(self, image, label):
        (w, h), (kept, place) = image.size, self._draw(image, label, self.teacher.point(image, label))
        points = [(x + dx, y + dy) for (x, y), dx, dy in kept] + ([(place[0] * w, place[1] * h)] if place else [])
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
        noise = [self._rng(*media.frames, question, t or "", a or "").normal() for t, a in zip(thinks, answers)]
        return [float(min(1, max(0, p + self.bias + self.jitter * z))) for p, z in zip(ps, noise)]
