"""theory/noise.py: teachers err as often and as far as was ordered, and only so."""
from dataclasses import replace

import numpy as np

from teacher_fixtures import RED, TWO_SQUARES, drawing
from teachers.names import load_teachers
from theory.noise import NoisyDetector, NoisyJudge, NoisyPointer
from verifier.coordinates import Media

DETECTOR, _, POINTER = load_teachers()


def places(boxes):
    return [(b.x1, b.y1, b.x2, b.y2) for b in boxes]


def pictures(n):
    """n pictures that differ in one pixel, each with four red squares."""
    for i in range(n):
        image = drawing(*[("box", (x, y, x + 14, y + 14), RED) for x in (10, 50) for y in (10, 50)])
        image.putpixel((i % 84, 80), (230, i // 84, 230))
        yield image


def within(rate, hits, n):
    """Four standard errors: one run in 16,000 fails by chance."""
    return abs(hits / n - rate) <= 4 * (rate * (1 - rate) / n) ** .5


def test_miss_and_false_alarm_happen_as_often_as_ordered():
    n = 250
    noisy, pointer = NoisyDetector(DETECTOR, miss=.2, false_alarm=.3), NoisyPointer(POINTER, miss=.2, false_alarm=.3)
    kept = alarms = points = 0
    for image in pictures(n):
        red, blue = noisy.detect(image, ["red square", "blue square"])
        kept, alarms = kept + sum(b.score > .5 for b in red), alarms + len(blue)
        points += len(pointer.point(image, "blue square"))
        assert all(0 <= b.x1 < b.x2 <= 84 and 0 <= b.y1 < b.y2 <= 84 for b in red + blue)
    assert within(.8, kept, 4 * n) and within(.3, alarms, n) and within(.3, points, n)


def test_jitter_and_bias_in_pixels():
    pointer, detector = NoisyPointer(POINTER, jitter=2, bias=(5, -3)), NoisyDetector(DETECTOR, jitter=2, bias=(5, -3))
    truth = np.array(POINTER.point(next(pictures(1)), "square"))
    shifts = np.concatenate([np.array(pointer.point(image, "square")) - truth for image in pictures(200)])  # (800, 2)
    assert np.abs(shifts.mean(0) - [5, -3]).max() < 4 * 2 / 800 ** .5 and np.abs(shifts.std(0) - 2).max() < .25
    boxes = [places(detector.detect(image, ["square"])[0]) for image in pictures(200)]
    boxes = np.array([b[:4] for b in boxes])  # (200, 4, 4)
    assert np.allclose(boxes[..., 2:] - boxes[..., :2], 15)  # moved, not stretched
    assert np.abs(boxes.mean(0)[0, :2] - [15, 7]).max() < 4 * 2 / 200 ** .5


def test_an_error_is_drawn_once_for_each_seed_picture_and_label_unless_fresh():
    ask = lambda teacher, image, label="red square": places(teacher.detect(image, [label])[0])
    one, two, *_ = pictures(2)
    noisy = NoisyDetector(DETECTOR, jitter=3, seed=5)
    assert ask(noisy, one) == ask(noisy, one.copy()) == ask(NoisyDetector(DETECTOR, jitter=3, seed=5), one)
    others = [ask(noisy, two), ask(noisy, one, "squares"), ask(NoisyDetector(DETECTOR, jitter=3, seed=6), one)]
    assert all(o != ask(noisy, one) for o in others)
    fresh = NoisyDetector(DETECTOR, jitter=3, seed=5, fresh=True)
    assert ask(fresh, one) != ask(fresh, one)
    first, again = [NoisyDetector(DETECTOR, jitter=3, fresh=True) for _ in range(2)]  # a run repeats, call by call
    assert [ask(first, one), ask(first, one)] == [ask(again, one), ask(again, one)]


def test_turning_one_dial_leaves_the_errors_of_the_others():
    image = next(pictures(1))
    plain = NoisyDetector(DETECTOR, jitter=3)
    alarmed = replace(plain, false_alarm=1.0).detect(image, ["red square"])[0]
    assert alarmed[:-1] == plain.detect(image, ["red square"])[0]
    assert NoisyDetector(DETECTOR).detect(image, ["red square"]) == DETECTOR.detect(image, ["red square"])


class Fixed:
    """A judge that always says yes, and probability one half."""
    def equivalent(self, question, truth, prediction):
        return True

    def frame_claim(self, image, claim):
        return True

    def segment_claim(self, frames, seconds, claim):
        return True

    def answer_probability(self, media, question, thinks, answers, length_normalized=False):
        return [.5] * len(answers)


def test_the_judge_flips_and_shifts_as_ordered():
    judge, n, image = NoisyJudge(Fixed(), flip=.1, jitter=.05, bias=.2), 2000, TWO_SQUARES
    flips = [not judge.equivalent("q", "a", str(i)) for i in range(n)]
    assert within(.1, sum(flips), n) and flips == [not judge.equivalent("q", "a", str(i)) for i in range(n)]
    assert within(.1, sum(not judge.frame_claim(image, str(i)) for i in range(500)), 500)
    assert within(.1, sum(not judge.segment_claim([image] * 2, [0, 1], str(i)) for i in range(500)), 500)
    ps = judge.answer_probability(Media([image], [0.0], (84, 84)), "q", [str(i) for i in range(500)], ["a"] * 500)
    assert abs(np.mean(ps) - .7) < 4 * .05 / 500 ** .5 and abs(np.std(ps) - .05) < .01
    assert NoisyJudge(Fixed(), bias=9).answer_probability(Media([image], [0.0], (84, 84)), "q", [None], [None]) == [1.0]
