"""tests/benchmark_gpu.py runs unattended: its time boxes, with items that hang and fail; and its items, tiny."""
import sys
import time
from dataclasses import replace
from functools import partial

import psutil
import pytest

from runs import ledger, processes
import policy as P
import train_grpo
import benchmark_gpu as B


def run(items, minutes, say=None):
    """-> results, the lines that were said, the lines that were kept"""
    said, kept = [], []

    def listen(line):
        said.append(line)
        if say:
            say(line)

    results = B.run_all(items, minutes, listen, kept.append)
    return results, said, kept


def script(name, code, seconds=1., least=.1):
    return B.Item(name, seconds, least, [sys.executable, "-S", "-c", code])


HANG = """
import subprocess, time
for own_session in (False, True):
    child = subprocess.Popen(["sleep", "60"], start_new_session=own_session)
    print("child", child.pid, flush=True)
time.sleep(60)"""


def test_an_item_that_hangs_is_killed_with_all_its_children_and_the_next_one_runs():
    began = time.monotonic()
    results, said, _ = run([script("hangs", HANG), script("fine", "print('here')", 4.)], minutes=5 / 60)
    assert time.monotonic() - began < 5
    assert results["hangs"].startswith("stopped at the end of its time box")
    assert results["fine"].startswith("done") and "   here" in said
    children = [int(line.split()[1]) for line in said if line.startswith("   child")]
    assert len(children) == 2
    for pid in children:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_an_item_that_fails_says_why_and_the_next_one_runs():
    fails = script("fails", "print('so far'); raise ValueError('no such thing')")
    results, said, kept = run([fails, script("fine", "print('here')")], minutes=.2)
    assert results["fails"].startswith("failed: ValueError: no such thing; ") and results["fine"].startswith("done")
    assert "   so far" in said and "   here" in said
    assert kept[0] == "fails! Traceback (most recent call last):" and not any("Traceback" in line for line in said)


def test_of_a_loud_item_stderr_is_told_too_but_no_bars():
    bars = " 0%|    | 0/2 [00:00<?]\r 50%|##  | 1/2 [00:01<00:01, 1s/it]step 1"
    code = f"import sys\nfor line in ('step 0', {bars!r}): print(line, file=sys.stderr)"
    loud = replace(script("loud", code), loud=True)
    assert [line for line in run([loud], minutes=.1)[1] if line.startswith("   ")] == ["   step 0", "   step 1"]


def test_what_no_longer_fits_is_named():
    slow, long, short = [script("slow", "import time; time.sleep(60)", .6), script("long", "", .2, least=9),
                         script("short", "", .2)]
    results, said, _ = run([slow, long, short], minutes=1 / 60)
    assert results["long"].startswith("not run: 0 s are left, and it needs 9") and results["short"].startswith("done")
    assert f"== long: {results['long']}" in said


def test_time_that_is_left_goes_to_the_next():
    _, said, _ = run([script("one", "", 5.), script("two", "", 1.)], minutes=.1)
    assert "== one, at most 5 s" in said and "== two, at most 6 s" in said


def test_lines_are_told_as_they_come(tmp_path):
    """The item waits for an answer to its line, which it gets only if the line was told at once."""
    code = f"import os, time\nprint('anyone?')\nwhile not os.path.exists({str(tmp_path / 'yes')!r}): time.sleep(.01)"

    def answer(line):
        if line.strip() == "anyone?":
            (tmp_path / "yes").touch()

    results, _, _ = run([script("asks", code)], minutes=.1, say=answer)
    assert results["asks"].startswith("done")


def test_every_item_has_a_script_and_a_place_in_the_eight_minutes(capsys):
    for item in B.items(tiny=True):
        assert (B.ROOT / item.command[1]).exists() or item.command[1:3] == ["-m", "pytest"], item.name
    assert sum(item.seconds for item in B.items(tiny=False)) == 480
    assert all(item.name in B.__doc__ for item in B.items(tiny=False))


@pytest.fixture
def undone(monkeypatch):
    """benchmark_models.build changes what load_policy reads, for the rest of the process."""
    for module, name in ((P, "load_weights"), (P, "AutoProcessor"), (P, "AutoConfig"), (ledger, "model_config")):
        monkeypatch.setattr(module, name, getattr(module, name))
    yield
    ledger.weight_bytes.cache_clear()


@pytest.mark.parametrize("name, told", [
    ("versions", "torch 2"), ("sampler", "plain: update of a group of 8, 36 tokens"), ("exact", "good: at most")])
def test_items_run_with_tiny_shapes(undone, monkeypatch, capsys, name, told):
    monkeypatch.setattr(B, "load", partial(B.load, dtype="float32"))  # a CPU takes ten times as long for bfloat16
    B.HERE[name](tiny=True)
    said = capsys.readouterr().out
    assert told in said and "BAD" not in said and "FAILED" not in said


def test_a_training_script_is_held_beside_the_ledger_step_by_step(undone, capsys):
    before = processes.log, P.sample, sys.argv
    B.beside_the_ledger("GRPO", (24, train_grpo, "image", "--preset 7b-bf16 --dtype float32 --beta 0"), tiny=True)
    said = capsys.readouterr().out
    for step in (0, 1):
        for phase in ("sample", "verify", "update"):
            assert f"step {step}, {phase}: " in said
    assert said.count("failures none") == 2 and "sampler_gap None" not in said  # nothing was left out of the work
    assert (processes.log, P.sample, sys.argv) == before


def test_a_peak_is_held_to_ten_percent(capsys):
    row = {"kind": "train", "step": 0, "grad_norm": 1., "seconds": {"update": 2.}, "memory_gb": {"update": 10.8}}
    B.tell_step({"encode": 1., "loss": 10., "backward": 9.}, None, None, row)
    B.tell_step({"encode": 1., "loss": 9.8, "backward": 9.}, None, None, row)
    first, _, second, _ = capsys.readouterr().out.splitlines()
    assert first.endswith("10.80 measured, ratio 1.08, within 10 %") and second.endswith("1.10, NOT within 10 %")


def test_a_part_that_fails_costs_one_line(monkeypatch, capsys):
    monkeypatch.setattr(B, "PROBLEMS", [])
    with B.attempt("sampling"):
        raise RuntimeError("CUDA error: out of luck\nCompile with this and that")
    assert capsys.readouterr().out == "sampling FAILED: RuntimeError: CUDA error: out of luck\n"
    assert B.PROBLEMS == ["sampling"]
