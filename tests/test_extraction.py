"""Claims that a judge found in free prose: what of its reply is believed.

Run: pytest tests/test_extraction.py
"""
import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))

from verifier.claims import FrameClaim, Point, SegmentClaim, parse  # noqa: E402
from verifier.extraction import read_claims  # noqa: E402

settings.register_profile("argos", deadline=None, derandomize=True, database=None)  # a busy machine is no failure
settings.load_profile("argos")

PROSE = ("About 2.5 seconds in, the door is open; a red mug stands at 15 and 15. "
         "Between 1:30 and two minutes someone pours water.")


def frame(claim="the door is open", frame=None, seconds=2.5):
    return {"frame": frame, "seconds": seconds, "claim": claim}


@pytest.mark.parametrize("lists, kept, reason", [
    ({"frame_claims": [frame()]}, [FrameClaim(None, 2.5, "the door is open")], None),
    ({"frame_claims": [frame("Door is open.")]}, [FrameClaim(None, 2.5, "Door is open.")], None),
    ({"frame_claims": [frame(), frame()]}, [FrameClaim(None, 2.5, "the door is open")], "repeated frame claim"),
    ({"segment_claims": [{"start": 90, "end": 2.0, "claim": "someone pours water"}]},
        [SegmentClaim(90, 2, "someone pours water")], None),
    ({"points": [{"x": 15, "y": 15.0, "label": "a red mug", "frame": None, "seconds": 2.5}]},
        [Point(15, 15, "red mug", None, 2.5)], None),
    ({}, [], None),
    ({"frame_claims": [frame("the door is shut")]}, [], "does not make"),         # not its words
    ({"frame_claims": [frame("open is the door")]}, [], "does not make"),         # its words, another claim
    ({"frame_claims": [frame("oor is ope")]}, [], "does not make"),               # parts of words
    ({"frame_claims": [frame(seconds=3.5)]}, [], "does not make"),                # a time that it does not give
    ({"frame_claims": [frame(frame=7)]}, [], "does not make"),
    ({"frame_claims": [frame("")]}, [], "does not make"), ({"frame_claims": [frame("...")]}, [], "does not make"),
    ({"frame_claims": [frame(seconds=math.nan)]}, [], "out of range"),
    ({"frame_claims": [frame(seconds=-2.5)]}, [], "out of range"),
    ({"frame_claims": [frame(seconds=10 ** 400)]}, [], "out of range"),
    ({"frame_claims": [frame(seconds="2.5")]}, [], "wrong form"),
    ({"frame_claims": [frame(frame=True)]}, [], "wrong form"),
    ({"frame_claims": [frame(claim=["the door is open"])]}, [], "wrong form"),
    ({"frame_claims": ["the door is open"]}, [], "wrong form"),
    ({"frame_claims": [frame() | {"score": 1}]}, [], "wrong form"),
    ({"frame_claims": [{"claim": "the door is open"}]}, [], "wrong form"),
    ({"frame_claims": {"0": frame()}}, [], "not in the form"),
    ({"frame_claims": [frame()], "verdict": "all true"}, [], "not in the form"),
    ({"frame_claims": [frame()] * 999}, [], "not in the form"), ([frame()], [], "not in the form")])
def test_extracted_claims_are_checked(lists, kept, reason):
    parsed = parse(f"<think>{PROSE}</think>", "video")
    assert not parsed.points + parsed.frame_claims + parsed.segment_claims
    read_claims(f"Here it is:\n```json\n{json.dumps(lists)}\n```", parsed)
    assert parsed.points + parsed.frame_claims + parsed.segment_claims == kept and parsed.extracted
    assert [reason in why for why in parsed.dropped_reasons] == ([True] if reason else [])


@given(st.lists(st.sampled_from(["{", "}", "[", "]", '"frame_claims"', ":", ",", "1", "null", '"door"', "\ud800",
                                 "NaN", "{}" * 9, "[" * 2000])))
def test_any_reply_can_be_read(pieces):
    read_claims("".join(pieces), parsed := parse(f"<think>{PROSE}</think>", "video"))
    assert parsed.extracted and not parsed.points
