"""Evaluation: intervals against closed forms, pairing, and the floor that accuracy is compared with."""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from argos import Argos
from runs.curves import Curve, read_curve
from runs.errors import BadInput
from runs.settings import parse_model
from runs.statistics import by_item, cell, checkpoints, difference, interval
import evaluate
from tiny import world

ROOT = Path(__file__).parent.parent


def test_interval_of_a_coin_is_the_normal_one():
    # 400 tosses with mean .5: standard error sqrt(.25 / 400) = .025, so .5 +- 1.96 * .025 = .451 .. .549
    mean, low, high = interval([0, 1] * 200)
    assert mean == .5 and abs(low - .451) < .006 and abs(high - .549) < .006


def test_interval_counts_seeds_as_drawn_too():
    # three runs at 0, .5 and 1 on items that do not differ: items alone would say +- 0; three drawn of three say 0 to 1
    # in 1/27 each
    spread = np.repeat([[0.], [.5], [1.]], 200, axis=1)
    mean, low, high = interval(spread)
    assert mean == .5 and low == 0 and high == 1
    assert interval(spread.mean(0))[1:] == (.5, .5)


def test_differences_pair_seeds_and_spread_one_start_over_many():
    def log(*values):
        return {f"i{k}": dict(id=f"i{k}", outcome=v) for k, v in enumerate(values)}
    runs = {("runs", f"r{k}", "val"): log(*v) for k, v in enumerate([(.1, .5), (.3, .7)])}
    back = {("back", f"b{k}", "val"): log(*v) for k, v in enumerate([(.3, .7), (.1, .5)])}
    many = {("many", f"m{k}", "val"): log(0, 0) for k in range(3)}
    have = runs | back | many | {("start", "s", "val"): log(.1, .5)}

    def less(a, b):
        return difference(have, a, b, "val", "outcome")
    assert np.allclose(less("runs", "start"), [[0, 0], [.2, .2]])
    assert np.allclose(less("runs", "back"), [[-.2, -.2], [.2, .2]])
    assert less("runs", "many").shape == (1, 2)
    have["back", "b0", "val"]["i1"]["outcome"] = None  # a teacher failed there: the pair is left out
    assert np.allclose(less("runs", "back"), [[-.2], [.2]])


def test_models_are_paired_by_item_whatever_the_order_of_their_logs():
    # Items differ a lot, the models only by .02.
    hard = {f"i{k}": v for k, v in enumerate(np.random.default_rng(0).random(300))}

    def log(ids, plus):
        return {i: dict(id=i, outcome=hard[i] + plus) for i in ids}
    have = {("a", "fa", "val"): log(hard, 0.), ("b", "fb", "val"): log(reversed(hard), .02)}
    a, b = (by_item(have, n, "val", "outcome")[0] for n in "ab")
    _, low, high = interval(b - a)
    assert high - low < 1e-9 and abs(low - .02) < 1e-9


def test_majority_floor_by_hand():
    # task x: a a b -> 2 right; task y: c -> 1 right; 3 of 4
    samples = [SimpleNamespace(task=t, answer=a) for t, a in ("xa", "xa", "xb", "yc")]
    assert evaluate.majority(samples) == .75


def test_seeds_of_one_name_stand_together_and_items_are_intersected():
    def row(i, o):
        return dict(id=i, outcome=o, grounding=0.)
    have = {("m", "f1", "val"): {"a": row("a", 1.), "b": row("b", 0.), "c": row("c", 1.)},
            ("m", "f2", "val"): {"a": row("a", 0.), "b": row("b", 0.)}}
    values, rows, seeds = by_item(have, "m", "val", "outcome")
    assert values.tolist() == [[1., 0.], [0., 0.]] and [r["id"] for r in rows] == ["a", "b"] and seeds == 2


def test_grounding_counts_only_where_it_is_called_for():
    have = {("m", "f", "val"): {"a": dict(id="a", outcome=1., grounding=None),
                                "b": dict(id="b", outcome=0., grounding=.5)}}
    assert by_item(have, "m", "val", "outcome")[0].tolist() == [[1., 0.]]
    assert by_item(have, "m", "val", "grounding")[0].tolist() == [[.5]]
    assert cell(np.zeros((1, 0))) == "-"


def test_model_specs():
    assert parse_model("base:direct=tiny/base") == ("base", "direct", "tiny/base")
    assert parse_model("x=a=b") == ("x", "sampled", "a=b")
    for bad in ("tiny/base", "=tiny", "x:fast=tiny"):
        with pytest.raises(BadInput):
            parse_model(bad)


def test_models_and_sets_that_would_be_mixed_up_are_refused(tmp_path, monkeypatch):
    for args, why in ((["--models", "a=x", "a:greedy=x"], "a is asked in two ways"),
                      (["--models", "b=x", "a=x", "c=x", "a:greedy=y"], "a is asked in two ways"),
                      (["--models", "a=x", "b=y", "a=x"], "a is asked in two ways"),
                      (["--models", "a=x", "--data", "u/val.jsonl", "v/val.jsonl"], "one file name")):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--out", str(tmp_path), *args])
        with pytest.raises(BadInput, match=why):
            evaluate.main()
    evaluate.check(evaluate.Config(models=["a=x", "a=y", "b:greedy=x", "c=x"]))  # two seeds; one folder in two ways


def answers(**scores):
    """{id: row} from id=(task, outcome, grounding), or (task, outcome, grounding, judged)."""
    rows = {}
    for i, (task, outcome, grounding, *judged) in scores.items():
        rows[i] = dict(id=i, task=task, source="s", outcome=outcome, grounding=grounding, judged=(judged or [outcome])[0],
                       malformed=i == "b", unfinished=i == "a")
    return rows


def test_tables_by_hand():
    """Every table of a small evaluation, from its own function."""
    have = {("sft", "x", "val"): answers(a=("count", 1., .5), b=("count", 0., None), c=("side", 1., None)),
            ("rl", "y1", "val"): answers(a=("count", 1., 1.), b=("count", 1., None), c=("side", 1., None)),
            ("rl", "y2", "val"): answers(a=("count", 0., 0., 1.), b=("count", 1., None), c=("side", 1., None))}
    names = evaluate.model_names(["sft=x", "rl=y1", "rl=y2"])
    assert names == ["sft", "rl"] and evaluate.model_names(["d:direct=x", "sft=x"], but=("direct",)) == ["sft"]
    head, line, first, second = evaluate.score_table(have, names, "val", 4)
    assert first.startswith("| sft (1 not scored) | 1 | 0.667 [") and first.endswith("| 0.500 [0.500, 0.500] |")
    assert second.startswith("| rl (1 not scored) | 2 | 0.833 [")
    assert second.count(" | 0.833 [") == 1 and " | 1.000 [1.000, 1.000] | 0.500 [" in second  # as its judge scores them
    assert evaluate.seed_table(have, names, "val")[-2:] == [
        "| sft | 0.667 | 0.667 | 0.500 |", "| rl | 1.000, 0.667 | 1.000, 1.000 | 1.000, 0.000 |"]
    assert evaluate.seed_table(have, ["sft"], "val") == []
    samples = [SimpleNamespace(task=task, source="s") for task in ("side", "count", "count")]
    assert evaluate.group_table(have, names, "val", samples, "task") == [
        "", "answers / R_vg by task", "", "| model | count | side |", "|---|---|---|",
        "| sft | 0.50 / 0.50 | 1.00 / - |", "| rl | 0.75 / 0.50 | 1.00 / - |"]
    assert evaluate.group_table(have, names, "val", samples, "source") == []
    differences = evaluate.difference_table(have, names, "val")
    assert len(differences) == 4 and differences[-1].startswith("| rl - sft | 0.167 [") and " | 0.333 [" in differences[-1]
    broken = evaluate.group_table(have, names, "val", samples, "task", ("malformed", "unfinished"), "broken")
    assert broken[1] == "broken by task" and broken[-2:] == ["| sft | 0.50 / 0.50 | 0.00 / 0.00 |"] + [
        "| rl | 0.50 / 0.50 | 0.00 / 0.00 |"]
    assert evaluate.hacked_table(have, names, "val")[-2:] == ["| sft | 0 |", "| rl | 0, 1 |"]
    assert evaluate.difference_table(have, ["sft"], "val") == []


def test_the_page_begins_where_models_disagree_most():
    a = answers(same=("t", 1., 1.), answer=("t", 1., .5), points=("t", 1., 1.), alone=("t", 1., 0.), both=("t", 1., .9))
    b = answers(same=("t", 1., 1.), answer=("t", 0., .5), points=("t", 1., .2), both=("t", 0., .1))
    assert evaluate.telling(dict(a=a, b=b)) == ["both", "points", "answer", "same"]  # 1.3, .8, .5, 0


def test_every_task_has_its_turn_on_the_page():
    samples = {i: SimpleNamespace(task=i[0]) for i in ("a1", "a2", "a3", "b1", "c1", "c2")}
    assert evaluate.one_of_each(["a1", "a2", "c1", "a3", "b1", "c2"], samples) == ["a1", "c1", "b1", "a2", "c2", "a3"]


def test_the_page_holds_answers_groups_and_curation(tmp_path, monkeypatch):
    """Groups are of the first sampled model, verified together with R_rq; what was sampled once is not sampled again."""
    world.write_split("val", 3, tmp_path)
    (tmp_path / "report.json").write_text(json.dumps({"samples": 4, "survived": 3, "rollouts": 8, "rollouts that pass": 5,
                                                      "rejected": {}, "yield by task": {"count": "3/4"}}))
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", [
        "evaluate.py", "--models", f"d:direct={ROOT}/tiny/base", f"s={ROOT}/tiny/teacher", f"t={ROOT}/tiny/base",
        "--data", str(tmp_path / "val.jsonl"), "--out", str(out), "--max_new_tokens", "32", "--pages", "2", "--group", "3",
        "--curated", str(tmp_path)])
    evaluate.main()
    first = (out / "page.html").read_bytes()
    data = json.loads(first.decode().split('id="data">')[1].split("</script>")[0])
    assert data["curation"]["flow"] == [["questions", 3, 4], ["rollouts", 5, 8]] and data["curves"] == {}
    assert [row[0] for row in data["tables"][0]["rows"]] == ["d", "s", "t"] and data["tau"] == .5
    assert len(data["questions"]) == 2 and len({question["task"] for question in data["questions"]}) == 2
    for question in data["questions"]:
        assert [one["who"] for one in question["answers"]] == ["s", "t"]  # a model asked directly never points
        assert [one["who"] for one in question["group"]] == ["s"] * 3
        assert all(one["terms"]["reasoning"] is not None for one in question["answers"] + question["group"])
        assert all(one["behind"] == (one["terms"]["outcome"] == 0) for one in question["group"])
    log = out / "groups.jsonl"
    measure = evaluate.load_measure(evaluate.Config())
    with monkeypatch.context() as context:
        context.setattr(evaluate, "load_measure", lambda cfg: measure)
        context.setattr(evaluate.P, "load_policy", None)  # all is there
        evaluate.main()
    assert (out / "page.html").read_bytes() == first
    row = json.loads(log.read_text())
    row["groups"] = dict.fromkeys(row["groups"], ["one"])  # damaged: sampled again, the same by its seed
    log.write_text(json.dumps(row) + '\n{"torn')
    evaluate.main()
    assert (out / "page.html").read_bytes() == first and len(log.read_text().splitlines()) == 3


def test_the_gate_of_the_page_is_not_closed_beforehand(tmp_path, monkeypatch):
    """A half right answer has its R_rq, so that a slider may open the gate for it; rewards begin at the gate's own tau."""
    given = {}
    monkeypatch.setattr(evaluate, "telling_questions", lambda cfg, have, measure, rewarding: given.update(rewarding=rewarding) or [])
    rewarding = Argos(None, None, None, None, use=("outcome",))
    evaluate.make_page(evaluate.Config(), {}, SimpleNamespace(rewarding=rewarding), {}, {}, tmp_path / "page.html")
    assert given["rewarding"].tau < 1e-6 and set(given["rewarding"].use) == {"outcome", "grounding", "reasoning"}
    assert rewarding.tau == .5 and '"tau": 0.5' in (tmp_path / "page.html").read_text()


def test_each_sample_of_the_page_is_asked_with_its_own_picture(tmp_path, monkeypatch):
    """Three samples in batches of two groups; then groups.jsonl has them."""
    def sample(policy, items, count, *_, **__):
        return SimpleNamespace(texts=[f"{seen} {text} {k}" for seen, text in items for k in range(count)])
    monkeypatch.setattr(evaluate.P, "load_policy", lambda *_, **__: SimpleNamespace(device="cpu"))
    monkeypatch.setattr(evaluate.P, "prompt", lambda preset, kind, question: question)
    monkeypatch.setattr(evaluate.P, "encode_prompts", lambda policy, items: items)
    monkeypatch.setattr(evaluate.P, "sample", sample)
    monkeypatch.setattr(evaluate, "stamp_of", lambda *_: ["stamp"])
    cfg = evaluate.Config(models=["d:direct=x", "s=y"], data=["val.jsonl"], out=str(tmp_path), batch=4, group=2)
    samples = [SimpleNamespace(id=i, question=f"q-{i}") for i in "abc"]
    wanted = "s", {i: [f"{i}.png q-{i} 0", f"{i}.png q-{i} 1"] for i in "abc"}
    assert evaluate.sample_groups(cfg, samples, ["a.png", "b.png", "c.png"]) == wanted
    monkeypatch.setattr(evaluate.P, "sample", None)
    assert evaluate.sample_groups(cfg, samples, ["a.png", "b.png", "c.png"]) == wanted


def test_flags_of_the_page_are_checked_at_once(tmp_path, monkeypatch):
    for flags, why in ((["--group", "1"], "at least 2 rollouts"), (["--pages", "-1"], "0: no page"),
                       (["--curated", str(tmp_path)], "is no report of curate.py")):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--models", "a=x", "--out", str(tmp_path / "out"), *flags])
        with pytest.raises(BadInput, match=why):
            evaluate.main()
    assert not (tmp_path / "out").exists()


def test_curve_counts_a_repeated_step_once(tmp_path):
    rows = [dict(kind="config"), dict(kind="eval", step=0, answers=.1, grounding=.2), dict(kind="train", step=0),
            dict(kind="eval", step=5, answers=.3, grounding=.4), dict(kind="eval", step=5, answers=.3, grounding=.4, judged=.5)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    curve = read_curve(tmp_path)
    assert (curve.steps, curve.answers, curve.grounding) == ([0, 5], [.1, .3], [.2, .4])
    assert curve.hacked[1] == pytest.approx(.2) and np.isnan(curve.judged[0])  # nobody had noted it at first


def test_checkpoints_become_a_curve_in_the_order_of_their_steps():
    def row(i, o, g):
        return dict(id=i, outcome=o, judged=1., grounding=g)
    have = {("rl@100", "x", "val"): {"a": row("a", 1., .5), "b": row("b", 0., None)},
            ("rl@20", "y", "val"): {"a": row("a", 0., .25)},
            ("rl@20", "z", "val"): {"a": row("a", 1., .75)},
            ("rl@9", "t", "val"): {},
            ("base", "w", "val"): {"a": row("a", 1., 1.)},
            ("rl@5", "v", "ood"): {},
            ("direct@7", "u", "val"): {"a": row("a", 1., None)}}
    curves = checkpoints(have, "val")
    assert curves.keys() == {"rl", "direct"}
    assert curves["rl"] == [Curve([20, 100], [.5, .5], [1., 1.], [.5, .5])]  # two seeds of step 20: their mean
    direct, = curves["direct"]
    assert direct.steps == [7] and direct.answers == [1.] and np.isnan(direct.grounding[0])


def test_damaged_files_are_named_counted_and_told_in_the_table(tmp_path, monkeypatch, capsys):
    world.write_split("val", 4, tmp_path)
    row = json.loads((tmp_path / "val.jsonl").read_text().splitlines()[2])
    damaged = tmp_path / (row.get("image") or row["video"])
    damaged.write_bytes(b"\x89PNG and then nothing")
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--models", f"base:direct={ROOT}/tiny/base",
                                      "--data", str(tmp_path / "val.jsonl"), "--out", str(tmp_path / "out"),
                                      "--max_new_tokens", "8"])
    evaluate.main()
    out, err = capsys.readouterr()
    assert err.count(f"left out: {damaged}") == 1 and "failures: 1 x damaged media" in err
    assert "| base (1 not scored) | 1 |" in out and len((tmp_path / "out/answers.jsonl").read_text().splitlines()) == 3
    unreadable, = (tmp_path / "out/unreadable.jsonl").read_text().splitlines()
    assert json.loads(unreadable)["id"] == row["id"] and str(damaged) in unreadable
    monkeypatch.setattr(evaluate, "ask", None)  # the others of its batch are answered: they are not asked again
    evaluate.main()
    assert len((tmp_path / "out/answers.jsonl").read_text().splitlines()) == 3
    for flag in ("--batch", "--max_new_tokens"):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--models", "a=x", "--out", str(tmp_path / "new"), flag, "0"])
        with pytest.raises(BadInput, match=f"{flag} 0: must be at least 1"):
            evaluate.main()
    assert not (tmp_path / "new").exists()
