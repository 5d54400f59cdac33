"""SFT and GRPO as a person runs them: they learn, resume bit-equal after kill -9, and say clearly what is wrong."""
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from runs import processes
from runs.checkpoints import budget_of
from runs.errors import BadInput, run_main
from runs.files import claim_run, read_jsonl
from argos import gate
import policy as P
import train_grpo
import train_sft
from tiny import world

ROOT = Path(__file__).parent.parent


def start(script, *flags):
    env = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.Popen([sys.executable, str(ROOT / script), *map(str, flags)], cwd=ROOT, env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def as_command(script, flags, said):
    """The target of a child process: what `python train_sft.py FLAGS` does. said: file for what it prints."""
    os.chdir(ROOT)
    sys.argv = [f"{script}.py", *flags]
    sys.stdout = sys.stderr = open(said, "w")
    run_main(importlib.import_module(script).main)


def forking():
    """Where child processes come from that need no seconds to import: a server (that of test_curate.py) forks them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["curate", "policy", "teachers"])
    return context


def fork(script, said, *flags):
    """A script as `start` runs it."""
    child = forking().Process(target=as_command, args=(script, [str(flag) for flag in flags], said))
    child.start()
    return child


def join(child, said):
    child.join(400)
    assert child.exitcode == 0, said.read_text()[-3000:]


def finish(process, code=0):
    try:
        out, err = process.communicate(timeout=400)
    except subprocess.TimeoutExpired:  # two processes that wait for each other
        process.kill()
        raise
    assert process.returncode == code, err[-3000:]
    return out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split in ("rl", "val"):
        world.write_split(split, 16, folder)
    rows = []
    for i in range(16):  # SFT examples in the chat format; the oracle's words are fine for a test
        item = world.split_item("rl", i)
        kind = "image" if len(item.pixels) == 1 else "video"
        path = next(folder.glob(f"media/rl-{i:05d}.*")).relative_to(folder)
        question = f"{item.question} Think and point."
        response = f"<think>{item.think}</think><answer>{item.answer}</answer>"
        rows.append({"messages": [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": question}]},
                                  {"role": "assistant", "content": [{"type": "text", "text": response}]}],
                     f"{kind}s": [str(path)]})
    (folder / "sft.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def whole_and_cut(script, flags, folder):
    """Run a script into folder/whole; and into folder/cut, killed after its first checkpoint, and resumed."""
    said = folder / "said"
    join(fork(script, said, *flags, "--out", folder / "whole"), said)
    child = fork(script, said, *flags, "--out", folder / "cut")
    while not (folder / "cut/state.pt").exists() and child.is_alive():
        time.sleep(.005)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL  # it was alive: there is something to resume
    join(fork(script, said, *flags, "--out", folder / "cut", "--resume"), said)


def states(*folders):
    a, b = (torch.load(f / "state.pt", weights_only=True) for f in folders)
    assert a["step"] == b["step"] and a["weights"].keys() == b["weights"].keys()
    assert all(torch.equal(a["weights"][k], b["weights"][k]) for k in a["weights"])
    x, y = a["optimizer"]["state"], b["optimizer"]["state"]
    assert all(torch.equal(x[i][k], y[i][k]) for i in x for k in x[i])
    return a


def test_sft_resumes_bit_equal_and_learns(folder, tmp_path):
    flags = ["--data", folder / "sft.jsonl", "--batch", 8, "--epochs", 5, "--save_every", 3, "--lora_rank", 8,
             "--warmup", 1, "--lr", .01]
    whole_and_cut("train_sft", flags, tmp_path)
    states(tmp_path / "whole", tmp_path / "cut")
    losses = [r["loss"] for _, r in read_jsonl(tmp_path / "whole/metrics.jsonl") if r["kind"] == "train"]
    assert len(losses) == 10 and losses[-1] < .8 * losses[0]
    merged = P.load_policy(tmp_path / "whole/merged")  # the exports load, and adapter on base equals merged
    adapted = P.load_policy(ROOT / "tiny/base", adapter=tmp_path / "whole/adapter")
    prompts = [P.encode_prompts(p, [(None, "Which shape moves? Think and point.")]) for p in (merged, adapted)]
    ids, mask = P.encode_completions(merged, ["<think>I see"])
    a, b = (P.token_logprobs(p, q, 1, ids, mask)[0] for p, q in zip((merged, adapted), prompts))
    assert torch.allclose(a, b, atol=1e-4)


def test_sft_names_and_counts_damaged_files_and_trains_on(folder, tmp_path):
    rows = (folder / "sft.jsonl").read_text().splitlines()[:4]
    bad = json.loads(rows[1])
    (folder / "bad.png").write_bytes(b"\x89PNG and then nothing")
    bad.pop("videos", None)
    bad["images"] = ["bad.png"]
    (folder / "damaged.jsonl").write_text("\n".join([rows[0], json.dumps(bad), *rows[2:]]))
    _, err = finish(start("train_sft.py", "--data", folder / "damaged.jsonl", "--batch", 2, "--warmup", 1,
                          "--lora_rank", 4, "--out", tmp_path / "out"))
    assert err.count(f"left out: {folder / 'bad.png'}") == 1 and "Traceback" not in err
    trained = [row for _, row in read_jsonl(tmp_path / "out/metrics.jsonl") if row["kind"] == "train"]
    assert sorted(row["damaged"] for row in trained) == [0, 1] and all(row["grad_norm"] > 0 for row in trained)


def log_by_step(path):
    """{(kind, step): row}, without what the clock says. A step that was done twice counts once."""
    rows = {}
    for _, row in read_jsonl(path):
        if row["kind"] != "config":
            row.pop("seconds", None)
            rows[row["kind"], row["step"]] = row
    return rows


def test_the_log_has_these_keys_in_this_order(folder, tmp_path, monkeypatch):
    """Tables and other people's scripts read metrics.jsonl. What was not measured is null, not 0."""
    monkeypatch.setattr(sys, "argv", [str(word) for word in [
        "train_grpo.py", "--policy", ROOT / "tiny/teacher", "--data", folder / "rl.jsonl",
        "--val", folder / "val.jsonl", "--reward", "outcome", "--steps", 1, "--prompts", 2, "--group_size", 2, "--eval_every", 1, "--eval_samples", 2,
        "--cards", 0, "--lora_rank", 4, "--merge", "False", "--temperature", .01, "--out", tmp_path]])
    train_grpo.main()
    config, first, row, last = (row for _, row in read_jsonl(tmp_path / "metrics.jsonl"))
    signs = ["judge_only", "misses", "malformed", "unfinished_in"]
    assert list(first) == list(last) == ["kind", "step", "answers", "judged", "grounding", *signs, "seconds", "memory_gb"]
    assert list(row) == [
        "kind", "step", "lr", "prompt_length", "reward", "outcome", "grounding", "reasoning", "gate_open", "points",
        "length", "unfinished", *signs, "skipped", "all right", "all wrong", "all malformed", "all equal", "not scored", "loss", "entropy",
        "clip_fraction", "kl", "sampler_gap", "grad_norm", "failures", "seconds", "memory_gb"]
    assert list(row["seconds"]) == ["sample", "verify", "update"] and row["skipped"] == 2  # so cold that all are equal
    assert all(row[name] is None for name in ("grounding", "reasoning", "loss", "entropy", "sampler_gap", "grad_norm"))


@pytest.mark.parametrize("reward", ["argos", "outcome"])
def test_grpo_resumes_bit_equal(folder, tmp_path, reward):
    flags = ["--policy", ROOT / "tiny/teacher", "--data", folder / "rl.jsonl", "--val", folder / "val.jsonl",
             "--reward", reward, "--steps", 5, "--prompts", 3, "--group_size", 4, "--save_every", 2, "--eval_every", 2,
             "--eval_samples", 4,
             "--cards", 1, "--lora_rank", 4, "--updates", 2, "--beta", .01, "--temperature", 1.3]
    whole_and_cut("train_grpo", flags, tmp_path)
    states(tmp_path / "whole", tmp_path / "cut")
    whole, cut = (log_by_step(tmp_path / run / "metrics.jsonl") for run in ("whole", "cut"))
    assert whole == cut  # every number of every step
    trained = [r for r in whole.values() if r["kind"] == "train"]
    assert any(r["grad_norm"] for r in trained)  # something was trained
    assert max(r["sampler_gap"] or 0 for r in trained) < 1e-3  # sampler and trainer agree on log-probabilities
    assert all((r["grounding"] is None) == (reward == "outcome") for r in trained)
    assert list((tmp_path / "whole/cards").glob("*.png"))
    pages = []
    for run in ("whole", "cut"):
        text = (tmp_path / run / "page.html").read_text()
        pages.append(json.loads(text.split('id="data">')[1].split("</script>")[0]))
    assert pages[0] | dict(title="") == pages[1] | dict(title="")  # the whole curve, and the last step's groups
    page = pages[0]
    assert page["curves"][reward][0]["steps"] == [0, 2, 4, 5] and page["about"].startswith("After 5 of 5 steps")
    groups, held_out = page["questions"][:3], page["questions"][3:]
    assert all(len(question["group"]) == 4 and not question["answers"] for question in groups)
    assert len(held_out) == 4 and all(len(question["answers"]) == 1 for question in held_out)
    rewards = [gate(*one["terms"].values()) for question in groups for one in question["group"]]
    assert sum(rewards) / len(rewards) == pytest.approx(whole["train", 4]["reward"])  # what the page shows is what trained


CHAT = '{"messages": [{"content": [{"type": "text", "text": "q"}]}, {"content": [{"type": "text", "text": "a"}]}]'


@pytest.mark.parametrize("content, complaint", [
    ("", "no examples"), ('{"messages": []}', "row 1"), ("not json", "row 1"),
    ('{"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, '
     '{"role": "assistant", "content": []}], "images": ["x"]}', "row 1"),
    (CHAT + "}", "row 1"), (CHAT + ', "images": []}', "row 1"), (CHAT + ', "images": [3]}', "row 1"),
    (CHAT + ', "images": "x", "videos": "y"}', "row 1")])
def test_bad_sft_data_is_one_clear_line(tmp_path, content, complaint):
    path = tmp_path / "sft.jsonl"
    path.write_text(content)
    with pytest.raises(BadInput, match=complaint) as error:
        train_sft.read_chats(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def chat(question, response):
    turns = [{"content": [{"type": "text", "text": text}]} for text in (question, response)]
    return json.dumps(dict(messages=turns, images=["a.png"])) + "\n"


@pytest.mark.parametrize("row, complaint", [
    (chat("x" * 1_000_000, "a"), "1,000,000 characters; at most 100,000"), (chat("q", "x" * 100_001), "100,001 char"),
    (chat(3, "a"), "not a chat example"), (chat("q", ["a"]), "not a chat example"), (chat("q", None), "not a chat")])
def test_a_turn_without_end_or_text_is_named(tmp_path, row, complaint):
    (tmp_path / "sft.jsonl").write_text(chat("q", "a") + row)
    with pytest.raises(BadInput, match=f"^{tmp_path}/sft.jsonl row 2: .*{complaint}"):
        train_sft.read_chats(tmp_path / "sft.jsonl")


def test_a_surrogate_in_a_chat_ends_no_training(tmp_path):
    """It is valid JSON, and raised in the tokenizer when lengths were counted."""
    Image.new("RGB", (84, 84)).save(tmp_path / "a.png")
    (tmp_path / "sft.jsonl").write_text(chat("How many \ud800?", "<think>\ud800</think><answer>2</answer>"))
    policy = P.load_policy(ROOT / "tiny/base")
    cfg = SimpleNamespace(max_new_tokens=64, data="x", **budget_of(train_sft.Config()))
    examples = train_sft.leave_out_long(train_sft.read_chats(tmp_path / "sft.jsonl"), policy, cfg, print)
    items, places = train_sft.load_prompts(examples, cfg)
    assert places == [0] and len(P.encode_prompts(policy, items)) == 1


def test_pictures_come_before_clips(tmp_path):
    turns = [{"content": [{"type": "text", "text": text}, {"type": "text", "text": "more"}]} for text in "qa"]
    (tmp_path / "sft.jsonl").write_text(json.dumps(dict(messages=turns, videos=["c.mp4"], images=["a.png", "b.png"])))
    (media, question, response), = train_sft.read_chats(tmp_path / "sft.jsonl")
    assert media == [tmp_path / name for name in ("a.png", "b.png", "c.mp4")] and (question, response) == ("q", "a")


def test_the_learning_rate_rises_and_falls():
    sft = train_sft.Config(lr=1., warmup=4)
    assert [train_sft.learning_rate(step, 10, sft) for step in (0, 3, 5, 9)] == pytest.approx([.25, .7, .5, .1])
    grpo = train_grpo.Config(lr=1., warmup=4, steps=10)
    assert [train_grpo.learning_rate(step, grpo) for step in (0, 5, 9)] == pytest.approx([.25, .55, .19])
    flat = train_grpo.Config(lr=1., warmup=0, steps=10, decay=False)
    assert {train_grpo.learning_rate(step, flat) for step in range(10)} == {1.}


@pytest.mark.parametrize("flags, named", [
    (["--data", "nowhere.jsonl"], "nowhere.jsonl"), (["--reward", "gold"], "--reward gold"),
    (["--loss", "ppo"], "--loss ppo"), (["--group_size", 1], "--group_size 1"),
    (["--weights", "a,b"], "--weights a,b"), (["--save_every", 0], "--save_every 0"),
    (["--lora_rank", 0, "--dtype", "bfloat16"], "too coarse to train"),
    (["--lora_rank", 0, "--beta", .1], "no frozen copy"), (["--lora_rank", 0, "--judge", "base"], "no frozen copy")])
def test_bad_input_ends_with_code_2_and_one_line(tmp_path, monkeypatch, capsys, flags, named):
    monkeypatch.setattr(sys, "argv", ["train_grpo.py", "--out", str(tmp_path), *map(str, flags)])
    with pytest.raises(SystemExit) as stop:
        run_main(train_grpo.main)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and named in err and err.startswith("error:") and err.count("\n") == 1


def test_a_new_run_does_not_mix_with_an_old_one(tmp_path):
    config = dict(lr=.1, resume=False)
    claim_run(tmp_path / "m.jsonl", config)
    with pytest.raises(BadInput, match="--resume"):
        claim_run(tmp_path / "m.jsonl", config)
    claim_run(tmp_path / "m.jsonl", config | {"resume": True})
    with pytest.raises(BadInput, match="--lr 0.1, not 0.2"):
        claim_run(tmp_path / "m.jsonl", dict(lr=.2, resume=True))


def test_a_run_is_not_resumed_with_another_number_of_processes(tmp_path):
    two = SimpleNamespace(num_processes=2, is_main_process=True, main_process_first=nullcontext, print=print)
    processes.claim(two, train_sft.Config(out=str(tmp_path)))
    with pytest.raises(BadInput, match="--num_processes 2, not 1"):
        one = SimpleNamespace(**vars(two) | dict(num_processes=1))
        processes.claim(one, train_sft.Config(out=str(tmp_path), resume=True))


@pytest.mark.parametrize("scale", [True, False])
def test_the_page_shows_advantages_as_the_run_has_them(tmp_path, monkeypatch, scale):
    """A run that does not divide by the spread (Dr. GRPO) shows those that moved its weights, not eq. 10's."""
    (tmp_path / "metrics.jsonl").write_text('{"kind": "eval", "step": 0, "answers": 0.5}\n')
    monkeypatch.setattr(train_grpo, "evaluate", lambda *_: {})
    monkeypatch.setattr(processes, "log", lambda *_: None)
    cfg = train_grpo.Config(out=str(tmp_path), scale_advantage=scale)
    main_process = SimpleNamespace(is_main_process=True)
    train_grpo.evaluate_and_show(None, None, [], cfg, train_grpo.read_weights(cfg.weights), 0, main_process)
    assert f'"scale": {json.dumps(scale)}' in (tmp_path / "page.html").read_text()
