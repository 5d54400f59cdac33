"""tiny/pixels.py: what the pixel teachers must get right, and what no picture and no text may do to them.

Drawn by hand here, so that a person can check every number; and against the world's truth, by the thresholds of
tiny/measure.py.
"""
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from teacher_fixtures import BLUE, RED, TEAL, TWO_SQUARES, drawing
from teachers.names import load_teachers
from theory.noise import NoisyDetector, NoisyPointer
from tiny import measure
from tiny.pixels import MAX_SHAPES, OUTLINES, PALETTE, _find, parse_label
from verifier.coordinates import Box

DETECTOR, SEGMENTER, POINTER = load_teachers()


def places(boxes):
    return [(b.x1, b.y1, b.x2, b.y2) for b in boxes]


# ---- Labels ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("label, means", [
    ("red square", ("red", "square")), ("red squares", ("red", "square")), ("A Red Square", ("red", "square")),
    ("the square", (None, "square")), ("shape", (None, None)), ("red shape", ("red", None)),
    ("the shapes", (None, None)),
    ("crosses", (None, "cross")), ("grey circle", ("gray", "circle")), ("teal rectangle.", ("teal", "rectangle")),
    ("each of the squares", None), ("red mug", None), ("red", None), ("", None), ("red blue square", None),
    ("square red", None), ("squarees", None), ("a " * 500 + "square", None)])
def test_labels(label, means):
    assert parse_label(label) == means


# ---- Worked cases ------------------------------------------------------------------------------------------
def test_boxes_masks_and_points_of_three_squares():
    found, any_square, none = DETECTOR.detect(TWO_SQUARES, ["red square", "squares", "green square"])
    assert places(found) == [(10, 10, 25, 25), (50, 10, 65, 25)] and len(any_square) == 3 and none == []
    assert all(b.score > .99 and b.label == "red square" for b in found)
    masks = SEGMENTER.segment(TWO_SQUARES, found)  # (2, 84, 84)
    assert masks.shape == (2, 84, 84) and masks.dtype == bool and masks.sum((1, 2)).tolist() == [225, 225]
    assert masks[0, 10:25, 10:25].all() and masks[1, 10:25, 50:65].all()
    assert POINTER.point(TWO_SQUARES, "square") == [(17, 17), (57, 17), (17, 57)]  # reading order
    assert POINTER.point(TWO_SQUARES, "circle") == []


@pytest.mark.parametrize("drawn, outline", [
    (("box", (20, 30, 60, 45), TEAL), "rectangle"), (("disc", (20, 30, 40, 50), TEAL), "circle"),
    (("poly", (30, 20, 20, 40, 40, 40), TEAL), "triangle"),
    (("poly", (27, 20, 33, 20, 33, 27, 40, 27, 40, 33, 33, 33, 33, 40, 27, 40, 27, 33, 20, 33, 20, 27, 27, 27), TEAL),
     "cross")])
def test_outlines_and_that_a_square_is_a_rectangle(drawn, outline):
    labels = [f"teal {o}" for o in (*OUTLINES, "square")]
    found = DETECTOR.detect(drawing(drawn), labels)
    assert [len(boxes) for boxes in found] == [int(o == outline) for o in OUTLINES] + [0]
    assert sum(found, [])[0].score > .93
    assert [len(b) for b in DETECTOR.detect(TWO_SQUARES, ["red rectangle", "red square"])] == [2, 2]


@pytest.mark.parametrize("color", PALETTE)
def test_each_colour_keeps_its_name_when_soft_edges_mix_it_with_the_ground(color):
    """A black shape resized has gray edges, a teal and a brown one almost: none may become a second, gray shape."""
    drawn = drawing(("disc", (9, 9, 40, 40), PALETTE[color]), size=(64, 64), ground=(250, 240, 245))
    for image in (drawn, drawn.resize((84, 84), Image.BICUBIC), drawn.resize((42, 42), Image.BICUBIC)):
        assert [len(b) for b in DETECTOR.detect(image, [f"{color} circle", "shape"])] == [1, 1]


@pytest.mark.parametrize("color", ["green", "brown", "gray"])
def test_shapes_of_six_soft_pixels_keep_their_outline(color):
    """A tile shows a small shape on 5 to 9 px: judged by whole pixels, a circle of 6 px looks like a cross."""
    label = {"disc": "circle", "poly": "triangle", "box": "rectangle"}
    for r in (4, 5, 6):
        for x in range(20, 32):
            y = 12 + x // 2
            for kind, at in (("disc", (x - r, y - r, x + r, y + r)), ("poly", (x, y - r, x - r, y + r, x + r, y + r)),
                             ("box", (x - r, y - r + 2, x + r, y + r))):
                image = drawing((kind, at, PALETTE[color]), size=(64, 64)).resize((42, 42), Image.BICUBIC)
                found = DETECTOR.detect(image, [f"{color} {label[kind]}", "shape"])
                assert [len(boxes) for boxes in found] == [1, 1], (kind, r, x)


def test_touching_shapes():
    """Colours stay apart at a shared edge, one colour is cut where two outlines meet, corners alone do not join."""
    apart = drawing(("box", (10, 10, 29, 29), RED), ("box", (30, 14, 49, 33), BLUE))
    assert places(DETECTOR.detect(apart, ["shape"])[0]) == [(10, 10, 30, 30), (30, 14, 50, 34)]
    merged = drawing(("box", (10, 10, 29, 29), RED), ("box", (30, 20, 49, 39), RED))
    assert sorted(places(DETECTOR.detect(merged, ["red square"])[0])) == [(10, 10, 30, 30), (30, 20, 50, 40)]
    diagonal = drawing(("box", (10, 10, 29, 29), RED), ("box", (30, 30, 49, 49), RED))
    assert len(DETECTOR.detect(diagonal, ["red square"])[0]) == 2


def test_specks_and_ramps_are_ground():
    ramp = np.linspace(170, 245, 84)[None, :, None] + np.zeros((84, 1, 3))
    ramp[40:42, 40:42] = 120
    ramp += np.random.default_rng(0).normal(0, 5, ramp.shape)
    assert DETECTOR.detect(Image.fromarray(ramp.clip(0, 255).astype(np.uint8)), ["shape"]) == [[]]
    for color in ((0, 0, 0), RED, (255, 255, 255)):
        assert DETECTOR.detect(Image.new("RGB", (84, 84), color), ["shape"]) == [[]]


def test_the_point_of_a_ring_lies_on_the_ring():
    ring = drawing(("disc", (10, 10, 60, 60), RED), ("disc", (20, 20, 50, 50), (235, 232, 225)))
    (x, y), = POINTER.point(ring, "red shape")
    assert ring.getpixel((int(x), int(y))) == RED


def test_prompts_of_the_segmenter():
    """A cut box, a point, a point beside everything, an empty place (the box, as SAM always answers), no prompt."""
    at = lambda *xyxy: SEGMENTER.segment(TWO_SQUARES, [Box(*xyxy)])[0]
    assert at(0, 0, 18, 84).sum() == 15 * 8  # of the two shapes in the box, both cut to 8 columns, the first
    assert at(12.5, 12.5, 12.5, 12.5).sum() == 225 and not at(40, 40, 40, 40).any() and not at(-5, 300, -5, 300).any()
    assert at(30, 30, 40, 44).sum() == 140 and at(30, 30, 40, 44)[30:44, 30:40].all()
    assert SEGMENTER.segment(TWO_SQUARES, []).shape == (0, 84, 84)
    assert not at(200, 200, 300, 300).any() and not at(20, 20, 10, 10).any()


def test_a_large_picture_is_searched_in_steps():
    large = drawing(("box", (200, 400, 499, 699), BLUE), size=(1600, 1200))
    box, = DETECTOR.detect(large, ["blue square"])[0]
    assert np.abs(np.array([box.x1, box.y1, box.x2, box.y2]) - [200, 400, 500, 700]).max() <= 7  # steps of 7 pixels
    (x, y), = POINTER.point(large, "square")
    assert abs(x - 350) <= 7 and abs(y - 550) <= 7 and SEGMENTER.segment(large, [box])[0, int(y), int(x)]


# ---- No picture breaks them --------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_any_drawing(width, height, seed, block):
    """Boxes lie in the picture, masks in their boxes, points on masks; nothing raises. Noise in blocks."""
    rng = np.random.default_rng(seed)
    colors = rng.integers(0, 256, (-(-height // block), -(-width // block), 3), np.uint8)
    image = Image.fromarray(np.repeat(np.repeat(colors, block, 0), block, 1)[:height, :width])
    for label, boxes in zip(("shape", "black rectangle"), DETECTOR.detect(image, ["shape", "black rectangle"])):
        masks, points = SEGMENTER.segment(image, boxes), POINTER.point(image, label)
        assert masks.shape == (len(boxes), height, width) and len(points) == len(boxes) <= MAX_SHAPES
        for box, mask in zip(boxes, masks):
            assert 0 <= box.x1 < box.x2 <= width and 0 <= box.y1 < box.y2 <= height and 0 <= box.score <= 1
            outside = mask.copy()
            outside[int(box.y1):int(box.y2), int(box.x1):int(box.x2)] = False
            assert mask.any() and not outside.any()
        for x, y in points:
            under = SEGMENTER.segment(image, [Box(x, y, x, y)])[0]
            assert under[int(y), int(x)] and (masks & under).any()


@pytest.mark.parametrize("pixels", [np.zeros((1, 1, 3)), np.full((84, 84, 3), 0), np.full((50, 3, 3), 255),
                                    np.random.default_rng(0).integers(0, 256, (600, 900, 3)),
                                    np.indices((256, 256)).sum(0)[..., None] % 8 // 4 * 255 * np.ones(3)], ids=str)
def test_odd_pictures_are_answered_in_bounded_time(pixels):
    image, start = Image.fromarray(pixels.astype(np.uint8)), time.process_time()
    assert len(DETECTOR.detect(image, ["shape"])[0]) <= MAX_SHAPES
    assert time.process_time() - start < 5


def test_a_group_asks_one_picture_and_it_is_searched_once():
    _find.cache_clear()
    for label in ("red square", "blue square", "shape"):
        POINTER.point(TWO_SQUARES, label)
        SEGMENTER.segment(TWO_SQUARES, DETECTOR.detect(TWO_SQUARES.copy(), [label])[0])
    assert _find.cache_info().misses == 1


# ---- Against the world's truth -----------------------------------------------------------------------------
@pytest.mark.parametrize("source", measure.SOURCES)
def test_precision_and_recall_on_every_source(source):
    """The full table is `python -m tiny.measure`; here 60 pictures of each kind, thousands of questions."""
    m = measure.measure(measure.SOURCES[source], DETECTOR, SEGMENTER, POINTER, pictures=60, seed=1)
    assert min(m["recall"], m["precision"], m["pointer"], m["exact"]) >= .98, m


def test_measure_notices_a_wrong_teacher():
    deaf = measure.measure(measure.scenes, NoisyDetector(DETECTOR, miss=.3), SEGMENTER, POINTER, pictures=15)
    blind = measure.measure(measure.scenes, DETECTOR, SEGMENTER, NoisyPointer(POINTER, bias=(20, 0)), pictures=15)
    assert deaf["recall"] < .85 and blind["precision"] < .5 and blind["pointer"] < .5
