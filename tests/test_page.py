"""verifier/page.py: what it writes, by hand; and verifier/page.html as a reader meets it, in a real browser.

Run: pytest tests/test_page.py        (browser: apt-get install chromium-headless-shell)
"""
import base64
import io
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from argos import Choice, PointVerdict, Verdict, Weights, gate
from browser import Browser, PageError, find_browser
from runs.curves import Curve, read_curve
from runs.errors import BadInput
from train_grpo import advantages, zero_variance_cause
from verifier import page
from verifier.claims import Parsed, Point
from verifier.coordinates import Box, Media
from verifier.page import Rollout
from verifier.samples import Sample

EVIL = ("</script><script>window.hacked = 1</script><!-- <img src=x onerror='window.hacked=2'> \u2028\u2029 ]]> &lt;"
        "<svg onload=window.hacked=3> \u202e {{x}} ${window.hacked=4} javascript:window.hacked=5 \ud800 \x00 \\u003c \"'`")


# ---- What the pages here are made of -------------------------------------------------------------------------------------
def sample(i="s", kind="count", task="count", medium="image", question="How many mugs?"):
    return Sample(i, question, "2", kind, "p.png", medium, task=task, source="scenes")


def media(frames=1, size=(84, 56)):
    noise = np.random.default_rng(0).integers(0, 255, (frames, size[1], size[0], 3), dtype=np.uint8)
    return Media([Image.fromarray(one) for one in noise], [.5 * k for k in range(frames)], size)


def verdict(outcome=1., grounding=.5, reasoning=.75, answer="2", asked=True, not_scored=(), points=(), masks=None):
    choices = {"spatial": Choice(grounding is not None, "yes"), "reasoning": Choice(asked, "yes")}
    return Verdict(Parsed("", answer, no_answer="" if answer else "none"), choices, outcome, grounding, reasoning, list(points),
                   not_scored=dict.fromkeys(not_scored, "why"), masks=masks or {}, arithmetic="R = ...")


def group(*scores, tau=.5):
    """Rollouts of these (R_o, R_vg, R_rq), as argos.py gives them: R_rq is not computed behind the closed gate."""
    made = []
    for outcome, grounding, reasoning in scores:
        shut = outcome is not None and outcome < tau
        asked = reasoning is not None
        made.append(Rollout("sft", "text", verdict(outcome, grounding, None if shut else reasoning, asked=asked)))
    return made


GROUPS = [  # what a group may hold: differences; none, for each cause; terms that are not part of the reward; four of one kind
    group((1, .5, .9), (0, 1, .5), (1, 0, .25), (.3, .7, .1)),
    group((1, .5, .5), (1, .5, .5)),
    group((0, .5, .5), (0, 1, .5), (0, 0, 1)),
    group((1, None, .125), (0, None, .5), (.6, None, .99)),
    group((1, 1 / 3, None), (1, 2 / 3, None), (0, 1, None)),
    group((1, None, None), (0, None, None), (.45, None, None), (.55, None, None)),
    group((None, .5, .5), (None, 1, .5)),
    group(*[(1, k / 7, 1 - k / 7) for k in range(8)]),
    [Rollout("sft", "text", verdict(0., 0., None, answer=None)) for _ in range(2)],
]
SETTINGS = [(.5, .25, .25, .5), (1, 0, 0, .5), (.05, 1, 1, 1), (.35, .65, .1, .05), (.5, .25, 0, .3), (.1, .1, .95, .6)]


def written(path, questions=(), **more):
    page.write_page(path, more.pop("title", "A page"), "About it.", more.pop("weights", Weights()), more.pop("tau", .5), questions, **more)
    return path


def data_of(path):
    """The data of a page, as its script reads them."""
    class Reader(HTMLParser):
        tags, inside, text = [], False, ""

        def handle_starttag(self, tag, attributes):
            self.tags = [*self.tags, tag]
            self.inside = dict(attributes).get("id") == "data"

        def handle_endtag(self, tag):
            self.inside = False

        def handle_data(self, text):
            self.text += text if self.inside else ""
    reader = Reader()
    reader.feed(path.read_text())
    return json.loads(reader.text), reader.tags


# ---- 1. What is written --------------------------------------------------------------------------------------------------
def test_the_three_scores_are_those_of_the_gate():
    """None drops out; what was not computed behind the gate counts 0, as argos.py closes a verdict."""
    def scores(**of):
        return list(page.terms(verdict(**of)).values())
    assert scores() == [1., .5, .75]
    assert scores(outcome=0., reasoning=None) == [0., .5, 0.]
    assert scores(reasoning=None, asked=False, grounding=None) == [1., None, None]
    assert scores(reasoning=None, not_scored=["reasoning"]) == [1., .5, None]
    assert scores(outcome=None, reasoning=None) == [None, .5, None]
    assert scores(reasoning=0.) == [1., .5, 0.]


def test_hostile_texts_stay_texts(tmp_path):
    evil = verdict(answer=EVIL, points=[PointVerdict(Point(1, 1, EVIL), 0., EVIL, [Box(0, 0, 9, 9, 1., EVIL)], 0)])
    asked = sample(EVIL, task=EVIL, question=EVIL)
    path = written(tmp_path / "page.html", [page.question(asked, media(), [Rollout(EVIL, EVIL, evil, 0.)])], title=EVIL,
                   curves={EVIL: [Curve([0], [.5], [.5], [.5])]}, tables=[page.table(EVIL, ["| a |", "|---|", f"| {EVIL} |"])])
    data, tags = data_of(path)
    _, plain = data_of(written(tmp_path / "plain.html"))
    assert tags == plain and tags.count("script") == 2  # no element more than in a page without data
    raw = path.read_bytes().split(b'id="data">')[1].split(b"</script>")[0]
    assert not set(raw) & set(b"<>&") and raw.isascii()
    question, = data["questions"]
    kept = page.short(EVIL)
    assert kept.startswith("</script><script>window") and "\u202e" not in kept and "\x00" not in kept
    assert question["question"] == question["answers"][0]["response"] == page.clean(EVIL)
    assert question["answers"][0]["answer"] == data["title"] == kept


def test_long_texts_are_cut_and_many_reasons_counted(tmp_path):
    points = [PointVerdict(Point(1, 1, "a" * 5000), 0., "why", [], 0)] * 100
    made = page.question(sample(question="q" * 20_000), media(), [Rollout("m", "r" * 10 ** 6, verdict(points=points))])
    rollout, = made["answers"]
    assert len(made["question"]) < 2020 and len(rollout["response"]) < 2020 and rollout["response"].startswith("r" * 1500 + " [...] r")
    assert len(rollout["why"]) == 41 and rollout["why"][-1][0].endswith("more lines")
    assert len(rollout["frames"][0]["points"]) == 40 and len(json.dumps(made)) < 60_000 + len(made["pictures"][0])


def pixels(uri):
    kind, _, data = uri.partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def test_pictures_are_those_that_the_policy_saw():
    seen = media()
    kind, picture = pixels(page.picture_uri(seen.frames[0]))
    assert kind == "data:image/png" and np.array_equal(np.asarray(picture), np.asarray(seen.frames[0]))  # every pixel
    kind, picture = pixels(page.picture_uri(media(size=(672, 336)).frames[0]))
    assert kind == "data:image/jpeg" and picture.size == (336, 168)
    one, other = np.zeros((2, 56, 84), bool)
    one[10:20, 30:40], other[0, 0] = True, True
    kind, shade = pixels(page.shade_uri([one, other]))
    alpha = np.asarray(shade.convert("RGBA"))[..., 3]
    assert kind == "data:image/png" and np.array_equal(alpha, np.where(one | other, 0, page.DIM))
    assert pixels(page.shade_uri([np.ones((400, 800), bool)]))[1].size == (336, 168)


def test_each_picture_is_embedded_once_and_points_stand_in_its_pixels():
    mask = np.zeros((56, 84), bool)
    mask[:9] = True
    points = [PointVerdict(Point(1, 1, "mug"), 1., "on the mask", [Box(0, 0, 84, 9, .9, "mug")] * 2, 0),
              PointVerdict(Point(-5, 1e300, "mug"), 0., "outside", [], 0), PointVerdict(Point(3, 3, "mug"), 0., "no such frame", [], None)]
    looked = Rollout("m", "r", verdict(points=points, masks={(0, "mug"): mask}))
    made = page.question(sample(), media(), [looked, Rollout("n", "r", verdict())], [looked] * 3)
    assert len(made["pictures"]) == 2 and (made["width"], made["height"]) == (84, 56)
    frame, = made["answers"][0]["frames"]
    assert (frame["picture"], frame["shade"], frame["seconds"]) == (0, 1, None)
    assert [(p["number"], p["x"], p["y"], p["good"]) for p in frame["points"]] == [(1, 1.5, 1.5, True), (2, 0, 56, False)]
    assert frame["boxes"] == [[0, 0, 84, 9, "mug"]] and made["answers"][1]["frames"][0]["shade"] is None


def test_a_clip_shows_a_few_frames():
    points = [PointVerdict(Point(1, 1, "mug"), 1., "on the mask", [], frame) for frame in (9, 2, 5, 7, 8)]
    made = page.question(sample(medium="video"), media(12), [Rollout("m", "r", verdict(points=points))])
    frames = made["answers"][0]["frames"]
    assert [(f["number"], f["seconds"]) for f in frames] == [(2, 1.), (5, 2.5), (7, 3.5), (8, 4.)] and len(made["pictures"]) == 4
    assert [len(f["points"]) for f in frames] == [1, 1, 1, 1]


def test_who_fools_the_judge_is_marked():
    def marks(outcome, measured):
        made = page.question(sample(), media(), [Rollout("m", "r", verdict(outcome), measured)])["answers"][0]
        return made["right"], made["judge_only"]
    assert marks(1., 0.) == (False, True) and marks(1., None) == (True, False) and marks(0., 0.) == (False, False)
    assert marks(None, None) == (None, False) and marks(1., 1.) == (True, False)
    assert marks(.5, None) == (True, False) and marks(.5, .49) == (False, True)  # as is counted everywhere: half is right


def test_a_page_is_bounded_and_says_what_it_leaves_out(tmp_path, monkeypatch):
    questions = [page.question(sample(f"{k}"), media(), group=GROUPS[0]) for k in range(9)]
    whole = written(tmp_path / "whole.html", questions)
    assert len(data_of(whole)[0]["questions"]) == 9 and data_of(whole)[0]["left_out"] == 0
    monkeypatch.setattr(page, "MAX_BYTES", whole.stat().st_size - 20_000)
    data, _ = data_of(written(tmp_path / "cut.html", questions))
    assert (tmp_path / "cut.html").stat().st_size <= page.MAX_BYTES
    assert 0 < len(data["questions"]) < 9 and data["left_out"] == 9 - len(data["questions"])
    assert data["questions"] == data_of(whole)[0]["questions"][:len(data["questions"])]


def test_damaged_rows_of_metrics_become_gaps(tmp_path):
    rows = [dict(step=0, answers=.1, grounding=.2, judged=.1), dict(step=5, answers="x", grounding=math.nan), dict(step=True, answers=1),
            dict(step=10 ** 400, answers=.5), dict(step=20, answers=10 ** 400, grounding=math.inf, judged=[1]), dict(step="30", answers=.5)]
    log = tmp_path / "metrics.jsonl"
    log.write_text("\n".join(json.dumps(dict(kind="eval", **row)) for row in rows) + '\n{"kind": "eval", "st')
    one = page.curve(read_curve(tmp_path))
    assert one == dict(steps=[0, 5, 20], answers=[.1, None, None], judged=[.1, None, None], grounding=[.2, None, None])
    data, _ = data_of(written(tmp_path / "page.html", curves={"argos": [read_curve(tmp_path)]}))
    assert data["curves"] == {"argos": [one]}


def test_tables_and_curation(tmp_path):
    lines = ["| model | R_vg |", "|---|---|", "| sft | 0.5 [0.4, 0.6] |"]
    assert page.table("val", lines) == dict(title="val", head=["model", "R_vg"], rows=[["sft", "0.5 [0.4, 0.6]"]])
    report = {"samples": 4, "survived": 3, "rollouts": 8, "rollouts that pass": 5, "rejected": {"no right answer": 1}, "yield by task": {"count": "3/4"}}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    assert page.read_yield(path) == dict(flow=[("questions", 3, 4), ("rollouts", 5, 8)], rejected=[("no right answer", 1)], tasks=[("count", 3, 4)])
    damaged = [report | {"survived": "many"}, report | {"yield by task": {"count": "3"}}, report | {"rejected": [1]}, [], {}, report | {"samples": math.nan}]
    for text in [*map(json.dumps, damaged), "no json", "[" * 100_000]:
        path.write_text(text)
        with pytest.raises(BadInput, match="is no report of curate.py"):
            page.read_yield(path)
    with pytest.raises(BadInput, match="is no report of curate.py"):
        page.read_yield(tmp_path / "none.json")


# ---- 2. The arithmetic of the page is that of argos.py and train_grpo.py --------------------------------------------------
def expected(rollouts, setting, scale=True):
    """-> R of each, A of each, and why the group teaches nothing ("" where it does), from the Python that trains."""
    *weights, tau = setting
    rewards, verdicts = [], []
    for rollout in rollouts:
        terms = page.terms(rollout.verdict)
        known = terms["outcome"] is not None
        rewards.append(gate(*terms.values(), Weights(*weights), tau) if known else None)
        verdicts.append(rollout.verdict)
    known = torch.tensor([[reward or 0. for reward in rewards]], dtype=torch.float64)  # as in training
    if known.std(dim=1) <= 1e-6:
        return rewards, [0.] * len(rewards), zero_variance_cause(verdicts, tau)
    return rewards, advantages(known, scale)[0].tolist(), ""


def close(numbers, others):
    assert len(numbers) == len(others)
    for a, b in zip(numbers, others):
        assert (a is None and b is None) or abs(a - b) < 1e-9, (numbers, others)


def test_the_arithmetic_is_that_of_the_gate_and_of_advantages():
    """Without a browser: the script's second part, in Chromium's engine alone."""
    engine = pytest.importorskip("py_mini_racer").MiniRacer()
    script = page.TEMPLATE.read_text()
    first = script[script.index("const TERMS"):script.index("const INDEX")]
    engine.eval(first + script[script.index("// ---- 2."):script.index("// ---- 3.")])
    for rollouts in GROUPS:
        terms = [page.terms(rollout.verdict) for rollout in rollouts]
        answers = [rollout.verdict.parsed.answer for rollout in rollouts]
        for setting in SETTINGS:
            weights = json.dumps(dict(zip(("outcome", "grounding", "reasoning"), setting)))
            engine.eval(f"var tau = {setting[3]}, answers = {json.dumps(answers)}; var group = {json.dumps(terms)}"
                        f".map((terms, i) => ({{terms, answer: answers[i], reward: gate(terms, {weights}, tau)}}))")
            for scale in (True, False):
                rewards, found, cause = expected(rollouts, setting, scale)
                close(json.loads(engine.eval("JSON.stringify(group.map(one => one.reward))")), rewards)
                assert engine.eval("sameBecause(group, tau)") == cause
                if not cause:
                    close(json.loads(engine.eval(f"JSON.stringify(advantages(group.map(one => one.reward), {json.dumps(scale)}))")), found)


# ---- 3. In a browser -----------------------------------------------------------------------------------------------------
in_browser = pytest.mark.browser


@pytest.fixture(scope="module")
def tab():
    if not find_browser():
        pytest.skip("no Chromium on the PATH: apt-get install chromium-headless-shell")
    with Browser() as browser:
        yield browser


@pytest.fixture
def opened(tab, tmp_path):
    """opened(questions, ...) writes a page and opens it; nothing may be amiss in it, nor be asked of a network."""
    def open_page(questions=(), **more):
        path = written(tmp_path / "page.html", questions, **more)
        tab.resize(1000)
        tab.prefer(color_scheme="light")
        tab.open(path)
        return tab
    yield open_page
    assert tab.errors == []
    assert all(url.startswith(("file:", "data:")) for url in tab.requests)


def many():
    """A question of models' answers, and one for each group."""
    mask = np.zeros((56, 84), bool)
    mask[10:30, 10:40] = True
    points = [PointVerdict(Point(20, 20, "mug"), 1., "on the mask", [Box(10, 10, 40, 30, .9, "mug")], 0),
              PointVerdict(Point(70, 50, "mug"), 0., "beside the mask", [], 0)]
    answers = [Rollout("sft", "I see mugs", verdict(points=points, masks={(0, "mug"): mask})), Rollout("argos", "<answer>3</answer>", verdict(0., 1., None)),
               Rollout("outcome", "yes", verdict(1., 0., .5, answer="anything"), 0.), Rollout("base", "", verdict(0., 0., None, answer=None))]
    questions = [page.question(sample("first", "free", "free", question="Which mug is first?"), media(), answers)]
    for k, rollouts in enumerate(GROUPS):
        questions.append(page.question(sample(f"group-{k}"), media(), group=rollouts))
    return questions


def numbers(tab):
    """Of each group: R, A and the cause, as the script has them, and R and A as they are shown."""
    return tab.run("""data.questions.slice(1).map(question => ({
        rewards: question.group.map(one => one.reward), advantages: question.group.map(one => one.advantage), cause: question.cause,
        shown: question.group.map(one => [one.shown.reward.textContent, one.shown.push.textContent]),
        told: question.shown.summary.textContent}))""")


def move(tab, setting):
    for name, value in zip(("outcome", "grounding", "reasoning", "tau"), setting):
        tab.run(f"""(slider => {{ slider.value = {value}; slider.dispatchEvent(new Event("input", {{bubbles: true}})) }})
            (toy.elements.{name})""")


@in_browser
def test_moving_a_slider_counts_rewards_and_advantages_anew(opened):
    tab = opened(many())
    for setting in [SETTINGS[0], *SETTINGS[1:], SETTINGS[0]]:
        move(tab, setting)
        for scale in (False, True):
            tab.run("toy.elements.scale.click()")
            pushed = {"up": 0, "down": 0}
            for rollouts, found in zip(GROUPS, numbers(tab), strict=True):
                rewards, wanted, cause = expected(rollouts, setting, scale)
                close(found["rewards"], rewards)
                close(found["advantages"], wanted)
                assert found["cause"] == cause and found["told"].startswith(cause or "mean R")
                for (reward, push), r, a in zip(found["shown"], rewards, wanted):
                    assert reward == ("none" if r is None else f"{r:.2f}")
                    way = "up" if a > 1e-6 else "down" if a < -1e-6 else "not pushed"
                    assert way in push and f"{abs(a):.2f}" in push
                    pushed.update({way: pushed.get(way, 0) + 1})
            told = tab.run("document.getElementById('told').textContent")
            assert f"▲ {pushed['up']} up, ▼ {pushed['down']} down" in told


@in_browser
def test_keys_move_a_slider_and_buttons_bring_it_back(opened):
    tab = opened(many(), weights=Weights(.62, .38, 0), tau=.52)  # between a slider's steps: kept until it is moved
    close([row for found in numbers(tab) for row in found["rewards"]],
          [r for rollouts in GROUPS for r in expected(rollouts, (.62, .38, 0, .52))[0]])
    tab.run("toy.elements.grounding.focus()")
    tab.press("ArrowRight", 3)
    weight = tab.run("Number(toy.elements.grounding.value)")
    assert weight == pytest.approx(.55)
    close(numbers(tab)[0]["rewards"], expected(GROUPS[0], (.62, weight, 0, .52))[0])
    assert tab.run("toy.querySelectorAll('output')[1].textContent") == "0.55"
    tab.run("toy.querySelector('[data-preset=answer]').focus()")
    tab.press("Enter")
    close(numbers(tab)[0]["rewards"], [1, 0, 1, .3])
    tab.run("toy.querySelector('[data-preset=open]').click()")  # no gate: points earn under a wrong answer
    close(numbers(tab)[2]["rewards"], [.38 * .5, .38, 0])
    assert "argos.py refuses" in tab.run("document.getElementById('formula').textContent")
    tab.run("toy.querySelector('[data-preset=run]').click()")
    close(numbers(tab)[0]["rewards"], expected(GROUPS[0], (.62, .38, 0, .52))[0])


@in_browser
def test_who_is_turned_around_is_marked(opened):
    rollouts = group((1, 0, None), (.6, 1, None))  # the answer alone prefers the first, points the second
    tab = opened([page.question(sample(), media(), group=rollouts)], weights=Weights(.5, .5, 0))
    turned = "[...document.querySelectorAll('.turned')].length"
    assert tab.run(turned) == 0 and tab.run("document.querySelector('.up .who').textContent") == "#2"
    tab.run("toy.querySelector('[data-preset=answer]').click()")
    assert tab.run(turned) == 2 and tab.run("document.querySelector('.up .who').textContent") == "#1"
    assert "since this run (dashed): 2." in tab.run("document.getElementById('told').textContent")
    assert tab.run("document.querySelector('.total b').hidden") is False  # the mark where R stood


@in_browser
def test_those_turned_around_can_be_found_while_sliders_move(opened):
    turning = group((1, 0, None), (.6, 1, None))
    tab = opened([page.question(sample(), media(), group=turning), page.question(sample("s2"), media(), group=GROUPS[1])], weights=Weights(.5, .5, 0))
    tab.run("filters.elements.turned.click()")
    shown = "document.getElementById('count').textContent"
    assert tab.run(shown) == "0 of 4 rollouts."
    tab.run("toy.querySelector('[data-preset=answer]').click()")
    assert tab.run(shown) == "2 of 4 rollouts." and tab.run("document.querySelectorAll('#rollouts > section[hidden]').length") == 1
    tab.run("toy.querySelector('[data-preset=run]').click()")
    assert tab.run(shown) == "0 of 4 rollouts."


@in_browser
def test_rewards_that_only_look_equal_show_their_spread(opened):
    tab = opened([page.question(sample(), media(), group=group((1, 1, 1), (1, 1, .99999)))])
    told = tab.run("data.questions[0].shown.summary.textContent")
    assert told == "mean R 1.00, spread 0.000002: ▲ 1 up, ▼ 1 down"
    assert tab.run("document.getElementById('told').textContent").startswith("1 group: ")


@in_browser
def test_a_run_that_does_not_divide_begins_so(opened):
    questions = [page.question(sample(), media(), group=GROUPS[0])]
    tab = opened(questions, scale=False)
    _, wanted, _ = expected(GROUPS[0], SETTINGS[0], scale=False)
    close(tab.run("data.questions[0].group.map(one => one.advantage)"), wanted)
    assert tab.run("toy.elements.scale.checked") is False
    tab.run("toy.elements.scale.click(), toy.querySelector('[data-preset=run]').click()")
    close(tab.run("data.questions[0].group.map(one => one.advantage)"), wanted)
    assert opened(questions).run("toy.elements.scale.checked") is True


@in_browser
def test_names_are_whole_and_a_long_response_scrolls(opened):
    answers = [Rollout(name, "line\n" * 390, verdict()) for name in ("sft-greedy", "sft", "argos", "outcome")]
    tab = opened([page.question(sample(), media(), answers)])
    for width in (400, 1000, 1600):
        tab.resize(width)
        assert tab.run("[...document.querySelectorAll('.who')].filter(one => one.scrollWidth > one.clientWidth).length") == 0
    tab.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.run("document.querySelector('.response').offsetHeight") < 500


@in_browser
def test_a_browser_that_hangs_is_told(tab, monkeypatch):
    monkeypatch.setattr("browser.PATIENCE", .05)
    with pytest.raises(PageError, match="says nothing for 0.05 s"):
        while True:  # what it still had to tell, then nothing
            tab.receive()


@in_browser
def test_a_group_that_equals_by_the_gate_alone_is_told(opened):
    tab = opened([page.question(sample(), media(), group=group((.4, 0, .5), (.4, 1, .5)))], tau=.3)
    assert tab.run("data.questions[0].cause") == ""
    move(tab, (.5, .25, .25, .5))  # closed for both
    assert tab.run("data.questions[0].cause") == "all wrong"


@in_browser
def test_filters_show_what_they_say(opened):
    tab = opened(many())

    def shown(**fields):
        for name, value in fields.items():
            which = "checked" if name == "judge_only" else "value"
            tab.run(f"filters.elements.{name}.{which} = {json.dumps(value)}")
        tab.run("filters.dispatchEvent(new Event('input'))")
        tiles = tab.run("[...document.querySelectorAll('.tile')].filter(one => one.offsetParent).length")
        assert tab.run("document.getElementById('count').textContent").startswith(f"{tiles} of {4 + every} rollouts")
        return tiles
    every = sum(map(len, GROUPS))
    judged = [rollout for rollouts in GROUPS for rollout in rollouts if rollout.verdict.outcome is not None]
    assert shown() == every + 4
    assert shown(who="argos") == 1 and shown(who="group:sft") == every and shown(who="sft") == 1 and shown(who="") == every + 4
    assert shown(topic="task:free") == 4 and shown(topic="kind:count") == every and shown(topic="") == every + 4
    assert shown(right="true") == 1 + sum(rollout.verdict.outcome >= .5 for rollout in judged)
    assert shown(right="none") == 3 and shown(right="false") == 3 + sum(rollout.verdict.outcome < .5 for rollout in judged)
    assert shown(right="", judge_only=True) == 1 and shown(judge_only=False) == every + 4
    pointed = [rollout for rollouts in GROUPS for rollout in rollouts if rollout.verdict.grounding is not None]
    assert shown(grounded="true") == 2 + sum(rollout.verdict.grounding >= .5 for rollout in pointed)
    assert shown(grounded="false") == 2 + sum(rollout.verdict.grounding < .5 for rollout in pointed)
    assert shown(grounded="", text="SEE mugs ") == 1 and shown(text="which MUG") == 4 and shown(text="zebra") == 0
    assert tab.run("[...document.querySelectorAll('#rollouts > section')].filter(one => !one.hidden).length") == 0


@in_browser
def test_a_tile_shows_the_picture_with_its_points(opened):
    tab = opened(many())
    assert tab.run("document.querySelectorAll('.answers .tile').length") == 4
    assert tab.run("document.querySelector('.frames svg').getAttribute('viewBox')") == "0 0 84 56"
    spots = tab.run("[...document.querySelectorAll('.answers circle')].map(one => [one.getAttribute('class'), one.cx.baseVal.value, one.cy.baseVal.value])")
    assert spots == [["in", 20.5, 20.5], ["out", 70.5, 50.5]]
    marks = tab.run("[...document.querySelectorAll('.answers .mark')].map(one => one.textContent)")
    assert marks == ["✓ right", "✗ wrong", "⚠ judge only", "✗ no answer"]
    bars = tab.run("[...document.querySelectorAll('.answers .tile')].map(one => [...one.querySelectorAll('.bar i')].map(i => i.style.width))")
    assert bars[0] == ["100%", "50%", "75%", "81.25%"] and bars[1] == ["0%", "100%", "0%", "0%"]
    loaded = tab.run("Promise.all([...document.querySelectorAll('.frames image')].map(one => one.decode ? one.decode().then(() => 1) : 1))")
    assert sum(loaded) == len(loaded) > 4
    tab.run("document.querySelector('summary').focus()")
    tab.press(" ")
    assert tab.run("document.querySelector('details').open") and "I see mugs" in tab.run("document.querySelector('.response').innerText")
    assert tab.run("document.querySelectorAll('details .why .in').length") > 0


@in_browser
def test_hostile_texts_run_nowhere(opened):
    evil = verdict(answer=EVIL, points=[PointVerdict(Point(1, 1, EVIL), 0., EVIL, [Box(0, 0, 9, 9, 1., EVIL)], 0)])
    rollout = Rollout(EVIL, EVIL, evil, 0.)
    tab = opened([page.question(sample(EVIL, task=EVIL, question=EVIL), media(), [rollout], [rollout] * 2)], title=EVIL,
                 curves={EVIL: [Curve([0, 5], [.5, .6], [.5, .7], [.5, .4])], "__proto__": [Curve([0], [.1], [.1], [.1])]},
                 tables=[page.table(EVIL, ["| a |", "|---|", f"| {EVIL} |"])])
    tab.run("update(), filter(), new Promise(done => setTimeout(done, 50))")
    assert tab.run("typeof window.hacked") == "undefined"
    assert tab.run("document.querySelectorAll('script').length") == 2 and tab.run("document.querySelectorAll('img, iframe, [onload], [onerror]').length") == 0
    assert tab.run("document.querySelector('.answer').textContent") == f"“{page.short(EVIL)}”"
    assert tab.run("document.querySelector('h3').textContent") == page.clean(EVIL)


@in_browser
@pytest.mark.parametrize("width", [320, 400, 1000, 1600])
def test_nothing_overflows_to_the_right(opened, width):
    long = [page.question(sample("i" * 300, question="q" * 900, task="t" * 90), media(12), [Rollout("m" * 90, "r" * 900, verdict(answer="a" * 190))] * 3)]
    lines = ["| model | answers | as its judge scores them | R_vg |", "|---|---|---|---|", "| " + "m" * 90 + " | 0.5 [0.4, 0.6] | 0.5 | 0.5 |"]
    tab = opened(many() + long, curves={"argos": [Curve([0, 100], [.5, .6], [.5, .7], [.5, .4])]}, tables=[page.table("val", lines)])
    tab.resize(width)
    tab.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.run("document.documentElement.scrollWidth") <= width
    columns = tab.run("getComputedStyle(document.querySelectorAll('.tiles')[1]).gridTemplateColumns.split(' ').length")
    assert columns == {320: 2, 400: 2, 1000: 4, 1600: 8}[width]
    top = tab.run("(window.scrollTo(0, 1e6), Math.round(toy.getBoundingClientRect().top))")
    assert 0 <= top <= 20  # the sliders stay in sight
    assert tab.run("toy.offsetHeight") < (300 if width < 800 else 640)


CONTRAST = """(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = element => { for (let e = element; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
  const worst = {};
  for (const element of document.querySelectorAll("h1, p, th, td, span, button, label, summary, .why div, select, h4, output")) {
    if (!element.offsetParent || !element.textContent.trim()) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const name = element.tagName + "." + element.className;
    worst[name] = Math.min(worst[name] ?? 99, ratio);
  }
  return worst; })()"""


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_light_and_dark(opened, scheme):
    """WCAG 2.1 AA: a contrast of 4.5 to 1."""
    tab = opened(many(), curves={"argos": [Curve([0, 100], [.5, .6], [.5, .7], [.5, .4])]}, tables=[page.table("val", ["| a |", "|---|", "| 1 [0, 2] |"])])
    tab.prefer(color_scheme=scheme)
    tab.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    worst = tab.run(CONTRAST)
    assert len(worst) > 12 and min(worst.values()) >= 4.5, worst
    assert (tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 29)") == (scheme == "dark")


@in_browser
def test_a_keyboard_reaches_everything_and_is_seen(opened):
    tab = opened(many())
    seen = []
    for _ in range(17):
        tab.press("Tab")
        name, outline = tab.run("(e => [e.name || e.className || e.dataset.preset || e.tagName, getComputedStyle(e).outlineStyle])(document.activeElement)")
        seen.append(name)
        assert outline != "none", name
    assert seen == ["skip", "outcome", "grounding", "reasoning", "tau", "run", "answer", "open", "scale", "text", "topic", "who", "right", "grounded",
                    "judge_only", "turned", "SUMMARY"]
    unnamed = "[...document.querySelectorAll('input, select')].filter(e => e.labels.length === 0).length"  # an output would take the label
    assert tab.run(unnamed) == 0
    tab.prefer(reduced_motion="reduce")
    assert tab.run("getComputedStyle(document.querySelector('.bar i')).transitionDuration") == "0s"
    tab.send("Emulation.setEmulatedMedia", media="print")
    assert tab.run("getComputedStyle(document.querySelector('aside')).display") == "none"
    tab.send("Emulation.setEmulatedMedia", media="")


@in_browser
def test_a_page_of_nothing_and_curves_with_gaps(opened):
    tab = opened()
    assert tab.run("document.querySelector('main').hidden") and tab.run("document.getElementById('numbers').children.length") == 0
    gaps = Curve([0, 20, 40], [.5, math.nan, .7], [math.nan] * 3, [math.nan] * 3)
    tab = opened(curves={"argos": [gaps, Curve([], [], [], [])], "x": []}, curation=dict(flow=[("questions", 0, 0)], rejected=[], tasks=[]))
    assert tab.run("document.querySelectorAll('.curve').length") == 1  # nothing was grounded: one panel
    assert tab.run("document.querySelector('.curve').getAttribute('aria-label')") == "Right answers, held out: argos from 0.50 to 0.70"
    assert tab.run("document.querySelectorAll('.curve circle').length") == 2
    tab = opened(curves={"argos": [Curve([0, 9], [.5, .6], [.5, .8], [.4, .9])]})
    assert tab.run("document.querySelectorAll('.curve').length") == 2 and tab.run("document.querySelectorAll('path[stroke-dasharray]').length") == 1
