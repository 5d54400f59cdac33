"""What a response says: its answer, and every point and time that its reasoning refers to.

The paper (section 3.1, appendix D) has points, and in clips claims about one frame or about a stretch of time:

    image    <point x1="44" y1="28" alt="red mug">red mug</point>
    video    the red mug is at (44, 28) in frame 5 (2.5 seconds)        a point
             in frame 5 (2.5 seconds) the door opens                    a frame claim
             from 2.5 seconds to 7.0 seconds the man pours water        a segment claim

The paper reads pictures by regular expressions and clips by GPT-4o. Here regular expressions read both, and claims
in free prose are left to a judge (extraction.py). Our choices: which answer counts, what is dropped.

The policy is rewarded by what is read here, so parsing is total: any string of any size becomes a Parsed, in time
linear in its length, and what is malformed, repeated or surplus is dropped and counted, never raised. A point that
cannot be read is counted apart, in Parsed.unreadable: it is a miss (our choice), or a broken tag would be free.

See it: python -m doctest -v verifier/claims.py. Before: answers.py. Next: extraction.py (may be skipped), then
coordinates.py and argos.py, which checks the claims.
"""
import math
import re
from collections import Counter
from dataclasses import dataclass, field

from verifier.answers import FLAGS, MAX_ANSWER, MAX_POINTS, TAG, option_list
from verifier.amounts import number
from verifier.texts import clean, fold, normalise, thing, unmarked


# ---- 1. The result -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Point:
    """x, y: pixels of the picture as the policy saw it. Clips only: frame, from 0; seconds since the start.

    shown: what a reader sees between the tags, where it names another thing than the label (alt), else "". The
    two are compared as texts.thing does: a plural s, articles and case aside, word for word.
    """
    x: float
    y: float
    label: str
    frame: int | None = None
    seconds: float | None = None
    shown: str = ""


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
    unreadable: dict = field(default_factory=dict)       # why -> how many points are misses; MAX_POINTS at most
    dropped_reasons: dict = field(default_factory=dict)  # why -> how many pieces
    no_answer: str = ""
    extracted: bool = False     # the pieces were found by the judge, in free prose

    @property
    def dropped(self):
        """How many malformed, repeated or surplus pieces were left out, unreadable points among them."""
        return sum(self.dropped_reasons.values())

    @property
    def pieces(self):
        """How many points and claims the response makes, readable or not."""
        readable = len(self.points) + len(self.frame_claims) + len(self.segment_claims)
        return readable + sum(self.unreadable.values())


def parse(response, media="image", allowed=()):
    """Read a response. Total: never raises on a str; time is linear in its length.

    response: `<think>..</think><answer>..</answer>`; coordinates: pixels of the picture as the policy saw it.
    media: "image" reads point tags; "video" also "(x, y) in frame 5 (2.5 seconds)", frame and segment claims.
    allowed: texts that count as an answer although they look like an option list (the options, the truth).

    >>> mug = '<point x1="44" y1="28" alt="red mug">red mug</point>'
    >>> parsed = parse(f"<think>I see one {mug}.</think><answer>1</answer>")
    >>> parsed.answer, parsed.points
    ('1', [Point(x=44.0, y=28.0, label='red mug', frame=None, seconds=None, shown='')])
    >>> parsed = parse("<think>From 1 to 2 seconds it falls. In frame 3.</think><answer>A or B</answer>", "video")
    >>> parsed.segment_claims, parsed.dropped_reasons
    ([SegmentClaim(start=1.0, end=2.0, text='it falls')], {'frame claim without text': 1})
    >>> parsed.answer, parsed.no_answer
    (None, 'a list of options instead of an answer')
    """
    think, answers, dropped = sections(response)
    answer, no_answer = read_answer(answers, allowed)
    parsed = Parsed(think, answer, no_answer=no_answer)
    _read_pieces(parsed, media, dropped)
    finish(parsed, dropped)
    return parsed


POINT_REASONS = ("malformed point tag", "coordinate missing or not a number", "point without coordinates",
                 "point without a label", "point outside the reasoning", f"point beyond {MAX_POINTS}")


def finish(parsed, dropped):
    """Note what was dropped, and which of it are points that cannot be read: the first MAX_POINTS are misses."""
    parsed.dropped_reasons = dict(+dropped)  # + leaves out the zeros
    parsed.unreadable = {}
    left = MAX_POINTS
    for reason in POINT_REASONS:
        count = min(left, dropped[reason])
        if count > 0:
            parsed.unreadable[reason] = count
            left -= count


# ---- 2. Reasoning and answer -------------------------------------------------------------------------------
_THINK = re.compile(r"<(?P<slash>/?)think\s{0,9}>", FLAGS)
_LEADS_TO = {"<think>": "think", "</think>": "outside", "<answer>": "answer", "</answer>": "outside"}


def sections(text):
    """One pass over the tags -> (reasoning, texts of the answers outside it, Counter of what was malformed).

    A state machine: three places to be in, and what each tag does there. In brackets: what counts as malformed.

                 <think>                </think>           <answer>                </answer>
        outside  to think               (without <think>)  to answer               (without <answer>)
        think    deeper (nested)        less deep, or out  (inside <think>)        skipped
        answer   to think (not closed)  (without <think>)  to answer (not closed)  out, with one more answer

    >>> sections("<think>two <answer>3</answer> mugs</think> so <answer>2</answer>")
    ('two <answer>3</answer> mugs', ['2'], Counter({'<answer> inside <think>': 1}))
    """
    texts = {"think": [], "outside": [], "answer": []}
    dropped = Counter()
    first = _THINK.search(text)
    place = "think" if first and first["slash"] else "outside"  # </think> comes first: the prompt has opened it
    depth = 1  # of nested <think>
    start = 0  # where the present stretch of text began
    for match in TAG.finditer(text):
        tag = f"<{match['slash']}{match['name'].lower()}>"
        if tag == "</think>" and place != "think":
            dropped["</think> without <think>"] += 1
        elif tag == "</answer>" and place == "outside":
            dropped["</answer> without <answer>"] += 1
        elif tag == "<think>" and place == "think":
            dropped["nested <think>"] += 1
            depth += 1
        elif tag == "</think>" and depth > 1:
            depth -= 1
        elif tag != "</think>" and place == "think":
            dropped["<answer> inside <think>"] += 1 if tag == "<answer>" else 0  # once for the pair
        else:  # a border: one stretch ends, the next begins
            if place == "answer" and tag != "</answer>":
                dropped["<answer> not closed"] += 1
            else:
                texts[place].append(text[start:match.start()])
            place = _LEADS_TO[tag]
            start = match.end()
    if place != "outside":
        dropped[f"<{place}> not closed"] += 1
    if place != "answer":
        texts[place].append(text[start:])
    reasoning = texts["think"] if first else texts["outside"]
    misplaced = len(_POINT_WORD.findall(fold("\n".join(texts["outside"])))) if first else 0
    if misplaced:
        dropped["point outside the reasoning"] = misplaced
    return "\n".join(reasoning).strip(), texts["answer"], dropped


def read_answer(texts, allowed):
    r"""-> (answer or None, why not). The last one counts, unless they differ, are empty, or list options.

    allowed: texts that count although they look like a list of options.

    >>> read_answer(["two", r" \boxed{2} "], allowed=()), read_answer(["2", "3"], allowed=())
    (('\\boxed{2}', ''), (None, 'several differing answers'))
    >>> read_answer([" "], allowed=()), read_answer(["red or blue"], allowed=())
    ((None, 'an empty answer'), (None, 'a list of options instead of an answer'))
    """
    if not texts:
        return None, "no <answer> outside <think>"
    texts = list(dict.fromkeys(texts))  # without repeats
    if len(texts) > 8:
        return None, "several differing answers"
    if max(map(len, texts)) > MAX_ANSWER:
        return None, f"an answer of more than {MAX_ANSWER} characters"
    answers = [" ".join(clean(text).split()) for text in texts]
    # BEGIN SOLUTION ex4
    if not all(unmarked(answer) for answer in answers):
        return None, "an empty answer"
    if len({_meaning(answer) for answer in answers}) > 1:
        return None, "several differing answers"
    last = answers[-1]
    if option_list(last) and normalise(last) not in [normalise(str(text)) for text in allowed]:
        return None, "a list of options instead of an answer"
    return last, ""
    # END SOLUTION


def _meaning(answer):
    """What two spellings of one answer share: its number, where it is one, else its normalised text."""
    value_and_unit = number(answer)
    return value_and_unit[0] if value_and_unit else normalise(answer)


# ---- 3. The formats of points and claims -------------------------------------------------------------------
# Every quantifier is bounded or cannot cross the next "<", so no input makes a pattern backtrack far.
_GAP, _SPACE = r"\s{0,3}", r"\s{1,3}"
_DECIMAL = r"\d{1,6}(?:\.\d{1,6})?"
_END = r"(?!\d|\.\d)"  # of a number: 12345678 and 1.2.3 are none
_SECONDS = rf"{_GAP}(?:seconds?|secs?|s)\b"


def _moment_pattern(kind):
    """"in frame 5 (2.5 seconds)": groups kind_frame, kind_seconds. "at 2.5 s": group kind_alone."""
    frame = rf"\b(?:in|at|on){_SPACE}frame{_SPACE}(?P<{kind}_frame>\d{{1,6}}){_END}"
    seconds = rf"{_GAP}\({_GAP}(?P<{kind}_seconds>{_DECIMAL}){_END}{_SECONDS}{_GAP}\)"
    alone = rf"\bat{_SPACE}(?P<{kind}_alone>{_DECIMAL}){_END}{_SECONDS}"
    return rf"(?:{frame}(?:{seconds}|(?!{_GAP}\())|{alone})"  # "in frame 5 (NaN seconds)" is no moment


_TAG_PIECE = (   # <point x1="4" y1="8" alt="red mug">red mug</point>, in a clip with a moment behind it
    r"(?P<tag><points?\s(?P<attributes>[^<>]*)(?:/>|>(?P<inner>[^<>]*)</points?\s{0,9}>)"
    rf"(?:{_GAP}{_moment_pattern('tag')})?)")
_PAIR_PIECE = (  # (4, 8) in frame 5 (2.5 seconds)
    rf"(?P<pair>\({_GAP}(?P<x>-?{_DECIMAL}){_GAP},{_GAP}(?P<y>-?{_DECIMAL}){_END}{_GAP}\)"
    rf",?{_GAP}{_moment_pattern('pair')})")
_SEGMENT_PIECE = (  # from 2.5 to 7 seconds
    rf"(?P<segment>\bfrom{_SPACE}(?P<start>{_DECIMAL}){_END}(?:{_SECONDS})?"
    rf"{_SPACE}to{_SPACE}(?P<end>{_DECIMAL}){_END}{_SECONDS})")
_FRAME_PIECE = (  # in frame 5 (2.5 seconds); not behind a bracket, as in "(NaN, 8) in frame 5"
    rf"(?P<frame>(?<!\))(?<!\)\s)(?<!\),\s){_moment_pattern('frame')})")
_IMAGE_PIECES = re.compile(_TAG_PIECE, FLAGS)  # match.lastgroup tells which piece it is
_VIDEO_PIECES = re.compile(f"{_TAG_PIECE}|{_PAIR_PIECE}|{_SEGMENT_PIECE}|{_FRAME_PIECE}", FLAGS)

_XY = re.compile(  # x1="44": groups x, 1, 44; Molmo writes a single point as x="44"
    r"\b([xy])(\d{0,6})\s{0,9}=\s{0,9}[\"'“”]?([^\"'“”\s<>=]{0,40})", FLAGS)
_XY_NUMBER = re.compile(r"([-+]?(?:\d{1,6}(?:\.\d{0,6})?|\.\d{1,6}))(?:px)?", FLAGS)
_ALT = re.compile(  # alt="red mug": one group, the text in whichever quotes
    r"\balt\s{0,9}=\s{0,9}(?:\"([^\"<>]{0,200})\"|'([^'<>]{0,200})'|[“”]([^“”<>]{0,200})[“”])", FLAGS)
# What looks like a point to a reader, and is malformed where no piece holds it: "< point", "&lt;point", "<point1",
# "</point x1=". A closing tag is none. Read in folded text, where "＜point" and a hidden space are plain.
_POINT_WORD = re.compile(
    r"(?:<|&lt;)\s{0,3}(?!/\s{0,3}points?\s{0,9}(?:>|&gt;))/?\s{0,3}points?(?:(?![a-z])|(?=x\d))", FLAGS)
_FRAME_WORD = re.compile(r"\b(?:in|at|on)\s{1,3}frame\b", FLAGS)  # the same for frames
_FRAME_NUMBER = re.compile(r"\bframe\s{1,3}\d{1,6}", FLAGS)
_COORDINATE = r"(?:[xy]\s{0,2}[:=]\s{0,2})?(?:[-+]?[\d.]{1,14}(?:px)?|nan|[-+]?inf(?:inity)?|none|null|[xy?])"
_PAIR_WORD = re.compile(  # and for pairs: "(NaN, 8) in frame 5", "(10; 20) in frame 5", "(10, 20) frame 5"
    rf"\(\s{{0,3}}{_COORDINATE}(?:\s{{0,3}}[,;]\s{{0,3}}{_COORDINATE}|\s{{1,3}}{_COORDINATE}){{1,3}}\s{{0,3}}\)"
    r"\s{0,3},?\s{0,3}(?:(?:in|at|on)\s{1,3})?frame\b", FLAGS)
_STOP = re.compile(r"[.!?;](?=\s|$)|\n")  # where a claim ends; the point in "2.5" does not end one
_BREAK = re.compile(  # where a noun phrase begins: "I see a man, the | tall woman is at (4, 8)"
    r"[.;:!?](?=\s)|[,\n)>]|\b(?:the|an?|and|or|then|i see|(?:in|at)\s{1,3}frame\s{1,3}\d{1,6})\b", FLAGS)
_VERBS = set("is are was were now seen visible located still here there move moves moved stand stands from to at "
             "in on and then".split())
_NAMES_NOTHING = set(  # words that are no label, and leave room for one elsewhere in the sentence
    "i see it they he she this that which its a an the first second third next finally later now also first "
    "look at".split())
_ENDS_THE_TALK = set(  # what begins another thought: "(4, 8) in frame 3, so the answer is 2"
    "so therefore thus hence because since but however nothing something everything clearly".split())
_VERBS_BEHIND = _VERBS | set(  # where the noun phrase behind a point ends: "(4, 8) in frame 3 the cat | jumps"
    """has have shows show can could will appears appear leaves leave changes change becomes become turns
    turn goes go comes come stays stay starts start stops stop begins begin opens open closes close
    falls fall rises rise drops drop jumps jump walks walk runs run sits sit lies lie holds hold picks
    pick puts put takes take pours pour cuts cut eats eat drinks drink throws throw catches catch hits
    hit looks look plays play rides ride pushes push pulls pull with of by near next which that who
    while when as""".split())


# ---- 4. Reading them ---------------------------------------------------------------------------------------
class Collector:
    """Fills the lists of a Parsed: each piece once, MAX_POINTS of a kind; counts in `dropped` what is left out."""

    def __init__(self, parsed, dropped):
        self.parsed, self.dropped = parsed, dropped
        self.seen = set()
        parsed.points, parsed.frame_claims, parsed.segment_claims = [], [], []

    def add_point(self, x, y, label, frame=None, seconds=None, shown=""):
        """The same label on the same pixel of the same frame is the same point."""
        if not label:
            self.dropped["point without a label"] += 1
            return
        point = Point(float(x), float(y), label, frame, seconds, shown)
        pixel = math.floor(point.x), math.floor(point.y)
        self._add("point", self.parsed.points, point, (pixel, thing(label), frame, seconds, thing(shown)))

    def add_frame_claim(self, frame, seconds, text):
        claim = FrameClaim(frame, seconds, text)
        self._add("frame claim", self.parsed.frame_claims, claim, (frame, seconds, text.lower()))

    def add_segment_claim(self, start, end, text):
        claim = SegmentClaim(start, end, text)
        self._add("segment claim", self.parsed.segment_claims, claim, (start, end, text.lower()))

    def _add(self, kind, pieces, piece, key):
        if (kind, key) in self.seen:
            self.dropped[f"repeated {kind}"] += 1
            return
        self.seen.add((kind, key))
        if len(pieces) == MAX_POINTS:
            self.dropped[f"{kind} beyond {MAX_POINTS}"] += 1
        else:
            pieces.append(piece)


def _read_pieces(parsed, media, dropped):
    """Fill points, frame_claims and segment_claims from the reasoning; pictures have point tags only."""
    text, video = parsed.think, media == "video"
    collector = Collector(parsed, dropped)
    pieces = list((_VIDEO_PIECES if video else _IMAGE_PIECES).finditer(text))
    kinds = [piece.lastgroup for piece in pieces]
    ends = [0] + [piece.end() for piece in pieces]          # where the piece before ended
    starts = [piece.start() for piece in pieces] + [len(text)]
    claim_starts = [piece.start() for piece in pieces if piece.lastgroup in ("segment", "frame")]
    next_claims = iter(claim_starts[1:] + [len(text)])
    taken = 0    # the text before this position belongs to the claim before
    pair = None  # the pair before, whose label may go on
    for i, (kind, piece) in enumerate(zip(kinds, pieces)):
        if kind == "tag":
            frame, seconds = _moment(piece) if video else (None, None)
            _add_tag(collector, piece["attributes"], piece["inner"] or "", frame, seconds)
        elif kind == "pair":
            pair = _label_of(text, ends[i], piece, starts[i + 1], pair)
            collector.add_point(piece["x"], piece["y"], pair.label, *_moment(piece))
        else:
            words, taken = _claim_words(text, piece, taken, next(next_claims))
            if words and kind == "frame":
                collector.add_frame_claim(*_moment(piece), words)
            elif words:
                collector.add_segment_claim(float(piece["start"]), float(piece["end"]), words)
            elif kind == "segment" or piece["frame_frame"]:  # a bare "at 2.5 seconds." is prose
                dropped[f"{kind} claim without text"] += 1
    dropped["malformed point tag"] += len(_POINT_WORD.findall(fold(text))) - kinds.count("tag")
    if video:
        named = sum(len(_FRAME_WORD.findall(piece[0])) for piece in pieces)
        read = sum(len(_PAIR_WORD.findall(piece[0])) for piece in pieces)
        broken_pairs = len(_PAIR_WORD.findall(text)) - read  # "(NaN, 8) in frame 5"
        dropped["malformed frame reference"] += len(_FRAME_WORD.findall(text)) - named - broken_pairs
        dropped["coordinate missing or not a number"] += broken_pairs


def _add_tag(collector, attributes, inner, frame, seconds):
    label, shown, found = _read_tag(attributes, inner)
    for x, y in found:
        x_number, y_number = _XY_NUMBER.fullmatch(x), _XY_NUMBER.fullmatch(y)
        if x_number and y_number:
            collector.add_point(x_number[1], y_number[1], label, frame, seconds, shown)
        else:
            collector.dropped["coordinate missing or not a number"] += 1
    if not found:
        collector.dropped["point without coordinates"] += 1


def _read_tag(attributes, inner):
    """<point x1=.. y1=.. x2=.. y2=.. alt="label">inner</point> -> (label, shown, [(x, y) as text]).

    alt is the label. shown: the inner text, where it names something else; "" where it does not, or is missing.
    All of the inner text is compared, not only the part that a label keeps: blanks must not hide the rest of it.
    """
    label, shown = trim_label(inner), ""
    alt = _ALT.search(attributes)
    if alt:  # coordinates written inside alt are text, not coordinates
        label = trim_label(alt[alt.lastindex]) or label
        says_something = re.search(r"\w", inner)
        if says_something and thing(inner) != thing(label):
            shown = trim_label(inner) or normalise(inner)[:80]
        attributes = attributes[:alt.start()] + " " + attributes[alt.end():]
    found = {}  # index -> {"x": text, "y": text}; what comes first counts
    for axis, index, value in _XY.findall(attributes):
        found.setdefault(int(index or 1), {}).setdefault(axis.lower(), value)
    return label, shown, [(point.get("x", ""), point.get("y", "")) for point in found.values()]


def _moment(piece):
    """The (frame, seconds) of a tag, pair or frame; None for what it does not say."""
    kind = piece.lastgroup
    frame = piece[f"{kind}_frame"]
    seconds = piece[f"{kind}_seconds"] or piece[f"{kind}_alone"]
    frame = int(frame) if frame else None
    seconds = float(seconds) if seconds else None
    return frame, seconds


def _claim_words(text, piece, taken, next_claim):
    """What is claimed of a frame or segment -> (its words, the position up to which the text is used up).

    "In frame 5 the door is open." The words stand behind it, up to the end of the sentence or the next claim.
    "The door is open in frame 5." If there are none behind a frame, they stand before it.
    """
    behind = text[piece.end():min(next_claim, piece.end() + 400)]
    sentence = _STOP.split(behind, maxsplit=1)[0]
    words = trim_claim(sentence)
    if not words and piece["frame_frame"]:
        before = text[max(taken, piece.start() - 400):piece.start()]
        words = trim_claim(_STOP.split(before)[-1])
    return words, piece.end() + len(sentence)


@dataclass
class _Pair:
    """A pair with its label, for the pair that follows it."""
    label: str
    end: int      # where it ends in the text
    behind: bool  # the label stands behind it


def _label_of(text, begin, piece, end, last):
    """The label of "(x, y) in frame 5 (2.5 seconds)" -> _Pair.

        the cat is at (4, 8) in frame 3 (1.5 seconds)                    before it
        (4, 8) in frame 3 (1.5 seconds) the cat jumps                    behind it, if no word stands before it
        the cat moves from (4, 8) in frame 3 to (9, 8) in frame 4        the last pair's, if nothing new is named

    begin, end: where the piece before ended, and where the next begins. last: the pair before, or None.
    """
    between = _STOP.split(text[max(begin, piece.start() - 120):piece.start()])[-1]
    between = _FRAME_NUMBER.split(between)[-1]
    same_sentence = last and not _STOP.search(text, last.end, piece.start())
    before = _noun_before(between)
    following, *next_sentence = _STOP.split(text[piece.end():min(end, piece.end() + 120)], maxsplit=1)
    leads_on = not next_sentence and following.split()[-1:] in (["at"], ["is"], ["are"])
    behind = "" if leads_on else _noun_behind(following)  # not "the dog is at (9, 8)": the next pair's
    bare = [word.strip(" ,:()").lower() for word in between.split()]
    nothing_new = all(word in _VERBS or word in _NAMES_NOTHING or not word for word in bare)
    if same_sentence and last.behind and behind:
        return _Pair(behind, piece.end(), True)
    if before:
        return _Pair(before, piece.end(), False)
    if same_sentence and nothing_new and last.label:
        return _Pair(last.label, piece.end(), last.behind)
    if nothing_new:
        return _Pair(behind, piece.end(), True)
    return _Pair("", piece.end(), False)


def _noun_before(words):
    """"I see a man, the tall woman is at" -> "tall woman": what stands before a trailing verb, up to a break."""
    words = words.split()
    while words and words[-1].strip(",:").lower() in _VERBS | {""}:
        words.pop()
    words = " ".join(words).rstrip(",: ")
    for found in _BREAK.finditer(words):
        label = words[found.end():]
    if not _BREAK.search(words):
        label = words
    label = trim_label(label)
    return "" if label.lower() in _NAMES_NOTHING else label


def _noun_behind(words):
    """" the cat jumps" -> "cat": the words up to a verb or a break."""
    label = []
    for word in words.split():
        bare = word.strip(",:()<>-").lower()
        no_part = bare in _VERBS_BEHIND or bare in _NAMES_NOTHING or not bare
        if not label and bare in _ENDS_THE_TALK:
            break
        if not label and no_part:
            continue
        if no_part or bare in ("or", "then") or word[0] in "(<":
            break
        label.append(word)
        if word[-1] in ",:)>":
            break
    return trim_label(" ".join(label))


def trim_label(text):
    """The words of a label without articles and punctuation around them, at most 80 characters.

    >>> trim_label(" the red mug. ")
    'red mug'
    """
    words = " ".join(clean(text).split())[:300].strip(" .,;:!?\"'“”*_").split()
    while len(words) > 1 and words[0].lower() in ("a", "an", "the", "and", "or", "then"):
        words = words[1:]
    return " ".join(words)[:80].strip()


def trim_claim(text):
    """The words of a claim without tags, punctuation around and a conjunction at the end; at most 300 characters.

    >>> trim_claim(', the <point x1="4" y1="8">mug</point> falls, and')
    'the mug falls'
    """
    words = clean(re.sub(r"<[^<>]*(?:>|$)", "", text)).strip(" ,:-").split()
    while words and words[-1].lower() in ("and", "then", "but"):
        words.pop()
    return " ".join(words)[:300].rstrip(" ,")


# ---- 5. Writing them ---------------------------------------------------------------------------------------
def canonical(response, media="image"):
    """The response with points and times in the one form shown at the top: what SFT learns from (paper 4.3).

    >>> canonical("<think>The dog ( 1,2 ) at frame 5 (2.50 s).</think> So: <answer> yes </answer>", "video")
    '<think>The dog (1, 2) in frame 5 (2.5 seconds).</think><answer>yes</answer>'
    """
    parsed = parse(response, media)
    pieces = _VIDEO_PIECES if media == "video" else _IMAGE_PIECES
    think = pieces.sub(_rewrite, TAG.sub("", parsed.think))
    return f"<think>{think}</think><answer>{parsed.answer or ''}</answer>"


def _rewrite(piece):
    kind = piece.lastgroup
    if kind == "tag":
        label, shown, found = _read_tag(piece["attributes"], piece["inner"] or "")
        label = label.replace('"', "'")  # it goes into quotes
        pairs = " ".join(f'x{i}="{x}" y{i}="{y}"' for i, (x, y) in enumerate(found, start=1))
        text = f'<point {pairs} alt="{label}">{shown or label}</point> {_write_moment(piece)}'.rstrip()
    elif kind == "pair":
        text = f"({piece['x']}, {piece['y']}) {_write_moment(piece)}"
    elif kind == "segment":
        text = f"from {float(piece['start']):.1f} seconds to {float(piece['end']):.1f} seconds"
    else:
        text = _write_moment(piece)
    if piece[0][0].isupper():  # "In frame 5": a sentence begins
        text = text[0].upper() + text[1:]
    return text


def _write_moment(piece):
    frame, seconds = _moment(piece)
    if frame is not None and seconds is not None:
        return f"in frame {frame} ({seconds:.1f} seconds)"
    if frame is not None:
        return f"in frame {frame}"
    return "" if seconds is None else f"at {seconds:.1f} seconds"
