"""The rooms: imports run one way, and what a newcomer reads first stays short.

Run: pytest tests/test_rooms.py
"""
import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exercises.__main__ import EXERCISES, bodies, solution_file

ROOT = Path(__file__).parent.parent
ROOMS = ("runs", "verifier", "teachers", "theory", "tiny", "benchmarks", "exercises")
FILES = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).glob("*.py"))])
# A room may import itself and what stands before it. The scripts and the other rooms may import all of these.
ORDER = ["runs", "verifier", "policy", "teachers", "argos"]


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


NAMES = {name_of(path) for path in FILES}


def imported_modules(node):
    """What an import statement may name: of "from verifier import claims" both verifier and verifier.claims."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: write the whole name; this file does not follow relative imports"
        return [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def imports_of(path):
    """Our own modules that a file imports, anywhere in it -> {module: line}."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        for candidate in imported_modules(node):
            if candidate in NAMES:
                found.setdefault(candidate, node.lineno)
    return found


IMPORTS = {name_of(path): imports_of(path) for path in FILES}


def test_imports_run_one_way():
    for name, imported in IMPORTS.items():
        room = name.split(".")[0]
        if room not in ORDER:
            continue
        for other, line in imported.items():
            other_room = other.split(".")[0]
            if (room, other_room) == ("teachers", "tiny") or name == "argos" and other == "teachers.names":
                continue  # the pixel teachers are drawn rules; argos's command line loads the teachers that are named
            assert other_room in ORDER[:ORDER.index(room) + 1], f"{name} line {line} imports {other}"


def test_no_module_imports_itself_through_others():
    done = set()

    def follow(name, path):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for other in IMPORTS[name]:
                follow(other, [*path, name])
            done.add(name)

    for name in IMPORTS:
        follow(name, [])


def test_the_verifier_needs_no_torch():
    """A service or a notebook imports argos alone; teachers are passed in."""
    assert {name.split(".")[0] for name in IMPORTS["argos"] if name != "teachers.names"} == {"runs", "verifier"}
    code = """if True:
        import pkgutil, sys, argos, verifier
        for module in pkgutil.iter_modules(verifier.__path__, "verifier."):
            __import__(module.name)
        print(sorted({"torch", "transformers", "peft", "accelerate", "teachers", "policy"} & set(sys.modules)))"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_imports_stand_at_the_top():
    """But for heavy optional packages, each with its reason beside it or above it; never one of our own modules."""
    for path in FILES:
        lines = path.read_text().splitlines()
        explained = set()  # lines of imports that have a reason; it holds for the import right below, too
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            nodes = [node for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))]
            for node in sorted(nodes, key=lambda node: node.lineno):
                where = f"{path.relative_to(ROOT)} line {node.lineno}"
                own = [name for name in imported_modules(node) if name in NAMES]
                assert not own or where.startswith("argos.py") and "teachers.names" in own, where
                near = lines[node.lineno - 3:node.lineno]
                assert any("#" in line for line in near) or node.lineno - 1 in explained, f"{where}: why here?"
                explained.add(node.lineno)


def lines_that_count(root, file):
    """How long a file is: all of its lines. What a student has written in the place of a body does not count.

    A body is a student's where the project's is kept aside, and in a copy handed out without solutions and .git.
    """
    lines = (root / file).read_text().splitlines()
    students = [exercise for exercise in EXERCISES if file in exercise.files
                and (solution_file(root, exercise).exists() or not (root / ".git").exists())]
    for exercise in students:
        for body in reversed(bodies(root, exercise)):  # from the end: lines above keep their numbers
            del lines[body.first:body.end]
    return len(lines)


@pytest.mark.parametrize("file, most", [("nano.py", 200), ("argos.py", 580)])
def test_first_steps_stay_short(file, most):
    assert lines_that_count(ROOT, file) <= most


def test_the_limit_binds_the_project_and_no_student(tmp_path):
    body = "    # BEGIN SOLUTION ex1\n" + "    x = 1\n" * 10 + "    # END SOLUTION\n"
    (tmp_path / "argos.py").write_text("import this\n" + body)
    (tmp_path / ".git").touch()
    assert lines_that_count(tmp_path, "argos.py") == 13  # the project's own body, of ten lines
    kept = tmp_path / "exercises/.solutions/01.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("[]")
    assert lines_that_count(tmp_path, "argos.py") == 3   # a student's
    kept.unlink()
    (tmp_path / ".git").unlink()
    assert lines_that_count(tmp_path, "argos.py") == 3   # a student's, in a copy without solutions


def test_readme_takes_five_minutes():
    assert len((ROOT / "README.md").read_text().split()) <= 1300


def test_lines_fit_a_screen():
    wide = [f"{path.relative_to(ROOT)}:{i}" for path in FILES
            for i, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 115]
    assert not wide


def test_readme_names_files_that_are_there():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"\]\(([\w/.-]+)\)", text) + re.findall(r"`([\w/]+\.py)`", text):
        assert (ROOT / name).exists(), name


def test_what_is_skipped_for_want_of_a_package_can_be_made_to_fail(tmp_path):
    """--skip_nothing, which .ci/run gives: a GPU cannot be installed, a package can."""
    (tmp_path / "test_two.py").write_text(
        "import pytest\n\n@pytest.mark.gpu\ndef test_a_gpu():\n    pytest.skip('no GPU here')\n\n"
        "def test_a_package():\n    pytest.importorskip('no_such_package')\n")
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-q", "-c", os.devnull,
               "test_two.py"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    for more, told in (([], "2 skipped"), (["--skip_nothing"], "1 failed, 1 skipped")):
        done = subprocess.run([*command, *more], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert told in done.stdout and done.returncode == bool(more), done.stdout
