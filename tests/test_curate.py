"""Curation: what a model says is checked before use, damaged files are left out, and a killed run loses and doubles nothing."""
import json
import multiprocessing
import os
import random
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from runs.errors import BadInput, run_main
from verifier.claims import parse
from verifier.samples import Sample
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


def verdict(outcome, reward, grounding=1., reasoning=1., answer="x", not_scored=()):
    return SimpleNamespace(outcome=outcome, reward=reward, grounding=grounding, reasoning=reasoning, not_scored=dict.fromkeys(not_scored),
                           parsed=SimpleNamespace(answer=answer))


def test_reasons_of_rejection():
    reason = lambda *v: curate.reject_reason(v, .7)
    assert reason(verdict(0, 0), verdict(1, .9)) is None
    assert reason(verdict(0, 0), verdict(0, 0)) == "no right answer"
    assert reason(verdict(0, 0, answer=None)) == "no answer in any rollout"
    assert reason(verdict(1, .6, grounding=.1, reasoning=.9)) == "right, but not grounded"
    assert reason(verdict(1, .6, grounding=.9, reasoning=.1)) == "right, but not reasoned"
    # A failed teacher: the rest of the reward is full, and still nobody has looked at the points.
    assert reason(verdict(1, 1., grounding=None, not_scored=["grounding"]), verdict(1, 1.)) == "not scored: grounding"
    assert reason(verdict(None, None, None, None, not_scored=["outcome", "grounding"])) == "not scored: grounding, outcome"


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
        a, b = parse(before, media), parse(curate.made_up(before, (84, 84), random.Random(k)), media)
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


def test_a_row_cut_by_a_kill_is_cut_off(tmp_path):
    log, whole = tmp_path / "log", b'{"id": "a", "reason": null}\n{"id": "b", "reason": "no right answer"}\n'
    assert curate.resume_log(log) == {}
    for torn in (b"", b'{"id": "c", "rea', b'{"id": "c", "reason": null}', b"\x00\xff"):  # also a row that lacks only its line end
        log.write_bytes(whole + torn)
        assert curate.resume_log(log) == {"a": True, "b": False}
        assert log.read_bytes() == whole
    log.write_bytes(b"what is this\n" + whole)
    with pytest.raises(BadInput, match="row 1: is not JSON; delete the line"):
        curate.resume_log(log)


# ---- The real program, in processes of its own, that may be killed ----------------------------------------------------------
def process(out, *flags, die_at=None):
    """The target of a child process: curate.main(), killed with SIGKILL before it changes a file under `out` for the die_at-th time.

    Python announces every opening, renaming, truncation and removal of a file (sys.addaudithook), so that each is a place to die.
    """
    changes = 0

    def watch(event, arguments):
        nonlocal changes
        writes = event in ("os.rename", "os.truncate", "os.remove")
        writes = writes or event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and str(arguments[0]).startswith(f"{out}{os.sep}"):
            changes += 1
            if changes == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    data = out.parent / "curate.jsonl"
    sys.argv = ["curate.py", "--data", str(data), "--out", str(out), "--rollouts", "2", "--batch", "2", "--max_new_tokens", "48",
                "--threshold", ".5", "--pictures", "1", *flags]
    sys.stdout = sys.stderr = open(out.parent / f"{out.name}.log", "w")
    run_main(curate.main)


@pytest.fixture(scope="module")
def launch():
    """launch(out, *flags, die_at=...) -> (exit code, what was printed). One server imports the libraries once and forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["curate", "policy", "teachers"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")

        def run(out, *flags, die_at=None):
            child = context.Process(target=process, args=(out, *flags), kwargs=dict(die_at=die_at))
            child.start()
            child.join(120)
            return child.exitcode, (out.parent / f"{out.name}.log").read_text()
        yield run


FILES = ("rollouts.jsonl", "sft.jsonl", "llamafactory.jsonl", "dataset_info.json", "report.json", "settings.jsonl")


@pytest.fixture(scope="module")
def undisturbed(launch, tmp_path_factory):
    """A run over seven samples; the file of the second is damaged, and so are both of the second batch."""
    folder = tmp_path_factory.mktemp("curate")
    world.write_split("curate", 7, folder)
    rows = [json.loads(line) for line in (folder / "curate.jsonl").read_text().splitlines()]
    for k in (1, 2, 3):
        (folder / (rows[k].get("image") or rows[k]["video"])).write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    code, said = launch(folder / "whole")
    assert code == 0, said
    return folder, rows, said


def test_killed_anywhere_and_resumed_equals_undisturbed(undisturbed, launch):
    folder, rows, _ = undisturbed
    whole, cut, kills = folder / "whole", folder / "cut", []
    for die_at in (1, 2, 3, 5, 4, 3, 6, 8, 11, 14, 17, 99):
        code, said = launch(cut, "--resume", die_at=die_at)
        if code == 0:
            break
        assert code == -signal.SIGKILL, said
        log = cut / "rollouts.jsonl"
        kills.append(log.read_bytes().count(b"\n") if log.exists() else None)
        if len(kills) % 2 and log.exists() and (written := len(log.read_bytes())) < (whole / "rollouts.jsonl").stat().st_size:
            with open(log, "ab") as file:  # as if it had died while it wrote the next row
                file.write((whole / "rollouts.jsonl").read_bytes()[written:written + 99])
    # Before the log, before its first row, between batches, between the two samples of one batch, and after all of them.
    assert code == 0 and kills[0] is None and {2, 4, 5, 7} <= set(kills) and kills.count(7) >= 3, (code, kills)
    for name in FILES:
        if name != "settings.jsonl":
            same = (whole / name).read_bytes() == (cut / name).read_bytes()
            assert same, name  # not the bytes themselves: pytest would spend minutes on their difference
    pictures = [sorted(str(p.relative_to(out)) for p in out.rglob("*.png")) for out in (whole, cut)]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 3
    assert [json.loads(line)["id"] for line in open(cut / "rollouts.jsonl")] == [row["id"] for row in rows]

    before = (cut / "rollouts.jsonl").read_bytes()
    code, said = launch(cut)
    assert code == 2 and "--resume" in said and "Traceback" not in said  # refuses to mix runs by accident
    assert (cut / "rollouts.jsonl").read_bytes() == before


def test_damaged_files_are_named_counted_and_left_out(undisturbed):
    folder, rows, said = undisturbed
    log, table = map(json.loads, open(folder / "whole/rollouts.jsonl")), json.loads((folder / "whole/report.json").read_text())
    damaged = {row["id"]: row["error"] for row in log if row["reason"] == curate.DAMAGED}
    assert list(damaged) == [rows[k]["id"] for k in (1, 2, 3)]
    for k in (1, 2, 3):
        path = rows[k].get("image") or rows[k]["video"]
        assert path in damaged[rows[k]["id"]] and said.count(f"left out: {folder / path}") == 1
    assert table["samples"] == 7 and table["damaged media"] == 3 and table["rollouts"] == 8
    assert table["survived"] + sum(table["rejected"].values()) == 4 and table["survived"] > 0
    for key in ("task", "kind", "source"):
        good, of = zip(*(map(int, v.split("/")) for v in table[f"yield by {key}"].values()))
        assert (sum(good), sum(of)) == (table["survived"], 4)


def test_only_damaged_files_is_one_line_and_exit_code_2(undisturbed, launch, tmp_path):
    folder, rows, _ = undisturbed
    (tmp_path / "media").symlink_to(folder / "media")
    (tmp_path / "curate.jsonl").write_text("".join(json.dumps(rows[k]) + "\n" for k in (1, 2)))
    code, said = launch(tmp_path / "out")
    assert code == 2 and "none of its 2 files can be read" in said.splitlines()[-1] and "Traceback" not in said


def test_several_processes_write_what_one_writes(undisturbed):
    """As `accelerate launch` does, on the CPU. Kills a share that depends on the process, and files in the order of finishing."""
    from test_processes import launch as processes
    folder, _, _ = undisturbed
    flags = ["--data", folder / "curate.jsonl", "--out", folder / "two", "--rollouts", 2, "--batch", 2, "--max_new_tokens", 48, "--threshold", .5,
             "--pictures", 1]
    running = processes(2, "import argos, curate; argos.run_main(curate.main)", folder, *flags)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    logs = [sorted((folder / name / "rollouts.jsonl").read_text().splitlines()) for name in ("whole", "two")]
    assert logs[0] == logs[1] and len(logs[0]) == 7
    for name in ("sft.jsonl", "llamafactory.jsonl", "dataset_info.json", "report.json"):
        assert (folder / "whole" / name).read_text().splitlines() == (folder / "two" / name).read_text().splitlines(), name
    assert err.count("left out:") == 3


def test_the_rows_come_in_the_order_of_the_samples(tmp_path):
    (tmp_path / "log").write_text('{"id": "b"}\n{"id": "c"}\n{"id": "é"}\n{"id": "a"}\n')
    assert [row["id"] for row in curate.in_order(tmp_path / "log", dict.fromkeys(["a", "é", "b", "d"]))] == ["a", "é", "b"]


def test_examples_read_back(undisturbed):
    folder, _, _ = undisturbed
    chats = [json.loads(line) for line in open(folder / "whole/sft.jsonl")]
    factory = [json.loads(line) for line in open(folder / "whole/llamafactory.jsonl")]
    assert 0 < len(chats) == len(factory)
    for chat, plain, ((path,), question, response) in zip(chats, factory, __import__("train_sft").read_chats(folder / "whole/sft.jsonl")):
        parsed = parse(response, "video" if "frame" in response else "image")
        assert parsed.answer and parsed.dropped == 0 and question.endswith("Think and point.") and path.is_file()
        tag = "<video>" if "videos" in chat else "<image>"
        assert plain == {"instruction": tag + question, "output": response,
                         "images": chat.get("images", []), "videos": chat.get("videos", [])}


def test_a_text_cannot_name_a_file_to_llamafactory():
    sample = Sample("a", "?", "1", "count", "/x/a.png")
    chat = curate.chat_row(sample, 1., "an <image> and a <video>", "What is <image>?", "/x", False)
    assert curate.llamafactory_row(chat) == {"instruction": "<image>What is < image>?", "output": "an < image> and a < video>",
                                             "images": ["a.png"], "videos": []}


def test_best_and_worst_cards(tmp_path):
    """Which rollouts get a card, one a sample; a rollout without a reward never does."""
    rollout = lambda text, reward, grounding: dict(text=text, reward=reward, outcome=1., grounding=grounding, reasoning=1.)
    rows = [dict(id="a", reason=None, rollouts=[rollout("a0", .9, .5), rollout("a1", .9, .7)]),
            dict(id="b", reason=None, rollouts=[rollout("b0", 1., 1.), rollout("b1", .0, None)]),
            dict(id="c", reason="x", rollouts=[rollout("c0", None, None)]),
            dict(id="d", reason="x", rollouts=[rollout("d0", .0, .2)]), dict(id="gone", reason="x", rollouts=[rollout("g", 2., 1.)])]
    (tmp_path / "log").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = []
    verifier = SimpleNamespace(verify_group=lambda sample, texts: texts,
                               card=lambda sample, text, verdict, path: drawn.append((verdict, str(path.relative_to(tmp_path)))))
    samples = {k: SimpleNamespace(id=k) for k in "abcd"}
    for _ in range(2):
        (tmp_path / "best").mkdir(exist_ok=True)
        (tmp_path / "best/02-old.png").write_text("")
        curate.draw_cards(tmp_path / "log", samples, SimpleNamespace(pictures=2), verifier, tmp_path)
        assert not (tmp_path / "best/02-old.png").exists()
    assert drawn[:4] == [("b0", "best/01-b.png"), ("a1", "best/02-a.png"), ("b1", "worst/01-b.png"), ("d0", "worst/02-d.png")]


def test_the_extraction_reads_the_raw_reasoning(monkeypatch):
    """...where the prompt has a place for it and the row has one; the tiny prompt, which the models were trained on, has none."""
    import policy as P
    monkeypatch.setitem(P.PROMPTS, "7b", P.PROMPTS["7b"] | {"objects": "{question}|{answer}|{raw}"})
    asked = []

    class Stop(Exception):
        pass

    def encode(teacher, items):
        asked.extend(text for _, text in items)
        raise Stop
    monkeypatch.setattr(P, "encode_prompts", encode)
    monkeypatch.setattr(P, "prompt", lambda preset, key, **texts: P.PROMPTS[preset][key].format(**texts))
    sample = Sample("a", "Q?", "7", "count", "a.png")
    told = replace(sample)
    told.raw = "I count. " * 1000
    for preset in ("7b", "tiny"):
        with pytest.raises(Stop):
            curate.curate_batch([sample, told], [None, None], curate.Config(preset=preset), None, None, None, None)
    assert asked[0] == "Q?|7|" and asked[1] == "Q?|7|" + told.raw[:curate.MAX_RAW] and asked[2] == asked[3] == "List what matters: Q? 7"
