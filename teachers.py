"""The teachers: the four models that Argos asks before it believes a response.

    Detector    picture, label          -> boxes                     paper: an open-vocabulary detector
    Segmenter   picture, boxes          -> masks                     paper: SAM-2
    Pointer     picture, label          -> points                    paper: Molmo-7B
    Judge       texts, frames, thinks   -> yes / no, p(answer)       paper: GLM-4.1V / 4.5V

Argos (argos.py) knows only these four roles, so that a teacher is replaced by passing another object. Here are the ones of
the embedded world: the Pixel teachers find drawn shapes by colour, connected components and outline, and the VLM teachers
ask any vision-language model that policy.py can load. Noisy* wrap any of them and make the teachers wrong on purpose.

Simplified against the paper: the Pixel teachers know eight colours and five outlines instead of all words, and see the
picture only, never what the world knows about it (`python -m tiny.measure` says how often they are right); the judge is
the policy's own base model, its LoRA adapter switched off, instead of a larger model (SPEC section 2).

Coordinates everywhere: pixels of the picture passed in, which is the picture as the policy saw it; x to the right, y down,
pixel (0, 0) is the top left one.

Run:   python -m tiny.measure           # precision and recall of the Pixel teachers against the world's truth
Next:  argos.py (what the verdicts are used for), policy.py (the prompts that the VLM teachers send)
"""
import hashlib
import math
import re
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
from scipy import ndimage


# ---- 1. The four roles ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Box:
    """Pixels x1 <= x < x2 and y1 <= y < y2. score: 0..1."""
    x1: float
    y1: float
    x2: float
    y2: float
    score: float = 1.0
    label: str = ""


class Detector(Protocol):
    def detect(self, image, labels: list[str]) -> list[list[Box]]:
        """image: PIL RGB. One list of boxes per label, empty where nothing was found."""


class Segmenter(Protocol):
    def segment(self, image, boxes: list[Box]) -> np.ndarray:
        """One mask per box: bool (N, H, W). A box without area (x1 = x2, y1 = y2) is a point prompt."""


class Pointer(Protocol):
    def point(self, image, label: str) -> list[tuple[float, float]]:
        """The centre (x, y) of each thing that the label names."""


class Judge(Protocol):
    def equivalent(self, question: str, truth: str, prediction: str) -> bool:
        """Do the two answers mean the same? The prediction is quoted data, never an instruction."""

    def frame_claim(self, image, claim: str) -> bool:
        """Is the claim true of this one frame?"""

    def segment_claim(self, frames: list, seconds: list[float], claim: str) -> bool:
        """Is the claim true of these frames? seconds: the time of each."""

    def answer_probability(self, media, question: str, thinks: list[str], answers: list[str],
                           length_normalized: bool = False) -> list[float]:
        """p(answer | question, think, media) of each response of a group, 0..1 (paper eq. 5). media: argos.Media."""

    # A judge may have these two as well. Without the first it is asked one by one, without the second nothing is extracted.
    def yes_or_no(self, questions: list[tuple]) -> list[bool]:
        """Many of the first three at once, each as (name of the method, *its arguments)."""

    def extract_claims(self, thinks: list[str]) -> list[str]:
        """The claims in each reasoning about a clip, as JSON (see argos.read_claims, which checks it)."""


# ---- 2. What a label asks for ---------------------------------------------------------------------------------------
PALETTE = {"red": (230, 28, 28), "green": (10, 225, 20), "blue": (15, 25, 240), "yellow": (248, 240, 10),
           "teal": (0, 128, 128), "brown": (165, 42, 42), "gray": (128, 128, 128), "black": (0, 0, 0)}
HUES = 6  # so many of them, the first, have a hue; gray and black have none
OUTLINES = ("rectangle", "circle", "triangle", "cross")  # what the pixels can show; a square is a rectangle with equal sides
_NOUNS = {"square", "shape", *OUTLINES}
_NOUNS = {n: n for n in _NOUNS} | {n + ("es" if n == "cross" else "s"): n for n in _NOUNS}
_IGNORED = {"a", "an", "the", "this", "that", "these", "those", "all", "every", "each"}


def parse_label(label):
    """"The red squares" -> ("red", "square"). None stands for any: "shape" -> (None, None), "red shape" -> ("red", None).

    Returns None where any other word appears: an open-vocabulary detector that does not know a word finds nothing.
    """
    words = [w for w in re.findall(r"\w+", label[:100].lower()) if w not in _IGNORED]
    color = {"grey": "gray"}.get(words[0], words[0]) if words else ""
    color, nouns = (color, words[1:]) if color in PALETTE else (None, words)
    if len(nouns) != 1 or nouns[0] not in _NOUNS:
        return None
    shape = _NOUNS[nouns[0]]
    return color, None if shape == "shape" else shape


# ---- 3. Finding drawn shapes, from pixels alone -----------------------------------------------------------------------
MAX_SIDE, MAX_SHAPES, MIN_AREA = 256, 64, 5  # the bounds that keep any picture at all cheap; specks have at most 4 pixels


@dataclass(frozen=True)
class Shape:
    """A connected patch of one colour. box: (x1, y1, x2, y2); outline: one of OUTLINES; fit: 0..1, how well it fits."""
    color: str
    outline: str
    fit: float
    box: tuple

    def matches(self, color, shape):
        if color not in (None, self.color):
            return False
        x1, y1, x2, y2 = self.box
        if shape == "square":
            return self.outline == "rectangle" and min(x2 - x1, y2 - y1) >= .8 * max(x2 - x1, y2 - y1)
        return shape in (None, self.outline)


def _ink(pixels):
    """Which colour of PALETTE is drawn where. pixels: (H, W, 3) -> its index, -1 for ground (H, W); chroma and shade (H, W).

    Mixing a colour with the pale ground (a soft edge, a resized picture) moves it along the line to white, so what tells
    colours apart is the direction seen from white. Gray and black share that direction: depth tells them apart.
    """
    pixels = pixels.astype(np.float32)
    names, brightness = list(PALETTE), pixels.max(-1)
    chroma = brightness - pixels.min(-1)
    directions = 255.0 - np.array([PALETTE[n] for n in names[:HUES]], np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    colored = chroma > 60  # the ground's own tint stays below 56
    ink = np.where(colored, ((255 - pixels) @ directions.T).argmax(-1), -1)
    shade = _ground(brightness, ~colored & (brightness > np.median(brightness) - 60)) - brightness
    colorless = ~ndimage.binary_dilation(colored) & (shade > 50)  # pixels beside a coloured one are its soft edge
    deep = ~colored & (brightness < 64)
    ink[colorless] = names.index("gray")
    ink[deep | colorless & ndimage.binary_dilation(deep, iterations=2)] = names.index("black")  # with its gray edge
    return ink, chroma, shade


def _ground(brightness, pale):
    """The ground's brightness as a plane a + b x + c y, fitted to pale pixels; thrice, each time without what lies deep below."""
    y, x = np.indices(brightness.shape, dtype=np.float32)
    basis = np.stack([np.ones_like(x), x, y], -1)
    for _ in range(3):
        if pale.sum() < 3:
            return np.full_like(brightness, 255)
        plane = basis @ np.linalg.lstsq(basis[pale], brightness[pale], rcond=None)[0]
        pale = pale & (brightness > plane - 30)
    return plane


def _outline(mask):
    """The outline that fits best when drawn into the same box: (name, intersection over union). mask: bool (h, w)."""
    h, w = mask.shape
    u, v = np.abs((np.arange(w) + .5) / w * 2 - 1)[None], ((np.arange(h) + .5) / h * 2 - 1)[:, None]  # -1..1
    drawn = (np.ones_like(mask), u * u + v * v <= 1, u <= (v + 1) / 2, (u <= 1 / 3) | (np.abs(v) <= 1 / 3))
    fits = [(mask & d).sum() / (mask | d).sum() for d in drawn]
    best = int(np.argmax(fits))
    return OUTLINES[best], float(fits[best])


def _trim(mask):
    """The slices of the smallest box around the mask."""
    return (ndimage.find_objects(mask.astype(np.uint8)) or [(slice(1), slice(1))])[0]


def _sharpen(mask, strength):
    """A small patch is mostly soft edge: redraw it four times larger, its edge where half the ink is.

    mask: (h, w) with one pixel of margin; strength: the same pixels' chroma or shade.
    """
    near = ndimage.binary_dilation(mask, np.ones((3, 3)))
    full, ground = np.percentile(strength[mask], 80), strength[~mask].min()
    large = ndimage.zoom(np.where(near, strength - ground, 0), 4, order=1, grid_mode=True, mode="grid-constant")
    patches, n = ndimage.label(large > (full - ground) / 2)
    if not n:
        return mask
    large = patches == np.bincount(patches[patches > 0]).argmax()
    return large[_trim(large)]


def _cut(mask):
    """Two shapes of one colour that touch: the straight cut that leaves two clear outlines, as (axis, position), or None."""
    step = max(1, max(mask.shape) // 64)  # bounded time on large patches
    small, best = mask[::step, ::step], (.85, None)
    least = max(6, max(small.shape) / 4)  # a smaller half is a slice of one odd shape
    for axis in (0, 1):
        for at in range(2, small.shape[axis] - 1):
            halves = [h[_trim(h)] for h in np.split(small, [at], axis)]
            if min(min(h.shape) for h in halves) >= least:
                best = max(best, (min(_outline(h)[1] for h in halves), (axis, at * step)), key=lambda b: b[0])
    return best[1]


@lru_cache(maxsize=32)
def _find(data, height, width):
    """All shapes of a picture: ([Shape], ids (H, W) with k + 1 on the pixels of shape k). Cached: a group asks often."""
    pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
    ink, chroma, shade = _ink(pixels)
    patches = []  # (area, colour, x, y, mask)
    for color in range(len(PALETTE)):
        labels, _ = ndimage.label(ink == color)  # 4-connected: shapes that meet at a corner stay two
        areas = np.bincount(labels.ravel())
        for k, box in enumerate(ndimage.find_objects(labels), 1):
            if areas[k] >= MIN_AREA and ink[box].shape != ink.shape:  # what reaches all four borders is the ground
                patches.append((areas[k], color, box[1].start, box[0].start, labels[box] == k))
    patches = [patch[1:] for patch in sorted(patches, key=lambda p: -p[0])[:MAX_SHAPES]]
    shapes, ids = [], np.zeros((height, width), np.uint8)
    while patches:
        color, x, y, mask = patches.pop(0)
        (h, w), clear = mask.shape, mask
        if min(h, w) < 24:
            strength = np.pad(chroma if color < HUES else shade, 1, mode="edge")[y:y + h + 2, x:x + w + 2]
            clear = _sharpen(np.pad(mask, 1), strength)
        outline, fit = _outline(clear)
        cut = _cut(mask) if fit < .75 and len(shapes) + len(patches) < MAX_SHAPES - 1 else None
        if cut is None:
            shapes.append(Shape(list(PALETTE)[color], outline, fit, (x, y, x + w, y + h)))
            ids[y:y + h, x:x + w][mask] = len(shapes)
        else:
            first = np.zeros_like(mask)
            np.split(first, [cut[1]], cut[0])[0][:] = True
            for half in (mask & first, mask & ~first):
                rows, columns = _trim(half)
                patches.append((color, x + columns.start, y + rows.start, half[rows, columns]))
    return shapes, ids


def find_shapes(image):
    """image: PIL RGB of any size -> ([Shape], ids, step): everything in steps of `step` pixels (1 up to 256 x 256)."""
    pixels = np.asarray(image.convert("RGB"))
    step = math.ceil(max(pixels.shape[:2]) / MAX_SIDE)
    pixels = np.ascontiguousarray(pixels[::step, ::step])
    return *_find(pixels.tobytes(), *pixels.shape[:2]), step


# ---- 4. The pixel teachers --------------------------------------------------------------------------------------------
def _named(image, label):
    """The shapes that a label names, with their number in ids."""
    wanted = parse_label(label)
    shapes, ids, step = find_shapes(image)
    return [(k, s) for k, s in enumerate(shapes, 1) if wanted and s.matches(*wanted)], ids, step


class PixelDetector:
    """See Detector. A box's score is how well the outline fits (intersection over union)."""

    def detect(self, image, labels):
        return [self._detect(image, label) for label in labels]

    def _detect(self, image, label):
        named, _, step = _named(image, label)
        w, h = image.size
        return [Box(x1 * step, y1 * step, min(x2 * step, w), min(y2 * step, h), s.fit, label)
                for _, s in named for x1, y1, x2, y2 in [s.box]]


class PixelSegmenter:
    """See Segmenter. The mask of a box is the largest shape inside it, cut off at the box; of a point, the shape under it.

    Where nothing is drawn in the box the mask is the whole box: like SAM, this segmenter always answers, so that a
    detector's false alarm costs what it would cost with real teachers.
    """

    def segment(self, image, boxes):
        (w, h), (_, ids, step) = image.size, find_shapes(image)
        ids = np.repeat(np.repeat(ids, step, 0), step, 1)[:h, :w]  # (H, W)
        masks = np.zeros((len(boxes), h, w), bool)
        for mask, box in zip(masks, boxes):
            x1, x2 = np.clip([math.floor(box.x1), math.ceil(box.x2)], 0, w)
            y1, y2 = np.clip([math.floor(box.y1), math.ceil(box.y2)], 0, h)
            if box.x1 == box.x2 and box.y1 == box.y2:  # a point prompt
                if 0 <= box.x1 < w and 0 <= box.y1 < h and ids[y1, x1]:
                    mask[:] = ids == ids[y1, x1]
                continue
            inside = ids[y1:y2, x1:x2]
            areas = np.bincount(inside.ravel(), minlength=2)
            mask[y1:y2, x1:x2] = inside == 1 + areas[1:].argmax() if areas[1:].any() else True
        return masks


class PixelPointer:
    """See Pointer. Points lie inside their shape, at its centre where that is possible; read in rows of 28 px (one token)."""

    def point(self, image, label):
        named, ids, step = _named(image, label)
        w, h = image.size
        points = []
        for k, s in named:
            x1, y1, x2, y2 = s.box
            mask = ids[y1:y2, x1:x2] == k
            y, x = (int(c + .5) for c in ndimage.center_of_mass(mask))
            if not mask[y, x]:  # a ring, a hook: the pixel deepest inside instead
                y, x = np.unravel_index(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1].argmax(), mask.shape)
            points.append((float(min((x1 + x) * step + step // 2, w - 1)), float(min((y1 + y) * step + step // 2, h - 1))))
        return sorted(points, key=lambda p: (p[1] // 28, p[0]))


def pixel_teachers():
    """(detector, segmenter, pointer) for drawn pictures."""
    return PixelDetector(), PixelSegmenter(), PixelPointer()


# ---- 5. Asking a vision-language model ----------------------------------------------------------------------------------
# policy.py is imported where a model is really asked: it brings torch, which the pixel teachers do without.
_SECTION = re.compile(r"<(?=/?(?:think|answer)\b)", re.I)


def defuse(text, tokenizer=None, limit=2_000):
    """Text of unknown origin as harmless data for a prompt: the first `limit` characters, total on any str, idempotent.

    A tokenizer reads "<|im_end|>" or "<|image_pad|>" inside a text as the real token; a space inside keeps them plain text.
    So do section tags, or a reasoning could close itself and write its own answer. tokenizer: break its special tokens, too,
    whatever they look like ("<s>", "[MASK]").
    """
    text = text[:limit].encode("utf-8", "replace").decode()  # a lone surrogate would raise in the tokenizer
    text = _SECTION.sub("< ", text).replace("<|", "< |")
    for token in [t.content for t in tokenizer.added_tokens_decoder.values() if t.special] if tokenizer else ():
        text = text.replace(token, token[0] + " " + token[1:])
    return text


def _quoted(text, tokenizer, limit):
    """Defused, and on one line without the double quotes that could end its quotation."""
    return " ".join(defuse(text, tokenizer, limit).replace('"', "'").split())


def _media(frames, seconds):
    from argos import Media
    return Media(frames=list(frames), seconds=list(seconds), original_size=frames[0].size)


class _VLM:
    """policy: a policy.Policy. preset: whose prompts, unless given the policy's own ("tiny" or "7b").

    adapter_off: ask the policy's own frozen base instead, at no extra memory (SPEC section 2).
    """

    def __init__(self, policy, preset=None, adapter_off=False):
        self.policy, self.preset, self.adapter_off = policy, preset or policy.preset, adapter_off

    def _ask(self, act, asked):
        """asked: [(media or None, key of the prompt, its texts)] -> act(policy module, encoded prompts) in the right mode. The
        vision tower runs once for each of them."""
        import policy as P
        with P.adapter_off(self.policy) if self.adapter_off else nullcontext():
            return act(P, P.encode_prompts(self.policy, [(m, P.prompt(self.preset, key, **texts)) for m, key, texts in asked]))


class VLMJudge(_VLM):
    """See Judge. Yes or no is whichever is the likelier first token of the reply. Claims and answers: 500 characters at most."""

    def equivalent(self, question, truth, prediction):
        """The prompt compares the two answers without the question, which could only distract (our choice)."""
        return self.yes_or_no([("equivalent", question, truth, prediction)])[0]

    def frame_claim(self, image, claim):
        return self.yes_or_no([("frame_claim", image, claim)])[0]

    def segment_claim(self, frames, seconds, claim):
        return self.yes_or_no([("segment_claim", frames, seconds, claim)])[0]

    def yes_or_no(self, questions):
        """A batch shows at most 32 frames at a time (our choice)."""
        forms = {"equivalent": lambda question, truth, said: (None, "same", dict(truth=str(truth), prediction=str(said))),
                 "frame_claim": lambda image, claim: (_media([image], [0.0]), "frame", dict(claim=claim)),
                 "segment_claim": lambda frames, seconds, claim: (_media(frames, seconds), "segment", dict(claim=claim))}
        asked = [forms[name](*arguments) for name, *arguments in questions]
        asked = [(m, key, {k: _quoted(text, self.policy.tokenizer, 500) for k, text in texts.items()}) for m, key, texts in asked]
        step = max(1, 32 // max((len(m.frames) for m, _, _ in asked if m), default=1))
        return [yes > no for i in range(0, len(asked), step) for yes, no in self._choose(asked[i:i + step])]

    def _choose(self, asked):
        """-> how likely each reply starts with (yes, no)."""
        return self._ask(lambda P, prompts: P.choose(self.policy, prompts, ("yes", "no")).tolist(), asked)

    def extract_claims(self, thinks, max_new_tokens=1024):
        """The reasoning is read without the clip, which could only tempt the judge to add what it sees (our choice)."""
        limit = {"tiny": 2_000}.get(self.preset, 20_000)
        asked = [(None, "claims", dict(claim=_quoted(t, self.policy.tokenizer, limit))) for t in thinks]
        sample = lambda P, prompts: P.sample(self.policy, prompts, 1, max_new_tokens=max_new_tokens, greedy=True).texts
        return [text for i in range(0, len(asked), 8) for text in self._ask(sample, asked[i:i + 8])]

    def answer_probability(self, media, question, thinks, answers, length_normalized=False):
        """Paper eq. 5: p(answer | question prompt, "<think>" think "</think><answer>"), teacher-forced, for a group in one batch.

        The product over the answer's tokens; length_normalized: their geometric mean. The closing "</answer>" is not part of
        the product (our choice: it would score the habit of stopping, not the answer). No answer has probability 0.
        """
        if not thinks:
            return []
        limit, tokenizer = {"tiny": 2_000}.get(self.preset, 20_000), self.policy.tokenizer
        thinks = [f"<think>{defuse(t or '', tokenizer, limit)}</think><answer>" for t in thinks]
        answers = [defuse(a or "", tokenizer, limit=500) for a in answers]
        chunk = None if self.preset == "tiny" else 1  # logits of 8 long rollouts over 152,064 tokens would fill a GPU
        logp, counts = self._ask(lambda P, prompt: P.answer_logprobs(self.policy, prompt, answers, thinks, chunk),
                                 [(media, "reason", dict(question=question))])  # (G,), (G,)
        return (logp / counts.clamp(min=1) if length_normalized else logp).exp().tolist()


class VLMPointer(_VLM):
    """See Pointer. The model answers in absolute pixels of the picture that it saw; what falls outside is dropped."""

    def point(self, image, label, max_new_tokens=256):
        from argos import parse
        reply = self._ask(lambda P, prompt: P.sample(self.policy, prompt, 1, max_new_tokens=max_new_tokens, greedy=True).texts[0],
                          [(_media([image], [0.0]), "point", dict(label=_quoted(label, self.policy.tokenizer, 100)))])
        return [(p.x, p.y) for p in parse(reply).points if 0 <= p.x < image.width and 0 <= p.y < image.height]


# ---- 6. Teachers that are wrong on purpose --------------------------------------------------------------------------------
# What a network gets wrong it gets wrong again: an error is drawn once for each (seed, picture, question) and shared by all who
# ask, unless fresh=True, which draws anew at every call. Where each dial stands in the theory:
#   jitter, fresh       independent noise eta(a) of every action, the sigma of lemma 1: a larger group only helps
#   jitter, shared      duplicates of an action share one draw: best of N can get worse as N grows
#   miss, false_alarm   rare, large errors: true points earn 0, invented things earn 1, and a policy can learn to seek the second
#   bias                one shift for every action: cancels in a group's advantage, except where it crosses the edge of a mask
#   flip                the outcome R_o lands on the wrong side of the gate, whatever the gap gamma of corollary 1
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
