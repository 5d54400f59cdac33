"""Argos, the verifier: a response goes in, a reward between 0 and 1 comes out, with every reason why.

The paper (section 3.1) scores a response about a picture or a clip on three things and combines them behind a gate:

    R_o   outcome            is the answer right?                               rules, or a language model
    R_vg  visual grounding   is what the reasoning points at really there?      detector + segmenter (+ a judge for clips)
    R_rq  reasoning quality  does the answer follow from the reasoning?         p(answer | question, reasoning, picture)

    R = w_o R_o                              if R_o <  tau      (eq. 9: a wrong answer earns nothing for pretty points)
    R = w_o R_o + w_vg R_vg + w_rq R_rq      if R_o >= tau

What is simplified: a regular expression reads video claims (the paper asks GPT-4o, appendix D), and a judge only where that
finds none and `extract` is on; rules select the scoring functions unless a `selector` is given. "Our choice" marks what the
paper is silent about. The policy is taken to be hostile: whatever it writes is data, is bounded in size, and never raises.

Teachers fail, too. What could not be scored drops out of the reward, is named in the verdict and counted (Argos.failures),
and is never a silent 0. Breaking a teacher on purpose does not pay: a term drops out for the whole group or not at all, and
what a response brought on itself, such as a label that no detector can read, scores 0.

What no rule here can prevent, so look at the cards: a label that is true of everything ("picture", "shape") grounds any
point inside it; one sure point repeated a pixel apart dilutes an unsure one, as eq. 3 is a plain mean; an empty claim ("in
frame 3 there is something") passes a lenient judge; and R_rq is high for reasoning that merely says "the answer is 2". The
gate makes each of them worthless without a right answer, and w_vg + w_rq bound what they can add to one.

    python argos.py picture.png "How many red squares are there?" \\
        '<think>I see <point x1="44" y1="28" alt="red square">red square</point>.</think><answer>1</answer>' \\
        --answer 1 --kind count --card card.png

Next: media.py (how a file becomes frames; cards), teachers.py (who detects, segments, points and judges), then train_grpo.py
(the reward at work).
"""
import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from runs.errors import BadInput, BadMedia, run_main
from verifier.answers import (KINDS, MAX_THINK, PARTIAL, check_truth, clean, judged, number, outcome_by_rule,
                              outcome_score)  # noqa: F401  (argos.outcome_score)
from verifier.cards import draw_card
from verifier.claims import FrameClaim, Parsed, Point, SegmentClaim, parse
from verifier.coordinates import Box, Media, convert
from verifier.extraction import read_claims
from verifier.media import load_media
from verifier.samples import Sample

MAX_LABELS = 16           # different labels looked up per response; a point with one more scores 0 (our choice)
FAIR_SHARE = 8            # a response that asks for more labels in frames and claims than this, and runs out of time, scores 0 (our choice)
MAX_BOXES = 64            # boxes per label, the surest first: a segmenter's time is linear in them (our choice)


# ---- 3. Selection and the gate ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Weights:
    """The weights of eq. 9. The paper does not print its values; these are our choice. 0 switches a term off."""
    outcome: float = .5
    grounding: float = .25
    reasoning: float = .25

    def __post_init__(self):
        values = (self.outcome, self.grounding, self.reasoning)
        if not all(math.isfinite(w) and w >= 0 for w in values) or not self.outcome > 0:
            raise BadInput(f"weights {values}: use numbers >= 0, the first above 0")


def gate(outcome, grounding=None, reasoning=None, weights=Weights(), tau=.5):
    """R of eq. 9, in [0, 1]. None: not selected, drops out; the weights that remain are rescaled to sum to 1.

    With one selection any open gate beats any closed one: closed is below w_o tau, open is at least that.
    """
    return _gate(outcome, grounding, reasoning, weights, tau)[0]


def _gate(outcome, grounding, reasoning, weights, tau):
    """-> (R, the arithmetic as text)."""
    if not 0 < tau <= 1:
        raise BadInput(f"tau is {tau}; use a number above 0, at most 1")
    terms = [(w, v) for w, v in ((weights.outcome, outcome), (weights.grounding, grounding), (weights.reasoning, reasoning))
             if v is not None]
    if outcome is None or not all(0 <= v <= 1 for _, v in terms):
        raise BadInput(f"scores must lie in [0, 1]: {outcome}, {grounding}, {reasoning}")
    total = sum(w for w, _ in terms)
    opened = outcome >= tau
    reward = sum(w * v for w, v in (terms if opened else terms[:1])) / total
    sums = " + ".join(f"{w:.2f}*{v:.2f}" for w, v in (terms if opened else terms[:1]))
    reward = min(1.0, reward)
    return reward, f"R = ({sums}) / {total:.2f} = {reward:.2f}"


def select(sample, parsed, teachers, use=("outcome", "grounding", "reasoning"), selector=None):
    """Which scoring functions this response gets -> {function: "yes: why" or "no: why"} (paper 3.1: adaptive; rules ours).

    teachers: names of those at hand, of "detector", "pointer", "judge". selector: a model's choice instead of the rules, a
    function (sample, parsed) -> {function: why}. The outcome is always chosen; what is impossible or switched off never is.
    """
    clip = sample.media == "video"
    grounding = "temporal" if clip else "spatial"
    never = {"spatial": "this is a clip"} if clip else {"temporal": "this is a picture"}
    if sample.answer is None:
        never["outcome"] = "the truth is not known"
    if "grounding" not in use or "detector" not in teachers:
        never[grounding] = "switched off" if "grounding" not in use else "there is no detector and segmenter"
    if "reasoning" not in use or "judge" not in teachers:
        never["reasoning"] = "switched off" if "reasoning" not in use else "there is no judge"

    chosen, otherwise = {"reasoning": "p(answer | question, reasoning, picture)"}, "the sample does not call for grounding"
    claims = len(parsed.points) + len(parsed.frame_claims) + len(parsed.segment_claims)
    if sample.grounding:
        chosen[grounding] = "the sample calls for grounding"
    elif claims and sample.kind not in PARTIAL:  # one selection for a whole group keeps the order of partial outcomes
        chosen[grounding] = f"not called for, but {claims} claimed piece{'s' * (claims > 1)} can be checked"
    if clip and grounding in chosen and "judge" not in teachers:
        chosen[grounding] += "; without a judge only points count"
    if sample.drawn and grounding in chosen:
        chosen[grounding] += "; a drawn picture, so the pointing model prompts the segmenter" * ("pointer" in teachers)
    if selector:
        chosen, otherwise = dict(selector(sample, parsed)), "the selector left it out"
    chosen["outcome"] = KINDS[sample.kind]
    functions = ("outcome", "spatial", "temporal", "reasoning")
    if chosen.keys() - set(functions):
        raise BadInput(f"the selector chose {sorted(chosen.keys() - set(functions))}; it may choose {', '.join(functions)}")
    return {f: f"no: {never[f]}" if f in never else f"yes: {chosen[f]}" if f in chosen else f"no: {otherwise}"
            for f in functions}


# ---- 5. Grounding, reasoning and the verdict -------------------------------------------------------------------------
@dataclass
class PointVerdict:
    point: Point
    score: float        # s_i of eq. 2: 1 on the mask, else 0
    why: str
    boxes: list         # what the detector (or the pointing model) found for the label
    frame: int | None   # index into Media.frames; None: the point names no frame of the clip


@dataclass
class ClaimVerdict:
    claim: FrameClaim | SegmentClaim
    score: float
    why: str
    frames: list        # what the judge was shown


@dataclass
class Verdict:
    reward: float | None    # R of eq. 9; None: the truth is not known, or the outcome was not scored
    outcome: float | None   # None, here and below: not selected, or not scored
    grounding: float | None
    reasoning: float | None
    selected: dict          # scoring function -> "yes: why" or "no: why"
    parsed: Parsed
    points: list            # of PointVerdict
    frame_scores: list      # of ClaimVerdict
    segment_scores: list    # of ClaimVerdict
    arithmetic: str
    not_scored: dict = field(default_factory=dict)  # term -> why: a teacher failed, or time ran out; it dropped out of R
    masks: dict = field(default_factory=dict, repr=False)  # (frame index, label) -> bool (H, W), for the card

    def to_dict(self):
        """Plain JSON types."""
        row = {k: getattr(self, k) for k in ("reward", "outcome", "grounding", "reasoning", "selected", "arithmetic",
                                                 "not_scored")}
        row |= {"answer": self.parsed.answer, "no_answer": self.parsed.no_answer, "dropped": self.parsed.dropped_reasons,
                "extracted": self.parsed.extracted}
        row["points"] = [asdict(v.point) | {"score": v.score, "why": v.why, "boxes": [
            [float(c) for c in (b.x1, b.y1, b.x2, b.y2, b.score)] for b in v.boxes]} for v in self.points]
        for name, verdicts in (("frame_claims", self.frame_scores), ("segment_claims", self.segment_scores)):
            row[name] = [asdict(v.claim) | {"score": v.score, "why": v.why} for v in verdicts]
        return row

    def explain(self):
        """The verdict as lines of text: what was selected and why, every piece, and the gate's arithmetic."""
        answer = repr(self.parsed.answer[:100]) if self.parsed.answer else f"none ({self.parsed.no_answer})"
        lines = [f"answer     {answer}"]
        for name, why in self.selected.items():
            score = getattr(self, name if name in ("outcome", "reasoning") else "grounding")
            lines.append(f"{name:10} {'  - ' if score is None or why.startswith('no') else f'{score:.2f}'}  {why}")
            if name in ("spatial", "temporal") and why.startswith("yes"):
                for i, v in enumerate(self.points, 1):
                    p, moment = v.point, "" if v.frame is None or name == "spatial" else f" in frame {v.frame}"
                    lines.append(f"   {'in ' if v.score else 'OUT'} {i:2} {p.label} ({p.x:g}, {p.y:g}){moment}: {v.why}")
                for v in self.frame_scores + self.segment_scores:
                    lines.append(f"   {'yes' if v.score else 'NO '}    {v.claim.text[:120]!r}: {v.why}")
        if self.parsed.extracted:
            found = len(self.parsed.points), len(self.parsed.frame_claims), len(self.parsed.segment_claims)
            lines.append("extracted  by the judge, from free prose: {} points, {} frame claims, {} segment claims".format(*found))
        if self.parsed.dropped:
            lines.append("dropped    " + ", ".join(f"{n} x {why}" for why, n in self.parsed.dropped_reasons.items()))
        return "\n".join(lines + [self.arithmetic])


class NotScored(Exception):
    """Why a term is not scored."""


class OutOfTime(NotScored):
    pass


class Failure(str):
    """Why a teacher failed at one item, while it works otherwise: that item scores 0."""


@dataclass
class _Group:
    """The work on one sample. Lists have one entry a response."""
    sample: Sample
    media: Media
    parsed: list
    selected: list                                  # of {function: why}
    outcomes: list = field(default_factory=list)    # of numbers or None
    pieces: list = field(default_factory=list)      # of (R_vg or None, PointVerdicts, frame and segment ClaimVerdicts)
    quality: list = field(default_factory=list)     # of numbers or None
    masks: dict = field(default_factory=dict)       # (frame, label) -> (boxes, union of their masks, why none)
    not_scored: dict = field(default_factory=dict)  # term -> NotScored, for all responses

    @property
    def grounding(self):
        return "temporal" if self.sample.media == "video" else "spatial"


class Argos:
    """The verifier. Teachers follow the protocols in teachers.py; pointer and judge may be None: what needs them drops out.

    use: the terms switched on (the paper's ablations leave out "grounding" or "reasoning"). min_pixels, max_pixels,
    max_frames, video_pixels: the policy's own budget (see load_media). selector: see select. Behind a closed gate the reasoning
    is never judged, since it could not count; lazy skips grounding there, too, at the cost of the metric. extract: let the
    judge list the claims of a clip's reasoning where rules find none. budget: seconds a verdict may take, looked at between
    calls of teachers; None: any. failures: counts what went wrong, by teacher and kind of error, since this was made.
    """

    def __init__(self, detector, segmenter, pointer, judge, weights=Weights(), tau=.5,
                 use=("outcome", "grounding", "reasoning"), min_pixels=7056, max_pixels=28224, max_frames=32,
                 length_normalized=False, selector=None, lazy=False, video_pixels=None, extract=False, budget=None):
        if "outcome" not in use or set(use) - {"outcome", "grounding", "reasoning"}:
            raise BadInput(f"use={tuple(use)}: list outcome, and if you like grounding and reasoning")
        self.detector, self.segmenter, self.pointer, self.judge = detector, segmenter, pointer, judge
        self.weights, self.tau, self.use, self.selector, self.lazy = weights, tau, tuple(use), selector, lazy
        self.sizes = dict(min_pixels=min_pixels, max_pixels=max_pixels, max_frames=max_frames, video_pixels=video_pixels)
        self.length_normalized, self.extract, self.budget = length_normalized, extract, budget
        roles = {"detector": detector and segmenter, "pointer": pointer, "judge": judge}
        self.teachers = {name for name, teacher in roles.items() if teacher is not None}
        self.failures, self._deadline = Counter(), math.inf
        if extract and getattr(judge, "extract_claims", None) is None:
            raise BadInput("extract=True needs a judge that has extract_claims (see teachers.Judge)")

    def load(self, sample):
        media = load_media(sample.path, **self.sizes)
        if sample.media == "image" and len(media.frames) > 1:
            raise BadMedia(f'{sample.path}: a clip of {len(media.frames)} frames in a row that says "image"; write "video"')
        return media

    def usable(self, samples):
        """Load many files -> (the samples whose file can be read, their Media). The others are named on stderr and counted."""
        kept = []
        for sample in samples:
            try:
                kept.append((sample, self.load(sample)))
            except BadMedia as error:
                self.failures["damaged media"] += 1
                print(f"left out: {error}", file=sys.stderr)
        return [s for s, _ in kept], [m for _, m in kept]

    def verify(self, sample, response, media=None):
        """Score one response -> Verdict. media: the loaded file, where the caller has it."""
        return self.verify_group(sample, [response], media)[0]

    def verify_group(self, sample, responses, media=None):
        """Score all responses to one sample -> Verdicts."""
        return self.verify_groups([sample], [responses], media and [media])[0]

    def verify_groups(self, samples, groups, media=None):
        """One group of responses per sample -> one list of Verdicts per sample.

        What a group shares is done once: the file is loaded, each label of a frame detected and segmented, each different
        answer and claim judged. One call of a teacher covers all labels of a frame, all yes-or-no questions of one kind in all
        groups, the reasoning of all responses of a group.
        """
        media, work = media or [self.load(s) for s in samples], []
        for sample, frames, responses in zip(samples, media, groups, strict=True):
            parsed = [parse(r, sample.media, [*(sample.options or ()), sample.answer or ""]) for r in responses]
            selected = [select(sample, p, self.teachers, self.use, self.selector) for p in parsed]
            work.append(_Group(sample, frames, parsed, selected))
        self._deadline = time.monotonic() + (math.inf if self.budget is None else self.budget * sum(map(len, groups)))
        self._score_outcomes(work)
        self._extract_claims(work)
        self._score_grounding(work)
        self._score_reasoning(work)
        return [[self._verdict(g, i) for i in range(len(g.parsed))] for g in work]

    # -- asking teachers that may fail

    def _failed(self, role, error):
        """Count an error of a teacher -> the reason, one line. A BadInput is a mistake in a setting and goes on to the person."""
        if isinstance(error, BadInput):
            raise error
        kind = f"{role}: {type(error).__name__}"
        self.failures[kind] += 1
        reason = f"the {role} failed ({type(error).__name__}: {' '.join(clean(str(error)[:500]).split())[:120]})"
        if self.failures[kind] == 1:
            print(f"not scored: {reason}; such failures are counted from here on", file=sys.stderr)
        return reason

    def _in_time(self):
        if time.monotonic() > self._deadline:
            self.failures["out of time"] += 1
            raise OutOfTime(f"out of time: {self.budget:g} seconds a verdict")

    def _ask(self, role, call, items, harmless):
        """call(items), one result an item. When that fails: who is to blame? A teacher that fails at the `harmless` item, too,
        does not work: NotScored. Otherwise each item is asked alone, and the result of one that fails is a Failure."""
        self._in_time()
        try:
            return call(items)
        except Exception as error:  # whatever a library raises
            reason = self._failed(role, error)
        try:
            call([harmless])
        except Exception:
            raise NotScored(reason) from None
        results = []
        for item in items:
            self._in_time()
            try:
                results += call([item])
            except Exception as error:
                results.append(Failure(self._failed(role, error)))
        return results

    def _judge(self, questions):
        """{key: (method of the judge, *its arguments)} -> {key: bool, Failure or NotScored}."""
        def call(batch):
            if hasattr(self.judge, "yes_or_no"):
                answers = self.judge.yes_or_no(batch)
            else:
                answers = [getattr(self.judge, name)(*arguments) for name, *arguments in batch]
            if len(answers) != len(batch) or not all(isinstance(a, (bool, np.bool_)) for a in answers):
                raise TypeError(f"{len(batch)} times yes or no was asked for, {str(answers)[:60]} came back")
            return list(answers)

        answers = {}
        for kind in ("equivalent", "frame_claim", "segment_claim"):  # alike ones together, so that a failure tells about its kind
            keys = [key for key, question in questions.items() if question[0] == kind]
            for part in (keys[i:i + 64] for i in range(0, len(keys), 64)):
                batch = [questions[key] for key in part]
                try:
                    answers |= zip(part, self._ask("judge", call, batch, (*batch[0][:-1], "something")))
                except NotScored as error:
                    answers |= dict.fromkeys(part, error)
        return answers

    # -- the terms

    def _score_outcomes(self, work):
        scores, questions = {}, {}
        for n, g in enumerate(work):
            for answer in dict.fromkeys(p.answer for p in g.parsed if g.sample.answer is not None):
                score = 0.0 if answer is None else outcome_by_rule(answer, g.sample.answer, g.sample.kind, g.sample.options)
                scores[n, answer] = score or 0.0
                if score is None and self.judge:
                    questions[n, answer] = ("equivalent", g.sample.question, g.sample.answer, judged(answer))
        answers = self._judge(questions)
        for n, g in enumerate(work):
            for p, chosen in zip(g.parsed, g.selected):
                said = answers.get((n, p.answer))
                if isinstance(said, NotScored):
                    g.not_scored["outcome"] = said
                elif isinstance(said, Failure):
                    chosen["outcome"] += f"; on this answer {said}"
                elif said is not None:
                    scores[n, p.answer] = float(said)
            known = g.sample.answer is not None and "outcome" not in g.not_scored
            g.outcomes = [scores[n, p.answer] if known else None for p in g.parsed]

    def _opened(self, g):
        return [o is None or o >= self.tau for o in g.outcomes]

    def _to_ground(self, g):
        """{i: Parsed} of the responses whose grounding is to be computed."""
        return {i: p for i, (p, chosen, o) in enumerate(zip(g.parsed, g.selected, self._opened(g)))
                if chosen[g.grounding].startswith("yes") and (o or not self.lazy)}

    def _extract_claims(self, work):
        """The judge lists the claims of reasoning about clips in which rules found none (paper, appendix D: all of them)."""
        def call(thinks):
            replies = self.judge.extract_claims(thinks)
            if len(replies) != len(thinks) or not all(isinstance(r, str) for r in replies):
                raise TypeError("not one text a reasoning came back")
            return list(replies)

        for g in work if self.extract else ():
            prose = [(p, judged(p.think, MAX_THINK)) for p in self._to_ground(g).values() if g.sample.media == "video"
                     and not (p.points or p.frame_claims or p.segment_claims)]
            texts = list(dict.fromkeys(text for _, text in prose if text))
            try:
                replies = dict(zip(texts, self._ask("judge", call, texts, "I look at the video."))) if texts else {}
            except NotScored as error:
                g.not_scored["grounding"] = error
                continue
            for p, text in prose:
                if text:
                    read_claims("" if isinstance(replies[text], Failure) else replies[text], p)

    def _score_grounding(self, work):
        """R_vg of every response. Eqs 1-4, appendix D."""
        questions = {}
        for n, g in enumerate(work):
            g.pieces = [(None, [], [], [])] * len(g.parsed)
            if "grounding" in g.not_scored:
                continue
            try:
                self._find_masks(g)
            except NotScored as error:
                g.not_scored["grounding"] = error
                continue
            for p in self._to_ground(g).values() if self.judge else ():
                for claim in p.frame_claims + p.segment_claims:
                    shown, _ = _shown(g.media, claim)
                    frames, text = [g.media.frames[i] for i in shown], judged(claim.text)
                    if shown and isinstance(claim, FrameClaim):
                        questions[n, *_claim_key(claim, shown)] = ("frame_claim", frames[0], text)
                    elif shown:
                        questions[n, *_claim_key(claim, shown)] = ("segment_claim", frames, [g.media.seconds[i] for i in shown], text)
        answers = self._judge(questions)
        for n, g in enumerate(work):
            own = {key[1:]: answer for key, answer in answers.items() if key[0] == n}
            failure = next((answer for answer in own.values() if isinstance(answer, NotScored)), None)
            if failure:
                g.not_scored["grounding"] = failure
            elif "grounding" not in g.not_scored:
                for i, p in self._to_ground(g).items():
                    g.pieces[i] = self._ground(g, p, own)

    def _find_masks(self, g):
        """Eq. 1 for all points of a group: fills g.masks. One call of the detector and one of the segmenter a frame."""
        sample, wanted = g.sample, {}
        for frame, label in dict.fromkeys(at for p in self._to_ground(g).values() for at in _look_ups(g.media, p)):
            wanted.setdefault(frame, []).append(label)
        pointed = sample.drawn and self.pointer  # paper: detectors fail on charts and maps, pointing models do not
        for frame, labels in wanted.items():
            image = g.media.frames[frame]

            def detect(labels):
                if pointed:
                    found = [[Box(x, y, x, y, 1.0, label) for x, y in self.pointer.point(image, label)] for label in labels]
                else:
                    found = [list(boxes) for boxes in self.detector.detect(image, labels)]
                if len(found) != len(labels):
                    raise ValueError(f"{len(found)} lists of boxes for {len(labels)} labels")
                if not all(math.isfinite(c) for boxes in found for b in boxes for c in (b.x1, b.y1, b.x2, b.y2, b.score)):
                    raise ValueError("a box that is not finite")
                return [sorted(boxes, key=lambda b: -b.score)[:MAX_BOXES] for boxes in found]

            def segment(boxes):
                masks = np.asarray(self.segmenter.segment(image, boxes))
                if masks.shape != (len(boxes), image.height, image.width) or masks.dtype != bool:
                    raise ValueError(f"masks {masks.shape} of {masks.dtype} for {len(boxes)} boxes in {image.size}")
                return list(masks)

            for label, boxes in zip(labels, self._ask("pointer" if pointed else "detector", detect, labels, "object")):
                failed, none = isinstance(boxes, Failure), np.zeros((image.height, image.width), bool)
                g.masks[frame, label] = ([], none, boxes) if failed else (boxes, none, "")
            flat = [(label, box) for label in labels for box in g.masks[frame, label][0]]
            for part in (flat[i:i + 256] for i in range(0, len(flat), 256)):  # bounds memory: a mask is as large as the picture
                whole = Box(0, 0, image.width, image.height, 1.0, "object")
                for (label, _), mask in zip(part, self._ask("segmenter", segment, [box for _, box in part], whole)):
                    boxes, union, _ = g.masks[frame, label]
                    if isinstance(mask, Failure):
                        g.masks[frame, label] = (boxes, union, mask)
                    else:
                        union[mask] = True  # several instances: the union (SPEC section 2)

    def _ground(self, g, parsed, answers):
        """-> (R_vg, PointVerdicts, frame ClaimVerdicts, segment ClaimVerdicts). Eqs 2-4, appendix D.

        A picture has one set of pieces, a clip three: averaged within, then the means of those that are not empty averaged.
        Nothing to check: 0 (our choice). answers: {_claim_key: bool or Failure}.
        """
        points, (w, h), own = [], g.media.frames[0].size, set(_look_ups(g.media, parsed))
        for p in parsed.points:
            (frame, why), key = which_frame(g.media, p.frame, p.seconds), p.label.lower()
            boxes, mask, failure = [], None, f"one of more than {MAX_LABELS} different labels"
            if (frame, key) in own:  # what another rollout of the group had looked up does not help this one
                boxes, mask, failure = g.masks[frame, key]
            score = 0.0
            if frame is not None:
                x, y = math.floor(p.x), math.floor(p.y)
                inside = 0 <= x < w and 0 <= y < h
                score = float(bool(boxes) and inside and mask[y, x])
                why = ("on the mask" if score else failure or (f"outside the {w} x {h} picture" if not inside else
                                                               f"no {p.label} was found" if not boxes else "beside the mask"))
            points.append(PointVerdict(p, score, why, boxes, frame))

        def judge(claim):
            shown, why = _shown(g.media, claim)
            said = answers[_claim_key(claim, shown)] if shown else False
            if shown:
                where = f"frame {shown[0]}" if isinstance(claim, FrameClaim) else f"frames {shown[0]} to {shown[-1]}"
                why = f"the judge {'agrees' if said else 'disagrees'}, shown {where}"
            return ClaimVerdict(claim, 0.0, said, shown) if isinstance(said, Failure) else ClaimVerdict(claim, float(said), why, shown)

        frames = [judge(c) for c in parsed.frame_claims if self.judge]
        segments = [judge(c) for c in parsed.segment_claims if self.judge]
        means = [sum(v.score for v in verdicts) / len(verdicts) for verdicts in (points, frames, segments) if verdicts]
        return (sum(means) / len(means) if means else 0.0), points, frames, segments

    def _score_reasoning(self, work):
        """Eq. 5 for each group in one call. No reasoning at all: 0, as there is nothing that could support the answer; nor is an
        answer that does not count supported (our choices)."""
        for g in work:
            def call(pairs):
                values = self.judge.answer_probability(g.media, g.sample.question, *map(list, zip(*pairs)), self.length_normalized)
                if len(values) != len(pairs) or not all(math.isfinite(v) for v in values):
                    raise ValueError(f"{len(pairs)} probabilities were asked for, {str(values)[:60]} came back")
                return [min(1.0, max(0.0, float(v))) for v in values]

            wanted = [o and chosen["reasoning"].startswith("yes") for chosen, o in zip(g.selected, self._opened(g))]
            g.quality = [0.0 if w else None for w in wanted]
            texts = {i: (judged(p.think, MAX_THINK), judged(p.answer or "")) for i, p in enumerate(g.parsed) if wanted[i]}
            texts = {i: both for i, both in texts.items() if all(both)}
            try:
                values = self._ask("judge", call, list(texts.values()), ("I look at it.", "yes")) if texts else []
            except NotScored as error:
                g.not_scored["reasoning"] = error
                continue
            for i, value in zip(texts, values):
                if isinstance(value, Failure):
                    g.selected[i]["reasoning"] += f"; on this response {value}"
                else:
                    g.quality[i] = value

    def _verdict(self, g, i):
        """Terms, gate and reasons of response i."""
        parsed, chosen, outcome, (seen, *pieces), not_scored = g.parsed[i], g.selected[i], g.outcomes[i], g.pieces[i], {}
        asked = len(_look_ups(g.media, parsed)) + len(parsed.frame_claims) + len(parsed.segment_claims)
        scores, terms = {"grounding": seen, "reasoning": g.quality[i]}, []
        for term, function in (("grounding", g.grounding), ("reasoning", "reasoning")):
            selected, error = chosen[function].startswith("yes"), g.not_scored.get(term)
            if selected and isinstance(error, OutOfTime) and asked > FAIR_SHARE:
                scores[term] = 0.0
                chosen[function] += f"; {error}, and this response asks for {asked} labels and claims: 0"
            elif selected and error:
                not_scored[term], scores[term] = str(error), None
                chosen[function] += f"; not scored: {error}"
            elif selected and scores[term] is None:
                chosen[function] += "; not computed: the gate is closed"
                terms.append(0.0)  # it keeps its weight: R does not depend on what was computed
                continue
            terms.append(scores[term])
        reward, arithmetic = None, "no truth was given: there is no reward"
        if "outcome" in g.not_scored:
            not_scored["outcome"] = str(g.not_scored["outcome"])
            chosen["outcome"] += f"; not scored: {not_scored['outcome']}"
            arithmetic = "the outcome was not scored: there is no reward"
        if outcome is not None:
            reward, sums = _gate(outcome, *terms, self.weights, self.tau)
            state, sign = ("open", ">=") if outcome >= self.tau else ("closed", "<")
            arithmetic = f"gate {state}: outcome {outcome:.2f} {sign} tau {self.tau:.2f}\n{sums}"
        own = {key: g.masks[key][1] for v in pieces[0] if (key := (v.frame, v.point.label.lower())) in g.masks}
        return Verdict(reward, outcome, scores["grounding"], scores["reasoning"], chosen, parsed, *pieces, arithmetic, not_scored, own)

    def card(self, sample, response, verdict, path):
        draw_card(self.load(sample), sample, response, verdict, verdict.masks, path)

    def self_check(self):
        """Refuse to go on where points miss: a red square in the corner of a large drawing must be hit in the policy's
        pixels, and missed in the file's pixels and with x and y swapped. Raises BadInput. Where a detector of photographs does not
        know the drawing at all, nothing was checked: a warning says so."""
        sizes = self.sizes | {"max_pixels": min(self.sizes["max_pixels"], 1 << 18)}
        side = 4 * round(math.sqrt(sizes["max_pixels"]))
        drawing = Image.new("RGB", (side, side), (215, 215, 210))
        ImageDraw.Draw(drawing).rectangle([side * .65, side * .1, side * .85, side * .3], fill=(225, 30, 30))
        with tempfile.TemporaryDirectory() as folder:
            drawing.save(Path(folder) / "check.png")
            sample = Sample("check", "Where is the red square?", None, "free", str(Path(folder) / "check.png"))
            media, there = load_media(sample.path, **sizes), (side * .75, side * .2)
        seen = convert(*there, "original", "seen", (side, side), media.frames[0].size)
        points = [f'<point x1="{x:.2f}" y1="{y:.2f}" alt="red square">it</point>' for x, y in (seen, there, seen[::-1])]
        verdicts = Argos(self.detector, self.segmenter, None, None).verify_group(sample, points, media)
        scores = [v.grounding for v in verdicts]
        if scores == [0, 0, 0] and not verdicts[0].points[0].boxes:
            print("self-check: the detector finds no red square in a drawing, so that points hit is not checked; look at the cards",
                  file=sys.stderr)
        elif scores != [1, 0, 0]:
            raise BadInput(f"self-check: a drawn red square scored {scores}, not [1, 0, 0], in the policy's pixels, in the "
                           "file's, and with x and y swapped; use teachers that work in the policy's pixels"
                           + "".join(f" ({why})" for why in verdicts[0].not_scored.values()))


def _look_ups(media, parsed):
    """What the points of a response make the detector look for: [(frame, label)], at most MAX_LABELS different labels."""
    labels = list(dict.fromkeys(p.label.lower() for p in parsed.points))[:MAX_LABELS]
    frames = [(which_frame(media, p.frame, p.seconds)[0], p.label.lower()) for p in parsed.points]
    return list(dict.fromkeys((f, label) for f, label in frames if f is not None and label in labels))


def _shown(media, claim):
    """The frames that a judge sees with a claim, a frame claim's one or a segment's from start to end -> (indices, why none)."""
    if isinstance(claim, FrameClaim):
        index, why = which_frame(media, claim.frame, claim.seconds)
        return ([] if index is None else [index]), why
    if claim.start > claim.end:
        return [], "ends before it starts"
    return ([i for i, t in enumerate(media.seconds) if claim.start - _TENTH <= t <= claim.end + _TENTH],
            "no frame lies between its times")


def _claim_key(claim, shown):
    """Claims with one key are one question."""
    return isinstance(claim, FrameClaim), *shown, claim.text.lower()


_TENTH = .05 + 1e-9  # times are written in tenths of a second


def which_frame(media, frame, seconds):
    """The frame that a point or claim refers to -> (index, "") or (None, why not). Pictures have one frame.

    Number and time must agree within half the gap to the neighbouring frames; a time alone means the nearest frame.
    """
    times = media.seconds
    if frame is None and seconds is None:
        return (0, "") if len(times) == 1 else (None, "names no frame")
    index = frame if frame is not None else min(range(len(times)), key=lambda i: abs(times[i] - seconds))
    if not 0 <= index < len(times):
        return None, f"frame {index} is not among the {len(times)} frames"
    gaps = [b - a for a, b in zip(times[max(0, index - 1):], times[max(0, index - 1) + 1:index + 2])] or [1.0]
    if seconds is not None and abs(times[index] - seconds) > max(_TENTH, max(gaps) / 2 + 1e-9):
        return None, f"frame {index} is at {times[index]:.1f} seconds, not at {seconds:g}"
    return index, ""


def main():
    parser = argparse.ArgumentParser(description="Verify one response about a picture or clip, and say why.")
    parser.add_argument("media", metavar="IMAGE_OR_VIDEO", help="a picture, an animated PNG, GIF or WebP, or a video")
    parser.add_argument("question")
    parser.add_argument("response", help="<think>...</think><answer>...</answer>, pixels of the picture as the policy saw it")
    parser.add_argument("--answer", help="the truth; without it there is grounding, but no reward")
    parser.add_argument("--kind", choices=KINDS, help="default: choice with --options, else number if it is one, else phrase")
    parser.add_argument("--options", nargs="+", metavar="OPTION", help="the options of a multiple choice, in order")
    parser.add_argument("--card", metavar="FILE.png", help="write the verification card here")
    parser.add_argument("--judge", metavar="FOLDER", help="a vision-language model, for reasoning, claims and free text; "
                        "none: do without; default: tiny/teacher where it exists")
    parser.add_argument("--detector", default="pixels", help="who finds what a label names, NAME or NAME:FOLDER (teachers.py)")
    parser.add_argument("--segmenter", default="pixels", help="who turns boxes into masks")
    parser.add_argument("--pointer", default="pixels", help="who points in charts and maps")
    parser.add_argument("--teacher_cache", metavar="FOLDER", help="keep the teachers' answers here")
    parser.add_argument("--min_pixels", type=int, default=7056, help="the policy's pixel budget: a smaller picture or frame is enlarged")
    parser.add_argument("--max_pixels", type=int, default=28224, help="a larger picture or frame is shrunk")
    parser.add_argument("--video_pixels", type=int, help="most pixels of all frames of a clip together")
    parser.add_argument("--max_frames", type=int, default=32, help="frames of a clip")
    args = parser.parse_args()

    from teachers.names import load_judge, load_teachers  # torch and transformers: only the command line needs them
    shipped = Path(__file__).parent / "tiny" / "teacher"
    folder = args.judge or (str(shipped) if (shipped / "config.json").is_file() else "none")
    judge = None if folder == "none" else load_judge(folder)
    verifier = Argos(*load_teachers(args.detector, args.segmenter, args.pointer, cache=args.teacher_cache), judge,
                     min_pixels=args.min_pixels, max_pixels=args.max_pixels, video_pixels=args.video_pixels, max_frames=args.max_frames)

    media = load_media(args.media, **verifier.sizes)
    kind = args.kind or ("choice" if args.options else "number" if args.answer and number(args.answer) else "phrase")
    if args.answer is not None:
        check_truth(args.answer, kind, args.options)
    shown = "video" if len(media.frames) > 1 else "image"
    sample = Sample("command line", args.question, args.answer, kind, args.media, shown, args.options)
    verdict = verifier.verify(sample, args.response, media)
    print(verdict.explain())
    if args.card:
        draw_card(media, sample, args.response, verdict, verdict.masks, args.card)
        print(f"card: {args.card}")


if __name__ == "__main__":
    run_main(main)
