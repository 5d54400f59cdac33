"""The classroom holds together: the tool loses nothing, and a stripped exercise fails its own tests and no others.

Run: pytest tests/test_classroom.py

Everything here works on a copy of the tree, with all bodies as the project has them, wherever the tree itself stands.
"""
import os
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType

import pytest

import test_exercises as grading
from exercises import __main__ as tool
from exercises.__main__ import EXERCISES, main
from runs.errors import BadInput

ROOT = Path(__file__).parent.parent
FILES = sorted({file for exercise in EXERCISES for file in exercise.files})
NUMBERS = [exercise.number for exercise in EXERCISES]


def whole_copy(folder):
    """The files that hold bodies, with the project's bodies. -> folder"""
    for file in FILES:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
    if (ROOT / "exercises/.solutions").exists():
        shutil.copytree(ROOT / "exercises/.solutions", folder / "exercises/.solutions")
        for exercise in EXERCISES:
            if tool.solution(folder, exercise):
                tool.restore(folder, exercise)
        shutil.rmtree(folder / "exercises")
    if any(body.missing for exercise in EXERCISES for body in tool.bodies(folder, exercise)):
        pytest.skip("the solutions are not in this copy of the project")
    return folder


@pytest.fixture
def copy(tmp_path):
    return whole_copy(tmp_path)


def snapshot(folder):
    return {file: (folder / file).read_bytes() for file in FILES}


def write_own(folder, number, text="    return 'mine'\n", part=0):
    """Write a student's body, as an editor would. -> all that stood in that file then"""
    body = tool.bodies(folder, tool.BY_NUMBER[number])[part]
    path = folder / body.file
    lines = path.read_text().splitlines(keepends=True)
    lines[body.first:body.end] = [text]
    path.write_text("".join(lines))


# ---- 1. The tool -------------------------------------------------------------------------------------------
def test_strip_all_and_restore_all_are_bit_equal(copy):
    before = snapshot(copy)
    main(["strip", "all"], copy)
    stripped = snapshot(copy)
    for number in NUMBERS:
        stubs = b"".join(stripped.values()).count(b'raise NotImplementedError("exercise %d: ' % number)
        assert stubs == len(tool.bodies(copy, tool.BY_NUMBER[number]))
    main(["strip", "all"], copy)
    assert snapshot(copy) == stripped  # once more changes nothing
    main(["restore", "all"], copy)
    assert snapshot(copy) == before
    main(["restore", "all"], copy)
    assert snapshot(copy) == before and not list(copy.glob("exercises/.s*/*"))


@pytest.mark.parametrize("order", [(2, 5), (5, 2), (7, 8), (8, 7)])
def test_two_exercises_of_one_file_come_and_go_in_any_order(copy, order):
    before = snapshot(copy)
    first, second = map(str, order)
    main(["strip", first], copy)
    main(["strip", second], copy)
    main(["restore", first], copy)
    assert tool.state(copy, tool.BY_NUMBER[order[0]]) == "whole"
    assert tool.state(copy, tool.BY_NUMBER[order[1]]).startswith("stripped")
    main(["restore", second], copy)
    assert snapshot(copy) == before


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_lines_keep_their_ends(copy, line_end):
    path = copy / "argos.py"
    path.write_bytes(path.read_bytes().replace(b"\n", line_end))
    before = path.read_bytes()
    main(["strip", "1"], copy)
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(line_end)
    main(["restore", "1"], copy)
    assert path.read_bytes() == before


def test_a_students_body_is_kept(copy, capsys):
    before = snapshot(copy)
    main(["strip", "3"], copy)
    write_own(copy, 3)
    mine = (copy / "verifier/coordinates.py").read_bytes()
    assert tool.state(copy, tool.BY_NUMBER[3]) == "yours"
    main(["strip", "3"], copy)  # strip over it, write it again, restore over it
    write_own(copy, 3)
    assert (copy / "verifier/coordinates.py").read_bytes() == mine
    main(["restore", "3"], copy)
    assert snapshot(copy) == before
    kept = sorted((copy / "exercises/.saved").iterdir())
    assert [path.name for path in kept] == ["03-1.py", "03-2.py"]
    assert all(path.read_text() == "# verifier/coordinates.py\n    return 'mine'\n" for path in kept)
    assert "yours is kept in exercises/.saved/03-2.py" in capsys.readouterr().out


def test_one_of_several_parts_is_kept_too(copy):
    main(["strip", "8"], copy)
    write_own(copy, 8, part=1)
    assert tool.state(copy, tool.BY_NUMBER[8]) == "stripped, 2 of 3 parts to write"
    main(["restore", "8"], copy)
    assert (copy / "exercises/.saved/08-1.py").read_text() == "# train_grpo.py\n    return 'mine'\n"


def test_changes_made_before_the_first_strip_come_back(copy):
    write_own(copy, 3, "    return x, y  # I tried something\n")
    changed = snapshot(copy)
    main(["strip", "3"], copy)
    main(["restore", "3"], copy)
    assert snapshot(copy) == changed


def test_a_copy_without_solutions_says_so(copy):
    main(["strip", "all"], copy)
    shutil.rmtree(copy / "exercises/.solutions")
    stripped = snapshot(copy)
    with pytest.raises(BadInput, match="copy without solutions"):
        main(["restore", "3"], copy)
    main(["strip", "3"], copy)
    assert snapshot(copy) == stripped
    write_own(copy, 3)
    main(["restore", "3"], copy)  # nothing is to be brought back, and nothing is lost
    assert tool.state(copy, tool.BY_NUMBER[3]) == "whole"
    write_own(copy, 8)
    with pytest.raises(BadInput, match="a part of it is stripped"):
        main(["strip", "8"], copy)


@pytest.mark.parametrize("lost", ["# BEGIN SOLUTION ex3", "# END SOLUTION"])
def test_a_lost_comment_is_named_before_anything_changes(copy, lost):
    path = copy / "verifier/coordinates.py"
    path.write_text(path.read_text().replace(lost, "#"))
    before = snapshot(copy)
    with pytest.raises(BadInput, match=r"verifier/coordinates.py.*put both lines back"):
        main(["strip", "all"], copy)
    assert snapshot(copy) == before


def test_what_the_tool_refuses(copy):
    for word in ("13", "0", "three", "-1"):
        with pytest.raises((BadInput, SystemExit)):
            main(["strip", word], copy)
    main(["strip", "3"], copy)
    stripped = snapshot(copy)
    for text in ("{", "[1]", "5", "null"):
        (copy / "exercises/.solutions/03.json").write_text(text)
        for command in ("restore", "strip"):
            write_own(copy, 3)
            mine = snapshot(copy)
            with pytest.raises(BadInput, match="03.json"):
                main([command, "3"], copy)
            assert snapshot(copy) == mine != stripped


def test_check_without_pytest_says_so(copy, monkeypatch):
    monkeypatch.setattr(tool, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="check needs pytest"):
        main(["check", "3"], copy)


def test_the_list_names_every_exercise(copy, capsys):
    main(["strip", "3"], copy)
    capsys.readouterr()
    main([], copy)
    told = capsys.readouterr().out
    assert all(exercise.title in told for exercise in EXERCISES)
    assert re.search(r"3 Whose pixels\? +\d+  stripped\n", told) and told.count("whole") == len(EXERCISES) - 1


def test_check_runs_the_tests_of_these_exercises(copy, monkeypatch):
    ran = []

    def run(command, cwd):
        ran.append((command[1:], cwd))
        return subprocess.CompletedProcess(command, 1)
    monkeypatch.setattr(tool.subprocess, "run", run)
    with pytest.raises(SystemExit) as ended:
        main(["check", "3", "10"], copy)
    (command, cwd), = ran
    assert command[command.index("-m", 2) + 1] == "ex3 or ex10" and cwd == copy and ended.value.code == 1


def test_every_mark_in_the_code_is_in_the_table():
    marks = set()
    for path in [*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")]:
        if path.parent.name not in ("exercises", "tests", "out"):
            for number in re.findall(r"^ +# BEGIN SOLUTION ex(.*)$", path.read_text(), re.M):
                marks.add((int(number), path.relative_to(ROOT).as_posix()))
    assert marks == {(exercise.number, file) for exercise in EXERCISES for file in exercise.files}


def test_pages_and_table_agree():
    readme = (ROOT / "exercises/README.md").read_text()
    for exercise in EXERCISES:
        page = (ROOT / "exercises" / exercise.page).read_text()
        assert page.startswith(f"# {exercise.number}. {exercise.title}\n"), exercise.page
        assert f"{exercise.minutes} minutes" in page
        assert re.search(rf"\| {exercise.number} \| \[{re.escape(exercise.title)}\]\({exercise.page}\) \|.*\| "
                         rf"{exercise.minutes} \|", readme)
        functions = set(re.findall(r"`(\w+)`", page))
        for name in body_functions(exercise.number):
            assert name.split(".")[-1] in functions or name.split(".")[0] in functions, f"{exercise.page}: {name}"


# ---- 2. A stripped exercise fails its own tests and no others ----------------------------------------------
@lru_cache
def codes_of(text, file):
    """{name of a function at the top level, or of a method: its code}"""
    found = {}

    def collect(code):
        for constant in code.co_consts:
            if isinstance(constant, CodeType) and "<" not in constant.co_qualname:
                found[constant.co_qualname] = constant
                collect(constant)
    collect(compile(text, file, "exec", dont_inherit=True))
    return found


def body_functions(number):
    """Names of the functions that hold the bodies of an exercise."""
    names = []
    for body in tool.bodies(ROOT, tool.BY_NUMBER[number]):
        text = (ROOT / body.file).read_text()
        lines = {name: code.co_firstlineno for name, code in codes_of(text, body.file).items()}
        above = {name: line for name, line in lines.items() if line <= body.first}
        names.append(max(above, key=above.get))
    return names


def put_into(monkeypatch, folder):
    """Let the functions of the modules that are loaded do what the files of this folder say."""
    for file in FILES:
        module = sys.modules[file.removesuffix(".py").replace("/", ".")]
        wanted = codes_of((folder / file).read_text(), file)
        for name, code in wanted.items():
            found = module
            for part in name.split("."):
                found = vars(found).get(part)
            if isinstance(found, FunctionType) and found.__code__.co_freevars == code.co_freevars:
                monkeypatch.setattr(found, "__code__", code)


def graders():
    """{number: {name: test}}, by the marks"""
    found = {number: {} for number in NUMBERS}
    for name, test in vars(grading).items():
        if name.startswith("test_"):
            mark, = test.pytestmark
            found[int(mark.name.removeprefix("ex"))][name] = test
    return found


def failing(numbers=NUMBERS):
    """Run what grades these exercises. -> names of the tests that fail"""
    names = set()
    for number in numbers:
        for name, test in graders()[number].items():
            try:
                test()
            except (Exception, pytest.fail.Exception):
                names.add(name)
    return names


def test_the_project_passes_every_exercise(copy, monkeypatch):
    put_into(monkeypatch, copy)
    assert failing() == set()
    assert all(len(tests) >= 3 for tests in graders().values())


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stripped_exercise_fails_exactly_its_tests(copy, monkeypatch, number):
    main(["strip", str(number)], copy)
    put_into(monkeypatch, copy)
    assert failing() == set(graders()[number])


# Wrong bodies as students write them: (what stands in the code, what they write). Each fails some test of the exercise.
MISTAKES = {
    1: [("outcome >= tau", "outcome > tau"), ("if outcome >= tau else selected[:1]", "if True else selected[:1]"),
        ("for weight, _ in selected)\n", "for weight, _ in counted)\n"),
        ("total_weight = sum(weight for weight, _ in selected)", "total_weight = 1.0")],
    2: [("mask[y, x]", "mask[x, y]"), ("0 <= x < width and 0 <= y < height", "x < width and y < height"),
        ("0 <= x < width", "0 <= x <= width"),
        ("means = [sum(scores) / len(scores) for scores in sets if scores]", "means = sum(sets, [])"),
        ("for scores in sets if scores]", "for scores in sets]"), ("if scores]", "if sum(scores)]")],
    3: [("x * target_width / source_width", "x * source_width / target_width"),
        ("y * target_height / source_height", "y * target_width / source_width"),
        ("x * target_width / source_width", "round(x * target_width / source_width)")],
    4: [("_meaning(answer) for", "answer for"), ("_meaning(answer) for", "normalise(answer) for"),
        ("answers[-1]", "answers[0]"), ("len({_meaning(answer) for answer in answers}) > 1", "False"),
        (" and normalise(last) not in [normalise(str(text)) for text in allowed]", ""), ("option_list(last)", "False"),
        ("normalise(last) not in [normalise(str(text)) for text in allowed]", "last not in allowed")],
    5: [("point not in owners.values()", "len(held_by) == 1 and point != min(owners.values())"),
        ("owners = assign(instances)", "owners = {held[0]: i for i, held in reversed(instances.items())}"),
        ("min(owners[instance] for instance in held_by)", "0"), ("return found", "return {}")],
    6: [("raise TeacherFailed(reason) from None", "return [ItemFailed(reason)] * len(items)"),
        ("if out_of_memory(error):", "if False:"), ("call([known_good])", "pass"), ("ItemFailed(self._count(role, error))",
        "ItemFailed(reason)"), ("call([known_good])", "call(items[:1])"), ("results += call([item])", "call([item])")],
    7: [("rewards.mean(dim=1, keepdim=True)  # (B, G)", "rewards.mean()"), ("rewards.std(dim=1, keepdim=True)", "rewards.std()"),
        (" + 1e-6", ""), ("rewards.std(dim=1, keepdim=True)", "rewards.std(dim=1, keepdim=True, correction=0)"),
        ("if not scale:", "if scale:"), ("v.outcome >= tau for", "v.outcome > tau for"),
        ("v.parsed.answer is None for", "False for"), ("if any(v.outcome is None", "if all(v.outcome is None")],
    8: [("torch.minimum", "torch.maximum"), ("- beta * k3", "+ beta * k3"), ("log_r = ref_logprobs - logprobs", "log_r = logprobs "
        "- ref_logprobs"), ("log_r.exp() - log_r - 1", "-log_r"), ("1 + eps_high", "1 + eps_low"), ("return -surrogate, ratio",
        "return -clipped * advantage, ratio"), ("mask.sum(dim=1).clamp(min=1)).sum()", "mask.shape[1]).sum()"),
        ("(per_token * mask)", "per_token"), ("(rollouts * longest)", "(rollouts * mask.shape[1])"),
        ("summed.sum() / tokens", "summed.sum() / mask.sum()"), (".clamp(min=1) * share", ".clamp(min=1)")],
    9: [("cache.batch_select_indices(prompt_of)", "cache.batch_select_indices(prompt_of.flip(0))"),
        ("prompts.position_ids[:, prompt_of, -1:]  # (3, n, 1)\n", "prompts.position_ids[:, prompt_of, :1]\n"),
        ("self.position = self.position + 1", "pass"), ("torch.ones_like(self.token)], 1)", "torch.zeros_like(self.token)], 1)"),
        ("self.position = self.position + 1", "self.position = torch.full_like(self.position, self.mask.shape[1])"),
        ("self.mask = prompts.mask[prompt_of]  # (n, P)", "self.mask = torch.ones_like(prompts.mask[prompt_of])")],
    10: [("if means:", "if False:"), ("if not means_truth:", "if False:"), ("zip(texts[1:], means_foils)", "zip(texts, means_foils)"),
         ("if k == 0:", "if not means_foils:"), ("foil[:60]", "foil")],
    11: [("outcome >= .5 and", ""), ("reward is not None and", ""), ("reward >= threshold", "reward > threshold"),
         ("reward >= threshold", "reward >= .7"),
         ("best = max(verdicts", "best = min(verdicts"), ("key=lambda v: v.reward", "key=lambda v: (v.outcome, v.reward)"),
         ("    if not_scored:", "    if len(not_scored) > 1:"),
         ("(best.grounding or 0)", "best.grounding"), ("if all(v.parsed.answer", "if any(v.parsed.answer")],
    12: [("a ** n", "0"), ("(1 - d) ** n", "(1 - d - a) ** n"), ("(rewards @ w).max()", "(rewards @ w)[policy > 0].max()"),
         ("(1 - theta) *", "theta *"), ("pair_error(theta * eps", "pair_error(eps"), ("* w.sum()\n", "\n"),
         ("_drawn(n, p_theta) * batch_bound", "batch_bound")],
}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_wrong_body_fails(copy, monkeypatch, number):
    wrong = []
    for right, mistake in MISTAKES[number]:
        for body in tool.bodies(copy, tool.BY_NUMBER[number]):
            if right in body.text:
                wrong.append((body, right, mistake))
    assert len({(right, mistake) for _, right, mistake in wrong}) == len(MISTAKES[number])  # each is found
    for body, right, mistake in wrong:
        path = copy / body.file
        before = path.read_text()
        lines = before.splitlines(keepends=True)
        lines[body.first:body.end] = [body.text.replace(right, mistake)]
        path.write_text("".join(lines))
        with monkeypatch.context() as patch:
            put_into(patch, copy)
            found = failing([number])
        path.write_text(before)
        assert found, f"no test of exercise {number} notices {mistake!r}"


# ---- 3. The same with pytest itself ------------------------------------------------------------------------
def test_what_a_student_sees(copy):
    """What is graded fails; what merely needs the body is skipped, with a reason, and fails under --skip_nothing."""
    for name in ("runs", "verifier"):
        shutil.copytree(ROOT / name, copy / name, dirs_exist_ok=True, ignore=lambda folder, files: [
            file for file in files if (copy / name / file).exists() or file == "__pycache__"])
    (copy / "tests").mkdir()
    shutil.copy(ROOT / "tests/conftest.py", copy / "tests")
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "tests/test_other.py").write_text(OTHER)
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-rsf", "-p", "no:cacheprovider"]

    quick = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    def run(*more):
        done = subprocess.run([*command, *more], cwd=copy, env=quick, capture_output=True, text=True)
        return done.stdout
    main(["strip", "3", "10"], copy)
    told = run()
    assert "2 failed, 1 passed, 3 skipped" in told, told
    assert "FAILED tests/test_other.py::test_graded" in told and "FAILED tests/test_other.py::test_a_bug" in told
    assert told.count("needs exercise 3") == 2 and told.count("needs exercise 10") == 1
    assert "1 failed" in run("--skip_nothing", "-k", "needs_a_body")


OTHER = '''import subprocess
import sys

import pytest
from verifier.coordinates import convert
from verifier.foils import outcome_against


def test_fine():
    assert 1 + 1 == 2


@pytest.mark.ex3
def test_graded():
    convert(1, 1, "seen", "percent", (2, 2), (2, 2))


def test_needs_a_body():
    convert(1, 1, "seen", "percent", (2, 2), (2, 2))


def test_catches_it_and_tells():
    try:
        outcome_against(["a"], [True], 0)
    except NotImplementedError as error:
        assert False, repr(error)


def test_in_another_process():
    code = "from verifier.coordinates import convert; convert(1, 1, 'seen', 'percent', (2, 2), (2, 2))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_bug():
    assert 1 + 1 == 3
'''
