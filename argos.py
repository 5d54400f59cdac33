"""Argos, the verifier: a response goes in, a reward between 0 and 1 comes out, with every reason why.

The paper (section 3.1) scores a response about a picture or a clip on three things and combines them behind a gate:

    R_o   outcome            is the answer right?                               rules, or a language model
    R_vg  visual grounding   is what the reasoning points at really there?      detector + segmenter (+ a judge for clips)
    R_rq  reasoning quality  does the answer follow from the reasoning?         p(answer | question, reasoning, picture)

    R = w_o R_o                              if R_o <  tau      (eq. 9: a wrong answer earns nothing for pretty points)
    R = w_o R_o + w_vg R_vg + w_rq R_rq      if R_o >= tau

What is simplified: a regular expression reads video claims (the paper asks GPT-4o, appendix D); rules select the scoring
functions unless a `selector` is given. "Our choice" marks what the paper is silent about. The policy is taken to be hostile: whatever it writes is data, is bounded in size, and never raises.

What no rule here can prevent, so look at the cards: a label that is true of everything ("picture", "shape") grounds any
point inside it; one sure point repeated a pixel apart dilutes an unsure one, as eq. 3 is a plain mean; an empty claim ("in
frame 3 there is something") passes a lenient judge; and R_rq is high for reasoning that merely says "the answer is 2". The
gate makes each of them worthless without a right answer, and w_vg + w_rq bound what they can add to one.

    python argos.py picture.png "How many red squares are there?" \\
        '<think>I see <point x1="44" y1="28" alt="red square">red square</point>.</think><answer>1</answer>' \\
        --answer 1 --kind count --card card.png

Next: teachers.py (who detects, segments, points and judges), then train_grpo.py (the reward at work).
"""
import argparse
import io
import json
import math
import os
import re
import sys
import tempfile
import unicodedata
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

MAX_POINTS = 64           # points, frame claims and segment claims counted per response, of each kind (our choice)
MAX_ANSWER = 10_000       # characters; a longer answer is no answer
MAX_JUDGED = 2_000        # characters of an answer that a judge gets to read
MAX_THINK = 20_000        # characters of reasoning that a judge gets to read (the paper's 6144 tokens fit)
MAX_PIXELS_FILE = 1 << 26  # a picture file that unpacks to more is refused as a decompression bomb


class BadInput(ValueError):
    """A mistake in a file, a row or an option. The message is one line that names it and its cure."""


# ---- 1. Parsing: any string of any size becomes a Parsed, in linear time ---------------------------------------------
# Every quantifier below is bounded or cannot cross the next "<", so no input makes a pattern backtrack far.

@dataclass(frozen=True)
class Point:
    """x, y: pixels of the picture as the policy saw it. frame counts from 0; seconds since the start (clips only)."""
    x: float
    y: float
    label: str
    frame: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class FrameClaim:
    frame: int | None
    seconds: float | None
    text: str


@dataclass(frozen=True)
class SegmentClaim:
    start: float  # seconds
    end: float
    text: str


@dataclass
class Parsed:
    think: str                  # the reasoning, as written
    answer: str | None          # None: no answer that counts; no_answer says why
    points: list = field(default_factory=list)
    frame_claims: list = field(default_factory=list)
    segment_claims: list = field(default_factory=list)
    dropped_reasons: dict = field(default_factory=dict)  # why -> how many pieces
    no_answer: str = ""

    @property
    def dropped(self):
        """How many malformed, repeated or surplus pieces were left out."""
        return sum(self.dropped_reasons.values())


_FLAGS = re.I | re.A  # ASCII: without it "K" (Kelvin) is a k and Arabic digits are \d
_TAG = re.compile(r"<(/?)(think|answer)\s{0,9}>", _FLAGS)
_THINK = re.compile(r"<(/?)think\s{0,9}>", _FLAGS)
_XY = re.compile(r"\b([xy])(\d{1,6})\s{0,9}=\s{0,9}[\"'“”]?([^\"'“”\s<>=]{0,40})", _FLAGS)
_ALT = re.compile(r"\balt\s{0,9}=\s{0,9}(?:\"([^\"<>]{0,200})\"|'([^'<>]{0,200})'|[“”]([^“”<>]{0,200})[“”])", _FLAGS)
_XY_NUMBER = re.compile(r"-?\d{1,6}(?:\.\d{1,6})?", _FLAGS)

_N = r"(\d{1,6}(?:\.\d{1,6})?)(?!\d|\.\d)"  # 12345678 and 1.2.3 are no numbers
_S = rf"{_N}\s{{0,3}}(?:seconds?|secs?|s)\b"
_WHEN = (r"(?:\b(?:in|at)\s{1,3}frame\s{1,3}(\d{1,6})(?!\d|\.\d)"  # groups: frame, its seconds, seconds without a frame
         rf"(?:\s{{0,3}}\(\s{{0,3}}{_S}\s{{0,3}}\)|(?!\s{{0,3}}\())|\bat\s{{1,3}}{_S})")
_PIECES = {
    "tag": rf"<points?\s([^<>]*)>([^<>]*)</points?\s{{0,9}}>(?:\s{{0,3}}{_WHEN})?",
    "pair": rf"\(\s{{0,3}}(-?\d{{1,6}}(?:\.\d{{1,6}})?)\s{{0,3}},\s{{0,3}}(-?{_N})\s{{0,3}}\)\s{{0,3}}{_WHEN}",
    "segment": rf"\bfrom\s{{1,3}}{_N}(?:\s{{0,3}}(?:seconds?|secs?|s))?\s{{1,3}}to\s{{1,3}}{_S}",
    "frame": rf"(?<!\))(?<!\)\s){_WHEN}"}
_GROUPS = {name: re.compile(pattern, _FLAGS) for name, pattern in _PIECES.items()}
_ANY_PIECE = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _PIECES.items()), _FLAGS)
_STOP = re.compile(r"[.!?;](?=\s|$)|\n")  # where a claim ends; the point in "2.5" does not end one
_BREAK = re.compile(r"[.;:!?](?=\s)|[,\n)>]|\b(?:the|an?|and|or|then|i see)\b", _FLAGS)  # where a noun phrase begins
_VERBS = set("is are was were now seen visible located move moves moved stand stands from to at in on".split())
_POINT_WORD = re.compile(r"<points?\b", _FLAGS)
_FRAME_WORD = re.compile(r"\b(?:in|at)\s{1,3}frame\b", _FLAGS)


def parse(response, media="image", allowed=()):
    """Read a response. Total: never raises on a str; time is linear in its length.

    response: `<think>..</think><answer>..</answer>`; coordinates are pixels of the picture as the policy saw it.
    media: "image" reads point tags; "video" also reads "(x, y) in frame 5 (2.5 seconds)", frame and segment claims.
    allowed: texts that count as an answer although they look like an option list (the options, the truth).
    """
    think, answers, dropped = _sections(response)
    parsed = Parsed(think, None)
    parsed.answer, parsed.no_answer = _answer(answers, allowed)
    _read_pieces(parsed, media, dropped)
    parsed.dropped_reasons = dict(+dropped)  # + leaves out the zeros
    return parsed


def canonical(response, media="image"):
    """The response with its points and times in the one form of this file's formats: what SFT learns from (paper 4.3)."""
    def when(frame, seconds, bare):
        frame, seconds = _moment(frame, seconds, bare)
        if frame is None:
            return "" if seconds is None else f"at {seconds:.1f} seconds"
        return f"in frame {frame}" + (f" ({seconds:.1f} seconds)" if seconds is not None else "")

    def write(m):
        text = rewritten(m)
        return text[:1].upper() + text[1:] if m[0][:1].isupper() else text

    def rewritten(m):
        kind = m.lastgroup if media == "video" else "tag"
        groups = _GROUPS[kind].fullmatch(m[0]).groups()
        if kind == "tag":
            label, found = _read_tag(*groups[:2])
            pairs = " ".join(f'x{i}="{x}" y{i}="{y}"' for i, (x, y) in enumerate(found, 1))
            return f'<point {pairs} alt="{label}">{label}</point> {when(*groups[2:])}'.rstrip()
        if kind == "pair":
            return f"({groups[0]}, {groups[1]}) {when(*groups[3:])}"
        if kind == "segment":
            return f"from {float(groups[0]):.1f} seconds to {float(groups[1]):.1f} seconds"
        return when(*groups)

    parsed = parse(response, media)
    think = (_ANY_PIECE if media == "video" else _GROUPS["tag"]).sub(write, _TAG.sub("", parsed.think))
    return f"<think>{think}</think><answer>{parsed.answer or ''}</answer>"


def _sections(text):
    """One pass over the tags -> (reasoning, texts of the answers outside it, Counter of what was malformed)."""
    thinks, outside, answers, dropped = [], [], [], Counter()
    first = _THINK.search(text)
    depth = 1 if first and first[1] else 0  # 1: the prompt has already opened <think>
    mark, opened = 0, False                 # where the present stretch of text began; whether it is an answer
    for tag in _TAG.finditer(text):
        closing, name = bool(tag[1]), tag[2].lower()
        if name == "think" and closing and depth == 0:
            dropped["</think> without <think>"] += 1
        elif name == "think" and depth > (1 if closing else 0):  # an inner tag of a nest
            depth += -1 if closing else 1
            dropped["nested <think>"] += not closing
        elif name == "answer" and depth:
            dropped["<answer> inside <think>"] += not closing
        elif name == "answer" and closing and not opened:
            dropped["</answer> without <answer>"] += 1
        else:  # a border between stretches of reasoning, answer and anything else
            stretch = text[mark:tag.start()]
            if depth:
                thinks.append(stretch)
            elif not opened:
                outside.append(stretch)
            elif name == "answer" and closing:
                answers.append(stretch)
            else:
                dropped["<answer> not closed"] += 1
            mark, opened = tag.end(), name == "answer" and not closing
            depth = int(name == "think" and not closing)
    if depth or opened:
        dropped["<think> not closed" if depth else "<answer> not closed"] += 1
    if not opened:
        (thinks if depth else outside).append(text[mark:])
    return "\n".join(thinks if first else outside).strip(), answers, dropped


def _answer(texts, allowed):
    """-> (answer or None, why not). The last one counts, unless they differ, are empty, or list options."""
    if not texts:
        return None, "no <answer> outside <think>"
    texts, key = list(dict.fromkeys(texts)), None
    if len(texts) > 8:
        return None, "several differing answers"
    for raw in texts:
        if len(raw) > MAX_ANSWER:
            return None, f"an answer of more than {MAX_ANSWER} characters"
        answer = " ".join(clean(raw).split())
        if not answer:
            return None, "an empty answer"
        value = number(answer)
        new = value[0] if value else normalise(answer)
        if key not in (None, new):
            return None, "several differing answers"
        key = new
    if option_list(answer) and normalise(answer) not in {normalise(str(a)) for a in allowed}:
        return None, "a list of options instead of an answer"
    return answer, ""


def clean(text):
    """Drop control, zero-width, bidirectional and surrogate characters (Unicode categories C*); keep line breaks."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if c in "\t\r" else c for c in text if c in "\n\t\r" or unicodedata.category(c)[0] != "C")


class _Kept(list):
    """At most MAX_POINTS different pieces of one sort; repeats and surplus are dropped and counted."""

    def __init__(self, name, dropped):
        super().__init__()
        self.name, self.dropped, self.seen = name, dropped, set()

    def add(self, piece, *key):
        if key in self.seen:
            self.dropped[f"repeated {self.name}"] += 1
        elif len(self) == MAX_POINTS:
            self.dropped[f"{self.name} beyond {MAX_POINTS}"] += 1
        else:
            self.seen.add(key)
            self.append(piece)

    def add_point(self, x, y, label, frame=None, seconds=None):
        """The same label on the same pixel of the same frame is the same point."""
        if label:
            point = Point(float(x), float(y), label, frame, seconds)
            self.add(point, math.floor(point.x), math.floor(point.y), label.lower(), frame, seconds)
        else:
            self.dropped["point without a label"] += 1

    def add_tag(self, attributes, inner, *moment):
        label, found = _read_tag(attributes, inner)
        for x, y in found:
            if _XY_NUMBER.fullmatch(x) and _XY_NUMBER.fullmatch(y):
                self.add_point(x, y, label, *moment)
            else:
                self.dropped["coordinate missing or not a number"] += 1
        if not found:
            self.dropped["point without coordinates"] += 1


def _read_tag(attributes, inner):
    """One <point x1=.. y1=.. x2=.. y2=.. alt="label">label</point> -> (label, [(x, y) as text]); alt wins over inner."""
    alt, label = _ALT.search(attributes), _label(inner)
    if alt:  # coordinates written inside alt are text, not coordinates
        label = _label(next((g for g in alt.groups() if g), "")) or label
        attributes = attributes[:alt.start()] + " " + attributes[alt.end():]
    found = {}
    for axis, index, value in _XY.findall(attributes):
        found.setdefault(int(index), {}).setdefault(axis.lower(), value)
    return label, [(xy.get("x", ""), xy.get("y", "")) for xy in found.values()]


def _read_pieces(parsed, media, dropped):
    """Fill points, frame_claims and segment_claims from the reasoning; pictures have point tags only."""
    text, video = parsed.think, media == "video"
    points, frames, segments = (_Kept(n, dropped) for n in ("point", "frame claim", "segment claim"))
    parsed.points, parsed.frame_claims, parsed.segment_claims = points, frames, segments
    pieces = [(m.lastgroup if video else "tag", m) for m in (_ANY_PIECE if video else _GROUPS["tag"]).finditer(text)]
    starts = [m.start() for kind, m in pieces if kind in ("segment", "frame")] + [len(text)]
    claims, said = 0, 0  # how many claims were met; up to where the text belongs to the last one
    for kind, m in pieces:
        groups = _GROUPS[kind].fullmatch(m[0]).groups()
        if kind == "tag":
            points.add_tag(*groups[:2], *(_moment(*groups[2:]) if video else ()))
        elif kind == "pair":
            points.add_point(*groups[:2], _noun_before(text, m.start()), *_moment(*groups[3:]))
        else:
            claims, before = claims + 1, text[max(said, m.start() - 400):m.start()]
            after = _STOP.split(text[m.end():min(starts[claims], m.end() + 400)], maxsplit=1)[0]
            said, words = m.end() + len(after), _claim(after)
            if kind == "frame" and groups[0]:  # "the door is open in frame 5 (2.5 seconds)."
                words = words or _claim(_STOP.split(before)[-1])
            if words and kind == "frame":
                frames.add(FrameClaim(*_moment(*groups), words), *_moment(*groups), words.lower())
            elif words:
                start, end = float(groups[0]), float(groups[1])
                segments.add(SegmentClaim(start, end, words), start, end, words.lower())
            elif kind == "segment" or groups[0]:  # a bare "at 2.5 seconds." is prose
                dropped[f"{kind} claim without text"] += 1
    dropped["malformed point tag"] += len(_POINT_WORD.findall(text)) - sum(kind == "tag" for kind, _ in pieces)
    if video:
        named = sum(len(_FRAME_WORD.findall(m[0])) for _, m in pieces)
        dropped["malformed frame reference"] += len(_FRAME_WORD.findall(text)) - named


def _moment(frame, seconds, bare):
    seconds = seconds or bare
    return (int(frame) if frame else None), (float(seconds) if seconds else None)


def _label(text):
    """The words of a label without articles and punctuation around them, at most 80 characters."""
    words = clean(text[:300]).strip(" .,;:!?\"'“”*_\n").split()
    while len(words) > 1 and words[0].lower() in ("a", "an", "the", "and", "or", "then"):
        words = words[1:]
    return " ".join(words)[:80].strip()


def _noun_before(text, position):
    """What stands at "(x, y) in frame 5": the words since the last clause break or article, less a trailing "is at"."""
    words = _BREAK.split(text[max(0, position - 120):position])[-1].split()
    while words and words[-1].lower() in _VERBS:
        words.pop()
    return _label(" ".join(words))


def _claim(text):
    words = clean(re.sub(r"<[^<>]*(?:>|$)", "", text)).strip(" ,:-").split()
    while words and words[-1].lower() in ("and", "then", "but"):
        words.pop()
    return " ".join(words)[:300].rstrip(" ,")


# ---- 2. The outcome: is the answer right? ----------------------------------------------------------------------------
KINDS = {"choice": "option letter or option text, exact", "number": "within 5 % (eqs 7, 8)", "count": "exact number",
         "phrase": "exact after normalisation (eq. 6)", "free": "equivalent, says a language model",
         "ocr": "1 - word error rate", "regression": "1 - relative error"}
PARTIAL = ("ocr", "regression")  # kinds whose outcome may lie between 0 and 1

_WORD = re.compile(r"-?\d+(?:\.\d+)?|[^\s!-/:-@\[-`{-~¡-¿\u2010-\u205e\u3000-\u303f]+")  # anything but punctuation
_SMALL = {w: i for i, w in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen".split())} | {"none": 0} | {
    w: 10 * i for i, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_SCALE = {"thousand": 10 ** 3, "million": 10 ** 6, "billion": 10 ** 9}
_TIME = {"ms": .001, "s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,6}(?![\d,])|\d{1,20})(?:\.\d{1,20})?|\.\d{1,20}"
_NUMBER = re.compile(rf"(?:(\d{{1,9}})\s+(?=\d+\s*/))?"              # the 1 of 1 3/4
                     rf"((?:{_DIGITS})(?:e[-+]?\d{{1,2}})?)(?:\s*/\s*(\d{{1,20}}))?(?!\d|[.,/]\d)", re.A)
_LEAD = re.compile(r"(?:(?:the )?(?:final )?answer(?: is)?:?|about|around|approximately|roughly|exactly|there (?:is|are)|[=~≈])\s*")
_HEDGE = {"or", "and", "to", "of", "not", "no", "but", "than", "plus", "minus", "times", "maybe", "hundred"} | _SMALL.keys() | _SCALE.keys()
_UNIT = re.compile(r"[^\W\d_](?:[^\W\d_]|[°/^-]){0,20}[23]?|[°%'\"$€£¥]")


def _fold(text):
    """Full-width and composed characters to plain ones, lower case. Raised and fraction digits must not join their
    neighbours: NFKC alone would read 1½ as 11/2 and 10² as 102."""
    text = re.sub(r"[²³¹⁰-₉]", "^", re.sub(r"([¼-¾⅐-⅞])", r" \1", clean(text)))
    return unicodedata.normalize("NFKC", text).casefold().replace("⁄", "/").replace("−", "-").strip()


def normalise(text):
    """Case, punctuation, articles and spaces removed; a text of nothing but these is kept as it is ("A", "+")."""
    text = _fold(text)
    words = _WORD.findall(text)
    return " ".join(w for w in words if w not in ("a", "an", "the")) or " ".join(words) or text


def number(text):
    """A text that is one number -> (value, unit), else None: 1,200  -3.5e2  45 %  3/4  1 1/2  twenty-one  2.5 seconds."""
    text = _fold(text) if len(text) <= 200 else ""
    for _ in range(2):
        text = text[_LEAD.match(text).end():] if _LEAD.match(text) else text
    sign, text = (-1 if re.match(r"-|minus |negative ", text) else 1), re.sub(r"^(?:[-+]|minus |negative )", "", text)
    text = text.lstrip("$€£¥ ")
    m = _NUMBER.match(text)
    if m:
        value, rest = float(m[2].replace(",", "")), text[m.end():]
        if m[3]:
            if float(m[3]) == 0:
                return None
            value = value / float(m[3]) + float(m[1] or 0)
        words = rest.strip(" .,!").replace("%", " % ").split()
    else:
        value, words = _number_words(text.strip(" .,!").replace("-", " ").split())
        if value is None:
            return None
    if words and words[0] in _SCALE:
        value *= _SCALE[words.pop(0)]
    # what follows may be a unit of up to three words, and nothing that hedges ("2 or more") or counts on ("2 three")
    if len(words) > 3 or any(w in _HEDGE or not _UNIT.fullmatch(w) for w in words):
        return None
    return sign * value, " ".join(words)


def _number_words(words):
    """Leading number words -> (value, what is left), or (None, [])."""
    total = part = used = 0
    for word in words:
        if word in _SMALL:
            if used and part % 100 and not (part % 100 >= 20 and part % 10 == 0 and 0 < _SMALL[word] < 10):
                return None, []  # "two three" is two numbers
            part += _SMALL[word]
        elif word == "hundred" and 0 < part < 10:
            part *= 100
        elif word in _SCALE and part:
            total, part = total + part * _SCALE[word], 0
        elif word != "and" or not used:
            break
        used += 1
    return (float(total + part), words[used:]) if used else (None, [])


def option_list(text):
    """Does the answer hedge: "A or B", "A, B", "A and B", "2 or 3", "red or blue"? Not: "1,200", "3/4", "red and white"."""
    text = _fold(text)
    if len(text) > 300:
        return False
    either = [part.split() for part in re.split(r"\bor\b", text)]
    if len(either) > 1 and all(0 < len(part) <= 6 for part in either):
        return True
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", text):
        return False
    letters = re.findall(r"[^\s,;/|&().:]+", re.sub(r"\band\b", ",", text))
    numbers = [p.strip(" ()") for p in re.split(r"[,;|&]|\band\b", text)]
    return (len(letters) > 1 and all(len(p) == 1 and p.isalpha() for p in letters)
            or len(numbers) > 1 and all(re.fullmatch(r"-?\d+(\.\d+)?", p) for p in numbers))


def _chosen(text, options):
    """A choice -> the normalised text of the option meant (or the bare letter when no options are known), or None.

    "B", "(b)", "B. red", "option B", "the answer is B" and "red" all mean option B if it reads "red"; "B. blue" means none.
    """
    texts = [normalise(re.sub(rf"^\(?{chr(65 + i)}[).:]\s*", "", _fold(o), flags=re.I) if i < 26 else o)
             for i, o in enumerate(options or ())]
    text = re.sub(r"^(?:(?:the )?(?:correct |final )*(?:answer|option|choice)(?: is)?:?\s*)+", "", _fold(text))
    m = re.match(r"[\s\"'*(\[]{0,3}([a-z])([\s\"'*)\].:]+|$)(.*)", text, re.S | re.A)
    rest, listed = (normalise(m[3]), bool(m[2].strip())) if m else ("", False)  # listed: "A. red", where "a red" is an article
    if m and not options:
        return m[1] if listed or not rest else None
    index = ord(m[1]) - 97 if m else len(texts)
    if index < len(texts) and rest in ("", texts[index]):
        return texts[index]
    contradicts = listed and index < len(texts) and text not in map(_fold, options)
    return normalise(text) if normalise(text) in texts and not contradicts else None


def check_truth(truth, kind, options=None):
    """Refuse a truth that no answer could ever match."""
    if kind not in KINDS:
        raise BadInput(f"unknown kind {kind!r}; use one of {', '.join(KINDS)}")
    text = "" if truth is None else str(truth)
    if not clean(text).strip():
        raise BadInput("the truth is empty; give the right answer")
    value = number(text)
    if kind in ("number", "count", "regression") and value is None:
        raise BadInput(f"the truth {text[:60]!r} is not a number, as kind {kind!r} needs; use another kind")
    if kind == "count" and value[0] != int(value[0]):
        raise BadInput(f"the truth {text[:60]!r} is not a whole number, as kind 'count' needs; use kind 'number'")
    if kind == "choice" and options and _chosen(text, options) is None:
        raise BadInput(f"the truth {text[:60]!r} is neither the letter nor the text of an option")
    return text


def outcome_score(prediction, truth, kind, options=None, judge=None, question=""):
    """R_o in [0, 1] (paper eqs 6-8; ocr and regression: our choice). Never raises on a prediction; a bad truth is BadInput.

    kind: one of KINDS. options: the texts of a multiple choice, in order. judge: asked only for kind "free", only when the
    texts differ; None: exact match decides. The judge reads at most MAX_JUDGED characters, which it must treat as data.
    """
    truth = check_truth(truth, kind, options)
    if isinstance(prediction, (int, float)) and abs(prediction) < 1e15:
        prediction = str(prediction)
    if not isinstance(prediction, str) or len(prediction) > MAX_ANSWER or not clean(prediction).strip():
        return 0.0
    if kind == "ocr":
        return max(0.0, 1 - word_error_rate(_fold(prediction).split(), _fold(truth).split()))
    if kind in ("number", "count", "regression"):
        return _number_score(number(prediction), number(truth), kind)
    if kind == "choice":
        right = _chosen(truth, options)
        return float(_chosen(prediction, options) == right if right else normalise(prediction) == normalise(truth))
    if normalise(prediction) == normalise(truth):
        return 1.0
    said = judged(prediction)
    if kind == "phrase" or judge is None or option_list(prediction) or not said:
        return 0.0
    return float(bool(judge.equivalent(question, truth, said)))


def judged(text, limit=MAX_JUDGED):
    """A text of the policy as a judge may read it: bounded, without control characters, chat or image tokens, our tags."""
    return _TAG.sub(" ", clean(text[:limit])).replace("<|", "< |").strip()


def _number_score(p, a, kind):
    if p is None:
        return 0.0
    (value, unit), (true, true_unit) = p, a
    time, true_time = (_TIME.get(u) or _TIME.get(u.rstrip("s")) for u in (unit, true_unit))
    readings = [value]
    if time and true_time:  # 2.5 minutes are not 2.5 seconds
        readings, true = [value * time], true * true_time
    elif kind != "count" and (unit == "%") != (true_unit == "%"):  # 45 % may be written 45 or 0.45
        readings.append(value / 100 if unit == "%" else value * 100)
    error = min(abs(r - true) for r in readings)
    if kind == "count" or true == 0:
        return float(error == 0 and (kind != "count" or unit != "%"))
    relative = error / abs(true)
    return max(0.0, 1 - relative) if kind == "regression" else float(relative <= .05 * (1 + 1e-9))


def word_error_rate(words, truth):
    """Edit distance in words over the number of true words. A prediction twice as long cannot score: it is not compared."""
    if len(words) >= 2 * len(truth):
        return 1.0
    column = np.arange(len(words) + 1)
    ids = {w: i for i, w in enumerate(dict.fromkeys(words + truth))}
    said = np.array([ids[w] for w in words], dtype=int)
    for i, word in enumerate(truth, 1):
        row = np.minimum(column[:-1] + (said != ids[word]), column[1:] + 1)  # substitute or keep; delete
        steps = np.concatenate([[i], row]) - np.arange(len(words) + 1)       # insert: a running minimum
        column = np.minimum.accumulate(steps) + np.arange(len(words) + 1)
    return float(column[-1]) / len(truth)


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


# ---- 4. Samples, pictures and coordinates ----------------------------------------------------------------------------
@dataclass
class Sample:
    """One question. grounding: the reasoning is asked to point. drawn: a chart, map or other drawing (pointing model)."""
    id: str
    question: str
    answer: str | None  # None: not known; then there is no reward, only grounding
    kind: str
    path: str
    media: str = "image"
    options: list | None = None
    task: str = ""
    source: str = ""
    drawn: bool = False
    grounding: bool = True

    @classmethod
    def from_row(cls, row, folder, where="row"):
        """Check one row of a JSONL file ("image" or "video": a path relative to `folder`). BadInput names `where`."""
        def need(good, problem):
            if not good:
                raise BadInput(f"{where}: {problem}")
        need(isinstance(row, dict), "is not a JSON object; write one {...} per line")
        need(("image" in row) != ("video" in row), 'give exactly one of "image" and "video", a path next to the file')
        media = "image" if "image" in row else "video"
        for name, kind in ((media, str), ("question", str), ("kind", str)):
            need(isinstance(row.get(name), kind) and row[name].strip(), f'"{name}" is missing or empty; give a text')
        answer, options = row.get("answer"), row.get("options")
        need(type(answer) in (str, int, float), '"answer" is missing; give a text or number')
        need(options is None or isinstance(options, list) and len(options) > 1 and all(isinstance(o, str) for o in options),
             '"options" must be a list of two or more texts')
        for name in ("drawn", "grounding"):
            need(isinstance(row.get(name, True), bool), f'"{name}" must be true or false')
        try:
            answer = check_truth(answer, row["kind"], options)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        path = Path(folder) / row[media]
        need(path.is_file(), f"{media} {row[media]!r} does not exist beside the file; correct the path")
        rest = {name: row[name] for name in ("task", "source", "drawn", "grounding") if name in row}
        return cls(str(row.get("id", where)), row["question"], answer, row["kind"], str(path), media, options, **rest)


def read_jsonl(path, torn=False):
    """Yield (row number, object) of a JSONL file; blank lines are skipped. BadInput names file, row and cure.

    torn: an append-only log may hold lines cut by a kill; skip them instead.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as a UTF-8 JSONL file ({error.__class__.__name__}); check the path") from None
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if torn:
                continue
            raise BadInput(f"{path} row {i}: is not JSON ({str(error)[:80]}); write one object per line") from None
        yield i, row


def read_samples(jsonl):
    """A JSONL file of rows -> list of Samples. BadInput names file, row and cure."""
    samples, seen = [], {}
    for i, row in read_jsonl(jsonl):
        where = f"{jsonl} row {i}"
        samples.append(Sample.from_row(row, Path(jsonl).parent, where))
        first = seen.setdefault(samples[-1].id, i)
        if first != i:
            raise BadInput(f"{where}: id {samples[-1].id!r} was used in row {first}; ids must differ")
    if not samples:
        raise BadInput(f"{jsonl}: holds no rows")
    return samples


def write_atomically(path, data):
    """Write str or bytes to `path` so that a reader sees the old file or the whole new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace"))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def append_jsonl(path, row):
    """Append one row. A line left half-written by a crash is ended first, so that it spoils no other."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        else:
            torn = False
        file.write(b"\n" * torn + json.dumps(row).encode() + b"\n")


@dataclass
class Media:
    """Frames as the policy sees them (RGB, one size), the exact time of each in seconds, and the file's (width, height)."""
    frames: list
    seconds: list
    original_size: tuple


def smart_resize(height, width, factor=28, min_pixels=7056, max_pixels=28224):
    """Qwen2.5-VL's resize -> (height, width): multiples of `factor`, the aspect kept, the area within the pixel budget."""
    if min(height, width) < 1 or max(height, width) > 200 * min(height, width):
        raise BadInput(f"a picture of {width} x {height} px; the policy takes at most 200 to 1, so crop it")
    h, w = round(height / factor) * factor, round(width / factor) * factor
    if h * w > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        h, w = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif h * w < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        h, w = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return h, w


def convert(x, y, source, target, original, seen):
    """Map a point between coordinate spaces. The only place that does; there and back gives the same point.

    source, target: "original" (pixels of the file), "seen" (pixels after smart_resize: what responses, teachers and cards
    use) or "percent" (0..100, as Molmo answers). original, seen: (width, height).
    """
    sizes = {"original": original, "seen": seen, "percent": (100, 100)}
    if source not in sizes or target not in sizes or min(*original, *seen) <= 0:
        raise BadInput(f"convert {source!r} to {target!r}, sizes {original}, {seen}: use the spaces {', '.join(sizes)}")
    return tuple(v * to / of for v, to, of in zip((x, y), sizes[target], sizes[source]))


def _rgb(image):
    """Upright RGB on white, as Qwen2.5-VL's own loader shows it; 16-bit greys are scaled, not clipped."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float32)
        image = Image.fromarray(np.uint8(np.clip(grey / max(255.0, float(grey.max())) * 255, 0, 255)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def load_media(path, min_pixels=7056, max_pixels=28224, max_frames=32, video_pixels=None):
    """Read a picture, or an animated PNG, GIF or WebP as a clip, into what the policy sees. BadInput names a bad file.

    A clip longer than max_frames (paper: 32) is sampled uniformly. Each frame keeps its own time: the sum of the durations
    before it. Savers merge equal neighbours, so a frame held k times as long as the shortest counts as k frames.
    max_pixels: of a picture or a frame; video_pixels: of all frames of a clip together.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            file = Image.open(path)
        with file:
            # a phone's JPEG (MPO) and a scanned TIFF hold several pictures, too, but are no clips
            moving = file.format in ("PNG", "GIF", "WEBP", "AVIF") and getattr(file, "is_animated", False)
            count, (width, height) = (file.n_frames if moving else 1), file.size
            if width * height > MAX_PIXELS_FILE or count * width * height > 16 * MAX_PIXELS_FILE:
                raise BadInput(f"{path}: {count} frame(s) of {width} x {height} px are too much; shrink it")
            milliseconds = []
            for i in range(count if moving else 0):
                file.seek(i)
                file.load()
                milliseconds.append(round(file.info.get("duration") or 100))  # 0 means 100 ms, as in browsers
            shortest = min(milliseconds, default=1)
            even = all(ms % shortest == 0 for ms in milliseconds) and sum(milliseconds) // shortest <= 10_000
            shown, clock = [], 0  # (time in ms, index in the file)
            for i, ms in enumerate(milliseconds or [1]):
                shown += [(clock + k * shortest, i) for k in range(ms // shortest if even else 1)]
                clock += ms
            n = min(max_frames, len(shown))
            shown = [shown[i * len(shown) // n] for i in range(n)]
            frames = {}
            for i in sorted({i for _, i in shown}):
                if moving:
                    file.seek(i)
                frames[i] = _rgb(file)
        if video_pixels and len(shown) > 1:
            max_pixels = max(784, min(max_pixels, video_pixels // len(shown)))
            min_pixels = min(min_pixels, max_pixels)
        size = frames[0].size
        h, w = smart_resize(size[1], size[0], 28, min_pixels, max_pixels)
        frames = {i: f if f.size == (w, h) else f.resize((w, h), Image.BICUBIC) for i, f in frames.items()}
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except BadInput as error:
        raise BadInput(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except Exception as error:  # a damaged file makes Pillow raise whatever its decoder trips over
        raise BadInput(f"{path}: not a readable picture, animated PNG, GIF or WebP ({error.__class__.__name__}); "
                       "save it again as PNG") from None
    return Media([frames[i] for _, i in shown], [ms / 1000 for ms, _ in shown], size)


# ---- 5. Grounding, reasoning and the verdict -------------------------------------------------------------------------
@dataclass(frozen=True)
class PointPrompt:
    """What the segmenter gets when the pointing model replaces the detector: a box without area (see teachers.Box)."""
    x1: float
    y1: float
    x2: float
    y2: float
    score: float
    label: str


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
    reward: float | None    # R of eq. 9; None: the truth is not known
    outcome: float | None   # None, here and below: not selected
    grounding: float | None
    reasoning: float | None
    selected: dict          # scoring function -> "yes: why" or "no: why"
    parsed: Parsed
    points: list            # of PointVerdict
    frame_scores: list      # of ClaimVerdict
    segment_scores: list    # of ClaimVerdict
    arithmetic: str
    masks: dict = field(default_factory=dict, repr=False)  # (frame index, label) -> bool (H, W), for the card

    def to_dict(self):
        """Plain JSON types."""
        row = {k: getattr(self, k) for k in ("reward", "outcome", "grounding", "reasoning", "selected", "arithmetic")}
        row |= {"answer": self.parsed.answer, "no_answer": self.parsed.no_answer, "dropped": self.parsed.dropped_reasons}
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
        if self.parsed.dropped:
            lines.append("dropped    " + ", ".join(f"{n} x {why}" for why, n in self.parsed.dropped_reasons.items()))
        return "\n".join(lines + [self.arithmetic])


class Argos:
    """The verifier. Teachers follow the protocols in teachers.py; pointer and judge may be None: what needs them drops out.

    use: the terms switched on (the paper's ablations leave out "grounding" or "reasoning"). min_pixels, max_pixels,
    max_frames: the policy's own budget. selector: see select. Behind a closed gate the reasoning is never judged, since it
    could not count; lazy skips grounding there, too, at the cost of the metric.
    """

    def __init__(self, detector, segmenter, pointer, judge, weights=Weights(), tau=.5,
                 use=("outcome", "grounding", "reasoning"), min_pixels=7056, max_pixels=28224, max_frames=32,
                 length_normalized=False, selector=None, lazy=False, video_pixels=None):
        if "outcome" not in use or set(use) - {"outcome", "grounding", "reasoning"}:
            raise BadInput(f"use={tuple(use)}: list outcome, and if you like grounding and reasoning")
        self.detector, self.segmenter, self.pointer, self.judge = detector, segmenter, pointer, judge
        self.weights, self.tau, self.use, self.selector, self.lazy = weights, tau, tuple(use), selector, lazy
        self.budget = dict(min_pixels=min_pixels, max_pixels=max_pixels, max_frames=max_frames, video_pixels=video_pixels)
        self.length_normalized = length_normalized
        roles = {"detector": detector and segmenter, "pointer": pointer, "judge": judge}
        self.teachers = {name for name, teacher in roles.items() if teacher is not None}

    def load(self, sample):
        media = load_media(sample.path, **self.budget)
        if sample.media == "image" and len(media.frames) > 1:
            raise BadInput(f'{sample.path}: a clip of {len(media.frames)} frames in a row that says "image"; write "video"')
        return media

    def verify(self, sample, response, media=None):
        """Score one response -> Verdict. media: the loaded file, where the caller has it."""
        return self.verify_group(sample, [response], media)[0]

    def verify_groups(self, samples, groups, media=None):
        """One group of responses per sample -> one list of Verdicts per sample."""
        return [self.verify_group(s, g, m) for s, g, m in zip(samples, groups, media or [None] * len(samples))]

    def verify_group(self, sample, responses, media=None):
        """Score all responses to one sample. The file is loaded once, each (frame, label) detected and segmented once, each
        different answer and claim judged once, and the reasoning of the whole group judged in one call."""
        media = media or self.load(sample)
        allowed = [*(sample.options or ()), sample.answer or ""]
        parsed = [parse(r, sample.media, allowed) for r in responses]
        selected = [select(sample, p, self.teachers, self.use, self.selector) for p in parsed]
        grounding = "temporal" if sample.media == "video" else "spatial"
        outcomes = self._outcomes(sample, parsed)
        opened = [o is None or o >= self.tau for o in outcomes]
        ground = [s[grounding].startswith("yes") and (o or not self.lazy) for s, o in zip(selected, opened)]
        masks, known = self._masks(sample, media, [p for p, g in zip(parsed, ground) if g]), {}
        grounded = [self._ground(media, p, masks, known) if g else (None, [], [], []) for p, g in zip(parsed, ground)]
        quality = self._reasoning(sample, media, parsed,
                                  [o and s["reasoning"].startswith("yes") for s, o in zip(selected, opened)])
        verdicts = []
        for p, chosen, outcome, (seen, *pieces), rq in zip(parsed, selected, outcomes, grounded, quality):
            terms = []
            for name, score in ((grounding, seen), ("reasoning", rq)):
                skipped = chosen[name].startswith("yes") and score is None
                chosen[name] += "; not computed: the gate is closed" * skipped
                terms.append(0.0 if skipped else score)  # it keeps its weight: R does not depend on what was computed
            reward, arithmetic = None, "no truth was given: there is no reward"
            if outcome is not None:
                reward, sums = _gate(outcome, *terms, self.weights, self.tau)
                state, sign = ("open", ">=") if outcome >= self.tau else ("closed", "<")
                arithmetic = f"gate {state}: outcome {outcome:.2f} {sign} tau {self.tau:.2f}\n{sums}"
            own = {key: masks[key][1] for v in pieces[0] if (key := (v.frame, v.point.label.lower())) in masks}
            verdicts.append(Verdict(reward, outcome, seen, rq, chosen, p, *pieces, arithmetic, own))
        return verdicts

    def _outcomes(self, sample, parsed):
        if sample.answer is None:
            return [None] * len(parsed)
        known = {None: 0.0}
        for answer in dict.fromkeys(p.answer for p in parsed if p.answer is not None):
            known[answer] = outcome_score(answer, sample.answer, sample.kind, sample.options, self.judge, sample.question)
        return [known[p.answer] for p in parsed]

    def _masks(self, sample, media, parsed):
        """Eq. 1 for all points of a group: {(frame, label): (boxes, union of their masks, bool (H, W))}."""
        wanted, found = {}, {}
        for point in (q for p in parsed for q in p.points):
            frame, _ = which_frame(media, point.frame, point.seconds)
            if frame is not None:
                wanted.setdefault(frame, {})[point.label.lower()] = None
        for frame, labels in wanted.items():
            image, labels = media.frames[frame], list(labels)
            if sample.drawn and self.pointer:  # paper: detectors fail on charts and maps, pointing models do not
                prompts = [[PointPrompt(x, y, x, y, 1.0, label) for x, y in self.pointer.point(image, label)]
                           for label in labels]
            else:
                prompts = self.detector.detect(image, labels)
            flat = [box for boxes in prompts for box in boxes]
            shape = (len(flat), image.height, image.width)
            masks = np.asarray(self.segmenter.segment(image, flat), dtype=bool) if flat else np.zeros(shape, bool)
            if masks.shape != shape or len(prompts) != len(labels):
                raise ValueError(f"the segmenter gave {masks.shape}, not {shape}, or the detector not one list a label")
            for label, boxes in zip(labels, prompts):
                found[frame, label] = list(boxes), masks[:len(boxes)].any(axis=0)
                masks = masks[len(boxes):]
        return found

    def _ground(self, media, parsed, masks, known):
        """-> (R_vg, PointVerdicts, frame ClaimVerdicts, segment ClaimVerdicts). Eqs 2-4, appendix D.

        A picture has one set of pieces, a clip three: averaged within, then the means of those that are not empty averaged.
        Nothing to check: 0 (our choice). known: claims already judged, shared by the group.
        """
        points = []
        for p in parsed.points:
            frame, why = which_frame(media, p.frame, p.seconds)
            boxes, mask = masks[frame, p.label.lower()] if frame is not None else ([], None)
            score, (w, h) = 0.0, media.frames[0].size
            if frame is not None:
                x, y = math.floor(p.x), math.floor(p.y)
                inside = 0 <= x < w and 0 <= y < h
                score = float(bool(boxes) and inside and mask[y, x])
                why = (f"outside the {w} x {h} picture" if not inside else f"no {p.label} was found" if not boxes
                       else "on the mask" if score else "beside the mask")
            points.append(PointVerdict(p, score, why, boxes, frame))
        frames = [self._judge_claim(media, c, known) for c in parsed.frame_claims if self.judge]
        segments = [self._judge_claim(media, c, known) for c in parsed.segment_claims if self.judge]
        means = [sum(v.score for v in verdicts) / len(verdicts) for verdicts in (points, frames, segments) if verdicts]
        return (sum(means) / len(means) if means else 0.0), points, frames, segments

    def _judge_claim(self, media, claim, known):
        """Eq. 4 -> ClaimVerdict. The judge sees the frame of a frame claim, the frames from start to end of a segment claim."""
        if isinstance(claim, FrameClaim):
            index, why = which_frame(media, claim.frame, claim.seconds)
            shown = [] if index is None else [index]
        else:
            shown = [i for i, t in enumerate(media.seconds) if claim.start - _TENTH <= t <= claim.end + _TENTH]
            why = "ends before it starts" if claim.start > claim.end else "no frame lies between its times"
            shown = shown if claim.start <= claim.end else []
        if not shown:
            return ClaimVerdict(claim, 0.0, why, [])
        text, key = judged(claim.text), (isinstance(claim, FrameClaim), *shown, claim.text.lower())
        if key not in known:
            frames = [media.frames[i] for i in shown]
            known[key] = bool(self.judge.frame_claim(frames[0], text) if key[0] else
                              self.judge.segment_claim(frames, [media.seconds[i] for i in shown], text))
        where = f"frame {shown[0]}" if key[0] else f"frames {shown[0]} to {shown[-1]}"
        why = f"the judge {'agrees' if known[key] else 'disagrees'}, shown {where}"
        return ClaimVerdict(claim, float(known[key]), why, shown)

    def _reasoning(self, sample, media, parsed, wanted):
        """Eq. 5 for a group in one call -> [p or None]. No reasoning at all: 0, as there is nothing that could support the
        answer; nor is an answer that does not count supported (our choices)."""
        quality = [0.0 if w else None for w in wanted]
        texts = {i: (judged(p.think, MAX_THINK), judged(p.answer or "")) for i, p in enumerate(parsed) if wanted[i]}
        texts = {i: both for i, both in texts.items() if all(both)}
        if texts:
            thinks, answers = map(list, zip(*texts.values()))
            values = self.judge.answer_probability(media, sample.question, thinks, answers, self.length_normalized)
            for i, value in zip(texts, values, strict=True):
                quality[i] = min(1.0, max(0.0, float(value))) if math.isfinite(value) else 0.0
        return quality

    def card(self, sample, response, verdict, path):
        draw_card(self.load(sample), sample, response, verdict, verdict.masks, path)

    def self_check(self):
        """Refuse to go on where points miss: a red square in the corner of a large drawing must be hit in the policy's
        pixels, and missed in the file's pixels and with x and y swapped. Raises BadInput."""
        budget = self.budget | {"max_pixels": min(self.budget["max_pixels"], 1 << 18)}
        side = 4 * round(math.sqrt(budget["max_pixels"]))
        drawing = Image.new("RGB", (side, side), (215, 215, 210))
        ImageDraw.Draw(drawing).rectangle([side * .65, side * .1, side * .85, side * .3], fill=(225, 30, 30))
        with tempfile.TemporaryDirectory() as folder:
            drawing.save(Path(folder) / "check.png")
            sample = Sample("check", "Where is the red square?", None, "free", str(Path(folder) / "check.png"))
            media, there = load_media(sample.path, **budget), (side * .75, side * .2)
        seen = convert(*there, "original", "seen", (side, side), media.frames[0].size)
        points = [Parsed("", None, [Point(*xy, "red square")]) for xy in (seen, there, seen[::-1])]
        scores = [self._ground(media, p, self._masks(sample, media, [p]), {})[0] for p in points]
        if scores != [1, 0, 0]:
            raise BadInput(f"self-check: a drawn red square scored {scores}, not [1, 0, 0], in the policy's pixels, in the "
                           "file's, and with x and y swapped; use teachers that work in the policy's pixels")


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


# ---- 6. The verification card: what the policy saw and what the verifier made of it, in one picture ------------------
IN, OUT, INK, FAINT = (0, 140, 90), (205, 45, 45), (25, 30, 40), (120, 125, 135)


def draw_card(media, sample, response, verdict, masks, path):
    """Write the card as a PNG. masks: {(frame, label): bool (H, W)}, as in verdict.masks.

    Left: the picture as the policy saw it, or up to 6 frames that the response refers to, enlarged; masks stay bright
    inside a white outline, the rest is dimmed; boxes carry their labels; points are green (in) or red (out) and numbered.
    Right: question, truth, response, the terms as bars, every reason, and the gate's arithmetic.
    """
    frames = [0]
    if len(media.frames) > 1:
        used = {i for v in verdict.frame_scores + verdict.segment_scores for i in v.frames}
        used |= {v.frame for v in verdict.points if v.frame is not None}
        frames = sorted(used)[:6] or range(0, len(media.frames), -(-len(media.frames) // 4))
    tiles = [_tile(media, f, verdict, masks, 640 if len(frames) == 1 else 400) for f in frames]
    columns, (tw, th) = min(2, len(tiles)), tiles[0].size

    title, body, small, mono = _font(26, "-Bold"), _font(15), _font(13), _font(12, "Mono")
    lines, width = [], 660  # the text panel: (font, colour, text) a line

    def write(text, font=body, colour=INK, indent=""):
        lines.extend((font, colour, line) for line in _wrap(clean(text), font, width - 40, indent))

    if verdict.reward is None:
        write("no reward: the truth is not known", title)
    else:
        write(f"reward {verdict.reward:.2f}", title, IN if verdict.reward >= .5 else OUT)
    write(f"Q  {sample.question[:400]}", indent="    ")
    write(f"truth  {str(sample.answer)[:200]}   ({sample.kind})\n", small, FAINT)
    long = f"{response[:600]} [... {len(response) - 900} characters ...] {response[-300:]}"
    write(response if len(response) <= 900 else long, small, (70, 75, 90))
    write("")
    bars = {"outcome": verdict.outcome, "grounding": verdict.grounding, "reasoning": verdict.reasoning}
    first_bar = len(lines)
    lines += [(body, INK, name) for name in bars] + [(body, INK, "")]
    reasons = verdict.explain().split("\n")
    for line in reasons[:44]:
        good, bad = line.strip().startswith(("in ", "yes ")), line.strip().startswith(("OUT ", "NO "))
        write(line, mono, IN if good else OUT if bad else INK, " " * 11)
    if len(reasons) > 44:
        write(f"... and {len(reasons) - 44} more lines, among them: {reasons[-1]}", mono, FAINT, " " * 11)

    left, rows = columns * (tw + 12) + 12, -(-len(tiles) // columns)
    height = max(sum(_height(font) for font, _, _ in lines) + 40, rows * (th + 12) + 40)
    card = Image.new("RGB", (left + width, height), (252, 252, 250))
    for k, tile in enumerate(tiles):
        card.paste(tile, (12 + k % columns * (tw + 12), 12 + k // columns * (th + 12)))
    pen, (w, h), (ow, oh) = ImageDraw.Draw(card), media.frames[0].size, media.original_size
    pen.text((12, rows * (th + 12) + 12), f"{w} x {h} px as the policy saw it; the file has {ow} x {oh}", FAINT, small)
    y, x = 20, left + 110
    for i, (font, colour, text) in enumerate(lines):
        pen.text((left + 12, y), text, colour, font)
        if 0 <= i - first_bar < len(bars):
            pen.rectangle([x, y + 3, x + 400, y + 17], (232, 232, 230))
            if bars[text]:
                pen.rectangle([x, y + 3, x + 400 * bars[text], y + 17], (60, 110, 190))
            value, colour = ("not counted", FAINT) if bars[text] is None else (f"{bars[text]:.2f}", INK)
            pen.text((x + 410, y), value, colour, small)
        y += _height(font)
    data = io.BytesIO()
    card.save(data, "PNG")
    write_atomically(path, data.getvalue())


def _tile(media, frame, verdict, masks, target):
    """One frame, enlarged to about `target` px, with masks, boxes and points; that of a clip has its time above it."""
    image, font = media.frames[frame], _font(13)
    scale = target / max(image.size)
    scale = max(1, round(scale)) if scale > 1 else scale
    w, h = size = tuple(max(1, round(side * scale)) for side in image.size)
    tile = image.resize(size, Image.NEAREST if scale >= 1 else Image.LANCZOS)
    mine = [np.asarray(mask) for (f, _), mask in masks.items() if f == frame]
    if mine and np.any(mine):
        bright = Image.fromarray(np.uint8(np.any(mine, axis=0)) * 255).resize(size, Image.NEAREST)
        tile = Image.composite(tile, Image.blend(tile, Image.new("RGB", size, (40, 45, 60)), .45), bright)
        rim = np.asarray(bright) > np.asarray(bright.filter(ImageFilter.MinFilter(5)))
        tile.paste((255, 255, 255), mask=Image.fromarray(np.uint8(rim) * 255))
    pen, points = ImageDraw.Draw(tile), [(i, v) for i, v in enumerate(verdict.points, 1) if v.frame == frame]

    def plate(x, y, text, back, colour, flip=0):  # flip: width to jump to the left by, where the right rim is near
        length = pen.textlength(text, font) + 6
        x, y = max(0, x - length - flip if flip and x + length > w else min(x, w - length)), max(0, min(y, h - 17))
        pen.rectangle([x, y, x + length, y + 16], back)
        pen.text((x + 3, y), text, colour, font)

    for box in dict.fromkeys(b for _, v in points for b in v.boxes):
        x1, y1, x2, y2 = (round(c * scale) for c in (box.x1, box.y1, box.x2, box.y2))
        pen.rectangle([x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)], outline=(255, 200, 0), width=2)
        plate(x1, y1 - 17, f"{clean(box.label)[:24]} {box.score:.2f}", (255, 200, 0), INK)
    for i, v in points:
        x, y = (min(max((c + .5) * scale, 0), side - 1) for c, side in zip((v.point.x, v.point.y), size))
        colour, r = IN if v.score else OUT, 7  # a point outside the picture was moved to its rim
        pen.ellipse([x - r, y - r, x + r, y + r], colour, "white", 2)
        if not v.score:
            pen.line([x - 3, y - 3, x + 3, y + 3], "white", 2)
            pen.line([x - 3, y + 3, x + 3, y - 3], "white", 2)
        text = f"{i} {clean(v.point.label)[:24]}" if len(points) <= 8 else str(i)
        plate(x + r + 2, y - 8, text, colour, "white", 2 * r + 4)
    if len(media.frames) == 1:
        return tile
    framed = Image.new("RGB", (w, h + 20), INK)
    framed.paste(tile, (0, 20))
    ImageDraw.Draw(framed).text((6, 2), f"frame {frame} ({media.seconds[frame]:.1f} seconds)", "white", font)
    return framed


def _font(size, style=""):
    """matplotlib brings DejaVu, which knows more scripts than Pillow's own font."""
    try:
        import matplotlib
        return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans{style}.ttf", size)
    except (ImportError, OSError):
        return ImageFont.load_default(size)


def _height(font):
    return round(font.size * 1.35)


def _wrap(text, font, width, indent=""):
    """Lines no wider than `width` px; words of more than 60 characters are broken."""
    lines = []
    for paragraph in text.split("\n")[:60]:
        line = ""
        for word in re.findall(r"\s*\S{1,60}|\s+$", paragraph):
            if line and font.getlength(line + word) > width:
                lines.append(line)
                line = indent + word.lstrip()
            else:
                line += word
        lines.append(line)
    return lines


# ---- 7. The command line ---------------------------------------------------------------------------------------------
def claim_run(log, config):
    """Begin or continue a training log. Without --resume an old run must not be mixed into a new one; with it, settings must agree."""
    rows = [row for _, row in read_jsonl(log, torn=True)] if Path(log).exists() else []
    if not rows:
        append_jsonl(log, dict(kind="config", **config))
        return
    if not config["resume"]:
        raise BadInput(f"{log}: holds a run already; continue it with --resume, or name another --out")
    for name, value in config.items():
        if name != "resume" and rows[0].get(name, value) != value:
            raise BadInput(f"{log}: was made with --{name} {rows[0][name]}, not {value}; resume with the same settings")


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """--help keeps the layout of the script's head comment and shows every default."""


def parse_config(kind, doc, arguments=None):
    """Command line -> one dataclass of settings; an unusable value ends with argparse's one line and exit code 2."""
    from transformers import HfArgumentParser
    return HfArgumentParser(kind, description=doc, formatter_class=Help).parse_args_into_dataclasses(arguments)[0]


def file_name(text):
    """A sample's id as a safe file name: it comes from a dataset and may hold anything."""
    return re.sub(r"[^\w.-]", "_", text)[:120].lstrip(".") or "_"


def save_figure(figure, path):
    """Write a matplotlib figure or a PIL picture as PNG: complete or absent."""
    data = io.BytesIO()
    if isinstance(figure, Image.Image):
        figure.save(data, "PNG")
    else:
        figure.savefig(data, dpi=150, format="png")
    write_atomically(path, data.getvalue())


def run_main(main):
    """Run a script's main(): bad input becomes one line on stderr and exit code 2."""
    try:
        main()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def main():
    parser = argparse.ArgumentParser(description="Verify one response about a picture or clip, and say why.")
    parser.add_argument("media", metavar="IMAGE_OR_VIDEO", help="a picture, or an animated PNG, GIF or WebP")
    parser.add_argument("question")
    parser.add_argument("response", help="<think>...</think><answer>...</answer>, pixels of the picture as the policy saw it")
    parser.add_argument("--answer", help="the truth; without it there is grounding, but no reward")
    parser.add_argument("--kind", choices=KINDS, help="default: choice with --options, else number if it is one, else phrase")
    parser.add_argument("--options", nargs="+", metavar="OPTION", help="the options of a multiple choice, in order")
    parser.add_argument("--card", metavar="FILE.png", help="write the verification card here")
    parser.add_argument("--judge", metavar="FOLDER", help="a vision-language model, for reasoning, claims and free text; "
                        "none: do without; default: tiny/teacher where it exists")
    parser.add_argument("--max_pixels", type=int, default=28224, help="the policy's pixel budget")
    args = parser.parse_args()

    import teachers
    shipped, judge = Path(__file__).parent / "tiny" / "teacher", None
    folder = args.judge or (str(shipped) if (shipped / "config.json").is_file() else "none")
    if folder != "none":
        import policy
        judge = teachers.VLMJudge(policy.load_policy(folder))
    pixel = teachers.PixelDetector(), teachers.PixelSegmenter(), teachers.PixelPointer()
    verifier = Argos(*pixel, judge, max_pixels=args.max_pixels)

    media = load_media(args.media, **verifier.budget)
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
    import argos  # the module that the teachers import, so that its BadInput is the one they raise
    argos.run_main(argos.main)
