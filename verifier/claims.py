"""Parsing: any string of any size becomes a Parsed, in linear time."""
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field

from verifier.answers import FLAGS, MAX_ANSWER, MAX_THINK, NUMBER_WORDS, TAG, clean, normalise, number, option_list


MAX_POINTS = 64           # points, frame claims and segment claims counted per response, of each kind (our choice)


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
    extracted: bool = False     # the pieces were found by the judge, in free prose

    @property
    def dropped(self):
        """How many malformed, repeated or surplus pieces were left out."""
        return sum(self.dropped_reasons.values())


_THINK = re.compile(r"<(/?)think\s{0,9}>", FLAGS)
_XY = re.compile(r"\b([xy])(\d{1,6})\s{0,9}=\s{0,9}[\"'“”]?([^\"'“”\s<>=]{0,40})", FLAGS)
_ALT = re.compile(r"\balt\s{0,9}=\s{0,9}(?:\"([^\"<>]{0,200})\"|'([^'<>]{0,200})'|[“”]([^“”<>]{0,200})[“”])", FLAGS)
_XY_NUMBER = re.compile(r"-?\d{1,6}(?:\.\d{1,6})?", FLAGS)

_N = r"(\d{1,6}(?:\.\d{1,6})?)(?!\d|\.\d)"  # 12345678 and 1.2.3 are no numbers
_S = rf"{_N}\s{{0,3}}(?:seconds?|secs?|s)\b"
_WHEN = (r"(?:\b(?:in|at)\s{1,3}frame\s{1,3}(\d{1,6})(?!\d|\.\d)"  # groups: frame, its seconds, seconds without a frame
         rf"(?:\s{{0,3}}\(\s{{0,3}}{_S}\s{{0,3}}\)|(?!\s{{0,3}}\())|\bat\s{{1,3}}{_S})")
_PIECES = {
    "tag": rf"<points?\s([^<>]*)>([^<>]*)</points?\s{{0,9}}>(?:\s{{0,3}}{_WHEN})?",
    "pair": rf"\(\s{{0,3}}(-?\d{{1,6}}(?:\.\d{{1,6}})?)\s{{0,3}},\s{{0,3}}(-?{_N})\s{{0,3}}\)\s{{0,3}}{_WHEN}",
    "segment": rf"\bfrom\s{{1,3}}{_N}(?:\s{{0,3}}(?:seconds?|secs?|s))?\s{{1,3}}to\s{{1,3}}{_S}",
    "frame": rf"(?<!\))(?<!\)\s){_WHEN}"}
_GROUPS = {name: re.compile(pattern, FLAGS) for name, pattern in _PIECES.items()}
_ANY_PIECE = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _PIECES.items()), FLAGS)
_STOP = re.compile(r"[.!?;](?=\s|$)|\n")  # where a claim ends; the point in "2.5" does not end one
_BREAK = re.compile(r"[.;:!?](?=\s)|[,\n)>]|\b(?:the|an?|and|or|then|i see)\b", FLAGS)  # where a noun phrase begins
_VERBS = set("is are was were now seen visible located move moves moved stand stands from to at in on".split())
_POINT_WORD = re.compile(r"<points?\b", FLAGS)
_FRAME_WORD = re.compile(r"\b(?:in|at)\s{1,3}frame\b", FLAGS)


def parse(response, media="image", allowed=()):
    """Read a response. Total: never raises on a str; time is linear in its length.

    response: `<think>..</think><answer>..</answer>`; coordinates are pixels of the picture as the policy saw it.
    media: "image" reads point tags; "video" also reads "(x, y) in frame 5 (2.5 seconds)", frame and segment claims.
    allowed: texts that count as an answer although they look like an option list (the options, the truth).
    """
    think, answers, dropped = sections(response)
    parsed = Parsed(think, None)
    parsed.answer, parsed.no_answer = read_answer(answers, allowed)
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
    think = (_ANY_PIECE if media == "video" else _GROUPS["tag"]).sub(write, TAG.sub("", parsed.think))
    return f"<think>{think}</think><answer>{parsed.answer or ''}</answer>"


def sections(text):
    """One pass over the tags -> (reasoning, texts of the answers outside it, Counter of what was malformed)."""
    thinks, outside, answers, dropped = [], [], [], Counter()
    first = _THINK.search(text)
    depth = 1 if first and first[1] else 0  # 1: the prompt has already opened <think>
    mark, opened = 0, False                 # where the present stretch of text began; whether it is an answer
    for tag in TAG.finditer(text):
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


def read_answer(texts, allowed):
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


# Free prose holds claims that no rule reads. A judge may list them as JSON; then it is the judge's text that is not trusted.
_NUMBERS, _MAYBE_INT, _MAYBE_NUMBER = (int, float), (int, type(None)), (int, float, type(None))
_ITEMS = {  # list -> field -> types
    "frame_claims": {"frame": _MAYBE_INT, "seconds": _MAYBE_NUMBER, "claim": (str,)},
    "segment_claims": {"start": _NUMBERS, "end": _NUMBERS, "claim": (str,)},
    "points": {"x": _NUMBERS, "y": _NUMBERS, "label": (str,), "frame": _MAYBE_INT, "seconds": _MAYBE_NUMBER}}


def read_claims(reply, parsed):
    """Add the claims of a judge's JSON reply to `parsed`: {"frame_claims": [..], "segment_claims": [..], "points": [..]}.

    Total. The form must be exact, and nothing is believed that the reasoning does not say: texts must be quoted from it word
    for word (articles and punctuation aside), and numbers must occur in it (2.5, 1:30, three). The rest is dropped and counted.
    """
    dropped = Counter(parsed.dropped_reasons)
    points, frames, segments = (_Kept(n, dropped) for n in ("point", "frame claim", "segment claim"))
    parsed.points, parsed.frame_claims, parsed.segment_claims, parsed.extracted = points, frames, segments, True
    try:
        lists = json.loads(reply[reply.index("{"):reply.rindex("}") + 1][:50_000])
        good = (isinstance(lists, dict) and not lists.keys() - _ITEMS.keys()
                and all(isinstance(items, list) and len(items) <= 4 * MAX_POINTS for items in lists.values()))
    except (ValueError, RecursionError):
        good = False
    if not good:
        lists, dropped["extraction not in the form asked for"] = {}, 1
    think = parsed.think[:MAX_THINK]
    said = f" {normalise(think)} "
    numbers = ({float(n) for n in re.findall(r"\d{1,6}(?:\.\d{1,6})?", think, re.A)} | {NUMBER_WORDS[w] for w in said.split() if w in NUMBER_WORDS}
               | {60 * int(m) + int(s) for m, s in re.findall(r"(\d{1,3}):(\d\d)\b", think, re.A)})
    for name, item in ((name, item) for name, items in lists.items() for item in items):
        form = _ITEMS[name]
        if not (isinstance(item, dict) and item.keys() == form.keys() and all(type(v) in form[k] for k, v in item.items())):
            dropped["extracted claim of the wrong form"] += 1
            continue
        values = [v for v in item.values() if type(v) in (int, float)]
        text = _label(item["label"]) if name == "points" else _claim(clean(item["claim"][:400]))
        if not all(0 <= v < 1e6 for v in values):  # NaN is not
            dropped["extracted number out of range"] += 1
        elif not re.search(r"\w", text) or f" {normalise(text)} " not in said or not numbers.issuperset(values):
            dropped["extracted claim that the response does not make"] += 1
        elif name == "points":
            points.add_point(item["x"], item["y"], text, item["frame"], item["seconds"])
        elif name == "frame_claims":
            frames.add(FrameClaim(item["frame"], item["seconds"], text), item["frame"], item["seconds"], text.lower())
        else:
            segments.add(SegmentClaim(item["start"], item["end"], text), item["start"], item["end"], text.lower())
    parsed.dropped_reasons = dict(+dropped)
