"""Asking teachers that may fail. Each is asked in batches, its replies are checked, and a failure gets a name.

Who pays when a teacher fails? Breaking one on purpose must not pay, and a broken one must not cost. So the item
that failed is told from the teacher that failed, by asking about a known-good item as well, at which only a
broken teacher fails (all of this is our choice; the paper is silent):

    the teacher's fault    it fails at a known-good input, too   TeacherFailed: the term drops out of R, for the
                                                                 whole group, and is named in each verdict
    the item's own fault   such as a label that cannot be read   ItemFailed: this piece scores 0, others as ever

Wrong shapes and numbers that are not finite count as failures, as they would decide about rewards.

Before: argos.py (what the replies are used for). Next: teachers/ (who answers)
"""
import math
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np

from runs.errors import BadInput, out_of_memory
from verifier.answers import clean
from verifier.coordinates import Box

MAX_BOXES = 64  # boxes per label, the surest first: a segmenter's time is linear in them (our choice), and
                # Found.instances has a bit for each
SAME_BOX = .7   # boxes that overlap by more are one instance: detectors repeat themselves (our choice)


class TeacherFailed(Exception):
    """A teacher does not work. The text is the reason, one line."""


@dataclass
class ItemFailed:
    """Takes the place of the result for an item at which a teacher failed, while it works otherwise."""
    why: str


@dataclass
class Found:
    """What detector and segmenter found for one label in one picture."""
    boxes: list
    mask: np.ndarray   # bool (H, W): the union of the boxes' masks: several instances are one label (our choice)
    failure: str = ""  # why a teacher failed at this label, while it works otherwise
    instances: np.ndarray | None = None  # uint64 (H, W): bit i is set where the mask of boxes[i] is

    def instances_at(self, x, y):
        """Which boxes' masks hold this pixel -> indices into boxes."""
        if self.instances is None:
            return []
        bits = int(self.instances[y, x])
        return [i for i in range(len(self.boxes)) if bits >> i & 1]

    def add_mask(self, i, mask):
        """The mask of boxes[i]. Of boxes that are nearly the same the first one stands for all."""
        self.mask |= mask
        if self.instances is None:
            self.instances = np.zeros(mask.shape, np.uint64)
        same = [j for j in range(i) if overlap(self.boxes[j], self.boxes[i]) > SAME_BOX]
        self.instances[mask] |= np.uint64(1 << min(same, default=i))


def overlap(a, b):
    """Area that two boxes share / area that they cover together (IoU).

    >>> overlap(Box(0, 0, 10, 10), Box(0, 0, 10, 5)), overlap(Box(0, 0, 10, 10), Box(20, 0, 30, 10))
    (0.5, 0.0)
    """
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    shared = max(0.0, width) * max(0.0, height)
    areas = (a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1)
    return shared / (areas - shared) if areas > shared else 0.0


class Teachers:
    """The four roles (see teachers/); pointer and judge may be None. failures: errors by teacher and kind."""

    def __init__(self, detector, segmenter, pointer, judge, failures=None):
        self.detector = detector
        self.segmenter = segmenter
        self.pointer = pointer
        self.judge = judge
        self.failures = Counter() if failures is None else failures
        roles = {"detector": detector and segmenter, "pointer": pointer, "judge": judge}
        self.at_hand = {role for role, teacher in roles.items() if teacher is not None}

    # -- detector and segmenter

    def find(self, image, labels, pointed=False):
        """Boxes and masks of every label in one picture -> {label: Found}. Raises TeacherFailed.

        pointed: the pointing model's points prompt the segmenter, in place of the detector's boxes.
        """
        role, find_boxes = ("pointer", self._point) if pointed else ("detector", self._detect)
        found = {}
        asked = self._ask(role, partial(find_boxes, image), labels, known_good="object")
        for label, boxes in zip(labels, asked):
            nothing = np.zeros((image.height, image.width), bool)
            if isinstance(boxes, ItemFailed):
                found[label] = Found([], nothing, boxes.why)
            else:
                found[label] = Found(boxes, nothing)
        self._fill_masks(image, found)
        return found

    def _fill_masks(self, image, found):
        prompts = [(label, i, box) for label, one in found.items() for i, box in enumerate(one.boxes)]
        whole_image = Box(0, 0, image.width, image.height, 1.0, "object")
        for start in range(0, len(prompts), 256):  # bounds memory: a mask is as large as the picture
            part = prompts[start:start + 256]
            boxes = [box for _, _, box in part]
            masks = self._ask("segmenter", partial(self._segment, image), boxes, known_good=whole_image)
            for (label, i, _), mask in zip(part, masks):
                if isinstance(mask, ItemFailed):
                    found[label].failure = mask.why
                else:
                    found[label].add_mask(i, mask)

    def _detect(self, image, labels):
        found = [list(boxes) for boxes in self.detector.detect(image, labels)]
        return checked_boxes(found, labels)

    def _point(self, image, labels):
        """A box without area prompts the segmenter as a point."""
        found = []
        for label in labels:
            points = self.pointer.point(image, label)
            found.append([Box(x, y, x, y, 1.0, label) for x, y in points])
        return checked_boxes(found, labels)

    def _segment(self, image, boxes):
        masks = np.asarray(self.segmenter.segment(image, boxes))  # (N, H, W)
        if masks.shape != (len(boxes), image.height, image.width) or masks.dtype != bool:
            raise ValueError(f"masks {masks.shape} of {masks.dtype} for {len(boxes)} boxes in {image.size}")
        return list(masks)

    # -- the judge

    def yes_or_no(self, questions):
        """{key: (name of the judge's method, *its arguments)} -> {key: bool, ItemFailed or TeacherFailed}."""
        replies = {}
        for kind in ("equivalent", "frame_claim", "segment_claim"):  # apart: a failure tells about its kind
            keys = [key for key, question in questions.items() if question[0] == kind]
            for start in range(0, len(keys), 64):
                part = keys[start:start + 64]
                batch = [questions[key] for key in part]
                *about, _ = batch[0]  # the last argument is the answer or the claim
                try:
                    answers = self._ask("judge", self._yes_or_no, batch, known_good=(*about, "something"))
                    replies.update(zip(part, answers))
                except TeacherFailed as error:
                    replies.update(dict.fromkeys(part, error))
        return replies

    def _yes_or_no(self, batch):
        if hasattr(self.judge, "yes_or_no"):
            answers = self.judge.yes_or_no(batch)
        else:
            answers = [getattr(self.judge, method)(*arguments) for method, *arguments in batch]
        if len(answers) != len(batch) or not all(isinstance(answer, (bool, np.bool_)) for answer in answers):
            raise TypeError(f"{len(batch)} times yes or no was asked for, {str(answers)[:60]} came back")
        return list(answers)

    def probabilities(self, groups, length_normalized=False):
        """p(answer | question, reasoning, media) of groups, (media, question, [(reasoning, answer), ...]) each.

        -> for each group its numbers or ItemFailed, or the group's TeacherFailed. All groups are asked at once.
        Where that fails they are asked one by one, so that no group pays for another's failure.
        """
        if len(groups) > 1 and hasattr(self.judge, "answer_probabilities"):
            try:
                asked = [(media, question, *_columns(pairs)) for media, question, pairs in groups]
                found = self.judge.answer_probabilities(asked, length_normalized)
                return [checked_probabilities(one, pairs) for one, (*_, pairs) in zip(found, groups, strict=True)]
            except Exception as error:  # whatever a library raises
                self._count("judge", error)

        def ask_one(media, question, pairs):
            values = self.judge.answer_probability(media, question, *_columns(pairs), length_normalized)
            return checked_probabilities(values, pairs)

        found = []
        for media, question, pairs in groups:
            try:
                call = partial(ask_one, media, question)
                found.append(self._ask("judge", call, pairs, known_good=("I look at it.", "yes")))
            except TeacherFailed as error:
                found.append(error)
        return found

    def list_claims(self, thinks):
        """The claims that each reasoning makes, as the judge's JSON -> texts or ItemFailed; or TeacherFailed."""
        return self._ask("judge", self._list_claims, thinks, known_good="I look at the video.")

    def _list_claims(self, thinks):
        replies = self.judge.extract_claims(thinks)
        if len(replies) != len(thinks) or not all(isinstance(reply, str) for reply in replies):
            raise TypeError("not one text a reasoning came back")
        return list(replies)

    # -- failures

    def _ask(self, role, call, items, known_good):
        """call(items), one result per item. Where that fails, items one by one: a result or an ItemFailed each.

        known_good: an item at which only a broken teacher can fail; where it does, TeacherFailed is raised.
        """
        try:
            return call(items)
        except Exception as error:  # whatever a library raises
            reason = self._count(role, error)
        # BEGIN SOLUTION ex6
        try:
            call([known_good])
        except Exception as error:
            if out_of_memory(error):
                raise
            raise TeacherFailed(reason) from None
        results = []
        for item in items:
            try:
                results += call([item])
            except Exception as error:
                results.append(ItemFailed(self._count(role, error)))
        return results
        # END SOLUTION

    def _count(self, role, error):
        """Count an error -> the reason, one line.

        Two go to the person: a mistake in a setting (BadInput), and a GPU that is full, which says nothing about
        a teacher.
        """
        if isinstance(error, BadInput) or out_of_memory(error):
            raise error
        kind = f"{role}: {type(error).__name__}"
        self.failures[kind] += 1
        message = " ".join(clean(str(error)[:500]).split())
        reason = f"the {role} failed ({type(error).__name__}: {message[:120]})"
        if self.failures[kind] == 1:
            print(f"not scored: {reason}; such failures are counted from here on", file=sys.stderr)
        return reason


def _columns(pairs):
    """[(reasoning, answer), ...] -> the reasonings, the answers."""
    return [think for think, _ in pairs], [answer for _, answer in pairs]


def checked_probabilities(values, pairs):
    """One number in 0..1 per pair; ValueError where numbers are missing or not finite."""
    if len(values) != len(pairs) or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{len(pairs)} probabilities were asked for, {str(values)[:60]} came back")
    return [min(1.0, max(0.0, float(value))) for value in values]


def checked_boxes(found, labels):
    """One list of boxes per label, the surest MAX_BOXES of each; ValueError where numbers are not finite."""
    if len(found) != len(labels):
        raise ValueError(f"{len(found)} lists of boxes for {len(labels)} labels")
    for boxes in found:
        for box in boxes:
            if not all(math.isfinite(value) for value in (box.x1, box.y1, box.x2, box.y2, box.score)):
                raise ValueError("a box that is not finite")
    return [sorted(boxes, key=lambda box: -box.score)[:MAX_BOXES] for boxes in found]
