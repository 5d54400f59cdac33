"""Pointers: a label in, the centre of each such thing out. For charts and drawings, where boxes fail.

    MolmoPointer   the paper's, Molmo-7B; answers in percent: <point x="61.5" y="40.4" alt="mug">mug</point>
    VLMPointer     a Qwen2.5-VL, also the policy's own frozen base; answers in pixels of what it saw, in several
                   forms: [{"point_2d": [123, 81], "label": "mug"}]

Two models, two coordinate spaces, and the numbers look alike: verifier/coordinates.py maps the one to the
other.

Read:  before, teachers/segmenters.py; next, teachers/judges.py (VLM, which VLMPointer builds on)
"""
import json
import math
import re
from collections import deque
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoProcessor, GenerationConfig

from runs.errors import BadInput
from teachers.judges import VLM, Question, one_frame, quoted
from teachers.loading import MAX_BOXES, device_of, load, load_model
from verifier.coordinates import convert

MAX_LABEL = 100  # characters of a label that a model is asked for


class Unreadable(ValueError):
    """A reply without a point that we can read, and without a plain "none". The teacher failed."""


class VLMPointer(VLM):
    """See teachers.Pointer. A point outside the picture is dropped.

    Its numbers are pixels of `image`: Qwen2.5-VL answers in pixels of the resized picture that it reads, and
    policy.encode_prompts resizes nothing. (Qwen3-VL answers in thousandths; it is not loaded here.)
    """

    def point(self, image, label, max_new_tokens=256):
        label = quoted(label, self.policy.tokenizer, MAX_LABEL)
        question = Question(one_frame(image), "point", dict(label=label))
        reply, = self._replies([question], max_new_tokens)
        return _inside(image, without_echo(read_reply(reply), label))


class MolmoPointer:
    """See teachers.Pointer. A point outside the picture is dropped.

    name: a folder. The checkpoint brings its own Python code, which runs when it is loaded: so no hub id is
    taken, only a folder, which a person can read first. pair: (processor, model) already loaded.
    """

    def __init__(self, name=None, device=None, max_new_tokens=512, pair=None):
        self.max_new_tokens = max_new_tokens
        self.device = device_of(device)
        self.identity = f"molmo {name} {max_new_tokens} {READING}"
        if pair is None:
            pair = _load_molmo(name, self.device)
        self.processor, self.model = pair

    def point(self, image, label):
        reply = self._reply(image, label)
        places = without_echo(read_molmo(reply), label)
        if not places and not says_none(reply):
            raise Unreadable(f"no point and no none in {reply[:60]!r}")
        points = [convert(x, y, "percent", "seen", image.size, image.size) for x, y in places]
        return _inside(image, points)

    def _reply(self, image, label):
        """What Molmo writes, greedily. process and generate_from_batch are its own code's."""
        tokenizer = self.processor.tokenizer
        request = f"Point to {quoted(label, None, MAX_LABEL)}."
        inputs = self.processor.process(images=[image], text=request)
        inputs = {name: value.to(self.device)[None] for name, value in inputs.items()}  # a batch of one
        config = GenerationConfig(max_new_tokens=self.max_new_tokens, stop_strings="<|endoftext|>")
        with torch.no_grad():
            ids = self.model.generate_from_batch(inputs, config, tokenizer=tokenizer)
        prompt_length = inputs["input_ids"].shape[1]
        return tokenizer.decode(ids[0, prompt_length:], skip_special_tokens=True)


def _load_molmo(name, device):
    """-> (processor, model)."""
    if not name or not Path(name, "config.json").is_file():
        raise BadInput("molmo: it runs Python code that comes with the checkpoint; "
                       "download it (hf download allenai/Molmo-7B-D-0924 --local-dir FOLDER), "
                       "read its .py files, and pass molmo:FOLDER")
    options = dict(trust_remote_code=True, dtype="auto")
    processor = load("molmo", name, AutoProcessor, **options)
    model = load_model("molmo", name, AutoModelForCausalLM, **options)
    model.to(device).eval()
    return processor, model


def _inside(image, points):
    """Those of the points (x, y) that lie in the picture: 100 percent is already the first pixel outside."""
    return [(x, y) for x, y in points if 0 <= x < image.width and 0 <= y < image.height]


# ---- What a pointer replied --------------------------------------------------------------------------------
# Every quantifier is bounded or cannot cross the next "<": a reply of any size is read in linear time.
READING = "reading 2"  # part of a cached answer's name: what was stored under the old rules is asked again
MAX_REPLY = 20_000     # characters of a reply that are read
MAX_TRIES = 100        # places in a reply where JSON may begin
_TAG = re.compile(r"<points?\s([^<>]*)(>|\Z)", re.I | re.A)
_XY = re.compile(r"\b([xy])(\d{0,4})"                                         # x, y, x1, y1 ...
                 r"\s{0,3}=\s{0,3}[\"']?\s{0,3}"
                 r"(\d{1,5}(?:\.\d{1,17})?)(?![\d.])", re.I | re.A)  # 61.5, but not 1.2.3
_ALT = re.compile(r"\balt\s*=")
_COORDS = re.compile(r"\bcoords\s{0,3}=\s{0,3}[\"']([\d\s;.]*)", re.I | re.A)
_JSON_BEGIN = re.compile(r"[\[{]")
_NUMBER = re.compile(r"[+-]?\d{1,6}(?:\.\d{1,17})?", re.A)
_PAIR = re.compile(r"\(\s{0,3}(N)\s{0,3},\s{0,3}(N)\s{0,3}\)".replace("N", _NUMBER.pattern), re.A)
_ANOTHER = r" (?:other|more|further|additional)\b"  # "no other mug" says that there is one
_NONE = re.compile(
    rf"^\W{{0,9}}(?:no|none|zero|0|null|n/a)\b(?!,|{_ANOTHER})"
    r"|\b(?:none|nothing|no such|unable to (?:see|find|locate|identify)"
    rf"|there(?: is| are|['’]s) (?:no|not|zero|0)(?!{_ANOTHER})"
    r"|(?:not|(?:is|are)n['’]t) (?:present|visible|shown|found)"
    r"|(?:is|are)(?: not|n['’]t) (?:there|here|any|in|a|an)"
    r"|(?:can|could|do|does|did)(?: ?not|n['’]t) (?:see|find|locate|contain|show|appear|exist|have|identify)"
    rf"|no(?!{_ANOTHER}) \w{{1,30}}(?: \w{{1,30}}){{0,4}} (?:is|are|in|here|visible|present|found))\b",
    re.I | re.A)
PLACES = ("point_2d", "points_2d", "point", "points", "coordinates", "bbox_2d", "bbox", "box_2d", "box")


def read_reply(text):
    """What Qwen2.5-VL replied -> [(x, y)], MAX_BOXES at most, in the pixels that it wrote; [] where it says none.

    It was trained on three forms (its cookbook on spatial understanding); a box stands for its centre, and what
    was cut off is left out. The last is a plain sentence:

        [{"point_2d": [61, 40], "label": "mug"}]                 -> [(61, 40)], also in ``` or amid text
        {"bbox_2d": [10, 20, 30, 60], "label": "mug"}            -> [(20, 40)]
        <points x1="61" y1="40" x2="5" y2="6" alt="mug">         -> [(61, 40), (5, 6)]
        The mug is at (61, 40).                                  -> [(61, 40)]
        [] or {"points": []} or There are none.                  -> []

    Raises Unreadable for all else. A teacher's reply is read generously: what counts is what it means. (A
    policy's response is read strictly, by verifier/claims.py: it would seek the gaps.)
    """
    text = text[:MAX_REPLY]
    points, empty = _json_points(text)
    if points:
        return points[:MAX_BOXES]
    points = _tag_points(text)
    if points:
        return points[:MAX_BOXES]
    none = _NONE.search(text)
    points = _pairs(text[:none.start()] if none else text)  # behind it: "no mug, but a cup at (61, 40)"
    if points:
        return points[:MAX_BOXES]
    if empty or none:
        return []
    raise Unreadable(f"no point and no none in {text[:60]!r}")


def says_none(text):
    """Whether a reply says that there is no such thing. Ask after looking for points."""
    return bool(_NONE.search(text[:MAX_REPLY]))


def without_echo(points, label):
    """The points without those that stand in the label: a model repeats it, and the policy wrote it."""
    label = label[:MAX_LABEL]
    echoed = _json_points(label)[0] + _tag_points(label) + _pairs(label) + read_molmo(label)
    return [point for point in points if point not in echoed]


def _pairs(text):
    """Every "(x, y)" -> [(x, y)]"""
    return [(float(x), float(y)) for x, y in _PAIR.findall(text)]


def _json_points(text):
    """-> the points of all JSON in a text, and whether some of it was an empty list or null.

    A list that was cut off is no JSON, but each of its whole objects is.
    """
    points = []
    empty = False
    place = 0
    for _ in range(MAX_TRIES):
        begin = _JSON_BEGIN.search(text, place)
        if begin is None:
            break
        try:
            value, place = json.JSONDecoder().raw_decode(text, begin.start())
        except (ValueError, RecursionError):  # not JSON from here on, or nested without end
            place = begin.end()
            continue
        found, nothing = _places_in(value)
        points += found
        empty = empty or nothing
    return points, empty


def _places_in(value):
    """JSON -> [(x, y)] of the lists of two or four numbers in it, and whether it holds an empty list or null."""
    points = []
    empty = False
    waiting = deque([value])  # no recursion: JSON may be nested deeply
    while waiting:
        item = waiting.popleft()
        if isinstance(item, dict) and {"x", "y"} <= item.keys():
            item = [item["x"], item["y"]]
        if isinstance(item, dict):
            places = [item[key] for key in PLACES if key in item]
            waiting.extend(places[:1] or item.values())  # of a point and a box of one thing the point
        elif isinstance(item, list):
            numbers = [_number(part) for part in item]
            if len(numbers) in (2, 4) and None not in numbers:
                x, y = numbers[:2]
                if len(numbers) == 4:
                    x = (x + numbers[2]) / 2
                    y = (y + numbers[3]) / 2
                points.append((x, y))
            else:
                waiting.extend(item)
        empty = empty or item is None or item == [] or item == {}
    return points, empty


def _number(value):
    """A JSON number, or one in quotes -> float, nan where it is in no picture; None for all else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e6 else math.nan


def _tag_points(text):
    """<point> and <points> tags -> [(x, y)]. A coordinate without its partner is dropped."""
    points = []
    for tag in _TAG.finditer(text):
        body = _ALT.split(tag[1])[0]  # an alt text may say x="5", too
        if not tag[2]:
            body = body.rpartition(" ")[0]  # cut off, perhaps within a number
        numbered = {}  # "1" of x1 and y1 -> {"x": .., "y": ..}
        for axis, number, value in _XY.findall(body):
            pair = numbered.setdefault(number, {})
            pair.setdefault(axis.lower(), float(value))  # of two x1 the first counts
        for pair in numbered.values():
            if len(pair) == 2:
                points.append((pair["x"], pair["y"]))
    return points


def read_molmo(text):
    """Molmo's tags -> [(x, y)], percent, MAX_BOXES at most. More than 100 percent is dropped, as by its authors.

        <point x="61.5" y="40.4" alt="mug">mug</point>                 -> [(61.5, 40.4)]
        <points x1="10.0" y1="20.5" x2="30" y2="40.1" alt="mugs">      -> [(10.0, 20.5), (30.0, 40.1)]
        <points coords="1 1 615 404 2 300 401">mugs</points>           -> [(61.5, 40.4), (30.0, 40.1)]

    The last is Molmo 2's: the picture's number, then a number, x and y of each thing, in thousandths.
    """
    text = text[:MAX_REPLY]
    points = _tag_points(text)
    for tag in _TAG.finditer(text):
        for coords in _COORDS.findall(_ALT.split(tag[1])[0]):
            for picture in coords.split(";"):
                points += _thousandths(picture.split()[1:])
    return [(x, y) for x, y in points if x <= 100 and y <= 100][:MAX_BOXES]


def _thousandths(words):
    """["1", "615", "404", "2", "300", "401"] -> [(61.5, 40.4), (30.0, 40.1)]"""
    points = []
    for x, y in zip(words[1::3], words[2::3]):
        if x.isdecimal() and y.isdecimal() and len(x) < 6 and len(y) < 6:
            points.append((int(x) / 10, int(y) / 10))
    return points
