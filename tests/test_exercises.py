"""The tests that grade the exercises: `python -m exercises check 3`, or `pytest -m ex3`.

A failed assertion says what was expected, why, and where that stands. What is expected comes from outside of the code
that is graded: numbers worked by hand, exact fractions, another library. No test of one exercise calls the body of
another (tests/test_classroom.py proves it), so any of them can be taken out and written alone.
"""
import itertools
import math
import statistics
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from transformers import DynamicCache, Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

import argos
import curate
import policy
import train_grpo
from theory import bounds, exact, landscapes
from verifier import asking, claims, coordinates, foils, points


def must(condition, why):
    """Fail with this text and nothing else: a student reads it."""
    if not condition:
        pytest.fail(why, pytrace=False)


def expect(found, expected, why):
    """Numbers, or lists of them, are this close; all else is equal."""
    if isinstance(expected, (str, bool, dict, type(None))):
        good = found == expected
    else:
        good = np.shape(found) == np.shape(expected) and np.allclose(found, expected, atol=1e-6, rtol=1e-6)
    must(good, f"expected {shown(expected)}\n     got {shown(found)}\nbecause {why}")


def shown(value):
    """Numbers with as many digits as a reader wants."""
    if isinstance(value, (float, np.ndarray, list, tuple)) and np.asarray(value).dtype.kind in "fi":
        return str(np.round(value, 4).tolist())
    return repr(value)


# ---- 1. The gate (paper eq. 9) -----------------------------------------------------------------------------
def reward(outcome, grounding=None, reasoning=None, weights=argos.Weights(), tau=.5):
    return argos.gate_arithmetic(outcome, grounding, reasoning, weights, tau)[0]


@pytest.mark.ex1
def test_an_open_gate_adds_all_terms():
    expect(reward(1, .5, 1), .875, "R_o >= tau: .5 * 1 + .25 * .5 + .25 * 1 (eq. 9, the lower line)")


@pytest.mark.ex1
def test_behind_a_closed_gate_the_outcome_is_alone():
    expect(reward(0, 1, 1), 0, "R_o < tau: perfect points under a wrong answer earn nothing (eq. 9, the upper line)")
    expect(reward(.4, 1, 1), .2, "R_o < tau: w_o R_o = .5 * .4, and not a part of the other terms")


@pytest.mark.ex1
def test_the_gate_opens_at_tau_itself():
    expect(reward(.5, 1, 1), .75, "R_o = tau is open: eq. 9 says >=")
    expect(reward(.7, 1, 1, tau=.8), .35, "tau is an argument, not always .5")


@pytest.mark.ex1
def test_a_term_that_is_none_drops_out():
    expect(reward(1, .25), .75, "R_rq is None: (.5 * 1 + .25 * .25) / (.5 + .25), so R still reaches 1 (our "
                                "choice: the remaining weights are rescaled to sum to 1)")
    expect(reward(1), 1, "the outcome alone: .5 * 1 / .5")
    expect(reward(.4, 1), .4 * .5 / .75, "a closed gate divides by the same weights as an open one, else a wrong answer "
                                         "would gain from terms that are merely there")


@pytest.mark.ex1
def test_any_open_gate_beats_any_closed_one():
    grid = [i / 10 for i in range(11)]
    for grounding, reasoning in ((None, None), (None, 0), (0, 0)):
        worst_open = reward(.5, grounding, reasoning)
        for outcome in grid[:5]:
            best = reward(outcome, None if grounding is None else 1, None if reasoning is None else 1)
            must(worst_open > best,
                 f"R_o = .5 without anything gets {worst_open}, R_o = {outcome} with perfect points "
                 f"gets {best}: then points would pay for a wrong answer")


@pytest.mark.ex1
def test_the_gate_on_exact_fractions():
    weights = argos.Weights(3, 1, 2)
    values = [None, 0, .25, .75, 1]
    for outcome, grounding, reasoning in itertools.product(values[1:], values, values):
        terms = [(3, outcome), (1, grounding), (2, reasoning)]
        used = [(w, Fraction(r)) for w, r in terms if r is not None]
        counted = used if outcome >= .5 else used[:1]
        expected = sum(w * r for w, r in counted) / sum(w for w, _ in used)
        expect(reward(outcome, grounding, reasoning, weights), float(expected),
               f"weights 3, 1, 2 and scores {outcome}, {grounding}, {reasoning}, by fractions")


# ---- 2. Is it on the mask? (eqs 2-4) -----------------------------------------------------------------------
@pytest.mark.ex2
def test_a_mask_is_asked_row_first():
    mask = np.zeros((5, 5), bool)
    mask[1, 4] = True
    must(points.on_mask(mask, 4, 1), "x = 4, y = 1 is row 1, column 4: s_i = M_i[y_i, x_i] (eq. 2), y first")
    must(not points.on_mask(mask, 1, 4), "x = 1, y = 4 is row 4, column 1, and only (4, 1) is on the mask")


@pytest.mark.ex2
def test_outside_is_a_miss_and_no_error():
    mask = np.ones((2, 5), bool)
    for x, y in ((5, 0), (0, 2), (4, 4), (10 ** 6, 0)):
        must(not points.on_mask(mask, x, y), f"({x}, {y}) is outside of 5 x 2 pixels: 0, and no IndexError")
    for x, y in ((-1, 0), (0, -1), (-5, -2)):
        must(not points.on_mask(mask, x, y), f"({x}, {y}) is outside, too; mask[-1] is numpy's LAST row: a free hit")


@pytest.mark.ex2
def test_the_mask_as_another_library_reads_it():
    picture = Image.new("1", (23, 11))
    ImageDraw.Draw(picture).ellipse((3, 2, 17, 8), fill=1)
    mask = np.array(picture)
    for x, y in itertools.product(range(23), range(11)):
        expected = bool(picture.getpixel((x, y)))
        must(bool(points.on_mask(mask, x, y)) == expected, f"PIL says {expected} at ({x}, {y}) of an ellipse")


@pytest.mark.ex2
def test_a_picture_is_averaged_over_its_points():
    expect(points.mean_of_means([[1, 0, 0, 1], [], []]), .5, "two of four points hit: R_spatial = mean of s_i (eq. 3)")


@pytest.mark.ex2
def test_a_clip_is_averaged_over_its_sets():
    expect(points.mean_of_means([[0], [1, 1, 1], []]), .5,
           "points: 0, frame claims: 1, no segment claims. (0 + 1) / 2: the means of the sets that are not empty are "
           "averaged (eq. 4), so three cheap claims do not outvote one point; 3 / 4 would be the mean over pieces")
    expect(points.mean_of_means([[1, 0], [1], [0, 0, 1]]), (1 / 2 + 1 + 1 / 3) / 3, "eq. 4 with three sets")


@pytest.mark.ex2
def test_nothing_to_check_earns_nothing():
    expect(points.mean_of_means([[], [], []]), 0, "no points although they are called for: 0 (our choice), no error")


# ---- 3. Whose pixels? --------------------------------------------------------------------------------------
ORIGINAL, SEEN = (400, 200), (200, 50)
SPACES = ("original", "seen", "percent")


@pytest.mark.ex3
def test_one_point_in_three_spaces():
    same = {"original": (200, 20), "seen": (100, 5), "percent": (50, 10)}
    for source, target in itertools.product(SPACES, SPACES):
        found = coordinates.convert(*same[source], source, target, ORIGINAL, SEEN)
        expect(found, same[target], f"{same[source]} in {source} is {same[target]} in {target}: the drawing at the top of "
                                    "verifier/coordinates.py")


@pytest.mark.ex3
def test_there_and_back():
    for x, y in ((0, 0), (13.5, 7.25), (399, 199)):
        for target in SPACES:
            there = coordinates.convert(x, y, "original", target, ORIGINAL, SEEN)
            back = coordinates.convert(*there, target, "original", ORIGINAL, SEEN)
            expect(back, (x, y), f"original -> {target} -> original must be the same point; nothing may be rounded")


@pytest.mark.ex3
def test_x_goes_with_width_and_y_with_height():
    expect(coordinates.convert(1, 0, "original", "seen", (10, 1000), (30, 5000)), (3, 0), "x: times 30 / 10 (widths)")
    expect(coordinates.convert(0, 1, "original", "seen", (10, 1000), (30, 5000)), (0, 5), "y: times 5000 / 1000 (heights)")


@pytest.mark.ex3
def test_a_point_stays_on_what_it_pointed_at():
    picture = Image.new("L", (120, 90))
    ImageDraw.Draw(picture).rectangle((60, 30, 79, 39), fill=255)  # 20 x 10 pixels, the middle at (70, 35)
    small = np.array(picture.resize((60, 30), Image.Resampling.BOX))
    x, y = coordinates.convert(70, 35, "original", "seen", picture.size, (60, 30))
    rows, columns = np.nonzero(small)
    must(columns.min() <= x <= columns.max() + 1 and rows.min() <= y <= rows.max() + 1,
         f"PIL shrank the picture, and the rectangle is now x {columns.min()}..{columns.max()}, y {rows.min()}.."
         f"{rows.max()}; the point went to ({x}, {y})")


# ---- 4. One answer only ------------------------------------------------------------------------------------
@pytest.mark.ex4
def test_one_answer_is_read():
    expect(claims.read_answer([" a  red\nsquare "], ())[0], "a red square", "one answer counts, its spaces tidied")


@pytest.mark.ex4
def test_several_differing_answers_are_none():
    for texts in (["2", "3"], ["3", "2", "3"], ["red", "blue"]):
        answer, why = claims.read_answer(texts, ())
        must(answer is None,
             f"{texts} -> {answer!r}: whoever may answer twice is right twice as often; several "
             "differing answers are no answer (our choice, a known exploit)")
        expect(why, "several differing answers", "the reason, as the docstring has it")


@pytest.mark.ex4
def test_one_answer_said_twice_is_one_answer():
    must(claims.read_answer(["2", "two", r"\boxed{2}"], ())[0] == r"\boxed{2}",
         "\"2\", \"two\" and \"\\boxed{2}\" mean one number: that is no hedge. Compare _meaning, not the texts")
    must(claims.read_answer(["The red square!", "red square"], ())[0] == "red square",
         "case, articles and punctuation do not make another answer; the last one counts")


@pytest.mark.ex4
def test_an_empty_answer_is_none():
    for texts in ([""], [" \n "], ["2", ""], [r"\boxed{}"]):
        expect(claims.read_answer(texts, ())[0], None, f"{texts}: peers' rewards have scored an empty answer as right")


@pytest.mark.ex4
def test_a_list_of_options_is_none():
    for text in ("A or B", "2, 3", "red or blue", "A, B, C"):
        answer, why = claims.read_answer([text], ())
        expect(answer, None, f"{text!r} holds every truth, so it is no answer")
        expect(why, "a list of options instead of an answer", "the reason, as the docstring has it")


@pytest.mark.ex4
def test_an_option_that_looks_like_a_list_is_an_answer():
    expect(claims.read_answer(["left or right"], ["Left or right", "up"])[0], "left or right",
           "the question offers \"left or right\" itself (allowed): then it is no hedge")
    expect(claims.read_answer(["left or up"], ["Left or right", "up"])[0], None, "that is not one of the options")


# ---- 5. Spraying points ------------------------------------------------------------------------------------
@pytest.mark.ex5
def test_a_second_point_on_one_thing_is_a_repeat():
    expect(points.repeats({0: ["mug"], 1: ["mug"], 2: ["mug"]}), {1: 0, 2: 0}, "one mug counts once, for the first point")
    expect(points.repeats({0: ["left"], 1: ["right"]}), {}, "two mugs, a point on each: nobody repeats")


@pytest.mark.ex5
def test_spraying_does_not_hide_a_miss():
    sprayed = {i: ["mug"] for i in range(19)}  # 19 points on the one mug; a 20th, false point hits nothing
    hits = 19 - len(points.repeats(sprayed))
    expect(hits / 20, 1 / 20, "eq. 3's mean over 20 points. Were all 19 counted it would be .95: a true point and a false "
                              "one earn .5, so repeating the true one must not lift that")


@pytest.mark.ex5
def test_the_order_of_points_costs_no_hit():
    expect(points.repeats({0: ["left", "right"], 1: ["left"]}), {},
           "point 0 lies where two masks overlap; if it takes \"right\", both count. `assign` finds that")
    three = points.repeats({0: ["a", "b"], 1: ["a", "b"], 2: ["a"]})
    expect(len(three), 1, "three points on two things: one of them repeats")


@pytest.mark.ex5
def test_a_repeat_names_the_first_point():
    expect(points.repeats({0: ["left"], 1: ["left"], 2: ["left", "right"], 3: ["right"]}), {1: 0, 3: 2},
           "0 has left and 2 has right; a card says \"the same red square as point 1\"")
    expect(points.repeats({3: ["a"], 7: ["b"], 9: ["b", "a"]}), {9: 3}, "both of 9's instances are taken: the first owner")


@pytest.mark.ex5
def test_as_many_points_count_as_can():
    rng = np.random.default_rng(0)
    for _ in range(50):
        held = rng.random((rng.integers(1, 7), rng.integers(1, 5))) < .4
        held[:, 0] |= ~held.any(axis=1)  # each point lies on something
        instances = {i: np.flatnonzero(row).tolist() for i, row in enumerate(held)}
        most = int((maximum_bipartite_matching(csr_matrix(held), perm_type="column") >= 0).sum())
        counted = len(instances) - len(points.repeats(instances))
        expect(counted, most, f"points that count among {instances}, by scipy's maximum bipartite matching")


# ---- 6. A teacher fails: who pays? -------------------------------------------------------------------------
def ask(call, items, known_good="ok"):
    return asking.Teachers(None, None, None, None)._ask("judge", call, items, known_good)


def fails_at(bad):
    """A teacher that cannot do a batch with one of these items; else it answers in capitals. -> it, what it was asked"""
    asked = []

    def call(items):
        asked.append(list(items))
        if bad & set(items):
            raise ValueError(f"cannot read {sorted(bad & set(items))}")
        return [item.upper() for item in items]
    return call, asked


@pytest.mark.ex6
def test_the_item_that_broke_it_pays_alone():
    call, _ = fails_at({"bomb"})
    found = ask(call, ["mug", "bomb", "pen"])
    must(found[0] == "MUG" and found[2] == "PEN", "the teacher works: other items get their results as ever, in order")
    must(isinstance(found[1], asking.ItemFailed),
         "the item that it fails at is an ItemFailed: that piece scores 0. Were the term dropped for it, whoever writes a "
         "label that crashes the detector would be paid for it")
    must("judge failed" in found[1].why, f"its reason is what self._count returns, not {found[1].why!r}")


@pytest.mark.ex6
def test_a_broken_teacher_costs_nobody():
    call, _ = fails_at({"mug", "pen", "ok"})
    with pytest.raises(asking.TeacherFailed) as failed:
        ask(call, ["mug", "pen"])
        must(False, "it fails at the known-good item, too, so the teacher is broken: TeacherFailed, and the term drops out "
                    "of R for the whole group")
    must("judge failed" in str(failed.value) and "mug" in str(failed.value), "the reason is that of the first failure")


@pytest.mark.ex6
def test_the_known_good_item_is_asked_alone():
    call, asked = fails_at({"bomb"})
    ask(call, ["mug", "bomb"])
    must(["ok"] in asked, f"[known_good] tells a broken teacher from a bad item, so it is asked alone; asked: {asked}")
    must(asked.index(["ok"]) == 1, "and before the items are tried: a broken teacher would time out at each of them")


@pytest.mark.ex6
def test_every_failure_is_counted():
    teachers = asking.Teachers(None, None, None, None)
    call, _ = fails_at({"bomb", "bomb 2"})
    teachers._ask("judge", call, ["mug", "bomb", "bomb 2"], "ok")
    expect(teachers.failures["judge: ValueError"], 3, "the batch, and each of two items (self._count)")


@pytest.mark.ex6
def test_a_full_gpu_is_nobodys_fault():
    class OutOfMemoryError(RuntimeError):
        pass

    def call(items):
        if items == ["ok"]:
            raise OutOfMemoryError("CUDA out of memory")
        raise ValueError("batch")
    with pytest.raises(Exception) as raised:
        ask(call, ["mug", "pen"])
    must(raised.type is OutOfMemoryError,
         "a full GPU says nothing about a teacher: raise it on (out_of_memory), so that "
         f"a person hears of it, not {raised.type.__name__}")


@pytest.mark.ex6
def test_a_label_that_crashes_the_detector_scores_zero():
    class Detector:
        def detect(self, image, labels):
            if "bomb" in labels:
                raise ValueError("no such letter")
            return [[coordinates.Box(0, 0, 2, 2)] for _ in labels]

    class Segmenter:
        def segment(self, image, boxes):
            return np.ones((len(boxes), image.height, image.width), bool)
    teachers = asking.Teachers(Detector(), Segmenter(), None, None)
    found = teachers.find(Image.new("RGB", (4, 3)), ["mug", "bomb"])
    must(found["mug"].mask.all() and not found["bomb"].mask.any(), "the mug's mask stays, the bomb's is empty")
    must(found["bomb"].failure and not found["mug"].failure, "the verdict says whose fault it was")


# ---- 7. Advantages (eq. 10, dead groups) -------------------------------------------------------------------
@pytest.mark.ex7
def test_an_advantage_is_a_z_score():
    found = train_grpo.advantages(torch.tensor([[1., 0., 0., 1.]]))
    expect(found.tolist(), [[.866024, -.866024, -.866024, .866024]],
           "mean .5, sample standard deviation sqrt(4 * .25 / 3) = .57735 (eq. 10)")


@pytest.mark.ex7
def test_advantages_by_the_standard_library():
    group = [.875, .5, 0., .75, 1., .125, 0., .5]
    expected = [(r - statistics.mean(group)) / (statistics.stdev(group) + 1e-6) for r in group]
    expect(train_grpo.advantages(torch.tensor([group])).tolist(), [expected],
           "eq. 10 by Python's statistics.mean and statistics.stdev, which divides by G - 1")


@pytest.mark.ex7
def test_a_group_is_compared_with_itself_only():
    easy, hard = [1., 1., 1., 0.], [.2, .1, .1, .1]
    together = train_grpo.advantages(torch.tensor([easy, hard]))
    alone = train_grpo.advantages(torch.tensor([hard]))
    expect(together[1:].tolist(), alone.tolist(), "mean and std are those of a row, not of the batch: else every rollout to "
                                                  "a hard question would be pushed down, however good it is")
    expect(together.sum(dim=1).tolist(), [0, 0], "a group's advantages sum to 0")


@pytest.mark.ex7
def test_a_dead_group_teaches_nothing():
    found = train_grpo.advantages(torch.tensor([[.7, .7, .7, .7], [0., 0., 0., 0.]]))
    must(torch.equal(found, torch.zeros(2, 4)), f"equal rewards: 0 for all, and no division by 0; got {found.tolist()}")


@pytest.mark.ex7
def test_without_scale_it_is_only_centred():
    found = train_grpo.advantages(torch.tensor([[1., 0.], [.6, .4]]), scale=False)
    expect(found.tolist(), [[.5, -.5], [.1, -.1]], "scale=False is Dr. GRPO's: R - mean, so that a group whose rewards "
                                                   "hardly differ is not blown up to the size of one that matters")


def rollout(outcome, answer="1"):
    return SimpleNamespace(outcome=outcome, parsed=SimpleNamespace(answer=answer))


@pytest.mark.ex7
def test_why_a_group_is_dead():
    cases = [([1., 1.], "all right", "too easy: it has nothing to learn"),
             ([0., 0.], "all wrong", "too hard, or the truth is wrong"),
             ([.5, .9], "all right", "at tau the gate is open"),
             ([1., 0.], "all equal", "right and wrong, and still the same reward"),
             ([1., None], "not scored", "a teacher failed")]
    for outcomes, cause, why in cases:
        found = train_grpo.zero_variance_cause([rollout(outcome) for outcome in outcomes])
        expect(found, cause, f"outcomes {outcomes}: {why}")


@pytest.mark.ex7
def test_malformed_comes_before_wrong():
    nobody = [rollout(0., None), rollout(0., None)]
    expect(train_grpo.zero_variance_cause(nobody), "all malformed", "no rollout has an answer: more SFT, not an easier task")
    expect(train_grpo.zero_variance_cause([rollout(0., None), rollout(0.)]), "all wrong", "one did answer, wrongly")
    expect(train_grpo.zero_variance_cause([rollout(.6), rollout(.7)], tau=.8), "all wrong", "tau is an argument")


# ---- 8. Clip, KL, average (eq. 11) -------------------------------------------------------------------------
def losses(ratios, advantage, eps_low=.2, eps_high=.2):
    log = torch.log(torch.tensor([ratios]))
    loss, _ = train_grpo.token_loss(log, torch.zeros_like(log), None, torch.tensor([[advantage]]), eps_low, eps_high, 0.)
    return loss[0].tolist()


@pytest.mark.ex8
def test_a_good_token_is_pushed_no_further_than_the_clip():
    expect(losses([.5, 1., 1.5], 1.), [-.5, -1., -1.2],
           "A = 1: -min(r A, clip(r) A) (eq. 11). At r = 1.5 the clip gives 1.2; at r = .5 the smaller, .5, is not cut")
    expect(losses([1.5], 1., eps_high=.28), [-1.28], "eps_high is DAPO's clip-higher: 1 + .28")


@pytest.mark.ex8
def test_a_bad_token_that_became_likelier_is_not_cut():
    expect(losses([.5, 1., 1.5], -1.), [.8, 1., 1.5],
           "A = -1: at r = 1.5 min(-1.5, -1.2) = -1.5, so the mistake is undone with full strength; at r = .5 it is cut at .8")


@pytest.mark.ex8
def test_where_it_is_cut_no_gradient_is_left():
    log = torch.log(torch.tensor([[1.5, 1.1]])).requires_grad_()
    loss, ratio = train_grpo.token_loss(log, torch.zeros(1, 2), None, torch.ones(1, 1), .2, .2, 0.)
    loss.sum().backward()
    expect(log.grad.tolist(), [[0, -1.1]], "d(-r A)/d log p = -r A inside the clip, 0 beyond it")
    expect(ratio.tolist(), [[1.5, 1.1]], "the second result is the ratio r itself, p now / p when sampled, before the clip")


@pytest.mark.ex8
def test_the_first_update_is_reinforce():
    log = torch.tensor([[-.5, -2., -1.]], requires_grad=True)
    loss, _ = train_grpo.token_loss(log, log.detach(), None, torch.tensor([[.7]]), .2, .2, 0.)
    loss.sum().backward()
    expect(log.grad.tolist(), [[-.7, -.7, -.7]], "r = 1 when nothing has changed yet, but its gradient is that of log p: the "
                                                 "gradient of -A log p")


@pytest.mark.ex8
def test_k3_is_the_kl_on_average():
    torch.manual_seed(0)
    p, q = torch.randn(2, 50, dtype=torch.double).log_softmax(1)
    kl = torch.distributions.kl_divergence(*[torch.distributions.Categorical(logits=x) for x in (p, q)]).item()
    expect((p.exp() * train_grpo.k3(p, q)).sum().item(), kl,
           "sum_x p(x) k3(x) = KL(p || q), the policy first, as torch.distributions has it (Schulman: q/p - log(q/p) - 1)")
    must((train_grpo.k3(p, q) >= 0).all(), "r - log r - 1 is never negative; -log r alone often is")


@pytest.mark.ex8
def test_the_kl_pulls_back():
    logprobs, ref = torch.tensor([[-1.]]), torch.tensor([[-1.5]])
    loss, _ = train_grpo.token_loss(logprobs, logprobs, ref, torch.zeros(1, 1), .2, .2, .1)
    expect(loss.tolist(), [[.1 * (math.exp(-.5) + .5 - 1)]],
           "A = 0: the loss is + beta k3, with log(q/p) = -.5. Of the wrong sign it would reward leaving the start")


def averaged(kind, per_token, mask, n_rollouts=2, tokens=4., longest=4):
    return train_grpo.average(torch.tensor(per_token), torch.tensor(mask), kind, n_rollouts, torch.tensor(tokens), longest)


@pytest.mark.ex8
def test_four_ways_to_average():
    per_token, mask = [[4., 9., 9.], [1., 1., 1.]], [[1., 0., 0.], [1., 1., 1.]]  # 4 | 1 1 1; the 9s are padding
    expected = {"grpo": ((4 + 1) / 2, "mean over each rollout's tokens, then over rollouts (eq. 11)"),
                "dapo": (7 / 4, "mean over the tokens of the batch"),
                "bnpo": (7 / 4, "mean over the tokens of this micro-batch, which is the batch here"),
                "dr_grpo": (7 / 8, "sum over tokens / (2 rollouts x longest 4)")}
    for kind, (value, why) in expected.items():
        expect(averaged(kind, per_token, mask).item(), value, f"{kind}: {why}")


@pytest.mark.ex8
def test_length_bias():
    """A bad answer of 1 token beside one of 10, the same advantage for each: what does one token of each get?"""
    mask = torch.zeros(2, 10)
    mask[0, 0] = 1
    mask[1] = 1
    shares = {}
    for kind in ("grpo", "dr_grpo", "dapo"):
        per_token = torch.ones(2, 10, requires_grad=True)
        train_grpo.average(per_token, mask, kind, 2, torch.tensor(11.), 10).backward()
        shares[kind] = (per_token.grad[0, 0] / per_token.grad[1, 0]).item()
    expect(shares["grpo"], 10, "grpo: a token of the long rollout weighs a tenth, so long wrong answers are punished less")
    expect([shares["dr_grpo"], shares["dapo"]], [1, 1], "dr_grpo and dapo: a token weighs the same, however long its rollout")


@pytest.mark.ex8
def test_micro_batches_add_up():
    torch.manual_seed(1)
    per_token, mask = torch.randn(6, 5), (torch.rand(6, 5) < .7).float()
    mask[:, 0] = 1
    for kind in ("grpo", "dapo", "dr_grpo"):
        whole = train_grpo.average(per_token, mask, kind, 6, mask.sum(), 5)
        parts = [train_grpo.average(per_token[i:i + 2], mask[i:i + 2], kind, 6, mask.sum(), 5) for i in (0, 2, 4)]
        expect(sum(parts).item(), whole.item(), f"{kind}: divide by the counts of the whole batch (rollouts, tokens), not of "
                                                "the micro-batch, or three small batches are not one large")
    first = train_grpo.average(per_token[:2], mask[:2], "bnpo", 6, mask.sum(), 5).item()
    own_mean = (per_token[:2] * mask[:2]).sum() / mask[:2].sum()
    expect(first, own_mean.item() * 2 / 6, "bnpo: the micro-batch's own mean, times its share of the rollouts, 2 of 6")


# ---- 9. One prefill, G rollouts ----------------------------------------------------------------------------
def tiny_model():
    """A random Qwen2.5-VL language model, two layers, and two prompts of 3 and 5 tokens, padded on the left."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=40,
                 num_key_value_heads=2)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    config = Qwen2_5_VLConfig(text_config=dict(**sizes, rope_parameters=rope)).text_config
    model = Qwen2_5_VLTextModel(config).eval()
    ids = torch.randint(1, 40, (2, 5))
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    positions = (mask.cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)  # (3, B, P)
    return model, SimpleNamespace(ids=ids, mask=mask, position_ids=positions)


PROMPT_OF = torch.tensor([0, 0, 0, 1, 1, 1])  # B = 2 prompts, G = 3 rollouts of each


@torch.no_grad()
def prefilled(model, prompts):
    cache = DynamicCache(config=model.config)
    model(input_ids=prompts.ids, attention_mask=prompts.mask, position_ids=prompts.position_ids, past_key_values=cache)
    return cache


@pytest.mark.ex9
def test_every_rollout_gets_its_prompts_keys():
    model, prompts = tiny_model()
    before = prefilled(model, prompts).layers[0].keys  # (B, heads, P, d)
    room = policy.LibraryRoom(prefilled(model, prompts), prompts, PROMPT_OF)
    after = room.cache.layers[0].keys
    must(after.shape[0] == 6,
         f"6 rollouts, so 6 rows in the cache, not {after.shape[0]}: `keep` shows the call that "
         "picks rows, and a row may be picked several times")
    must(torch.equal(after, before[PROMPT_OF]),
         "rows 0 1 2 follow prompt 0, rows 3 4 5 prompt 1: row i is what prompt "
         "prompt_of[i] left in the cache")


@pytest.mark.ex9
def test_mask_and_position_start_as_the_prompts():
    model, prompts = tiny_model()
    room = policy.LibraryRoom(prefilled(model, prompts), prompts, PROMPT_OF)
    expect(room.mask.tolist(), [[0, 0, 1, 1, 1]] * 3 + [[1, 1, 1, 1, 1]] * 3, "the prompt's mask, once per rollout: (n, P)")
    expect(room.position[0, :, 0].tolist(), [2, 2, 2, 4, 4, 4], "the last token of a prompt of 3 stands at 2, of 5 at 4: "
           "position_ids[:, prompt_of, -1:], as prompts are padded on the left")
    must(room.position.shape == (3, 6, 1), "(3, n, 1): time, row and column of Qwen's positions, all three")


@pytest.mark.ex9
def test_a_token_moves_position_and_mask_by_one():
    model, prompts = tiny_model()
    room = policy.LibraryRoom(prefilled(model, prompts), prompts, PROMPT_OF)
    for step in (1, 2):
        room.add(torch.arange(6) + step)
        expect(room.token.tolist(), [[i + step] for i in range(6)], "self.token is (n, 1): a sequence of one")
        expect(room.position[0, :, 0].tolist(), [2 + step] * 3 + [4 + step] * 3,
               "each new token stands one further, counted from the end of its own prompt; stale positions ruin sampling "
               "and nothing complains")
        expect(room.mask.shape[1], 5 + step, "the mask has a column more with every token")
        must(room.mask[:, 5:].all(), "and it is 1 there: the token may be looked at")


@pytest.mark.ex9
@torch.no_grad()
def test_one_prefill_says_what_reading_everything_says():
    """The outside oracle: the library reads each prompt and its tokens anew, without a cache."""
    model, prompts = tiny_model()
    room = policy.LibraryRoom(prefilled(model, prompts), prompts, PROMPT_OF)
    tokens = torch.randint(1, 40, (6, 4))  # (n, T)
    for t in range(4):
        room.add(tokens[:, t])
        out = model(input_ids=room.token, position_ids=room.position, use_cache=True, **room.inputs())
    for i in range(6):
        prompt = prompts.ids[PROMPT_OF[i]][prompts.mask[PROMPT_OF[i]] == 1]
        alone = model(input_ids=torch.cat([prompt, tokens[i]])[None], use_cache=False).last_hidden_state[0, -1]
        gap = (out.last_hidden_state[i, -1] - alone).abs().max().item()
        must(gap < 1e-4,
             f"rollout {i}: the model's output after 4 tokens differs by {gap:.3f} from reading its prompt and "
             "tokens at once: a wrong row, mask or position")


# ---- 10. A judge that can be fooled ------------------------------------------------------------------------
TEXTS = ["a red square", "a blue square", "a green cross"]  # the truth, two foils


@pytest.mark.ex10
def test_what_means_the_truth_and_no_foil_is_right():
    score, why = foils.outcome_against(TEXTS, [True, False, False], 2)
    expect(score, 1., "\"a crimson square\" means the truth and none of the foils")
    expect(why, "; means none of 2 foils", "the reason, as in the docstring")
    expect(foils.outcome_against(TEXTS[:2], [True, False], 2)[1], "; means none of 1 foil", "one foil, not foils")


@pytest.mark.ex10
def test_what_means_everything_means_nothing():
    for replies in ([True, True, True], [True, True, False], [True, False, True]):
        score, why = foils.outcome_against(TEXTS, replies, 2)
        expect(score, 0., f"replies {replies}: an answer that also means another truth means neither (our choice, beside "
                          "eq. 6): RL answered every free question with one word")
        must(TEXTS[replies.index(True, 1)] in why, f"the reason names the foil that it also means, not {why!r}")
    expect(foils.outcome_against(["x", "y" * 300], [True, True], 1)[1], f"; also means {'y' * 60!r}",
           "at most 60 characters of a foil: the reason stands on a card")


@pytest.mark.ex10
def test_what_does_not_mean_the_truth_is_wrong():
    for replies in ([False, False, False], [False, True, True]):
        expect(foils.outcome_against(TEXTS, replies, 2)[0], 0., f"replies {replies}: it does not mean the truth")


@pytest.mark.ex10
def test_the_papers_judge_has_no_foils():
    expect(foils.outcome_against(TEXTS[:1], [True], 0)[0], 1., "k = 0: the truth alone is asked about, as in the paper")
    expect(foils.outcome_against(TEXTS[:1], [True], 0)[1], "", "k = 0: and there is nothing to say")
    expect(foils.outcome_against(TEXTS[:1], [True], 2)[1], "; no foils: no other truth is known",
           "k = 2, but no other truth is known: right, with a warning in the verdict")


@pytest.mark.ex10
def test_a_judge_that_says_yes_to_everything_pays_nothing():
    """The judge of the embedded world, to which "up" means each of these."""
    def sloppy(truth, answer):
        return answer == "up" or answer.split()[-2:] == truth.split()[-2:]
    for answer, expected in (("up", 0.), ("the red square", 1.), ("the green cross", 0.)):
        replies = [sloppy(text, answer) for text in TEXTS]
        expect(foils.outcome_against(TEXTS, replies, 2)[0], expected, f"{answer!r}, about which the judge says {replies}")


# ---- 11. What survives -------------------------------------------------------------------------------------
def verdict(outcome, reward, grounding=1., reasoning=1., answer="x", not_scored=()):
    return SimpleNamespace(outcome=outcome, reward=reward, grounding=grounding, reasoning=reasoning,
                           not_scored=dict.fromkeys(not_scored, "why"), parsed=SimpleNamespace(answer=answer))


def reason(*verdicts):
    return curate.reject_reason(verdicts, .7)


@pytest.mark.ex11
def test_a_rollout_passes_if_it_is_right_and_good():
    expect(bool(curate.passes(.7, 1., .7)), True, "a reward of at least the threshold: .7 itself passes (app. C.3)")
    expect(bool(curate.passes(.69, 1., .7)), False, ".69 is below .7")
    expect(bool(curate.passes(.6, 1., .5)), True, "threshold is an argument, not always .7")
    expect(bool(curate.passes(.9, 0., .7)), False, "a wrong answer is never taught, whatever it earned")
    expect(bool(curate.passes(.9, .5, .7)), True, "right: an outcome of at least .5, the gate's threshold")
    expect(bool(curate.passes(None, None, .7)), False, "None: it was not scored. No comparison, no error")


@pytest.mark.ex11
def test_the_best_rollout_decides():
    expect(reason(verdict(0, 0), verdict(1, .9), verdict(1, .2)), None, "the best has .9 >= .7, and is right (app. C.3)")
    must(reason(verdict(0, 0), verdict(1, .6)) is not None, ".6 is the best: below .7")
    expect(reason(verdict(1, .6, 0), verdict(.8, .8)), None, "the best by reward, .8, and not by outcome")


@pytest.mark.ex11
def test_what_was_not_checked_is_not_taught():
    found = reason(verdict(1, 1., None, not_scored=["grounding"]), verdict(1, 1.))
    expect(found, "not scored: grounding", "the detector failed: the reward of the other terms is full, and nobody has "
                                           "looked at the points (our choice)")
    found = reason(verdict(None, None, None, None, not_scored=["outcome", "grounding"]))
    expect(found, "not scored: grounding, outcome", "terms by the alphabet; and no comparison with a reward of None")


@pytest.mark.ex11
def test_why_a_sample_does_not_survive():
    expect(reason(verdict(0, 0, answer=None), verdict(0, 0, answer=None)), "no answer in any rollout", "none could be read")
    expect(reason(verdict(0, 0, answer=None), verdict(0, 0)), "no right answer", "one was read, and is wrong")
    expect(reason(verdict(1, .6, .1, .9)), "right, but not grounded", "R_vg .1 is what held it back, below R_rq .9")
    expect(reason(verdict(1, .6, .9, .1)), "right, but not reasoned", "R_rq .1 is what held it back")
    expect(reason(verdict(1, .6, None, .3)), "right, but not grounded", "R_vg is None, not selected: it counts as 0")


# ---- 12. Break theorem 1, mend it --------------------------------------------------------------------------
A_C_D = [.6, .35, .05]  # the policy of landscapes.TRAP


@pytest.mark.ex12
def test_the_trap_by_hand():
    expect(landscapes.trap_without_noise(1, A_C_D), .65, "one draw: A or D")
    expect(landscapes.trap_without_noise(2, A_C_D), .4575, "a batch with D, 1 - .95^2, or of A alone, .6^2")


@pytest.mark.ex12
def test_the_trap_breaks_theorem_1():
    truth = float(landscapes.trap_without_noise(2, A_C_D))
    promised = bounds.pareto_bound(2, .65, 0)  # no noise: e = 0
    must(truth < promised,
         f"theorem 1 promises at least 1 - .35^2 = {promised}; the truth is .4575, and you have {truth}")


@pytest.mark.ex12
def test_the_trap_by_drawing():
    rng = np.random.default_rng(0)
    weighted = np.array([1., 1.6, 1.9])  # of A, C, D
    for n in (2, 5):
        best = weighted[rng.choice(3, (20_000, n), p=A_C_D)].max(axis=1)
        drawn = np.mean(best != 1.6)
        found = float(landscapes.trap_without_noise(n, A_C_D))
        must(abs(found - drawn) < .015,
             f"n = {n}: in 20,000 batches A or D won {drawn:.3f} of the time, you have {found:.3f}")


@pytest.mark.ex12
def test_the_trap_for_many_n_at_once():
    n = np.array([1, 2, 5, 50])
    expect(landscapes.trap_without_noise(n, A_C_D), exact.success_probability(n, A_C_D, landscapes.TRAP.rewards, [1, 1], 0,
                                                                              .1), "an array of n, against theory/exact.py")


@pytest.mark.ex12
def test_the_mass_near_the_best():
    world = dict(policy=[.5, .3, .2], rewards=[[1., 1.], [.9, 1.], [.5, .5]], weights=[1, 1], eps=.1)
    expect(bounds.near_optimal_mass(1., **world), .5, "theta 1: only the best, R_w = 2, which has mass .5")
    expect(bounds.near_optimal_mass(.4, **world), .8, "theta .4: all within .6 * .1 * |w|_1 = .12 of it: 2 and 1.9")
    expect(bounds.near_optimal_mass([1., .4], **world), [.5, .8], "an array of theta")
    unreached = dict(world, policy=[0., .8, .2])
    expect(bounds.near_optimal_mass(1., **unreached), 0, "the best of all actions, also if the policy never draws it")


@pytest.mark.ex12
def test_the_corrected_bound_by_hand():
    expect(bounds.corrected_pareto_bound(2, .5, .5, .3, [1, 1, 2], .5), .75 * (1 - math.exp(-.06)),
           "(1 - .5^2) (1 - (2 - 1) exp(-.25 * .09 * 16 / (4 * .25 * 6)))")
    expect(bounds.corrected_pareto_bound(1, .3, 1., .1, [1, 1], .5), .3, "one draw: p_theta, whatever the noise")


@pytest.mark.ex12
def test_the_corrected_bound_is_never_above_the_truth():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rewards, policy_ = rng.random((4, 2)), rng.dirichlet(np.ones(4))
        eps, sigma, theta, n = rng.uniform(.05, .4), rng.uniform(.01, .3), rng.uniform(.1, 1), np.array([1, 2, 4, 8])
        mass = bounds.near_optimal_mass(theta, policy_, rewards, [1, 1], eps)
        promised = bounds.corrected_pareto_bound(n, mass, theta, eps, [1, 1], sigma)
        truth = exact.success_probability(n, policy_, rewards, [1, 1], sigma, eps)
        must((promised <= truth + 1e-6).all(), f"promised {promised}, the truth is {truth}: a bound lies below")
