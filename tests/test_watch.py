"""Held-out answers are not measured by the judge that rewards, and hacking shows in the log. verifier/watch.py"""
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import curate  # noqa: E402
import evaluate  # noqa: E402
import train_grpo  # noqa: E402
from argos import Argos, Weights  # noqa: E402
from runs import curves, ledger  # noqa: E402
from runs.curves import Curve, draw_curves  # noqa: E402
from runs.errors import BadInput  # noqa: E402
from tiny import train, world  # noqa: E402
from verifier.coordinates import Box, Media  # noqa: E402
from verifier.samples import Sample, read_samples  # noqa: E402
from verifier.watch import Measure, signs_of, signs_together  # noqa: E402


class Judge:
    """Says that every answer means every truth, or that none does."""

    def __init__(self, reply):
        self.reply = reply

    def equivalent_batch(self, triples):
        return [self.reply] * len(triples)

    def equivalent(self, question, truth, answer):
        return self.reply

    def agrees(self, images, claim):
        return self.reply

    def agrees_batch(self, pairs):
        return [self.reply] * len(pairs)


class Detector:
    """Finds one red square in the upper left corner of every picture."""

    def detect(self, image, labels):
        return [[Box(0, 0, 20, 20, .9, label)] if label == "red square" else [] for label in labels]


class Segmenter:
    def segment(self, image, boxes):
        masks = np.zeros((len(boxes), image.height, image.width), bool)
        for mask, box in zip(masks, boxes):
            mask[int(box.y1):int(box.y2), int(box.x1):int(box.x2)] = True
        return masks


def picture(kind="free", answer="a red square", **more):
    return Sample("a", "What is it?", answer, kind, "nowhere.png", source="scenes", **more)


def media():
    return Media([Image.new("RGB", (84, 84))], [0.], (84, 84))


def verifier(reply, *use, detector=None):
    return Argos(detector, Segmenter(), None, Judge(reply), use=use or ("outcome",), foils=0)


def say(answer, think="x"):
    return f"<think>{think}</think><answer>{answer}</answer>"


def point(x, label="red square", shown=None):
    return f'<point x1="{x}" y1="{x}" alt="{label}">{shown or label}</point>'


# ---- 1. Held-out answers -----------------------------------------------------------------------------------
def both(measure, sample, answer):
    one, = measure.score([sample], [say(answer)], [media()])
    return one.outcome, one.judged


def test_an_exact_truth_is_measured_by_its_text_and_the_judge_stands_beside_it():
    fooled = Measure(verifier(True))
    exact = picture(exact=True)
    assert both(fooled, exact, "3") == (0, 1)  # what RL had found
    assert both(fooled, exact, "The Red-Square.") == (1, 1)  # articles, case and punctuation aside
    assert both(Measure(verifier(False)), exact, "a crimson square") == (0, 0)
    one, = fooled.score([exact], ["no tags"], [media()])
    assert (one.outcome, one.judged) == (0, 0)


def test_only_free_answers_are_measured_by_text():
    """The text is not the truth's, but the rule for counts says that it is right."""
    assert both(Measure(verifier(True)), picture("count", "2", exact=True), "two squares") == (1, 1)


def test_real_free_text_is_measured_by_another_judge_or_by_the_same_one():
    real = picture()
    assert both(Measure(verifier(True)), real, "3") == (1, 1)  # nobody else is there: told in remark()
    assert both(Measure(verifier(True), other=verifier(False)), real, "3") == (0, 1)
    assert both(Measure(verifier(False), other=verifier(True)), real, "a crimson square") == (1, 0)
    assert both(Measure(verifier(True), other=verifier(True)), picture(exact=True), "3") == (0, 1)  # the text comes first


def test_the_remark_counts_what_rests_on_the_judge_that_rewards():
    samples = [picture(), picture(exact=True), picture("count", "2"), picture()]
    assert "also measures 2 free answers, in both columns, of 4 samples" in Measure(verifier(True)).remark(samples)
    assert Measure(verifier(True), other=verifier(True)).remark(samples) == "Measured without the judge that rewards."
    assert Measure(verifier(True)).remark(samples[1:3]) == "Measured without the judge that rewards."
    samples[0].media = "video"  # whose claims the judge checks
    assert "2 free answers, in both columns and the R_vg of 1 clips" in Measure(verifier(True)).remark(samples)


def test_a_judge_that_fails_is_not_a_wrong_answer():
    class Broken(Judge):
        def equivalent_batch(self, triples):
            raise RuntimeError("out of memory")
        equivalent = equivalent_batch

    broken = Argos(None, None, None, Broken(True), use=("outcome",))
    assert both(Measure(broken), picture(), "3") == (None, None)
    assert both(Measure(broken), picture(exact=True), "3") == (None, None)  # both columns are over the same items
    measure = Measure(verifier(True), other=broken)
    assert both(measure, picture(), "3") == (None, None)
    assert measure.failures == broken.failures and sum(measure.failures.values())


def test_the_worlds_free_questions_say_that_they_are_exact(tmp_path):
    world.write_split("val", 40, tmp_path)
    samples = read_samples(tmp_path / "val.jsonl")
    assert any(sample.kind == "free" for sample in samples)
    assert all(sample.exact == (sample.kind == "free") for sample in samples)


def test_exact_must_be_true_or_false(tmp_path):
    Image.new("RGB", (84, 84)).save(tmp_path / "a.png")
    row = dict(image="a.png", question="?", answer="x", kind="free", exact="yes")
    with pytest.raises(BadInput, match='"exact" must be true or false'):
        Sample.from_row(row, tmp_path)
    assert Sample.from_row(row | dict(exact=True), tmp_path).exact


def test_a_card_of_a_hacked_answer_says_so():
    one, = Measure(verifier(True)).score([picture(exact=True)], [say("3")], [media()])
    assert "measured 0: not the text of the truth" in one.verdict.explain()


def test_scripts_load_another_judge_to_measure(monkeypatch):
    """With base and teacher as judges: who rewards, who measures, and that a second model costs memory."""
    cfg = train_grpo.Config(eval_judge=str(ROOT / "tiny/base"))
    rewarding, measure = train_grpo.build_verifier(cfg, None, train_grpo.check(cfg))
    assert measure.rewarding.judge is rewarding.judge and measure.other.judge is not rewarding.judge
    assert measure.other.use == ("outcome", "grounding") and measure.rewarding.use == ("outcome",)
    measure = evaluate.load_measure(evaluate.Config(eval_judge=str(ROOT / "tiny/base"), foils=1))
    assert measure.other.judge is not measure.rewarding.judge and measure.verifier.foils == measure.rewarding.foils == 1
    alone = train_grpo.build_verifier(train_grpo.Config(), None, Weights())[1]
    assert alone.verifier is alone.rewarding and alone.verifier.use == ("outcome", "grounding")
    assert ledger.teachers(cfg) > ledger.teachers(train_grpo.Config()) > 0


@pytest.mark.parametrize("settings", [
    dict(judge="base", policy="here", eval_judge="./here"), dict(judge="here", policy="./here", eval_judge="base"),
    dict(judge="base", eval_judge="base"), dict(lora_rank=0, eval_judge="base", policy="there")])
def test_no_disguise_of_the_judge_that_rewards_measures(settings):
    with pytest.raises(BadInput, match="eval_judge|frozen copy"):
        train_grpo.check(train_grpo.Config(**settings))


@pytest.mark.parametrize("name, value", [
    ("foils", 1), ("extract", True), ("judge", "elsewhere"), ("eval_judge", "tiny/base"), ("preset", "7b"),
    ("temperature", 1.), ("seed", 1), ("max_frames", 3), ("detector", "owlv2")])
def test_an_answer_counts_again_only_under_the_same_settings(tmp_path, name, value):
    data = tmp_path / "val.jsonl"
    data.write_text("{}")
    before = evaluate.stamp_of(evaluate.Config(), "sampled", data, "m")
    assert before == evaluate.stamp_of(evaluate.Config(), "sampled", data, "m")
    assert before != evaluate.stamp_of(evaluate.Config(**{name: value}), "sampled", data, "m")
    data.write_text("{ }")  # a truth was corrected
    assert before != evaluate.stamp_of(evaluate.Config(), "sampled", data, "m")


@pytest.mark.parametrize("script", [evaluate, train_grpo, curate])
@pytest.mark.parametrize("foils", [-1, 9])
def test_a_number_of_foils_that_cannot_be_had_is_refused_at_once(script, foils):
    with pytest.raises(BadInput, match=f"--foils {foils}: use 0"):
        script.check(script.Config(foils=foils))


@pytest.mark.parametrize("script", [evaluate, train_grpo])
def test_judge_and_measure_must_differ(script):
    with pytest.raises(BadInput, match="--eval_judge ./here"):
        script.check(script.Config(judge="here", eval_judge="./here"))  # two ways to write one folder


# ---- 2. Signs of hacking -----------------------------------------------------------------------------------
def test_signs_of_one_response():
    argos = verifier(True, "outcome", "grounding", detector=Detector())
    think = (point(5) + point(6) + point(40) + point(5, "blue square") + point(5, "red square", "cross")
             + point(5, "red square").replace("x1", "z1") + point(90))
    verdict = argos.verify(picture(exact=True), say("3", think), media())
    signs = signs_of(picture(exact=True), verdict, verdict.outcome, finished=False)
    assert signs["misses"] == Counter({"same instance": 1, "beside": 1, "not found": 1, "two names": 1, "unreadable": 1,
                                       "outside": 1}) and signs["points"] == 7
    assert signs["judge_only"] is True and signs["unfinished"] and not signs["malformed"] and signs["source"] == "scenes"
    right = argos.verify(picture(), say("red square"), media())
    assert signs_of(picture(), right, right.outcome, True)["judge_only"] is False
    counted = argos.verify(picture("count", "2"), say("2"), media())
    assert signs_of(picture("count", "2"), counted, counted.outcome, True)["judge_only"] is None
    unlooked = verifier(True).verify(picture(), say("red square", think), media())
    assert signs_of(picture(), unlooked, 1.0, True)["points"] == 0  # answer only: nobody looked at the points


def test_judge_only_asks_the_judge_that_rewards():
    """With another judge to measure, the hacked answer is the one that only the rewarding judge accepts."""
    measure = Measure(verifier(True), other=verifier(False))
    one, = measure.score([picture()], [say("3")], [media()])
    assert signs_of(picture(), one.verdict, one.judged, True)["judge_only"] is True


def test_every_miss_has_a_kind():
    """A miss that is not counted would hide."""
    argos = verifier(True, "outcome", "grounding", detector=Detector())
    labels = "".join(point(3, f"thing {i}") for i in range(20))
    clip = Media([Image.new("RGB", (84, 84))] * 4, [0., .5, 1., 1.5], (84, 84))
    sample = picture()
    sample.media = "video"
    kinds = []
    for seen, of, think in ((media(), picture(), labels), (clip, sample, "The red square is at (5, 5) in frame 9 (4.5 seconds).")):
        verdict, = argos.verify_group(of, [say("x", think)], seen)
        assert verdict.points and all(bool(v.miss) != bool(v.score) for v in verdict.points)
        kinds.append({v.miss for v in verdict.points})
    assert kinds == [{"not found", "too many labels"}, {"no such frame"}]


def test_signs_together_are_shares():
    def row(source, judge_only, points=0, malformed=False, **misses):
        return dict(source=source, judge_only=judge_only, points=points, misses=Counter(misses), malformed=malformed,
                    unfinished=malformed)
    rows = [row("clips", None, 2, True, beside=1), row("clips", True, 2), row("scenes", False, 4, beside=1, outside=2)]
    assert signs_together(rows) == dict(judge_only=.5, misses={"beside": .25, "outside": .25},
                                        malformed={"clips": .5, "scenes": 0}, unfinished_in={"clips": .5, "scenes": 0})
    assert signs_together([row("a", None)])["judge_only"] is None and signs_together([row("a", None)])["misses"] == {}


def test_a_card_of_each_kind_of_question(tmp_path, monkeypatch):
    def scored(i, kind, medium):
        sample = picture(kind, "2")
        sample.id, sample.media = f"{i}", medium
        verdict = SimpleNamespace(masks={})
        return sample, "text", None, verdict

    rows = [scored(i, "count", "image") for i in range(8)] + [scored(8, "free", "image"), scored(9, "count", "video")]
    drawn = []
    monkeypatch.setattr(train_grpo, "draw_card", lambda media, sample, *rest: drawn.append(int(sample.id)))
    train_grpo.draw_cards(rows, 1, tmp_path, 0)
    assert drawn == [0, 8, 9]  # more kinds than asked for: one each
    drawn.clear()
    train_grpo.draw_cards(rows, 5, tmp_path, 0)
    assert drawn == [0, 8, 9, 1, 4]  # and others from the whole of it
    drawn.clear()
    train_grpo.draw_cards(rows, 100, tmp_path, 0)
    assert sorted(drawn) == list(range(10))
    drawn.clear()
    train_grpo.draw_cards(rows, 0, tmp_path, 0)
    assert drawn == []


# ---- 3. The figure, and the judge's next lesson ------------------------------------------------------------
def panels(monkeypatch, runs):
    """What is drawn in each panel: the values of each line."""
    figures = []
    with monkeypatch.context() as patch:
        patch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
        draw_curves(runs, "nowhere.png")
    return [[pytest.approx(list(line.get_ydata())) for line in axis.lines] for axis in figures[0].axes]


def test_the_figure_shows_what_was_hacked_where_something_was(tmp_path, monkeypatch):
    honest = Curve([0, 5], [.5, .6], [.5, .6], [.7, .8])
    hacked = Curve([0, 5], [.5, .4], [.5, .9], [.7, .3])
    assert panels(monkeypatch, {"argos": [honest]}) == [[[.7, .8]], [[.5, .6]]]
    grounding, answers, difference = panels(monkeypatch, {"outcome": [hacked]})
    assert grounding == [[.7, .3]] and answers == [[.5, .4], [.5, .9]] and difference == [[0, .5]]
    draw_curves({"argos": [honest], "outcome": [hacked]}, tmp_path / "three.png")
    assert Image.open(tmp_path / "three.png").size[0] > 1000
    draw_curves({"argos": [Curve([0], [np.nan], [np.nan], [.7])]}, tmp_path / "nothing.png")  # a teacher failed


def test_negatives_of_other_kinds_never_agree():
    rng = np.random.default_rng(0)
    pairs = [train.phrases(rng, other_kinds=1.) for _ in range(200)]
    assert not any(agree for _, _, agree in pairs)
    assert all((one in train.OTHER_KINDS) != (two in train.OTHER_KINDS) for one, two, _ in pairs)
    usual = [train.phrases(np.random.default_rng(i)) for i in range(50)]  # 0: the pairs that grew the shipped judge
    assert usual == [train.phrases(np.random.default_rng(i), other_kinds=0.) for i in range(50)]
    assert not any(text in train.OTHER_KINDS for pair in usual for text in pair[:2])
