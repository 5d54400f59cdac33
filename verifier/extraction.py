"""Claims in free prose, "about 2.5 seconds in, the door is open": no rule reads them, but a judge can list them.

The paper has GPT-4o extract the claims of all clips (appendix D). Here a judge is asked only where claims.py finds
none, and only if Argos was made with extract=True. It answers in JSON. Now it is the judge's text that is not
trusted: no claim is believed that the reasoning does not make. A first reader may skip this file.

Before: claims.py. Next: coordinates.py.
"""
import json
import re
from collections import Counter

from verifier.answers import MAX_POINTS, MAX_THINK, judged
from verifier.asking import ItemFailed
from verifier.claims import Collector, finish, trim_claim, trim_label
from verifier.amounts import NUMBER_WORDS
from verifier.texts import normalise

_FORMS = {  # list -> field -> types; bool is no int here
    "frame_claims": {"frame": (int, type(None)), "seconds": (int, float, type(None)), "claim": (str,)},
    "segment_claims": {"start": (int, float), "end": (int, float), "claim": (str,)},
    "points": {"x": (int, float), "y": (int, float), "label": (str,),
               "frame": (int, type(None)), "seconds": (int, float, type(None))}}


def add_claims(teachers, responses):
    """Ask for the claims of each Parsed that has none, equal texts once, and add them. Raises TeacherFailed."""
    prose = []
    for parsed in responses:
        text = judged(parsed.think, MAX_THINK)
        if text and not (parsed.points or parsed.frame_claims or parsed.segment_claims):
            prose.append((parsed, text))
    if not prose:
        return
    texts = list(dict.fromkeys(text for _, text in prose))
    replies = dict(zip(texts, teachers.list_claims(texts)))
    for parsed, text in prose:
        reply = replies[text]
        read_claims("" if isinstance(reply, ItemFailed) else reply, parsed)


def read_claims(reply, parsed):
    """Replace the claims in `parsed` by those of a judge's JSON reply; the rest is dropped and counted. Total.

    reply: {"frame_claims": [..], "segment_claims": [..], "points": [..]}, items of the exact form in _FORMS.
    Texts must be quoted from the reasoning word for word (articles and punctuation aside), and numbers must occur
    in it (2.5, 1:30, three).

    >>> from verifier.claims import parse
    >>> parsed = parse("<think>Two seconds later the door is open.</think>", "video")
    >>> read_claims('{"frame_claims": [{"frame": null, "seconds": 2, "claim": "the door is open"},'
    ...             '                  {"frame": null, "seconds": 9, "claim": "the door is open"}]}', parsed)
    >>> parsed.frame_claims
    [FrameClaim(frame=None, seconds=2, text='the door is open')]
    >>> parsed.dropped_reasons
    {'extracted claim that the response does not make': 1}
    """
    dropped = Counter(parsed.dropped_reasons)
    collector = Collector(parsed, dropped)
    parsed.extracted = True
    for reason in ("point without a label", "coordinate missing or not a number"):
        dropped.pop(reason, None)  # what the rules could not read in prose is read here
    lists = _read_lists(reply)
    if lists is None:
        dropped["extraction not in the form asked for"] = 1
        lists = {}
    think = parsed.think[:MAX_THINK]
    said = f" {normalise(think)} "  # spaces around: whole words are compared
    said_numbers = _numbers_in(think, said.split())
    for name, items in lists.items():
        for item in items:
            if not _has_form(item, _FORMS[name]):
                dropped["extracted claim of the wrong form"] += 1
                continue
            numbers = [value for value in item.values() if type(value) in (int, float)]
            text = trim_label(item["label"]) if name == "points" else trim_claim(item["claim"][:400])
            quoted = re.search(r"\w", text) and f" {normalise(text)} " in said
            if not all(0 <= value < 1e6 for value in numbers):  # NaN is not
                dropped["extracted number out of range"] += 1
            elif not quoted or not said_numbers.issuperset(numbers):
                dropped["extracted claim that the response does not make"] += 1
            elif name == "points":
                collector.add_point(item["x"], item["y"], text, item["frame"], item["seconds"])
            elif name == "frame_claims":
                collector.add_frame_claim(item["frame"], item["seconds"], text)
            else:
                collector.add_segment_claim(item["start"], item["end"], text)
    finish(parsed, dropped)


def _read_lists(reply):
    """The JSON object in a reply, with prose or ``` around it; None: not of the form asked for."""
    try:
        lists = json.loads(reply[reply.index("{"):reply.rindex("}") + 1][:50_000])
    except (ValueError, RecursionError):
        return None
    if not isinstance(lists, dict) or lists.keys() - _FORMS.keys():
        return None
    if not all(isinstance(items, list) and len(items) <= 4 * MAX_POINTS for items in lists.values()):
        return None
    return lists


def _has_form(item, form):
    if not isinstance(item, dict) or item.keys() != form.keys():
        return False
    return all(type(value) in form[name] for name, value in item.items())


def _numbers_in(text, words):
    """All numbers that a reasoning gives: 2.5 -> 2.5, three -> 3, 1:30 -> 90."""
    numbers = {float(digits) for digits in re.findall(r"\d{1,6}(?:\.\d{1,6})?", text, re.A)}
    numbers.update(NUMBER_WORDS[word] for word in words if word in NUMBER_WORDS)
    for minutes, seconds in re.findall(r"(\d{1,3}):(\d\d)\b", text, re.A):
        numbers.add(60 * int(minutes) + int(seconds))
    return numbers
