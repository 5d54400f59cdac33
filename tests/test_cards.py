"""verifier/cards.py: what the panel says, which frames of a clip it shows, where boxes, points and plates stand."""
from types import SimpleNamespace as Has

import numpy as np
import pytest
from PIL import Image

from argos import Choice, PointVerdict, Verdict
from verifier import cards
from verifier.claims import Parsed, Point
from verifier.coordinates import Box, Media
from verifier.samples import Sample

SAMPLE = Sample("s", "How many?", "2", "count", "p.png")


def gray(frames=1, size=(84, 56)):
    pictures = [Image.new("RGB", size, (120, 120, 120)) for _ in range(frames)]
    return Media(pictures, [.5 * i for i in range(frames)], size)


def pointed(x, y, score, frame=0, boxes=()):
    return Has(point=Point(x, y, "red mug"), score=score, boxes=list(boxes), frame=frame)


def verdict(reward=.8, outcome=1.0, grounding=.5, reasoning=None, not_scored=(), lines=5):
    """One point on the mask, one off it, then prose."""
    points = [PointVerdict(Point(1, 1, "mug"), 1., "on the mask", [], 0), PointVerdict(Point(2, 2, "mug"), 0., "beside it", [], 0)]
    chosen = {"spatial": Choice(True, "yes: OUT of it")}  # no word of a reason colours its line
    arithmetic = "\n".join(["prose"] * (lines - 4))
    return Verdict(Parsed("", "2"), chosen, outcome, grounding, reasoning, points, not_scored=dict.fromkeys(not_scored, "why"),
                   reward=reward, arithmetic=arithmetic)


def panel(verdict, sample=SAMPLE, response="r"):
    lines = cards._write_panel(sample, response, verdict)
    return lines, [line.text for line in lines]


@pytest.mark.parametrize("reward, answer, title, colour", [
    (.8, "2", "reward 0.80", cards.IN), (.2, "2", "reward 0.20", cards.OUT),
    (None, None, "no reward: the truth is not known", cards.INK), (None, "2", "no reward: not scored", cards.INK)])
def test_the_title_says_the_reward_or_why_there_is_none(reward, answer, title, colour):
    lines, _ = panel(verdict(reward), Sample("s", "How many?", answer, "count", "p.png"))
    assert (lines[0].text, lines[0].colour) == (title, colour)


def test_long_responses_and_long_reasons_are_cut_and_say_so():
    _, texts = panel(verdict(lines=60), response="a" * 600 + "b" * 100 + "c" * 300)
    said = "".join(texts).replace(" ", "")
    assert "a[...100characters...]c" in said and "bbb" not in said
    assert texts[-1] == "... and 16 more lines, among them: prose"
    lines, texts = panel(verdict())
    assert [line.colour for line in lines[-5:]] == [cards.INK, cards.INK, cards.IN, cards.OUT, cards.INK]
    assert [line.text for line in lines if line.term] == ["outcome", "grounding", "reasoning"]


def test_a_clip_shows_the_frames_that_are_spoken_of():
    clip = gray(12)
    claims = [Has(frames=[7, 8]), Has(frames=[])]
    points = [pointed(1, 1, 1, frame=3), pointed(1, 1, 0, frame=None)]
    assert list(cards.frames_to_show(clip, points, claims)) == [3, 7, 8]
    assert list(cards.frames_to_show(clip, [], [Has(frames=range(12))])) == [0, 1, 2, 3, 4, 5]
    assert list(cards.frames_to_show(clip, [], [])) == [0, 3, 6, 9]
    assert list(cards.frames_to_show(gray(), points, [])) == [0]


def test_boxes_and_points_stand_where_they_are():
    """84 x 56 px are drawn 8 times larger; a box covers x1 <= x < x2."""
    box = Box(10, 20, 30, 40, .9, "red mug")
    points = [pointed(60, 30, 1, boxes=[box]), pointed(-50, 500, 0)]
    tile = np.asarray(cards._draw_tile(gray(), 0, points, {}, 640))
    assert tile.shape == (56 * 8, 84 * 8, 3)
    assert tuple(tile[300, 80]) == tuple(tile[300, 239]) == cards.BOX and tuple(tile[300, 240]) == (120, 120, 120)
    assert tuple(tile[244, 484]) == cards.IN                 # the middle of pixel (60, 30)
    assert tuple(tile[447 - 4, 0]) == cards.OUT              # one outside is moved to the rim


def test_a_label_that_would_cross_the_right_rim_stands_left_of_its_point():
    """Its plate must not cover the point that it names."""
    for x in (60, 82):
        tile = np.asarray(cards._draw_tile(gray(), 0, [pointed(x, 30, 1)], {}, 640))
        coloured = np.argwhere((tile == cards.IN).all(-1))[:, 1]  # columns
        middle = (x + .5) * 8
        right = coloured.max() > middle + cards.RADIUS + 10
        left = coloured.min() < middle - cards.RADIUS - 10
        assert (left, right) == (x == 82, x == 60)
        assert tuple(tile[244, int(middle) - 7]) == (255, 255, 255)  # the point's outline is whole, at its left


def test_masks_stay_bright_within_a_white_rim():
    mask = np.zeros((56, 84), bool)
    mask[10:30, 10:30] = True
    tile = np.asarray(cards._draw_tile(gray(), 0, [], {(0, "mug"): mask, (5, "cup"): ~mask}, 640))
    assert tuple(tile[160, 160]) == (120, 120, 120) and tuple(tile[400, 600]) == (84, 86, 93)
    assert tuple(tile[160, 80]) == tuple(tile[160, 81]) == (255, 255, 255) != tuple(tile[160, 82])
