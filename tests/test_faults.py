"""Faults that people meet: two runs in one folder, damaged files, a disk that is full or in the way, a run that is
stopped. Each ends in one line, exit code 2 (or the signal's), and nothing is lost.

Run: pytest tests/test_faults.py
"""
import copy
import errno
import gzip
import json
import math
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from runs import processes
from runs.curves import read_curve
from runs.errors import BadInput, first_line, printable, run_main
from runs.files import (alone, append_jsonl, claim_run, file_name, logged_settings, make_folder, read_jsonl,
                        write_atomically)
from verifier.samples import read_samples
import curate
import evaluate
import policy as P
import train_grpo
import train_sft
from benchmarks import embodied, libero
from tiny import __main__ as whole
from tiny import study, world

ROOT = Path(__file__).parent.parent
ESC = "\x1b[2J"
SCRIPTS = [curate, train_sft, train_grpo, evaluate]


def call(monkeypatch, script, *flags):
    """The script's main(), as its command line calls it."""
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, flags)])
    script.main()


def ending(capsys, main):
    """Run a main() that must end early. -> exit code, the one line on stderr."""
    with pytest.raises(SystemExit) as stop:
        run_main(main)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return stop.value.code, lines[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four held-out samples, and chat examples of them; d-*.jsonl are the same with every file damaged."""
    folder = tmp_path_factory.mktemp("faults")
    world.write_split("val", 4, folder)
    rows = [row for _, row in read_jsonl(folder / "val.jsonl")]
    (folder / "broken.png").write_bytes(b"\x89PNG and then nothing")
    for name, broken in (("", False), ("d-", True)):
        samples, chats = [], []
        for row in rows:
            kind = "image" if "image" in row else "video"
            path = "broken.png" if broken else row[kind]
            samples.append(row | {kind: path})
            user = {"role": "user", "content": [{"type": kind}, {"type": "text", "text": row["question"]}]}
            said = {"role": "assistant", "content": [{"type": "text", "text": "<answer>1</answer>"}]}
            chats.append({"messages": [user, said], f"{kind}s": [path]})
        for file, content in ((f"{name}val.jsonl", samples), (f"{name}sft.jsonl", chats)):
            (folder / file).write_text("".join(json.dumps(row) + "\n" for row in content))
    mixed = (folder / "d-sft.jsonl").read_text().splitlines()[:2] + (folder / "sft.jsonl").read_text().splitlines()[:1]
    (folder / "mixed.jsonl").write_text("\n".join(mixed) + "\n")
    return folder


# ---- 1. Two runs in one folder -----------------------------------------------------------------------------
@pytest.mark.parametrize("script", [*SCRIPTS, embodied, libero, study, whole])
def test_a_second_run_in_one_folder_is_refused_and_writes_nothing(script, data, tmp_path, monkeypatch, capsys):
    flags = ["--out", tmp_path / "out", "--data", data / "val.jsonl"]
    if script is evaluate:
        flags += ["--models", f"base={ROOT}/tiny/base"]
    own = {embodied: ["--out", tmp_path / "out"], libero: ["--out", tmp_path / "out", "--do", "tokens"],
           study: ["--out", tmp_path, "--name", "out"], whole: ["--out", tmp_path / "out"]}
    flags = own.get(script, flags)
    with alone(tmp_path / "out"):
        code, line = ending(capsys, lambda: call(monkeypatch, script, *flags))
    assert code == 2 and "another run is at work there" in line and "--out" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def one_of_two(rank, port, out):
    """The target of a child process: one of two that torchrun would start."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")
    sys.stdout = sys.stderr = open(out.parent / f"said-{rank}", "w")

    def main():
        with processes.alone(processes.start(SimpleNamespace(out=str(out))), out):
            print("it was not refused")
    run_main(main)


def test_of_several_processes_all_end_and_one_says_why(tmp_path):
    """Two real processes. Kills: the others wait for the main one forever, or all say the same."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["curate", "policy", "teachers"])  # the server of test_curate.py
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [context.Process(target=one_of_two, args=(rank, port, tmp_path / "out")) for rank in (0, 1)]
    with alone(tmp_path / "out"):
        for child in children:
            child.start()
        for child in children:
            child.join(60)
    said = [(tmp_path / f"said-{rank}").read_text() for rank in (0, 1)]
    assert [child.exitcode for child in children] == [2, 2], said
    assert "another run is at work there" in said[0] and said[0].count("\n") == 1 and said[1] == ""


def test_what_every_process_notices_the_others_say_late(monkeypatch, capsys):
    """By then the launcher has ended them. What one alone notices is still said."""
    slept = []
    monkeypatch.setattr("runs.errors.time.sleep", slept.append)

    def main():
        raise BadInput("a typo")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert ending(capsys, main) == (2, "error: a typo") and len(slept) == int(rank)


def test_a_process_beside_the_main_one_ends_with_its_refusal(monkeypatch):
    other = SimpleNamespace(is_main_process=False)
    monkeypatch.setattr(processes, "broadcast_object_list", lambda things: [None, True])
    with pytest.raises(SystemExit) as stop:
        processes.once(other, None)
    assert stop.value.code == 2
    monkeypatch.setattr(processes, "broadcast_object_list", lambda things: [{"a": True}, False])
    assert processes.once(other, None) == {"a": True}


def test_where_a_disk_knows_no_locks_a_run_goes_on(tmp_path, monkeypatch):
    import fcntl  # Windows has none

    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone(tmp_path):
        append_jsonl(tmp_path / "log.jsonl", {"a": 1})


# ---- 2. All files damaged ----------------------------------------------------------------------------------
SFT = ["--batch", 2, "--micro_batch", 2, "--warmup", 1, "--lora_rank", 4, "--merge", "False"]


def test_sft_does_not_end_well_with_nothing_learned(data, tmp_path, monkeypatch, capsys):
    flags = ["--data", data / "d-sft.jsonl", "--out", tmp_path / "out", *SFT, "--epochs", 3, "--save_every", 1]
    with pytest.raises(BadInput, match="d-sft.jsonl: none of its pictures and clips can be read"):
        call(monkeypatch, train_sft, *flags)
    said = capsys.readouterr().err
    assert said.count(f"left out: {data}/broken.png") == 4  # of one epoch: there is no second
    assert not (tmp_path / "out/adapter").exists()
    with pytest.raises(BadInput, match="none of its pictures"):  # nor is it forgotten by a kill and --resume
        call(monkeypatch, train_sft, *flags, "--resume")


def test_sft_counts_what_it_left_out(data, tmp_path, monkeypatch, capsys):
    call(monkeypatch, train_sft, "--data", data / "mixed.jsonl", "--out", tmp_path / "out", *SFT, "--batch", 1)
    assert "2 of 3 examples had a file that cannot be read: left out" in capsys.readouterr().out
    weights = torch.load(tmp_path / "out/state.pt", weights_only=True)["weights"]
    moved = [name for name, w in weights.items() if "lora_B" in name and w.any()]
    assert moved and (tmp_path / "out/adapter").exists()


def test_evaluate_logs_what_it_cannot_read_and_says_so(data, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    flags = ["--models", f"base:direct={ROOT}/tiny/base", "--data", data / "d-val.jsonl", "--out", out]
    with pytest.raises(BadInput, match="nothing of it could be asked; .*unreadable.jsonl"):
        call(monkeypatch, evaluate, *flags)
    rows = [row for _, row in read_jsonl(out / "unreadable.jsonl")]
    assert len(rows) == 4 and all(row["set"] == "d-val" and "broken.png" in row["why"] for row in rows)
    assert "| base (4 not scored) | 0 | - | - | - |" in (out / "table.md").read_text()


def test_grpo_refuses_a_held_out_set_that_cannot_be_read():
    one = SimpleNamespace(num_processes=1, process_index=0, is_main_process=True)
    measure = SimpleNamespace(verifier=SimpleNamespace(usable=lambda samples: ([], [])))
    policy = SimpleNamespace(device=torch.device("cpu"))
    cfg = train_grpo.Config(val="val.jsonl")
    with pytest.raises(BadInput, match="val.jsonl: none of its pictures and clips can be read"):
        train_grpo.evaluate(policy, measure, [1, 2], cfg, 0, one)
    assert train_grpo.evaluate(policy, measure, [], cfg, 0, one)["answers"] is None  # --eval_samples 0


# ---- 3. Rows and names -------------------------------------------------------------------------------------
def test_no_two_ids_share_a_file_and_ordinary_ones_keep_their_name():
    ordinary = ["val-00003", "a_b", "a.b-c", "step-20", "x" * 120]
    assert [file_name(text) for text in ordinary] == ordinary
    odd = ["a/b", "a\\b", "A_b", "a_B", "a b", "a:b", "", ".", "..", "...", "../a", "a/../b", "é", "e\u0301", "漢" * 90, "漢" * 91,
           "\ud800", "\x00", "\x1b", "x" * 121, "x" * 122, "x" * 120 + "/a", "x" * 120 + "/b", "con ", "🙂"]
    odd += [file_name("a/b")]  # an id may be another's file name
    names = [file_name(text).casefold() for text in ordinary + odd]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name.encode()) <= 150 and not name.startswith(".") and not set(name) & set('/\\:*?"<>|\0 ')


def test_a_row_that_is_no_object_is_refused_in_data_and_skipped_in_logs(tmp_path):
    path = tmp_path / "metrics.jsonl"
    config = dict(kind="config", lr=.1)
    other = ["[1, 2]", "3", "null", '"text"', "true", "{", "\xff", '{"kind": "eval"}', '{"kind": "eval", "step": [1]}',
             '{"kind": "eval", "step": 5, "answers": "many", "grounding": 0.5}']
    path.write_bytes("\n".join([*other[:7], json.dumps(config), *other[7:]]).encode("latin-1"))
    assert len(list(read_jsonl(path, torn=True))) == 4 and logged_settings(path) == config
    for text in other[:7]:
        (tmp_path / "data.jsonl").write_bytes(b'{"a": 1}\n' + text.encode("latin-1"))
        with pytest.raises(BadInput, match=r"data.jsonl row 2: is not (JSON|a JSON object|text in UTF-8).*(write one \{...\} per line|save it so)"):
            list(read_jsonl(tmp_path / "data.jsonl"))
        for read in (train_sft.read_chats, read_samples):
            (tmp_path / "data.jsonl").write_bytes(text.encode("latin-1"))
            with pytest.raises(BadInput, match="row 1: is not"):
                read(tmp_path / "data.jsonl")

    claim_run(path, dict(lr=.1, resume=True))
    with pytest.raises(BadInput, match="--lr 0.1, not 0.2"):
        claim_run(path, dict(lr=.2, resume=True))
    curve = read_curve(tmp_path)
    assert curve.steps == [5] and curve.grounding == [.5] and math.isnan(curve.answers[0])
    path.write_text('[1]\n{"kind": "train", "step": 0}\n')
    with pytest.raises(BadInput, match="the settings, is lost"):
        claim_run(path, dict(lr=.1, resume=True))
    (tmp_path / "merged").mkdir()
    assert not study.is_run_of("python train_grpo.py", tmp_path)


ANSWER = dict(model="m", folder="f", set="val", id="a", task="", source="", kind="count", outcome=1., judged=1., grounding=None,
              malformed=False, unfinished=False, response="r", stamp=[1])


def test_a_damaged_row_is_no_answer(tmp_path):
    bad = [{name: value for name, value in ANSWER.items() if name != left_out} for left_out in ANSWER]
    bad += [ANSWER | change for change in (dict(id=["a"]), dict(outcome="1"), dict(outcome=True), dict(judged=math.nan),
                                       dict(grounding=[.5]), dict(malformed=None))]
    lines = [json.dumps(row) for row in (ANSWER, *bad)] + ["[]", "1", '{"benchmark": "BLINK", "id": "a", "correct": 1}']
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))
    assert evaluate.read_answers(tmp_path / "answers.jsonl") == [ANSWER]
    assert evaluate.read_answers(tmp_path / "none.jsonl") == []


def test_text_as_editors_save_it(tmp_path):
    """A mark in front and Windows' line ends are read; what is no UTF-8 is told so, with its cure."""
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (3, {"a": 2})]
    for content in ('{"a": "\u00e9"}'.encode("latin-1"), '{"a": 1}'.encode("utf-16"), gzip.compress(b'{"a": 1}')):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="data.jsonl row 1: is not text in UTF-8; save it so"):
            list(read_jsonl(path))


@pytest.mark.parametrize("change", [dict(id=3), dict(reason=[1]), dict(rollouts=None), dict(rollouts=[3]),
                                    dict(rollouts=[dict(text="t", reward=1., outcome=1., grounding=1.)]),
                                    dict(rollouts=[dict(text="t", reward=1., outcome=None, grounding=None, reasoning=None)]),
                                    dict(rollouts=[dict(text="t", reward="1", outcome=1., grounding=1., reasoning=1.)])])
def test_a_damaged_rollout_is_named(tmp_path, change):
    good = dict(id="a", reason=None, extracted=None, rollouts=[dict(text="t", reward=None, outcome=1, grounding=1., reasoning=1.)])
    (tmp_path / "log").write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
    with pytest.raises(BadInput, match="row 2: is no row of this log; delete the line"):
        curate.resume_log(tmp_path / "log")
    (tmp_path / "log").write_text(json.dumps(good) + "\n[]\n")
    with pytest.raises(BadInput, match="row 2"):
        curate.resume_log(tmp_path / "log")


# ---- 4. Where nothing can be written -----------------------------------------------------------------------
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("kind", ["a file", "below a file", "a dangling link", "below a process", "read-only"])
def test_an_out_that_cannot_be_written_is_one_line(script, kind, data, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("something")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "else")
    out = {"a file": tmp_path / "file", "below a file": tmp_path / "file/out", "a dangling link": tmp_path / "link",
           "below a process": "/proc/self/out", "read-only": tmp_path / "out"}[kind]
    if kind == "read-only":  # simulated: the tests may run as root, who may write anywhere
        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied", str(out))
        monkeypatch.setattr(Path, "mkdir", refuse)
    flags = ["--out", out, "--data", data / "val.jsonl"]
    if script is evaluate:
        flags += ["--models", f"base={ROOT}/tiny/base"]
    code, line = ending(capsys, lambda: call(monkeypatch, script, *flags))
    assert code == 2 and f"error: {out}: cannot be written (" in line and "name another place" in line
    assert (tmp_path / "file").read_text() == "something"


def test_a_file_in_the_way_of_anything_that_is_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for write in (lambda: write_atomically(tmp_path / "file/table.md", "x"), lambda: write_atomically(tmp_path / "folder", "x"),
                  lambda: append_jsonl(tmp_path / "file/log.jsonl", {}), lambda: append_jsonl(tmp_path / "folder", {}),
                  lambda: make_folder(tmp_path / "file"), lambda: curate.draw_ranked([], {}, None, tmp_path / "file")):
        with pytest.raises(BadInput, match="cannot be written"):
            write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]  # and nothing half-written


@contextmanager
def disk_of(size):
    """Inside, no file can grow beyond `size` bytes: a write does what it can, then fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_no_half_row_and_no_half_file(tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    append_jsonl(log, {"n": 0})
    whole = log.read_bytes()
    with disk_of(100), pytest.raises(BadInput, match="log.jsonl: cannot be written"):
        append_jsonl(log, {"n": 1}, {"text": "x" * 200})
    assert log.read_bytes() == whole  # all rows or none
    with disk_of(100), pytest.raises(BadInput):
        write_atomically(tmp_path / "file", b"x" * 200)
    with disk_of(100), pytest.raises(BadInput):
        with curate.written_aside(tmp_path / "sft.jsonl") as file:
            file.write("x" * 20_000)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError) as error, errors_of_write(monkeypatch, full):
        append_jsonl(log, {"n": 1})
    assert error.value.filename == str(log)  # run_main names it


@contextmanager
def errors_of_write(monkeypatch, error):
    def refuse(*_, **__):
        raise error
    with monkeypatch.context() as patch:
        patch.setattr("runs.files.json.dumps", refuse)
        yield


# ---- 5. state.pt -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained():
    """A small policy with an adapter, and its optimizer after one step."""
    torch.manual_seed(0)
    policy = P.load_policy(ROOT / "tiny/base", lora_rank=2)
    optimizer = torch.optim.AdamW(list(P.trainable(policy).values()), lr=.01)
    step(policy, optimizer)
    return policy, optimizer


def step(policy, optimizer):
    for p in P.trainable(policy).values():
        p.grad = torch.randn_like(p)
    optimizer.step()


def contents(policy, optimizer):
    """All that load_state may change, as plain values."""
    moments = [value.clone() for part in optimizer.state_dict()["state"].values() for value in part.values()]
    return [p.detach().clone() for p in P.trainable(policy).values()] + moments + [torch.get_rng_state()]


def equal(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other))


def test_a_state_comes_back_whole(trained, tmp_path):
    policy, optimizer = trained
    assert P.load_state(tmp_path / "state.pt", policy, optimizer, 9) == 0
    P.save_state(tmp_path / "state.pt", policy, optimizer, 7)
    before = contents(policy, optimizer)
    step(policy, optimizer)
    assert not equal(before, contents(policy, optimizer))
    assert P.load_state(tmp_path / "state.pt", policy, optimizer, 9) == 7
    assert equal(before, contents(policy, optimizer)) and [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_state_is_read_on_the_cpu_and_goes_where_the_weights_are(trained, tmp_path):
    """AdamW reads its `step` in Python, and torch leaves it where it was read: on a GPU each step would wait for
    it, once a parameter. The moments follow the weights by themselves. Another device than the CPU's here: meta."""
    policy, optimizer = trained
    path = tmp_path / "state.pt"
    P.save_state(path, policy, optimizer, 7)
    elsewhere = replace(policy, model=copy.deepcopy(policy.model).to("meta"), device=torch.device("meta"))
    fresh = torch.optim.AdamW(P.trainable(elsewhere).values())
    assert P.load_state(path, elsewhere, fresh, 9) == 7
    for state in fresh.state.values():
        devices = {name: value.device.type for name, value in state.items()}
        assert devices == {"step": "cpu", "exp_avg": "meta", "exp_avg_sq": "meta"}


def test_weights_that_went_astray_are_not_saved_over_good_ones(trained, tmp_path):
    policy, optimizer = trained
    path = tmp_path / "state.pt"
    P.save_state(path, policy, optimizer, 7)
    good = path.read_bytes()
    weight = next(iter(P.trainable(policy).values())).data
    kept = weight[0, 0].item()
    weight[0, 0] = math.inf
    with pytest.raises(BadInput, match="state.pt: .* is not finite: .* lower --lr"):
        P.save_state(path, policy, optimizer, 8)
    weight[0, 0] = kept
    assert path.read_bytes() == good


def test_a_state_of_a_longer_run_is_refused(trained, tmp_path):
    policy, optimizer = trained
    P.save_state(tmp_path / "state.pt", policy, optimizer, 10)
    refused(tmp_path / "state.pt", policy, optimizer, "it is of step 10, and this run has 9")


@pytest.mark.parametrize("script, flags", [(train_sft, ["--policy", "/nowhere"]), (train_sft, ["--data", "/nowhere.jsonl"]),
                                           (train_grpo, ["--policy", "/nowhere"]), (train_grpo, ["--val", "/nowhere.jsonl"])])
def test_a_typo_does_not_claim_the_folder(script, flags, data, tmp_path, monkeypatch):
    """Else the person who mends it is told that there is a run already."""
    good = ["--data", data / "sft.jsonl"] if script is train_sft else ["--data", data / "val.jsonl", "--val", data / "val.jsonl"]
    with pytest.raises(BadInput, match="/nowhere"):
        call(monkeypatch, script, *good, *flags, "--out", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


@pytest.mark.parametrize("script, flag", [(train_sft, "--lr=nan"), (train_sft, "--epochs=inf"), (train_sft, "--max_grad_norm=0"),
                                          (train_grpo, "--lr=inf"), (train_grpo, "--seed=-1"), (evaluate, "--seed=9999999999"),
                                          (train_sft, "--image_pixels=0"), (train_grpo, "--max_frames=0"), (curate, "--video_pixels=-1")])
def test_a_number_that_trains_nothing_is_refused(script, flag, monkeypatch, tmp_path, capsys):
    more = ["--policy", ROOT / "tiny/base"] if script is train_grpo else []
    code, line = ending(capsys, lambda: call(monkeypatch, script, flag, *more, "--out", tmp_path / "out"))
    assert code == 2 and line.startswith("error: " + flag.partition("=")[0]) and not (tmp_path / "out").exists()


def first_weight(state):
    return next(iter(state["weights"]))


def without_step(state):
    del state["step"]


def without_digest(state):
    del state["digest"]


def broadcast(state):  # one row fits where several were
    name = first_weight(state)
    state["weights"][name] = state["weights"][name][:1]


def broadcast_signed(state):
    broadcast(state)
    sign(state)


def nan(state):
    state["weights"][first_weight(state)][0, 0] = torch.nan


def nan_signed(state):
    nan(state)
    sign(state)


def nan_moment(state):
    state["optimizer"]["state"][0]["exp_avg"][0, 0] = torch.nan


def other_step(state):
    state["step"] += 1


def other_weights_signed(state):
    state["weights"]["more"] = state["weights"].pop(first_weight(state))
    sign(state)


def other_groups_signed(state):
    state["optimizer"]["param_groups"][0]["params"].pop()
    sign(state)


def sign(state):
    del state["digest"]
    state["digest"] = P._digest(state)


EDITS = {without_step: "digest", without_digest: "digest", broadcast: "digest", broadcast_signed: "has the shape", nan: "digest",
         nan_signed: "is not finite", nan_moment: "digest", other_step: "digest", other_weights_signed: "other weights",
         other_groups_signed: "cannot be resumed"}


@pytest.mark.parametrize("edit", EDITS)
def test_a_state_that_was_changed_is_refused_whole(trained, tmp_path, edit):
    policy, optimizer = trained
    path = tmp_path / "state.pt"
    P.save_state(path, policy, optimizer, 7)
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)
    step(policy, optimizer)  # what a refused state must leave as it is
    refused(path, policy, optimizer, EDITS[edit])


def refused(path, policy, optimizer, why="cannot be resumed"):
    before = contents(policy, optimizer)
    with pytest.raises(BadInput, match=why) as error:
        P.load_state(path, policy, optimizer, 9)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    assert equal(before, contents(policy, optimizer))


def test_a_damaged_state_is_refused_whole(trained, tmp_path):
    """Cut anywhere, or one bit flipped anywhere: refused, or what the bit says is of no use to anybody."""
    policy, optimizer = trained
    path = tmp_path / "state.pt"
    P.save_state(path, policy, optimizer, 7)
    whole = path.read_bytes()
    saved = contents(policy, optimizer)
    step(policy, optimizer)
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(path, policy, optimizer)
    for content in (b"not a state", b"\x80\x02}."):
        path.write_bytes(content)
        refused(path, policy, optimizer)
    torch.save([1, 2], path)
    refused(path, policy, optimizer, "digest")
    for place in range(3, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1:])
        before = contents(policy, optimizer)
        try:
            P.load_state(path, policy, optimizer, 9)
        except BadInput as error:
            assert "\n" not in str(error) and equal(before, contents(policy, optimizer))
        else:  # padding of the zip archive: what was saved came back
            assert equal(saved, contents(policy, optimizer))
            step(policy, optimizer)


def test_a_full_disk_leaves_the_old_state_and_nothing_beside_it(trained, tmp_path, monkeypatch):
    policy, optimizer = trained
    path = tmp_path / "state.pt"
    P.save_state(path, policy, optimizer, 7)
    whole = path.read_bytes()
    with disk_of(1000), pytest.raises(BadInput, match="state.pt: cannot be written .*make room"):
        P.save_state(path, policy, optimizer, 8)
    with disk_of(1000), pytest.raises(BadInput, match="adapter: cannot be written"):
        P.save_policy(policy, tmp_path / "adapter")

    def interrupted(state, path):
        Path(path).write_text("half")
        raise KeyboardInterrupt
    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        P.save_state(path, policy, optimizer, 8)
    assert path.read_bytes() == whole and [p.name for p in tmp_path.iterdir()] == ["state.pt"]


# ---- 6. Moved, stopped, printed ----------------------------------------------------------------------------
def test_a_folder_that_was_moved_is_resumed(tmp_path):
    one = SimpleNamespace(num_processes=1, is_main_process=True, print=print)
    for module in (train_sft, train_grpo):
        old, new = tmp_path / f"{module.__name__}-old", tmp_path / f"{module.__name__}-new"
        old.mkdir()
        processes.claim(one, module.Config(out=str(old)))
        old.rename(new)
        processes.claim(one, module.Config(out=str(new), resume=True))
    old, new = tmp_path / "curated", tmp_path / "curated-new"
    old.mkdir()
    curate.claim(one, curate.Config(out=str(old)), old / "rollouts.jsonl")
    old.rename(new)
    assert curate.claim(one, curate.Config(out=str(new), resume=True), new / "rollouts.jsonl") == {}


def test_evaluate_stopped_inside_a_batch_doubles_no_row_and_answers_as_undisturbed(data, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    flags = ["--models", f"base={ROOT}/tiny/base", "--data", data / "val.jsonl", "--out", out, "--max_new_tokens", 6, "--pages", 0]
    call(monkeypatch, evaluate, *flags)
    log = out / "answers.jsonl"
    rows = log.read_bytes().splitlines(keepends=True)
    assert len(rows) == 4
    log.write_bytes(rows[0] + rows[2] + rows[1][:50])
    call(monkeypatch, evaluate, *flags)
    again = [row for _, row in read_jsonl(log, torn=True)]
    assert sorted(map(json.dumps, again)) == sorted(row.decode().strip() for row in rows)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "ask", None)  # all is there: nobody is asked
        call(monkeypatch, evaluate, *flags)


def test_nothing_printed_moves_the_cursor(data, tmp_path, monkeypatch, capsys):
    assert printable("a\x1b[2J\n\u202e\ud800\x00é漢 b") == r"a\x1b[2J\n\u202e\ud800\x00é漢 b"

    def raise_it():
        raise BadInput(f"{ESC}\nfile: no")
    code, line = ending(capsys, lambda: raise_it())
    assert code == 2 and line == r"error: \x1b[2J\nfile: no"
    odd = tmp_path / f"{ESC}.png"
    odd.write_bytes(b"\x89PNG and then nothing")
    train_sft.load_prompts([([odd], "q", "a")], train_sft.Config())
    sample = SimpleNamespace(id="a", path=str(odd), media="image")
    verifier = evaluate.Argos(None, None, None, None)
    assert verifier.usable([sample]) == ([], []) and curate.load_batch([sample], verifier)[0] == {}
    out, err = capsys.readouterr()
    assert err.count("left out: ") == 3 and err.count(r"\x1b[2J.png") == 3 and ESC not in out + err
    have = {("m", "f", "val"): {"a": dict(id="a", outcome=1., grounding=None, task=ESC, source="")}}
    samples = [SimpleNamespace(task=ESC), SimpleNamespace(task="b\nc")]
    table = evaluate.group_table(have, ["m"], "val", samples, "task")
    assert table[3] == r"| model | \x1b[2J | b\nc |" and table[5] == "| m | 1.00 / - | - / - |"


def test_the_first_line_of_an_error_is_never_empty():
    errors = [EOFError(), KeyError("step"), ValueError("\n\nwhy not\nand more"), RuntimeError("a " * 900)]
    assert [first_line(error) for error in errors] == ["EOFError", "KeyError: 'step'", "why not", "a " * 100]


def test_a_reader_that_has_gone_is_one_line(capfd):
    def main():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    with pytest.raises(SystemExit) as stop:
        run_main(main)
    assert stop.value.code == 141 and capfd.readouterr().err == "stopped; nobody reads the output any more\n"


def test_sigterm_ends_like_ctrl_c_and_takes_the_children_along(capsys):
    children = []

    def main():
        shell = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE)
        children.append(shell)
        children.append(psutil.Process(int(shell.stdout.readline())))  # a shell passes no signal on
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one does not cut what is being closed
            children.append("closed")
    before = signal.getsignal(signal.SIGTERM)
    start = time.time()
    code, line = ending(capsys, main)
    assert code == 143 and "stopped" in line and "--resume" in line and children[2] == "closed"
    assert children[0].wait(10) == -signal.SIGTERM
    while children[1].is_running() and children[1].status() != psutil.STATUS_ZOMBIE:  # whose parent is gone
        assert time.time() - start < 10
        time.sleep(.01)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_training_that_was_terminated_is_resumed_bit_equal(data, tmp_path, monkeypatch, capsys):
    def train(name, *more):
        call(monkeypatch, train_sft, "--data", data / "sft.jsonl", "--out", tmp_path / name, *SFT, "--epochs", 2, "--save_every", 1, *more)
    train("whole")
    plain = processes.log

    def log(accelerator, out, row):
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(accelerator, out, row)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(processes, "log", log)
        run_main(lambda: train("cut"))
    assert stop.value.code == 143
    (tmp_path / "cut").rename(tmp_path / "moved")
    train("moved", "--resume")
    whole, cut = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "moved"))
    assert whole["step"] == 4 and whole["digest"] == cut["digest"]
    steps = [row["step"] for _, row in read_jsonl(tmp_path / "moved/metrics.jsonl") if row["kind"] == "train"]
    assert steps == [0, 1, 2, 3]


def test_sigterm_stays_what_the_caller_made_it(monkeypatch):
    seen = []

    def look():
        seen.append(signal.getsignal(signal.SIGTERM))
    monkeypatch.setattr(signal, "getsignal", signal.getsignal)
    old = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a person may have started it
    try:
        run_main(look)
    finally:
        signal.signal(signal.SIGTERM, old)
    monkeypatch.setenv("RANK", "1")  # beside the main process: nothing to close
    run_main(look)
    monkeypatch.delenv("RANK")
    thread = threading.Thread(target=run_main, args=(look,))  # only the main thread may handle signals
    thread.start()
    thread.join()
    run_main(look)
    assert seen[0] == signal.SIG_IGN and seen[1] == seen[2] == old and callable(seen[3])
