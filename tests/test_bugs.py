"""Eight bugs that ruin RL without an error, and eight tests: each bug is killed by its own test and by no other.

If you are looking for a bug of exercises/BUGS.md: this file is the end of the search, not its beginning. Name the bug
first, then `python -m pytest tests/test_bugs.py -n 0` says whether you were right.

The proof puts bug after bug into a copy of the project, imports the copy's code anew, and runs the eight, in one
process: torch is imported once for all of them.
"""
import importlib.util
import json
import multiprocessing
import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from exercises import bugs, look
from exercises.__main__ import main
from runs.errors import BadInput
from verifier.claims import parse
import policy as P
import train_grpo
from argos import Weights

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("runs", "verifier", "policy.py", "teachers", "argos.py", "train_grpo.py", "exercises", "tiny")
torch.set_num_threads(1)
ATE = dict(atol=1e-4, rtol=1e-4)


# ---- 1. The eight ------------------------------------------------------------------------------------------
@lru_cache
def small_policy():
    """The shipped base with an adapter that changes something: LoRA starts at B = 0, which would hide every mistake."""
    policy = P.load_policy(ROOT / "tiny/base", lora_rank=4, device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=.05)
    return policy


def rollouts_of_unlike_prompts(fast=True):
    """Eight rollouts of two questions, and their prompts. Those of the shorter one end early, the others go on."""
    policy = replace(small_policy(), fast=fast)
    prompts = P.encode_prompts(policy, [(None, "How many circles?"), (None, "Which shape is in the middle?")])
    generator = torch.Generator().manual_seed(0)
    return policy, prompts, P.sample(policy, prompts, 4, 1.5, max_new_tokens=12, generator=generator)


def test_a_groups_baseline_is_its_own_mean():
    rewards = torch.tensor([[1., 0., 0., 1.], [.3, .1, .1, .3]])
    assert torch.allclose(train_grpo.advantages(rewards).mean(dim=1), torch.zeros(2), **ATE)


def test_a_groups_yardstick_is_its_own_spread():
    rewards = torch.tensor([[1., 0., 0., 1.], [.3, .1, .1, .3]])
    assert torch.allclose(train_grpo.advantages(rewards).std(dim=1), torch.ones(2), **ATE)


def test_leaving_the_start_costs():
    """The loss of a token that is likelier now than at the start, without an advantage, is the price of that."""
    now, start = torch.tensor([[.9, .6]]).log(), torch.tensor([[.5, .5]]).log()
    loss, _ = train_grpo.token_loss(now, now, start, torch.zeros(1, 1), .2, .2, .1)
    assert (loss > 0).all()


def test_the_judge_that_rewards_does_not_learn():
    """`--judge base` is the policy without its adapter: what it says must be what the base says."""
    policy = small_policy()
    cfg = train_grpo.Config(judge="base")
    rewarding, _ = train_grpo.build_verifier(cfg, policy, Weights())
    asked = [(None, "Which shape moves?", ["I see a red square."], ["the square"])]
    said = rewarding.judge.answer_probabilities(asked)
    with P.adapter_off(policy):
        of_the_base = rewarding.judge.answer_probabilities(asked)
    assert said == of_the_base


def test_an_answer_is_scored_by_its_own_tokens():
    """Eq. 5's probability of an answer, against the scorer's token by token."""
    policy = small_policy()
    prompts = P.encode_prompts(policy, [(None, "How many?")])
    reasoning, answer = "<think>I see two.</think><answer>", "red square"
    logp, count = P.answer_logprobs(policy, prompts, [answer], [reasoning])
    first, last = P.token_lists(policy, [reasoning, answer])
    ids = torch.tensor([first + last])
    each, _ = P.token_logprobs(policy, prompts, 1, ids, torch.ones_like(ids))
    assert count.item() == len(last)
    assert torch.allclose(logp, each[:, len(first):].detach().sum(1), **ATE)


def test_what_was_drawn_is_scored_as_it_was_drawn():
    """log p of each token by the sampler and by the scorer, where rollouts of two prompts end one after the other."""
    for fast in (True, False):
        policy, prompts, drawn = rollouts_of_unlike_prompts(fast)
        scored, _ = P.token_logprobs(policy, prompts, 4, drawn.ids, drawn.mask, 1.5)
        assert torch.allclose(drawn.logprobs, scored.detach(), **ATE)


def test_a_rollout_ends_with_its_end():
    policy, _, drawn = rollouts_of_unlike_prompts()
    last = drawn.ids.gather(1, drawn.mask.sum(1, keepdim=True) - 1)[:, 0]  # (N,)
    ended = last == policy.tokenizer.eos_token_id
    assert ended.any() and ended.tolist() == drawn.finished.tolist()


def test_a_point_in_a_clip_is_right_then_down():
    """verifier/coordinates.py: x to the right, y down, in every format of a point."""
    response = "<think>The red square is at (44, 28) in frame 5 (2.5 seconds).</think><answer>2</answer>"
    point, = parse(response, "video").points
    assert (point.x, point.y) == (44, 28)


EIGHT = [name for name in list(globals()) if name.startswith("test_")]


# ---- 2. The proof: a diagonal ------------------------------------------------------------------------------
def imported_anew(root):
    """The test file of a copy, and with it all modules of the project, as the copy's files are now."""
    ours = {Path(name).stem for name in MODULES}
    for name in list(sys.modules):
        if name.split(".")[0] in ours:  # by name: the environment may lie in the project's folder, too
            del sys.modules[name]
    spec = importlib.util.spec_from_file_location("anew", root / "tests/test_bugs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def failing(module):
    """-> the names of those of the eight that fail. An error is not what a silent bug does: it passes through."""
    dead = []
    for name in EIGHT:
        try:
            getattr(module, name)()
        except AssertionError:
            dead.append(name)
    return dead


def try_each_bug(root):
    """Run the eight on a copy as it is, and with each bug -> root/dead.json, {bug: who fails}."""
    sys.dont_write_bytecode = True  # code of one second and one size would be taken for the same
    sys.path.insert(0, str(root))
    dead = {0: failing(imported_anew(root))}
    for bug in bugs.read_patches():
        bugs.break_code(root, bug)
        dead[bug] = failing(imported_anew(root))
        bugs.mend(root, bug)
    (root / "dead.json").write_text(json.dumps(dead))


@pytest.fixture
def copy(tmp_path):
    """The project's code, to be broken; healthy, even if a bug is in the project itself just now."""
    if any("raise NotImplementedError(\"exercise" in (ROOT / file).read_text() for file in patched_files()):
        pytest.skip("an exercise is stripped: python -m exercises restore all")
    leave = shutil.ignore_patterns("__pycache__", "results")
    for name in MODULES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=leave)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tests").mkdir()
    shutil.copy(__file__, tmp_path / "tests")
    for bug in bugs.read_patches():
        with suppress(BadInput):  # test_every_bug_fits_today says so
            bugs.mend(tmp_path, bug)
    return tmp_path


def patched_files():
    return sorted({patch.file for patches in bugs.read_patches().values() for patch in patches})


def test_each_bug_is_killed_by_its_own_test_and_by_no_other(copy):
    context = multiprocessing.get_context("forkserver")  # as in test_training.py: it has imported torch already
    context.set_forkserver_preload(["curate", "policy", "teachers"])
    child = context.Process(target=try_each_bug, args=(copy,))
    child.start()
    child.join(400)
    assert child.exitcode == 0, "a bug, or none, led to an error: see above"
    expected = {"0": []}  # the healthy code fails none
    for bug, patches in bugs.read_patches().items():
        expected[str(bug)] = [patches[0].test]
    assert json.loads((copy / "dead.json").read_text()) == expected
    assert sorted(name for names in expected.values() for name in names) == sorted(EIGHT)


# ---- 3. The tool -------------------------------------------------------------------------------------------
def contents(folder):
    return {file: (folder / file).read_bytes() for file in patched_files()}


def test_every_bug_fits_today(copy):
    """A change of the code can take a bug's place away: then exercises/bugs/sealed.txt has to follow."""
    for bug in bugs.read_patches():
        try:
            bugs.break_code(copy, bug)
        except BadInput as error:
            pytest.fail(f"{error}. If you changed that code: decode exercises/bugs/sealed.txt (exercises/bugs.py says "
                        "how), write down the new text, encode it again")


def test_a_bug_goes_in_and_out_to_the_byte(copy):
    """In any order, with a person's own changes beside it, and with a part of it mended by hand."""
    whole = contents(copy)
    for bug in bugs.read_patches():
        assert "is in the code now" in bugs.break_code(copy, bug)
        assert contents(copy) != whole and bugs.break_code(copy, bug) == "is in already"
    with open(copy / "policy.py", "ab") as file:
        file.write(b"# my own line\r\n")
    fast = copy / "runs/fast.py"
    fast.write_bytes(whole["runs/fast.py"])
    for bug in bugs.read_patches():
        assert bugs.mend(copy, bug) == "is out again" and bugs.mend(copy, bug) == "is not in the code"
    assert contents(copy) == whole | {"policy.py": whole["policy.py"] + b"# my own line\r\n"}


def test_a_bug_that_does_not_fit_changes_nothing(copy):
    """One line that names the file; of several places none is changed."""
    (copy / "policy.py").write_text("import this\n")
    before = contents(copy)
    refused = 0
    for bug, patches in bugs.read_patches().items():
        if "policy.py" in {patch.file for patch in patches}:
            for change in (bugs.break_code, bugs.mend):
                with pytest.raises(BadInput, match="policy.py: bug . does not fit") as error:
                    change(copy, bug)
                assert "\n" not in str(error.value) and contents(copy) == before
                refused += 1
    assert refused >= 2
    with pytest.raises(BadInput, match="choose 1 to 8"):
        bugs.break_code(copy, "9")


def test_the_commands_take_several_bugs(copy):
    """Not one goes in if another is unknown; who has forgotten which is in mends all."""
    whole = contents(copy)
    with pytest.raises(BadInput, match="bug 9: choose 1 to 8"):
        main(["break", "4", "9"], copy)
    assert contents(copy) == whole
    main(["break", "4", "6"], copy)
    assert contents(copy) != whole
    main(["mend", "all"], copy)
    assert contents(copy) == whole


def test_the_list_of_bugs_does_not_tell_what_they_are():
    """To who lists or searches the folder."""
    sealed = bugs.SEALED.read_text()
    for patches in bugs.read_patches().values():
        for patch in patches:
            assert patch.old not in sealed and patch.new not in sealed and patch.test not in sealed


def write_log(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"kind": "tr')  # a kill cut the last one
    return path


def test_a_run_is_drawn_over_healthy_ones(tmp_path):
    """What was not measured is left out."""
    log = write_log(tmp_path / "log", dict(kind="train", step=0, reward=.5, loss=None),
                    dict(kind="eval", step=0, answers=.7))
    assert look.series(log, "train", "reward") == ([0], [.5]) and look.series(log, "train", "loss") == ([], [])
    look.draw_look(log, [log], [log], tmp_path / "look.png")
    assert (tmp_path / "look.png").stat().st_size > 10_000


def test_where_two_runs_part(tmp_path):
    """The first row that differs, without what the clock says; shares by part one by one."""
    first = dict(kind="eval", step=0, answers=.7, seconds=dict(evaluate=3.))
    step = dict(kind="train", step=0, loss=0., kl=0., misses=dict(beside=.2))
    theirs = write_log(tmp_path / "theirs", first, step, dict(kind="train", step=1, kl=0.))
    broken = step | dict(loss=-23.5, misses=dict(beside=.2, outside=.1))
    ours = write_log(tmp_path / "ours", first | dict(seconds={}), broken, dict(kind="train", step=1, kl=9.))
    assert look.parting(ours, theirs) == (("train", 0), ["loss", "misses outside"], ["kl", "misses beside"])
    text = look.parting_text(ours, theirs)
    assert "kind 'train', step 0" in text and "the same in both: kl, misses beside" in text
    assert look.parting(ours, ours) is None and "are the same" in look.parting_text(ours, ours)


def test_the_page_shows_the_healthy_runs():
    """As `python -m exercises.look` prints them."""
    page = (ROOT / "exercises/BUGS.md").read_text()
    assert "\n".join(look.table(look.shipped())) in page and len(look.shipped()) == 3


def test_the_page_has_three_hints_and_the_answer_for_each():
    """And names, in the answer alone, the test that the bug kills and the file that it is in."""
    page = (ROOT / "exercises/BUGS.md").read_text()
    for bug, patches in bugs.read_patches().items():
        part = page.split(f"### Bug {bug}\n")[1].split("### Bug")[0]
        hints, answer = part.split("<summary>Answer</summary>")
        assert part.count("<details>") == 4 == part.count("</details>")
        for patch in patches:
            assert patch.test in answer and patch.file in answer
            assert patch.test not in hints
