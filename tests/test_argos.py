"""The verifier against examples worked by hand, against properties, and against the libraries it must agree with.

Run: pytest tests/test_argos.py

The teachers here are fakes with known answers, so that every expected score can be computed on paper.
"""
import errno
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import policy as P  # noqa: E402
from argos import Argos, Weights, gate, main, select, which_frame  # noqa: E402
from runs.errors import BadInput, run_main  # noqa: E402
from runs.files import append_jsonl, write_atomically  # noqa: E402
from verifier.claims import parse  # noqa: E402
from verifier.coordinates import Box, Media  # noqa: E402
from verifier.media import load_media  # noqa: E402
from verifier.samples import Sample  # noqa: E402

settings.register_profile("argos", deadline=None, derandomize=True, database=None)  # a busy machine is no failure
settings.load_profile("argos")
TAG = '<point x1="{}" y1="{}" alt="{}">{}</point>'


def tag(x, y, label="red square"):
    return TAG.format(x, y, label, label)


# ---- Fake teachers: two red squares, x 10..19 and 50..59, y 10..19, and a man, x 70..79, y 50..79; boxes are 2 px wider 
class FakeDetector:
    def __init__(self):
        self.asked = []

    def detect(self, image, labels):
        self.asked.append(list(labels))
        boxes = {"red square": [(8, 8, 22, 22, .9), (48, 8, 62, 22, .8)], "tall man": [(68, 48, 82, 82, .7)]}
        return [[Box(*b, l) for b in boxes.get(l, [])] for l in labels]


class FakeSegmenter:
    def __init__(self):
        self.prompts = []

    def segment(self, image, boxes):
        self.prompts.append(list(boxes))
        masks = np.zeros((len(boxes), image.height, image.width), bool)
        for mask, box in zip(masks, boxes):
            if box.x1 == box.x2:  # a point prompt: five pixels each way
                mask[int(box.y1) - 5:int(box.y1) + 5, int(box.x1) - 5:int(box.x1) + 5] = True
            else:
                mask[int(box.y1) + 2:int(box.y2) - 2, int(box.x1) + 2:int(box.x2) - 2] = True
        return masks


class FakePointer:
    def point(self, image, label):
        return [(70.0, 70.0)] if label == "bar" else []


class FakeJudge:
    def __init__(self, probability=.8):
        self.probability, self.calls, self.frames, self.segments = probability, [], [], []

    def equivalent(self, question, truth, prediction):
        self.calls.append(prediction)
        return prediction == "a crimson box"

    def frame_claim(self, image, claim):
        self.frames.append((image.getpixel((0, 0))[0], claim))
        return "appears" in claim

    def segment_claim(self, frames, seconds, claim):
        self.segments.append((list(seconds), claim))
        return "moves" in claim

    def answer_probability(self, media, question, thinks, answers, length_normalized=False):
        self.calls.append((list(thinks), list(answers), length_normalized))
        return [self.probability] * len(answers)


@pytest.fixture
def argos():
    return Argos(FakeDetector(), FakeSegmenter(), FakePointer(), FakeJudge())


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (84, 84), (200, 200, 200)).save(tmp_path / "a.png")
    return Sample("a", "How many red squares are there?", "2", "count", str(tmp_path / "a.png"))


@pytest.fixture
def clip(tmp_path):
    frames = [Image.new("RGB", (84, 84), (20 * i, 0, 0)) for i in range(8)]
    frames[0].save(tmp_path / "c.png", save_all=True, append_images=frames[1:], duration=500)
    return Sample("c", "When does the red square appear?", "2.5 seconds", "number", str(tmp_path / "c.png"), "video")


def test_an_option_or_truth_with_or_in_it_is_no_hedge(argos, picture):
    picture.kind, picture.options, picture.answer = "choice", ["left or right", "up"], "A"
    assert parse("<answer>left or right</answer>").answer is None
    assert argos.verify(picture, "<answer>left or right</answer>").outcome == 1
    assert argos.verify(picture, "<answer>left or up</answer>").outcome == 0


# ---- 3. Selection and gate -------------------------------------------------------------------------------------------
def test_gate_by_hand():
    assert gate(1, 2 / 3, .9) == pytest.approx(.5 + .25 * 2 / 3 + .25 * .9)   # open: all three
    assert gate(0, 1, 1) == 0                                                 # closed: the best grounding earns nothing
    assert gate(.49, 1, 1) == pytest.approx(.245) and gate(.5, 1, 1) == .75   # just below and just at tau
    assert gate(1, .5, None) == pytest.approx((.5 + .125) / .75)              # reasoning not selected: rescaled
    assert gate(1) == 1 and gate(.4) == pytest.approx(.4)                     # outcome only
    assert gate(1, 0, 1, Weights(.2, .8, 0)) == pytest.approx(.2) and gate(.6, 1, 1, tau=.7) == pytest.approx(.3)


scores = st.floats(0, 1)


@given(scores, scores, scores, scores, scores, scores, st.tuples(st.floats(.01, 9), st.floats(0, 9), st.floats(0, 9)),
       st.floats(.01, 1), st.booleans(), st.booleans())
def test_any_open_gate_beats_any_closed_one(o1, g1, q1, o2, g2, q2, weights, tau, vg, rq):
    pick = lambda g, q: (g if vg else None, q if rq else None)
    a, b = (gate(o, *pick(g, q), Weights(*weights), tau) for o, g, q in ((o1, g1, q1), (o2, g2, q2)))
    assert 0 <= a <= 1 and 0 <= b <= 1
    if o1 >= tau > o2:
        assert a >= b
    if o1 >= tau and o2 <= tau - .01:
        assert a > b


@pytest.mark.parametrize("bad", [
    lambda: gate(1.5), lambda: gate(None), lambda: gate(1, math.nan), lambda: gate(1, tau=0), lambda: Weights(0, 1, 1),
    lambda: Weights(math.nan), lambda: Weights(1, -1), lambda: Argos(None, None, None, None, use=("grounding",))])
def test_impossible_gates_are_bad_input(bad):
    with pytest.raises(BadInput):
        bad()


def test_selection_follows_sample_and_response(picture, clip):
    every = {"detector", "pointer", "judge"}

    def chosen(sample, text="", teachers=every, **options):
        rules, = select(sample, [parse(text, sample.media)], teachers, **options)
        return {name for name, choice in rules.items() if choice.use}

    claim = f"<think>{tag(1, 2)}</think>"
    assert chosen(picture) == {"outcome", "spatial", "reasoning"} and chosen(clip) == {"outcome", "temporal", "reasoning"}
    assert chosen(picture, use=("outcome",)) == {"outcome"}
    assert chosen(picture, use=("outcome", "reasoning")) == chosen(picture, teachers={"judge"}) == {"outcome", "reasoning"}
    assert chosen(picture, teachers={"detector"}) == {"outcome", "spatial"}
    picture.grounding = False
    assert chosen(picture) == {"outcome", "reasoning"} and chosen(picture, claim) == {"outcome", "spatial", "reasoning"}
    picture.kind = "regression"  # one selection for the whole group, so partial outcomes keep their order
    assert chosen(picture, claim) == {"outcome", "spatial", "reasoning"}
    assert chosen(clip, selector=lambda s, p: {"reasoning": "asked"}) == {"outcome", "reasoning"}
    assert chosen(clip, selector=lambda s, p: {"temporal": "asked"}, use=("outcome",)) == {"outcome"}
    picture.drawn = picture.grounding = True
    assert "pointing model" in select(picture, [parse("")], every)[0]["spatial"].why
    given = {"temporal": "", "reasoning": None, "spatial": "never"}
    terse, = select(clip, [parse("")], every, selector=lambda s, p: given)
    assert [str(choice) for choice in terse.values()][1:] == ["no: this is a clip", "yes: ", "yes: None"]  # as it was given
    with pytest.raises(BadInput):
        chosen(clip, selector=lambda s, p: {"vibes": "good"})


def test_selection_is_one_for_the_whole_group(argos, picture):
    """Where grounding is not called for, who claims nothing does not beat who claims something true."""
    picture.grounding = False
    silent, true, false, half, broken = ("I just know.", tag(15, 15), tag(40, 40), tag(15, 15) + tag(40, 40), "<point x>")
    group = [f"<think>{think}</think><answer>2</answer>" for think in (silent, true, false, half, broken)]
    verdicts = argos.verify_group(picture, group)
    assert [v.grounding for v in verdicts] == [0, 1, 0, .5, 0] and all(v.selected["spatial"].use for v in verdicts)
    assert verdicts[1].reward > verdicts[3].reward > verdicts[0].reward == verdicts[2].reward == verdicts[4].reward
    assert "the group's 5 claimed pieces" in verdicts[0].explain()
    verdicts = argos.verify_group(picture, group[:1] * 2)  # nobody claims anything: nothing to compare
    assert [v.grounding for v in verdicts] == [None, None] and not verdicts[0].selected["spatial"].use
    verdicts[0].selected["outcome"].why += "!"             # reasons are each response's own
    assert "!" not in verdicts[1].selected["outcome"].why
    seen = lambda sample, parsed: {"spatial": "it points"} if parsed.points else {"reasoning": "no points"}
    chosen = select(picture, [parse(group[0]), parse(group[1])], {"detector", "judge"}, selector=seen)
    assert all(one["spatial"].use and one["reasoning"].use for one in chosen)


# ---- 4. Files --------------------------------------------------------------------------------------------------------
def test_writing(tmp_path):
    write_atomically(tmp_path / "new" / "a.txt", "é\ud800")
    assert (tmp_path / "new" / "a.txt").read_text() == "é\\ud800"
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "new" / "a.txt", 3)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.txt"]  # the old file, and no litter
    (tmp_path / "log.jsonl").write_text('{"torn')
    append_jsonl(tmp_path / "log.jsonl", {"a": 1})
    append_jsonl(tmp_path / "log.jsonl", {"b": "\ud800"})
    assert (tmp_path / "log.jsonl").read_text() == '{"torn\n{"a": 1}\n{"b": "\\ud800"}\n'


# ---- 5. Verdicts -----------------------------------------------------------------------------------------------------
def test_a_picture_by_hand(argos, picture):
    # masks x 10..19 and 50..59, y 10..19. (10,10) in, (20,10) just right of the mask, (55,15) in the second instance,
    # (84,15) outside the picture, a blue dog is never found: 2 of 5 = .4;  R = .5*1 + .25*.4 + .25*.8 = .8
    think = tag(10, 10) + tag(20, 10) + tag(55, 15) + tag(84, 15) + tag(10, 10, "blue dog")
    v = argos.verify(picture, f"<think>{think}</think><answer>two</answer>")
    assert [p.score for p in v.points] == [1, 0, 1, 0, 0]
    assert [p.why for p in v.points] == ["on the mask", "beside the mask", "on the mask", "outside the 84 x 84 picture",
                                         "no blue dog was found"]
    assert (v.outcome, v.grounding, v.reasoning) == (1, pytest.approx(.4), .8) and v.reward == pytest.approx(.8)
    assert "R = (0.50*1.00 + 0.25*0.40 + 0.25*0.80) / 1.00 = 0.80" in v.explain() and "gate open" in v.explain()
    assert not v.selected["temporal"].use and v.selected["spatial"].use
    box = v.points[0].boxes[0]
    assert (box.x1, box.y1, box.x2, box.y2, box.score) == (8, 8, 22, 22, .9)


def test_alt_and_text_must_name_the_same(argos, picture):
    same = TAG.format(15, 15, "the red square", "Red Square!") + TAG.format(55, 15, "red square", " ") + TAG.format(75, 75, "", "tall man")
    other = TAG.format(15, 15, "red square", "green square")
    v = argos.verify(picture, f"<think>{same}{other}</think><answer>2</answer>")
    assert [p.score for p in v.points] == [1, 1, 1, 0] and v.grounding == .75
    assert v.points[3].why == "alt says 'red square', the text 'green square'" and v.points[3].why in v.explain()
    swapped = argos.verify(picture, f"<think>{TAG.format(15, 15, 'green square', 'red square')}</think>")
    assert swapped.grounding == 0 and len(argos.detector.asked) == 1  # what cannot count is not looked up


@pytest.mark.parametrize("broken, why", [
    ('<point x1="15" y1="15" alt="red square">red', "malformed point tag"), ("<point>red square</point>", "malformed point tag"),
    (TAG.format(15, "?", "dog", "dog"), "coordinate missing or not a number"), ('<point alt="dog">dog</point>', "point without coordinates"),
    (TAG.format(15, 15, "", " "), "point without a label")])
def test_a_point_that_cannot_be_read_is_a_miss(argos, picture, broken, why):
    v = argos.verify(picture, f"<think>{tag(15, 15)}{tag(55, 15)} {broken}</think><answer>2</answer>")
    assert v.grounding == pytest.approx(2 / 3) and f"OUT    1 x {why}: cannot be read" in v.explain()
    assert argos.verify(picture, f"<think>{broken}</think>").grounding == 0


def test_unreadable_points_are_bounded_and_repeats_are_free(argos, picture):
    ground = lambda text: argos.verify(picture, f"<think>{text}</think>").grounding
    three = '<point x1="15" y1="15" x2="?" y2="9" x3="8" alt="red square">red square</point>'  # a good pair, two bad ones
    assert ground(three) == pytest.approx(1 / 3)
    assert ground(tag(15, 15) * 99 + tag(40, 40)) == .5                               # as ever
    assert ground(tag(15, 15) + "<point " * 500) == pytest.approx(1 / 65)             # 64 of them count
    far = "".join(tag(i, 80) for i in range(70))
    assert ground(tag(15, 15) + far) == pytest.approx(1 / (64 + 7))                   # 7 are beyond 64
    assert ground(tag(15, 15) + far * 30) == pytest.approx(1 / (64 + 7))              # and their repeats are repeats


def test_one_thing_counts_once(argos, picture):
    v = argos.verify(picture, f"<think>{tag(12, 12)}{tag(55, 15)}{tag(13, 12)}{tag(12, 13)}{tag(75, 75, 'tall man')}</think>")
    assert [p.score for p in v.points] == [1, 1, 0, 0, 1] and v.grounding == pytest.approx(3 / 5)
    assert v.points[2].why == v.points[3].why == "the same red square as point 1"
    assert v.points[2].boxes == v.points[0].boxes


def test_overlapping_instances_go_to_as_many_points_as_possible(picture):
    """Two boxes, x 10..29 and 20..39: in the overlap a point takes the instance that is free."""
    class Overlapping(FakeDetector):
        def detect(self, image, labels):
            return [[Box(8, 8, 32, 22, .9, l), Box(18, 8, 42, 22, .8, l)] for l in labels]
    verifier = Argos(Overlapping(), FakeSegmenter(), None, None)
    score = lambda *xs: [p.score for p in verifier.verify(picture, f"<think>{''.join(tag(x, 15) for x in xs)}</think>").points]
    assert score(25, 12) == score(12, 25) == score(25, 35) == score(25, 26) == score(12, 35) == [1, 1]
    assert score(12, 13) == [1, 0] and score(25, 26, 27) == [1, 1, 0] and score(25, 26, 12) == [1, 1, 0]
    assert verifier.verify(picture, f"<think>{tag(12, 15)}{tag(13, 15)}</think>").points[1].why == "the same red square as point 1"


@pytest.mark.parametrize("spelled", ["Red Square", "red-square", "red, square", "the red square", "red squares", "red  square",
                                     "Red-Square's", "(red) square"])
def test_another_spelling_is_not_another_thing(picture, spelled):
    class Forgiving(FakeDetector):
        def detect(self, image, labels):
            return [[Box(8, 8, 32, 22, .9, l)] for l in labels]
    verifier = Argos(Forgiving(), FakeSegmenter(), None, None)
    v = verifier.verify(picture, f"<think>{tag(12, 15)}{tag(14, 15, spelled)}</think>")
    assert v.grounding == .5 and "as point 1" in v.points[1].why


@pytest.mark.parametrize("n", [2, 10, 64])
def test_a_detector_that_repeats_itself_finds_one_thing(picture, n):
    class Repeating(FakeDetector):
        def detect(self, image, labels):
            return [[Box(8, 8 + i / n, 32, 22 + i / n, .9, l) for i in range(n)] for l in labels]
    verifier = Argos(Repeating(), FakeSegmenter(), None, None)
    think = "".join(tag(10 + i % 16, 12 + i // 16) for i in range(64))
    assert verifier.verify(picture, f"<think>{think}</think>").grounding == pytest.approx(1 / 64)


def test_instances_are_told_apart_up_to_the_last_bit(picture):
    class Many(FakeDetector):
        def detect(self, image, labels):  # 64 boxes, 8 by 8, of 5 pixels each
            return [[Box(10 * (i % 8), 10 * (i // 8), 10 * (i % 8) + 9, 10 * (i // 8) + 9, 1, l) for i in range(64)] for l in labels]
    think = "".join(tag(10 * (i % 8) + 4, 10 * (i // 8) + 4) for i in range(64))
    assert Argos(Many(), FakeSegmenter(), None, None).verify(picture, f"<think>{think}</think>").grounding == 1


def test_one_thing_in_two_frames_is_two_points(argos, clip):
    think = "The red square is at (15, 15) in frame 0 (0.0 seconds). The red square is at (15, 15) in frame 5 (2.5 seconds)."
    assert argos.verify(clip, f"<think>{think}</think>").grounding == 1
    behind = "(15, 15) in frame 0 (0.0 seconds) the red square appears."
    assert argos.verify(clip, f"<think>{behind}</think>").grounding == 1
    broken = "(15, 15) in frame 5 (2.5 seconds)."  # no label on either side
    v = argos.verify(clip, f"<think>{behind} In frame 5 (2.5 seconds) it appears. {broken}</think>")
    assert v.grounding == pytest.approx((1 / 2 + 1) / 2)  # points 1 of 2, frame claims 1 of 1


def test_coverage_is_off_and_weighs_what_points_touch(picture, clip):
    make = lambda **options: Argos(FakeDetector(), FakeSegmenter(), None, FakeJudge(), **options)
    picture.objects = ["red square", "tall man", "blue dog"]  # the dog is not there, so it is not counted
    one, two, square = (f"<think>{t}</think><answer>2</answer>" for t in (tag(15, 15), tag(15, 15) + tag(75, 75, "Tall man"), "I know."))
    assert [make().verify(picture, r).grounding for r in (one, two, square)] == [1, 1, 0]
    strict = make(coverage=True)
    assert [strict.verify(picture, r).grounding for r in (one, two, square)] == [.5, 1, 0]
    assert "covers 1 of 2 things" in strict.verify(picture, one).explain()
    picture.objects = []
    assert strict.verify(picture, one).grounding == 1
    clip.objects = ["red square"]
    claims = ["In frame 5 it appears.", "The red square is at (15, 15) in frame 5 (2.5 seconds). In frame 5 it appears."]
    assert [strict.verify(clip, f"<think>{c}</think>").grounding for c in claims] == [0, 1]


def test_each_label_gets_its_own_masks(argos, picture):
    places = ((11, 12), (51, 12), (71, 60))
    think = "".join(tag(x, y, label) for label in ("red square", "tall man", "Red Square") for x, y in places)
    v = argos.verify(picture, f"<think>{think}</think>")
    assert [p.score for p in v.points] == [1, 1, 0, 0, 0, 1]          # three repeats in other letters are left out
    assert argos.detector.asked == [["red square", "tall man"]] and set(v.masks) == {(0, "red square"), (0, "tall man")}


@pytest.mark.parametrize("x, y, score", [(10, 10, 1), (9.99, 10, 0), (19.99, 19.99, 1), (20, 19, 0), (19, 20, 0), (-1, -1, 0),
                                         (15, 55, 0)])  # the last would be in if x and y were swapped
def test_a_point_falls_into_the_pixel_that_holds_it(argos, picture, x, y, score):
    assert argos.verify(picture, f"<think>{tag(x, y)}</think>").grounding == score


def test_points_are_read_in_the_policys_pixels(argos, picture, tmp_path):
    # a 840 x 840 file is seen as 168 x 168: 1/5. The mask holds (10..19, 10..19) of what is SEEN
    Image.new("RGB", (840, 840)).save(tmp_path / "a.png")
    assert argos.verify(picture, f"<think>{tag(15, 15)}</think>").grounding == 1
    assert argos.verify(picture, f"<think>{tag(75, 75)}</think>").grounding == 0


def test_grounding_is_called_for_but_missing(argos, picture):
    v = argos.verify(picture, "<think>I just know.</think><answer>2</answer>")
    assert v.grounding == 0 and v.reward == pytest.approx(.5 + .25 * .8)
    picture.grounding = False
    v = argos.verify(picture, "<think>I just know.</think><answer>2</answer>")
    assert v.grounding is None and v.reward == pytest.approx((.5 + .25 * .8) / .75)


def test_drawn_pictures_prompt_the_segmenter_with_points(argos, picture):
    picture.drawn = True
    v = argos.verify(picture, f"<think>{tag(72, 68, 'bar')}{tag(15, 15)}</think>")
    assert [p.score for p in v.points] == [1, 0] and argos.detector.asked == []
    assert argos.segmenter.prompts == [[Box(70, 70, 70, 70, 1.0, "bar")]]


def test_a_clip_by_hand(argos, clip):
    # points: frame 5 in, frame 5 named as 3.5 s (a whole second off) out      -> 1/2
    # frame claims: "appears" true, "hides" false, frame 9 does not exist      -> 1/3
    # segments: "moves" true, reversed 0, between two frames 0                 -> 1/3     R_vg = (1/2 + 1/3 + 1/3) / 3 = 7/18
    think = ("The red square is at (15, 15) in frame 5 (2.5 seconds). The red square is at (15, 15) in frame 5 (3.5 seconds). "
             "In frame 5 (2.5 seconds) it appears. In frame 2 (1.0 seconds) it hides. In frame 9 (4.5 seconds) it appears. "
             "From 2.5 seconds to 3.5 seconds it moves. From 3.5 seconds to 2.5 seconds it moves. "
             "From 2.6 seconds to 2.9 seconds it moves.")
    v = argos.verify(clip, f"<think>{think}</think><answer>2.5</answer>")
    assert [p.score for p in v.points] == [1, 0] and "is at 2.5 seconds" in v.points[1].why
    assert [c.score for c in v.frame_scores] == [1, 0, 0] and "frame 9" in v.frame_scores[2].why
    assert [c.score for c in v.segment_scores] == [1, 0, 0]
    assert "before" in v.segment_scores[1].why and "no frame" in v.segment_scores[2].why
    assert v.grounding == pytest.approx(7 / 18) and v.reward == pytest.approx(.5 + .25 * 7 / 18 + .25 * .8)
    assert argos.judge.frames == [(100, "it appears"), (40, "it hides")]          # pixel 20 * i says which frame was shown
    assert argos.judge.segments == [([2.5, 3.0, 3.5], "it moves")]
    assert "NO" in v.explain()


@pytest.mark.parametrize("think, grounding", [
    ("", 0), ("The red square is at (15, 15) in frame 0 (0.0 seconds).", 1), ("In frame 5 it appears.", 1),
    ("From 0 to 1 seconds it moves. In frame 5 it hides.", .5), ("From 2.54 to 2.46 seconds it moves.", 0),
    (tag(15, 15), 0), (tag(15, 15) + " in frame 3", 1)])
def test_empty_sets_do_not_count(argos, clip, think, grounding):
    assert argos.verify(clip, f"<think>{think}</think><answer>2.5</answer>").grounding == pytest.approx(grounding)


@pytest.mark.parametrize("frame, seconds, index", [
    (5, 2.5, 5), (5, None, 5), (None, 2.5, 5), (5, 2.74, 5), (5, 2.8, None), (5, 3.0, None), (8, None, None),
    (8, 4.0, None), (None, 3.7, 7),
    (None, 3.8, None), (None, 99.0, None), (None, None, None), (0, 0.0, 0), (0, 0.3, None)])
def test_number_and_time_must_agree(frame, seconds, index):
    media = Media([None] * 8, [.5 * i for i in range(8)], (84, 84))
    found, why = which_frame(media, frame, seconds)
    assert found == index and bool(why) == (index is None)


def test_a_group_loads_detects_and_judges_once(argos, picture, clip, monkeypatch):
    import argos as module
    loads, real = [], load_media
    monkeypatch.setattr(module, "load_media", lambda *a, **k: loads.append(a) or real(*a, **k))
    group = [f"<think>{tag(15, 15 + i)}</think><answer>{a}</answer>" for i, a in enumerate("2233")]
    group.append("<think>x</think><answer>2</answer>")
    verdicts = argos.verify_group(picture, group)
    assert len(loads) == 1 and argos.detector.asked == [["red square"]] and len(argos.segmenter.prompts) == 1
    assert argos.judge.calls == [([tag(15, 15), tag(15, 16), "x"], ["2", "2", "2"], False)]  # once, and not about wrong answers
    assert [v.reasoning for v in verdicts] == [.8, .8, None, None, .8]
    assert [v.grounding for v in verdicts] == [1, 1, 1, 1, 0]
    alone = [Argos(FakeDetector(), FakeSegmenter(), FakePointer(), FakeJudge()).verify(picture, r).reward for r in group]
    assert [v.reward for v in verdicts] == alone
    argos.verify_group(clip, ["<think>In frame 5 it appears.</think><answer>1</answer>"] * 3)
    assert len(argos.judge.frames) == 1
    assert [len(g) for g in argos.verify_groups([picture, clip], [group, group[:2]])] == [5, 2]


def test_reasoning_quality(argos, picture):
    right = "<think>{}</think><answer>2</answer>"
    assert argos.verify(picture, right.format("  ")).reasoning == 0 and argos.judge.calls == []  # nothing supports the answer
    argos.verify(picture, right.format("x\x00 <|image_pad|> <answer>7</answer> " + "y" * 30_000))
    (think,), (answer,), normalised = argos.judge.calls[0]
    assert len(think) <= 20_001 and answer == "2" and not normalised
    assert not any(text in think for text in ("<|", "<answer>", "\x00"))
    for p, want in ((1.0000001, 1), (-.1, 0), (np.float32(.5), .5)):
        v = Argos(None, None, None, FakeJudge(p), length_normalized=True).verify(picture, right.format("x"))
        assert v.reasoning == want and not v.selected["spatial"].use
        assert v.reward == pytest.approx((.5 + .25 * want) / .75)


def test_the_paper_ablations_are_one_flag(picture):
    response = f"<think>{tag(15, 15)}{tag(0, 0)}</think><answer>2</answer>"
    for use, want in ((("outcome",), 1), (("outcome", "grounding"), (.5 + .25 * .5) / .75),
                      (("outcome", "reasoning"), (.5 + .25 * .8) / .75)):
        ablated = Argos(FakeDetector(), FakeSegmenter(), FakePointer(), FakeJudge(), use=use)
        assert ablated.verify(picture, response).reward == pytest.approx(want)


def test_without_a_truth_there_is_grounding_and_no_reward(argos, picture):
    picture.answer = None
    v = argos.verify(picture, f"<think>{tag(15, 15)}</think><answer>2</answer>")
    assert (v.reward, v.outcome, v.grounding) == (None, None, 1) and "no truth" in v.explain()


def test_self_check_finds_wrong_coordinate_spaces():
    class Seeing:  # finds the red pixels that are really there
        shift = 0

        def detect(self, image, labels):
            ys, xs = np.nonzero(np.asarray(image).astype(int)[..., 1] < 100)
            return [[Box(xs.min() + self.shift, ys.min(), xs.max() + self.shift, ys.max(), 1.0, l)] for l in labels]

        def segment(self, image, boxes):
            y, x = np.indices((image.height, image.width))
            return np.stack([(x >= b.x1) & (x <= b.x2) & (y >= b.y1) & (y <= b.y2) for b in boxes])

    class Shifted(Seeing):
        shift = 40

    Argos(Seeing(), Seeing(), None, None).self_check()
    Argos(Seeing(), Seeing(), None, None, min_pixels=7056, max_pixels=1003520).self_check()
    with pytest.raises(BadInput, match="self-check"):
        Argos(Shifted(), Seeing(), None, None).self_check()
    Argos(Seeing(), Seeing(), None, None, use=("outcome",)).self_check()


def test_an_animation_is_no_picture(argos, clip):
    clip.media = "image"
    with pytest.raises(BadInput, match="video"):
        argos.verify(clip, "<answer>2</answer>")


# ---- 6. Teachers that fail -------------------------------------------------------------------------------------------
class Broken:
    """Wraps a teacher: a call of `method` for which when(arguments) holds returns what(arguments), or raises."""

    def __init__(self, teacher, method, what, when=lambda *a: True):
        def call(*arguments):
            if not when(*arguments):
                return getattr(teacher, method)(*arguments)
            if callable(what):
                return what(*arguments)
            raise what
        self.teacher = teacher
        setattr(self, method, call)

    def __getattr__(self, name):
        return getattr(self.teacher, name)


CRASH = RuntimeError("CUDA out of\nmemory")
RIGHT = f"<think>{tag(15, 15)}{tag(0, 0)}</think><answer>2</answer>"  # grounding 1/2, reasoning .8
NO_VG, NO_RQ = (.5 + .25 * .8) / .75, (.5 + .25 * .5) / .75  # the reward where a term drops out and the others are rescaled


@pytest.mark.parametrize("role, method, what, term, reward", [
    ("detector", "detect", CRASH, "grounding", NO_VG),
    ("detector", "detect", lambda image, labels: [], "grounding", NO_VG),
    ("detector", "detect", lambda image, labels: None, "grounding", NO_VG),
    ("detector", "detect", lambda image, labels: [[Box(0, 0, math.nan, 9, 1, l)] for l in labels], "grounding", NO_VG),
    ("segmenter", "segment", CRASH, "grounding", NO_VG),
    ("segmenter", "segment", lambda image, boxes: np.zeros((len(boxes), 10, 10), bool), "grounding", NO_VG),
    ("segmenter", "segment", lambda image, boxes: np.ones((len(boxes), 84, 84)), "grounding", NO_VG),  # logits, not a mask
    ("judge", "answer_probability", CRASH, "reasoning", NO_RQ),
    ("judge", "answer_probability", lambda *a: [math.nan] * len(a[2]), "reasoning", NO_RQ),
    ("judge", "answer_probability", lambda *a: [], "reasoning", NO_RQ),
    ("judge", "answer_probability", lambda *a: None, "reasoning", NO_RQ)])
def test_a_teacher_that_fails_is_not_scored(picture, tmp_path, role, method, what, term, reward):
    teachers = dict(detector=FakeDetector(), segmenter=FakeSegmenter(), pointer=None, judge=FakeJudge())
    teachers[role] = Broken(teachers[role], method, what)
    verifier = Argos(**teachers)
    one, two = verifier.verify_group(picture, [RIGHT, "<think>I guess.</think><answer>2</answer>"])
    for v in (one, two):  # the whole group: who pointed at nothing gains nothing on who pointed
        assert getattr(v, term) is None and set(v.not_scored) == {term} and f"the {role} failed" in v.not_scored[term]
        assert v.explain().count("not scored: ") == 1 and "\nmemory" not in v.explain()
        assert all(why in v.explain() for why in v.not_scored.values())
    assert one.reward == pytest.approx(reward) and sum(verifier.failures.values()) >= 1
    assert all(key.startswith(f"{role}: ") for key in verifier.failures)
    verifier.card(picture, RIGHT, one, tmp_path / "card.png")


def test_a_failure_with_many_labels_is_no_failure_with_each(picture):
    crowded = Broken(FakeDetector(), "detect", CRASH, lambda image, labels: len(labels) > 1)
    verifier = Argos(crowded, FakeSegmenter(), None, FakeJudge())
    v = verifier.verify(picture, f"<think>{tag(15, 15)}{tag(75, 75, 'tall man')}{tag(0, 0, 'tall man')}</think><answer>2</answer>")
    assert [p.score for p in v.points] == [1, 1, 0] and not v.not_scored and verifier.failures == {"detector: RuntimeError": 1}


def test_who_breaks_a_teacher_pays_alone(picture):
    detector = Broken(FakeDetector(), "detect", CRASH, lambda image, labels: "odd" in labels)
    judge = Broken(FakeJudge(), "answer_probability", CRASH, lambda media, q, thinks, *a: any("odd" in t for t in thinks))
    verifier = Argos(detector, FakeSegmenter(), None, judge)
    odd = f"<think>{tag(15, 15, 'odd')}{tag(15, 15)}</think><answer>2</answer>"
    good, bad = verifier.verify_group(picture, [RIGHT, odd])
    assert not good.not_scored and not bad.not_scored and good.reward == pytest.approx(.5 + .25 * .5 + .25 * .8)
    assert [p.score for p in bad.points] == [0, 1] and "the detector failed" in bad.points[0].why
    assert bad.reasoning == 0 and "the judge failed" in bad.explain() and "the judge failed" not in good.explain()
    assert set(good.masks) == {(0, "red square")}
    # a sole response is no different: the detector answers about an object
    assert verifier.verify(picture, f"<think>{tag(15, 15, 'odd')}</think>").grounding == 0


class Together(FakeJudge):
    """Is asked about all groups at once, and dies of whoever says "odd"."""

    def answer_probabilities(self, groups, length_normalized=False):
        self.asked = [list(thinks) for _, _, thinks, _ in groups]
        return [self.answer_probability(*group, length_normalized) for group in groups]

    def answer_probability(self, media, question, thinks, answers, length_normalized=False):
        if any("odd" in think for think in thinks):
            raise RuntimeError("odd")
        return [(10 * len(think) + len(answer)) / 1000 for think, answer in zip(thinks, answers)]


def test_the_reasoning_of_all_groups_is_asked_about_at_once(picture, clip):
    """Kills: a question to the teacher for each group, a reply that goes to another response."""
    judge = Together()
    groups = [["<think>Two.</think><answer>2</answer>", "<think>x</think><answer>3</answer>", "<think>Two.</think><answer>two</answer>"],
              ["<think>Hm.</think><answer>3</answer>"],  # nobody is right: not asked
              ["<think>I see a pair.</think><answer>2</answer>", "<think>2</think><answer>2</answer>"] * 2]
    verdicts = Argos(None, None, None, judge).verify_groups([picture] * 3, groups)
    assert judge.asked == [["Two.", "Two."], ["I see a pair.", "2"]]  # the same is asked once
    scores = [[v.reasoning for v in group] for group in verdicts]
    assert scores == [[.041, None, .043], [None], [.131, .011, .131, .011]]


def test_one_groups_failure_costs_no_other_group(picture):
    judge = Together()
    groups = [["<think>odd</think><answer>2</answer>", "<think>Two.</think><answer>2</answer>"], ["<think>I see.</think><answer>2</answer>"]]
    verifier = Argos(None, None, None, judge)
    (odd, neighbour), (other,) = verifier.verify_groups([picture] * 2, groups)
    assert (odd.reasoning, neighbour.reasoning, other.reasoning) == (0, .041, .061) and not odd.not_scored
    assert verifier.failures == {"judge: RuntimeError": 3}  # all together, the group, the response
    judge.answer_probability = lambda *a: [math.nan] * len(a[2])  # now the teacher is at fault
    verdicts = verifier.verify_groups([picture] * 2, groups)
    assert all(v.reasoning is None and set(v.not_scored) == {"reasoning"} for group in verdicts for v in group)


def test_a_segmenter_that_fails_says_so(picture):
    segmenter = Broken(FakeSegmenter(), "segment", CRASH, lambda image, boxes: any(b.x1 == 68 for b in boxes))  # the tall man's box
    v = Argos(FakeDetector(), segmenter, None, FakeJudge()).verify(picture, f"<think>{tag(15, 15)}{tag(75, 75, 'tall man')}</think>")
    assert [p.score for p in v.points] == [1, 0] and "the segmenter failed" in v.points[1].why


def test_what_others_look_up_helps_nobody(argos, picture):
    many = "".join(tag(k, k, f"thing {k}") for k in range(16)) + tag(15, 15)  # its red square is one label too many
    many = f"<think>{many}</think><answer>2</answer>"
    alone, together = argos.verify(picture, many), argos.verify_group(picture, [RIGHT, many])[1]
    assert alone.grounding == together.grounding == 0 and "more than 16" in together.points[-1].why
    assert together.masks.keys() == alone.masks.keys()  # nor does its card show more


def test_a_detector_that_knows_no_drawings_is_warned_about(capsys):
    blind = SimpleNamespace(detect=lambda image, labels: [[] for _ in labels])
    Argos(blind, FakeSegmenter(), None, None).self_check()
    assert "not checked" in capsys.readouterr().err


class Gullible(FakeJudge):
    """Says yes to "yes man" about any truth, else where the texts share their colour."""
    def equivalent(self, question, truth, prediction):
        self.calls.append((truth, prediction))
        return prediction == "yes man" or truth.split()[0] == prediction.split()[0]


def test_an_answer_that_also_means_a_foil_means_neither(picture):
    picture.kind, picture.answer = "free", "red box"
    picture.foils = ["blue box", "green box", "red tin", "tin"]
    group = [f"<think>x</think><answer>{a}</answer>" for a in ("red box", "red cube", "yes man", "Blue box.", "green lid", "red or blue")]

    def outcomes(k, responses=group):
        judge = Gullible()
        verdicts = Argos(None, None, None, judge, use=("outcome",), foils=k).verify_group(picture, responses)
        return [v.outcome for v in verdicts], [v.selected["outcome"].why for v in verdicts], judge.calls

    scores, _, asked = outcomes(0)  # the paper's
    assert scores == [1, 1, 1, 0, 0, 0] and len(asked) == 4 and all(truth == "red box" for truth, _ in asked)
    scores, why, asked = outcomes(2)
    assert scores == [1, 1, 0, 0, 0, 0]
    assert "means none of 2 foils" in why[1] and "also means 'blue box'" in why[2] and "it is 'Blue box.', another truth" in why[3]
    assert asked == [(t, a) for a in ("red cube", "yes man", "green lid") for t in ("red box", "blue box", "green box")]
    assert outcomes(3)[0] == [1, 0, 0, 0, 0, 0]  # "red cube" also means a red tin, says this judge
    assert Argos(None, None, None, None).foils == 2
    picture.foils = []
    scores, why, _ = outcomes(2)
    assert scores == [1, 1, 1, 0, 0, 0] and "no foils: no other truth is known" in why[1] and "foil" not in why[0]
    assert "foil" not in "".join(outcomes(0)[1])


def test_foils_are_asked_in_one_batch(picture):
    class Batch(FakeJudge):
        def yes_or_no(self, questions):
            self.calls.append(len(questions))
            return [False] * len(questions)
    picture.kind, picture.answer, picture.foils = "free", "red box", ["blue box", "tin"]
    judge = Batch()
    Argos(None, None, None, judge, use=("outcome",)).verify_group(picture, ["<answer>a</answer>", "<answer>b</answer>", "<answer>a</answer>"])
    assert judge.calls == [6]


def test_a_judge_that_fails_at_foils(picture):
    picture.kind, picture.answer, picture.foils = "free", "red box", ["blue box", "odd"]
    group = [f"<think>x</think><answer>{a}</answer>" for a in ("red cube", "odd one")]
    at_one = Broken(Gullible(), "equivalent", CRASH, lambda question, truth, said: (truth, said) == ("odd", "odd one"))
    verdicts = Argos(None, None, None, at_one).verify_group(picture, group)
    assert [v.outcome for v in verdicts] == [1, 0] and "the judge failed" in verdicts[1].explain()
    verdicts = Argos(None, None, None, Broken(Gullible(), "equivalent", CRASH)).verify_group(picture, group)
    assert all(v.outcome is v.reward is None for v in verdicts)


def test_a_judge_that_fails_at_answers(picture):
    picture.kind, picture.answer = "free", "a red box"
    group = [f"<think>x</think><answer>{a}</answer>" for a in ("a red box", "a crimson box", "odd", "blue")]
    judge = Broken(FakeJudge(), "equivalent", CRASH, lambda question, truth, said: said == "odd")
    verdicts = Argos(None, None, None, judge).verify_group(picture, group)
    assert [v.outcome for v in verdicts] == [1, 1, 0, 0] and "the judge failed" in verdicts[2].explain()
    for what in (CRASH, lambda *a: None, lambda *a: "yes"):  # "yes" is true in Python
        verdicts = Argos(None, None, None, Broken(FakeJudge(), "equivalent", what)).verify_group(picture, group)
        assert all(v.reward is v.outcome is None and "outcome" in v.not_scored for v in verdicts)
        assert "the outcome was not scored" in verdicts[0].explain()
    verdict = Argos(None, None, None, SimpleNamespace(yes_or_no=lambda questions: None)).verify(picture, group[1])
    assert "TypeError: object of type 'NoneType' has no len()" in verdict.not_scored["outcome"]
    verdicts = Argos(None, None, None, Broken(FakeJudge(), "equivalent", CRASH)).verify_group(picture, group[:1] * 2)
    assert [v.outcome for v in verdicts] == [1, 1]  # nobody had to be asked


def test_a_judge_that_fails_at_claims(clip):
    claims = "<think>In frame 5 it appears. From 0 to 1 seconds it moves.</think><answer>2.5</answer>"
    verifier = Argos(FakeDetector(), FakeSegmenter(), None, Broken(FakeJudge(), "segment_claim", CRASH))
    for v in verifier.verify_group(clip, [claims, "<think>In frame 5 it appears.</think><answer>2.5</answer>"]):
        assert v.grounding is None and "the judge failed" in v.not_scored["grounding"]
    odd = Broken(FakeJudge(), "frame_claim", CRASH, lambda image, claim: "odd" in claim)
    v = Argos(FakeDetector(), FakeSegmenter(), None, odd).verify(clip, "<think>In frame 5 it appears. In frame 2 it is odd.</think>")
    assert v.grounding == .5 and "the judge failed" in v.frame_scores[1].why


def test_a_mistake_in_a_setting_is_no_failure(picture):
    with pytest.raises(BadInput, match="wrong folder"):
        Argos(Broken(FakeDetector(), "detect", BadInput("wrong folder")), FakeSegmenter(), None, None).verify(picture, RIGHT)
    with pytest.raises(BadInput, match="the detector failed"):
        Argos(Broken(FakeDetector(), "detect", CRASH), FakeSegmenter(), None, None).self_check()
    with pytest.raises(BadInput, match="extract"):
        Argos(None, None, None, FakeJudge(), extract=True)
    with pytest.raises(KeyboardInterrupt):
        Argos(Broken(FakeDetector(), "detect", KeyboardInterrupt()), FakeSegmenter(), None, None).verify(picture, RIGHT)


def test_more_labels_than_are_looked_up_score_0(argos, picture):
    think = tag(15, 15) + "".join(tag(15, 15, f"thing {i}") for i in range(20)) + tag(55, 15)
    v = argos.verify(picture, f"<think>{think}</think>")
    assert len(argos.detector.asked[0]) == 16 and len(v.points) == 22 and v.grounding == pytest.approx(2 / 22)
    assert "more than 16" in v.points[20].why and v.points[21].score == 1


def test_a_judge_is_asked_once_about_all_groups(picture, clip):
    class Batch(FakeJudge):
        def yes_or_no(self, questions):
            self.calls.append([name for name, *_ in questions])
            return [getattr(self, name)(*arguments) for name, *arguments in questions]

    judge, one_by_one = Batch(), FakeJudge()
    groups = [["<think>In frame 5 it appears. From 0 to 1 seconds it moves.</think><answer>2.5</answer>",
               "<think>In frame 2 it appears. In frame 5 it appears.</think><answer>2.5</answer>"]] * 2
    other = Sample("d", "?", "2.5", "number", clip.path, "video")
    verdicts = [Argos(FakeDetector(), FakeSegmenter(), None, j, use=("outcome", "grounding")).verify_groups([clip, other], groups)
                for j in (judge, one_by_one)]
    assert judge.calls == [["frame_claim"] * 4, ["segment_claim"] * 2]  # each group's two frames and one segment, once
    assert [[(v.reward, v.explain()) for v in g] for g in verdicts[0]] == [[(v.reward, v.explain()) for v in g] for g in verdicts[1]]
    assert [v.grounding for v in verdicts[0][0]] == [1, 1]


def test_damaged_files_are_left_out_and_counted(argos, picture, clip, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    bad, gone = (Sample(name, "?", "2", "count", str(tmp_path / name), "video") for name in ("bad.mp4", "gone.png"))
    samples, media = argos.usable([picture, bad, clip, gone])
    assert samples == [picture, clip] and [len(m.frames) for m in media] == [1, 8] and argos.failures == {"damaged media": 2}
    assert "bad.mp4" in (said := capsys.readouterr().err) and "gone.png" in said and said.count("\n") == 2
    assert argos.usable([bad, gone]) == ([], [])


# ---- 7. Claims in free prose -----------------------------------------------------------------------------------------
def frame(claim="the door is open", frame=None, seconds=2.5):
    return {"frame": frame, "seconds": seconds, "claim": claim}


class Extractor(FakeJudge):
    reply = json.dumps({"frame_claims": [frame("it appears")], "segment_claims": [{"start": 0, "end": 1, "claim": "it hides"}]})

    def extract_claims(self, thinks):
        self.calls.append(list(thinks))
        return [self.reply] * len(thinks)


def test_free_prose_is_read_by_the_judge(clip, picture):
    prose = "<think>{} 2.5 seconds later it appears. Within 0 and 1 s it hides.</think><answer>2.5</answer>"
    group = [prose.format("First"), prose.format("Then"), prose.format("First"), "<think>In frame 5 it hides.</think><answer>2.5</answer>"]
    make = lambda **options: Argos(FakeDetector(), FakeSegmenter(), None, Extractor(), **options)
    verifier = make(extract=True)
    verdicts = verifier.verify_group(clip, group)
    assert [v.grounding for v in verdicts] == [.5, .5, .5, 0]  # "appears" true, "hides" false, each the only one of its kind
    assert verdicts[0].parsed.extracted and not verdicts[3].parsed.extracted
    assert "by the judge, from free prose: 0 points, 1 frame claims, 1 segment claims" in verdicts[0].explain()
    assert "'it appears'" in verdicts[0].explain() and verdicts[0].parsed.extracted
    (asked,) = [c for c in verifier.judge.calls if isinstance(c, list)]
    assert len(asked) == 2 and all("<think>" not in text for text in asked)  # each reasoning once, where no rule read anything
    assert [v.grounding for v in make().verify_group(clip, group)] == [0, 0, 0, 0]  # off unless asked for
    still = make(extract=True)
    still.verify(picture, "<think>2.5 seconds later it appears.</think><answer>2</answer>")  # pictures have points
    still.verify(clip, "<answer>2.5</answer>")
    assert not [c for c in still.judge.calls if isinstance(c, list)]


@pytest.mark.parametrize("what, grounding", [(CRASH, None), (lambda thinks: [], None), (lambda thinks: [3], None), (lambda thinks: ["I'm sorry"], 0)])
def test_extraction_that_fails(clip, what, grounding):
    verifier = Argos(FakeDetector(), FakeSegmenter(), None, Broken(Extractor(), "extract_claims", what), extract=True)
    v = verifier.verify(clip, "<think>2.5 seconds later it appears.</think><answer>2.5</answer>")
    assert v.grounding == grounding and bool(v.not_scored) == (grounding is None)
    assert grounding is None or v.parsed.dropped_reasons == {"extraction not in the form asked for": 1}


# ---- 8. Card and command line ----------------------------------------------------------------------------------------
def test_the_card_shows_points_in_and_out(argos, picture, tmp_path):
    v = argos.verify(picture, response := f"<think>{tag(15, 15)} {tag(40, 60)}</think><answer>2</answer>")
    argos.card(picture, response, v, tmp_path / "card.png")
    card = np.asarray(Image.open(tmp_path / "card.png").convert("RGB")).astype(int)
    assert card.shape[1] > 1200 and card.shape[0] > 640
    at = lambda x, y: card[12 + int((y + .5) * 8) - 5, 12 + int((x + .5) * 8)]  # drawn 8 times larger, 12 px from the rim
    assert at(15, 15)[1] > at(15, 15)[0] + 50 and at(40, 60)[0] > at(40, 60)[1] + 50  # green, red


@pytest.mark.parametrize("hostile", ["$x^{", "\x00\u202e\ud800\n\n\t", "<point " * 9000, "漢字 🙂 " * 200,
                                     tag(999999, -5, "$\\frac{"), "", "x" * 200_000, "\n" * 9999])
def test_hostile_texts_can_be_drawn(argos, picture, clip, tmp_path, hostile):
    for sample in (picture, clip):
        sample.question = hostile or "?"
        label = hostile.replace("<", "")[:50] or "a"
        response = f"<think>{hostile} {tag(15, 15, label)} in frame 2 it</think><answer>{hostile[:50]}</answer>"
        argos.card(sample, response, argos.verify(sample, response), tmp_path / "card.png")
        assert Image.open(tmp_path / "card.png").size[1] < 4000


def test_the_command_line(tmp_path, monkeypatch, capsys):
    def call(*args):
        """argos.main() as the command line calls it -> what it printed."""
        monkeypatch.setattr(sys, "argv", ["argos.py", *map(str, args), "--judge", "none"])
        main()
        return capsys.readouterr().out

    picture, card = Image.new("RGB", (84, 84), (225, 225, 220)), tmp_path / "card.png"
    picture.paste((225, 30, 30), (30, 20, 50, 40))
    picture.save(path := tmp_path / "a.png")
    response = f"<think>{tag(40, 28)} {tag(70, 70)}</think><answer>1</answer>"
    out = call(path, "How many red squares?", response, "--answer", 1, "--kind", "count", "--card", card)
    assert "spatial    0.50" in out and "= 0.83" in out and card.is_file()
    out = call(path, "?", response)
    assert "no truth" in out and "spatial    0.50" in out
    wrong = (path, "?", "x", "--answer", "red", "--kind", "count")
    for args in ((tmp_path / "b.png", "?", response), wrong):
        with pytest.raises(SystemExit) as stop:
            run_main(lambda: call(*args))
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    done = subprocess.run([sys.executable, ROOT / "argos.py", *wrong, "--judge", "none"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == err  # the file, run as a person does


def test_a_full_disk_and_ctrl_c_end_in_one_line(capsys):
    def end(act):
        with pytest.raises(SystemExit) as stop:
            run_main(act)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and "--resume" in lines[0]
        return stop.value.code, lines[0]

    def interrupted():
        raise KeyboardInterrupt

    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "out/metrics.jsonl")
    assert end(interrupted)[0] == 130
    code, line = end(full)
    assert code == 2 and "out/metrics.jsonl: the disk is full" in line
    if Path("/dev/full").exists():  # Linux's own full disk
        assert end(lambda: append_jsonl("/dev/full", {"a": 1}))[0] == 2
    with pytest.raises(FileNotFoundError):  # what is no full disk stays a traceback
        run_main(lambda: open("/nowhere/at/all"))


def test_raw_reasoning_reaches_the_extraction():
    assert "<<<I count two.>>>" in P.prompt("7b", "objects", question="q", answer="a", raw="I count two.")
    assert P.prompt("tiny", "objects", question="q", answer="a", raw="I count two.") == "List what matters: q a"
