"""Curation: what a model says is checked before use, damaged files are left out, and a killed run loses and doubles
nothing.
"""
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
from verifier.coordinates import Media
from verifier.samples import Sample
import curate
import policy as P
import train_sft
from test_processes import launch as launch_processes
from tiny import world

ROOT = Path(curate.__file__).parent


@pytest.mark.parametrize("text, found", [
    ('{"objects": ["red square"], "actions": [], "events": []}',
     {"objects": ["red square"], "actions": [], "events": []}),
    ('Sure! {"objects": [" mug "], "actions": ["pour"], "events": [""]} Done.',
     {"objects": ["mug"], "actions": ["pour"], "events": []}),
    ('{"objects": ["a", 3, null, {"x": 1}], "actions": [], "events": []}',
     {"objects": ["a"], "actions": [], "events": []}),
    ('{"objects": "red square", "actions": [], "events": []}', None),   # a string is not a list
    ('{"objects": ["red square"]}', None),                               # keys missing
    ('["objects"]', None), ("no JSON here", None), ("{", None), ("} {", None), ("", None), ("[" * 100_000, None),
    ('{"a":' * 5000, None)])
def test_extraction_is_checked(text, found):
    assert curate.read_extraction(text) == found


def test_extraction_is_bounded():
    things = [f"thing {i} " + "x" * 90 for i in range(20)]
    found = curate.read_extraction(json.dumps({"objects": things, "actions": [], "events": []}))
    assert len(found["objects"]) == 8 and max(map(len, found["objects"])) == 60


def test_overlay_marks_the_point_and_nothing_far_from_it():
    picture = Image.new("RGB", (84, 84), (200, 200, 200))
    drawn = np.asarray(curate.overlay(picture, [(42, 42)]))
    assert drawn.shape == (168, 168, 3) and tuple(drawn[85, 85]) == (0, 0, 0)  # (42 + .5) * 2 = 85
    assert (drawn[:60] == 200).all() and (drawn[:, :50] == 200).all()
    assert np.array_equal(np.asarray(picture), np.full((84, 84, 3), 200, np.uint8))  # the original is untouched


def test_a_clip_is_shown_overlaid_a_picture_both_ways():
    """Paper, section 4.2. Points stand on their own frame, with its number and second."""
    asked = []

    def find(frame, label):
        asked.append(label)
        return [(40, 20)] if label == "mug" else []
    pointer = SimpleNamespace(point=find)
    frames = [Image.new("RGB", (168, 168), (200, 200, 200)) for _ in range(2)]
    clip = Media(frames=frames, seconds=[0., 1.5], original_size=(168, 168))
    picture = Media(frames=frames[:1], seconds=[0.], original_size=(168, 168))
    assert curate.point(clip, ["mug", "pen"], pointer) == [[(40, 20)], [(40, 20)]] and asked == ["mug", "pen"] * 2
    drawn = curate.overlaid(clip, [[], [(40, 20)]])
    pixels = [np.asarray(frame) for frame in drawn.frames]
    assert drawn.seconds == [0., 1.5] and (pixels[0][15:] == 200).all() and (pixels[1][15:25, 35:45] != 200).any()
    assert (pixels[0][:14] != 200).any()  # the caption
    assert curate.with_overlay(clip, drawn) is drawn
    marked = curate.overlaid(picture, [[]])
    assert curate.with_overlay(picture, marked) == [picture, marked]
    assert (np.asarray(marked.frames[0]) == 200).all()  # a picture has no caption


def verdict(outcome, reward, grounding=1., reasoning=1., answer="x", not_scored=()):
    return SimpleNamespace(outcome=outcome, reward=reward, grounding=grounding, reasoning=reasoning,
                           not_scored=dict.fromkeys(not_scored), parsed=SimpleNamespace(answer=answer))


def test_reasons_of_rejection():
    def reason(*verdicts):
        return curate.reject_reason(verdicts, .7)

    assert reason(verdict(0, 0), verdict(1, .9)) is None
    assert reason(verdict(0, 0), verdict(0, 0)) == "no right answer"
    assert reason(verdict(0, 0, answer=None)) == "no answer in any rollout"
    assert reason(verdict(1, .6, grounding=.1, reasoning=.9)) == "right, but not grounded"
    assert reason(verdict(1, .6, grounding=.9, reasoning=.1)) == "right, but not reasoned"
    # A failed teacher: the rest of the reward is full, and still nobody has looked at the points.
    assert reason(verdict(1, 1., grounding=None, not_scored=["grounding"]), verdict(1, 1.)) == "not scored: grounding"
    nothing = verdict(None, None, None, None, not_scored=["outcome", "grounding"])
    assert reason(nothing) == "not scored: grounding, outcome"


def test_which_rollouts_of_a_survivor_are_kept():
    scores = [(.9, 1.), (.7, 1.), (.69, 1.), (.95, .4), (.8, 1.), (.75, 1.), (.8, 1.)]
    row = dict(id="a", rollouts=[dict(text=str(i), reward=r, outcome=o) for i, (r, o) in enumerate(scores)])

    def kept(n):
        return [r["text"] for r in curate.keep_rollouts(row, SimpleNamespace(keep=n, threshold=.7))]
    assert kept(1) == ["0"]                                   # the best that is right, not .95 with a wrong answer
    assert kept(2) == ["0", "4"] and kept(9) == ["0", "4", "6", "5", "1"]  # .70 passes, .69 does not; equals in order


def test_made_up_evidence_misses_and_keeps_answer_labels_and_order():
    rng, hits, points = np.random.default_rng(0), 0, 0
    for k in range(300):
        item = world.draw_item(rng)
        media = "image" if len(item.frames) == 1 else "video"
        before = f"<think>{item.think}</think><answer>{item.answer}</answer>"
        a, b = parse(before, media), parse(curate.made_up(before, (84, 84), random.Random(k)), media)
        assert [p.label for p in b.points] == [p.label for p in a.points]
        assert (b.answer, b.frame_claims) == (a.answer, a.frame_claims)
        assert all(4 <= v <= 80 for p in b.points for v in (p.x, p.y))
        for p in b.points:
            things = item.frames[p.frame or 0]
            hits += any(world.footprint(t)[int(p.y), int(p.x)] and t.label == p.label for t in things)
            points += 1
        said = re.search(r"(\d+) is (less|more) than (\d+)", b.think)
        if item.task in ("side", "height") and said:
            assert int(said[1]) <= int(said[3]) if said[2] == "less" else int(said[1]) >= int(said[3])
            assert int(said[1]) in (b.points[0].x, b.points[0].y)
            assert int(said[3]) in (b.points[1].x, b.points[1].y)
    assert points > 300 and hits / points < .12
    every = ('<think><point x1="14.5" y1="20" x2="30" y2="40" alt="a">a</point> 1 is less than 2</think>'
             '<answer>(14, 42)</answer>')
    moved = every.replace("14.5", "42.5").replace('"30"', '"58"')  # 28 px to the right
    assert curate.made_up(every, (84, 84), random.Random(1)) == moved
    right = every.replace("14.5", "60").replace('"30"', '"70"')
    moved = right.replace('"60"', '"32"').replace('"70"', '"42"')  # towards the middle: 28 px to the left
    assert curate.made_up(right, (84, 84), random.Random(1)) == moved
    assert curate.made_up("no points, (A) or (B)", (84, 84), random.Random(0)) == "no points, (A) or (B)"


def test_a_row_cut_by_a_kill_is_cut_off(tmp_path):
    log = tmp_path / "log"
    whole = (b'{"id": "a", "reason": null, "extracted": null, "rollouts": []}\n'
             b'{"id": "b", "reason": "no right answer", "extracted": null, "rollouts": []}\n')
    assert curate.resume_log(log) == {}
    # Also a row that lacks only its line end.
    for torn in (b"", b'{"id": "c", "rea', b'{"id": "c", "reason": null}', b"\x00\xff"):
        log.write_bytes(whole + torn)
        assert curate.resume_log(log) == {"a": True, "b": False}
        assert log.read_bytes() == whole
    log.write_bytes(b"what is this\n" + whole)
    with pytest.raises(BadInput, match="row 1: is not JSON; delete the line"):
        curate.resume_log(log)


# ---- The real program, in processes of its own, that may be killed -----------------------------------------
def process(out, *flags, die_at=None):
    """The target of a child process: curate.main(), killed with SIGKILL before its die_at-th change of a file in `out`.

    Python announces every opening, renaming, truncation and removal of a file (sys.addaudithook), so that each is a
    place to die.
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
    sys.argv = ["curate.py", "--data", str(data), "--out", str(out), *SMALL, *flags]
    sys.stdout = sys.stderr = open(out.parent / f"{out.name}.log", "w")
    run_main(curate.main)


SMALL = ["--rollouts", "2", "--batch", "2", "--max_new_tokens", "48", "--threshold", ".5", "--pictures", "1"]


@pytest.fixture(scope="module")
def launch():
    """launch(out, *flags, die_at=...) -> (exit code, what was printed). One server imports the libraries, then forks."""
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


FILES = ("rollouts.jsonl", "sft.jsonl", "llamafactory.jsonl", "dataset_info.json", "report.json", "argos.json")


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
    for die_at in (2, 3, 4, 6, 5, 4, 7, 9, 12, 15, 18, 99):  # 1 opens the lock
        code, said = launch(cut, "--resume", die_at=die_at)
        if code == 0:
            break
        assert code == -signal.SIGKILL, said
        log = cut / "rollouts.jsonl"
        kills.append(log.read_bytes().count(b"\n") if log.exists() else None)
        if len(kills) % 2 and log.exists():
            written = len(log.read_bytes())
            rest = (whole / "rollouts.jsonl").read_bytes()[written:]
            if rest:
                with open(log, "ab") as file:  # as if it had died while it wrote the next row
                    file.write(rest[:99])
    # Before the log, before its first row, between batches, between the two samples of one batch, and after all.
    assert code == 0 and kills[0] is None and {2, 4, 5, 7} <= set(kills) and kills.count(7) >= 3, (code, kills)
    for name in FILES:
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
    log = [json.loads(line) for line in open(folder / "whole/rollouts.jsonl")]
    table = json.loads((folder / "whole/report.json").read_text())
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
    """As `accelerate launch` does, on the CPU. Kills a share that depends on the process, and files in the order of
    finishing."""
    folder, _, _ = undisturbed
    said = launch_processes(2, "curate", folder, "--data", folder / "curate.jsonl", *SMALL)
    logs = [sorted((folder / name / "rollouts.jsonl").read_text().splitlines()) for name in ("whole", "2")]
    assert logs[0] == logs[1] and len(logs[0]) == 7
    for name in ("sft.jsonl", "llamafactory.jsonl", "dataset_info.json", "report.json"):
        whole, two = (folder / run / name for run in ("whole", "2"))
        assert whole.read_text().splitlines() == two.read_text().splitlines(), name
    assert "".join(said).count("left out:") == 3


def test_the_rows_come_in_the_order_of_the_samples(tmp_path):
    rest = '", "reason": null, "extracted": null, "rollouts": []}\n'
    (tmp_path / "log").write_text("".join(f'{{"id": "{name}{rest}' for name in "bcéa"))
    rows = curate.in_order(tmp_path / "log", dict.fromkeys(["a", "é", "b", "d"]))
    assert [row["id"] for row in rows] == ["a", "é", "b"]


def test_examples_read_back(undisturbed):
    folder, _, _ = undisturbed
    chats = [json.loads(line) for line in open(folder / "whole/sft.jsonl")]
    factory = [json.loads(line) for line in open(folder / "whole/llamafactory.jsonl")]
    assert 0 < len(chats) == len(factory)
    read = train_sft.read_chats(folder / "whole/sft.jsonl")
    for chat, plain, ((path,), question, response) in zip(chats, factory, read):
        parsed = parse(response, "video" if "frame" in response else "image")
        assert parsed.answer and parsed.dropped == 0 and question.endswith("Think and point.") and path.is_file()
        tag = "<video>" if "videos" in chat else "<image>"
        assert plain == {"instruction": tag + question, "output": response,
                         "images": chat.get("images", []), "videos": chat.get("videos", [])}


def test_a_text_cannot_name_a_file_to_llamafactory():
    sample = Sample("a", "?", "1", "count", "/x/a.png")
    chat = curate.chat_row(sample, 1., "an <image> and a <video>", "What is <image>?", "/x", False)
    assert curate.llamafactory_row(chat) == {
        "instruction": "<image>What is < image>?", "output": "an < image> and a < video>", "images": ["a.png"],
        "videos": []}


def test_best_and_worst_cards(tmp_path):
    """Which rollouts get a card, one per sample; a rollout without a reward never does."""
    def rollout(text, reward, grounding):
        return dict(text=text, reward=reward, outcome=1., grounding=grounding, reasoning=1.)
    rows = [dict(id="a", reason=None, rollouts=[rollout("a0", .9, .5), rollout("a1", .9, .7)]),
            dict(id="b", reason=None, rollouts=[rollout("b0", 1., 1.), rollout("b1", .0, None)]),
            dict(id="c", reason="x", rollouts=[rollout("c0", None, None)]),
            dict(id="d", reason="x", rollouts=[rollout("d0", .0, .2), rollout("d1", .0, .2)]),
            dict(id="gone", reason="x", rollouts=[rollout("g", 2., 1.)])]
    (tmp_path / "log").write_text("".join(json.dumps(row | {"extracted": None}) + "\n" for row in rows))
    drawn = []

    def card(sample, text, verdict, path):
        drawn.append((verdict, str(path.relative_to(tmp_path))))
    verifier = SimpleNamespace(verify_group=lambda sample, texts: texts, card=card)
    samples = {k: SimpleNamespace(id=k) for k in "abcd"}
    for _ in range(2):
        (tmp_path / "best").mkdir(exist_ok=True)
        (tmp_path / "best/02-old.png").write_text("")
        curate.draw_cards(tmp_path / "log", samples, SimpleNamespace(pictures=2), verifier, tmp_path)
        assert not (tmp_path / "best/02-old.png").exists()
    assert drawn[:4] == [("b0", "best/01-b.png"), ("a1", "best/02-a.png"),
                         ("b1", "worst/01-b.png"), ("d0", "worst/02-d.png")]


def test_the_extraction_reads_the_raw_reasoning(monkeypatch):
    """...where the prompt has a place for it and the row has one; the tiny models' own prompt has none."""
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
    assert asked[0] == "Q?|7|" and asked[1] == "Q?|7|" + told.raw[:curate.MAX_RAW]
    assert asked[2] == asked[3] == "List what matters: Q? 7"


def test_an_id_with_half_a_character_is_written_like_any_other(tmp_path):
    """A lone surrogate is valid JSON, and no bytes in UTF-8. Kills a run that ends after all its rollouts."""
    sample = Sample("\ud800", "q", "2", "count", str(tmp_path / "a.png"))
    rollout = dict(text="<answer>2</answer>", reward=1., outcome=1., grounding=1., reasoning=1.)
    row = dict(id=sample.id, extracted=None, reason=None, rollouts=[rollout])
    (tmp_path / "rollouts.jsonl").write_text(json.dumps(row) + "\n")
    written = curate.write_sft(tmp_path / "rollouts.jsonl", {sample.id: sample}, curate.Config(made_up=0.), None, tmp_path)
    assert written == (1, 0) and "\\ud800" in (tmp_path / "sft.jsonl").read_text()
