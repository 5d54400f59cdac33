"""Curation: what a model says is checked before use, and a killed run loses and doubles nothing."""
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import argos
import curate
from tiny import world

ROOT = Path(curate.__file__).parent


@pytest.mark.parametrize("text, found", [
    ('{"objects": ["red square"], "actions": [], "events": []}', {"objects": ["red square"], "actions": [], "events": []}),
    ('Sure! {"objects": [" mug "], "actions": ["pour"], "events": [""]} Done.', {"objects": ["mug"], "actions": ["pour"], "events": []}),
    ('{"objects": ["a", 3, null, {"x": 1}], "actions": [], "events": []}', {"objects": ["a"], "actions": [], "events": []}),
    ('{"objects": "red square", "actions": [], "events": []}', None),   # a string is not a list
    ('{"objects": ["red square"]}', None),                               # keys missing
    ('["objects"]', None), ("no JSON here", None), ("{", None), ("", None), ("[" * 100_000, None), ('{"a":' * 5000, None)])
def test_extraction_is_checked(text, found):
    assert curate.read_extraction(text) == found


def test_extraction_is_bounded():
    found = curate.read_extraction(json.dumps({"objects": [f"thing {i} " + "x" * 90 for i in range(20)], "actions": [], "events": []}))
    assert len(found["objects"]) == 8 and max(map(len, found["objects"])) == 60


def test_overlay_marks_the_point_and_nothing_far_from_it():
    picture = Image.new("RGB", (84, 84), (200, 200, 200))
    drawn = np.asarray(curate.overlay(picture, [(42, 42)]))
    assert drawn.shape == (168, 168, 3) and tuple(drawn[85, 85]) == (0, 0, 0)  # (42 + .5) * 2 = 85
    assert (drawn[:60] == 200).all() and (drawn[:, :50] == 200).all()
    assert np.array_equal(np.asarray(picture), np.full((84, 84, 3), 200, np.uint8))  # the original is untouched


def verdict(outcome, reward, grounding=1., reasoning=1., answer="x"):
    return SimpleNamespace(outcome=outcome, reward=reward, grounding=grounding, reasoning=reasoning, parsed=SimpleNamespace(answer=answer))


def test_reasons_of_rejection():
    reason = lambda *v: curate.reject_reason(v, .7)
    assert reason(verdict(0, 0), verdict(1, .9)) is None
    assert reason(verdict(0, 0), verdict(0, 0)) == "no right answer"
    assert reason(verdict(0, 0, answer=None)) == "no answer in any rollout"
    assert reason(verdict(1, .6, grounding=.1, reasoning=.9)) == "right, but not grounded"
    assert reason(verdict(1, .6, grounding=.9, reasoning=.1)) == "right, but not reasoned"


def test_which_rollouts_of_a_survivor_are_kept():
    rollouts = [dict(text=str(i), reward=r, outcome=o) for i, (r, o) in enumerate([(.9, 1.), (.7, 1.), (.69, 1.), (.95, .4), (.8, 1.), (.75, 1.)])]
    row = dict(id="a", rollouts=rollouts)
    kept = lambda n: [r["text"] for r in curate.keep_rollouts(row, SimpleNamespace(keep=n, threshold=.7))]
    assert kept(1) == ["0"]                                   # the best that is right, not .95 with a wrong answer
    assert kept(2) == ["0", "4"] and kept(9) == ["0", "4", "5", "1"]  # .70 passes, .69 does not


def test_made_up_evidence_misses_and_keeps_answer_labels_and_order():
    rng, hits, points = np.random.default_rng(0), 0, 0
    for k in range(300):
        item = world.draw_item(rng)
        media = "image" if len(item.frames) == 1 else "video"
        before = f"<think>{item.think}</think><answer>{item.answer}</answer>"
        a, b = argos.parse(before, media), argos.parse(curate.made_up(before, (84, 84), random.Random(k)), media)
        assert (b.answer, [p.label for p in b.points], b.frame_claims) == (a.answer, [p.label for p in a.points], a.frame_claims)
        assert all(4 <= v <= 80 for p in b.points for v in (p.x, p.y))
        for p in b.points:
            things = item.frames[p.frame or 0]
            hits, points = hits + any(world.footprint(t)[int(p.y), int(p.x)] and t.label == p.label for t in things), points + 1
        if item.task in ("side", "height") and (said := re.search(r"(\d+) is (less|more) than (\d+)", b.think)):
            assert int(said[1]) <= int(said[3]) if said[2] == "less" else int(said[1]) >= int(said[3])
            assert int(said[1]) in (b.points[0].x, b.points[0].y) and int(said[3]) in (b.points[1].x, b.points[1].y)
    assert points > 300 and hits / points < .12
    every = '<think><point x1="14.5" y1="20" x2="30" y2="40" alt="a">a</point> 1 is less than 2</think><answer>(14, 42)</answer>'
    assert curate.made_up(every, (84, 84), random.Random(1)) == every.replace("14.5", "42.5").replace('"30"', '"58"')  # 28 px to the right
    assert curate.made_up("no points, (A) or (B)", (84, 84), random.Random(0)) == "no points, (A) or (B)"


def test_a_row_cut_by_a_kill_is_dropped(tmp_path):
    (tmp_path / "log").write_text('{"id": "a", "reason": null}\n{"id": "b", "rea')
    assert list(curate.finished_rows(tmp_path / "log")) == ["a"]


def run(folder, *flags):
    env = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.Popen([sys.executable, str(ROOT / "curate.py"), "--data", str(folder / "curate.jsonl"), "--rollouts", "4",
                             "--batch", "4", *flags], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_and_resumed_equals_undisturbed(tmp_path):
    world.write_split("curate", 12, tmp_path)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    out, err = run(tmp_path, "--out", str(whole)).communicate()
    assert "wrote" in out, err
    process = run(tmp_path, "--out", str(cut))
    while not (cut / "rollouts.jsonl").exists() and process.poll() is None:
        time.sleep(.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (cut / "sft.jsonl").exists()  # there is something to resume
    out, err = run(tmp_path, "--out", str(cut)).communicate()
    assert "--resume" in err and "Traceback" not in err  # refuses to mix runs by accident
    out, err = run(tmp_path, "--out", str(cut), "--resume").communicate()
    assert "wrote" in out, err
    read = lambda f: [json.loads(line) for line in (f / "rollouts.jsonl").read_text().splitlines()]
    assert read(whole) == read(cut) and len(read(cut)) == 12
    assert (whole / "sft.jsonl").read_text() == (cut / "sft.jsonl").read_text()
    for _, question, response in __import__("train_sft").read_chats(whole / "sft.jsonl"):
        parsed = argos.parse(response, "video" if "frame" in response else "image")
        assert parsed.answer and parsed.dropped == 0 and question.endswith("Think and point.")
