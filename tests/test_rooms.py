"""The rooms: imports run one way, and what a newcomer reads first stays short.

Run: pytest tests/test_rooms.py
"""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("runs", "verifier", "teachers", "theory", "tiny", "benchmarks")
FILES = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).glob("*.py"))])
# A room may import itself and what stands before it. The scripts and the other rooms may import all of these.
ORDER = ["runs", "verifier", "policy", "teachers", "argos"]


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


NAMES = {name_of(path) for path in FILES}


def imports_of(path):
    """Our own modules that a file imports, anywhere in it -> {module: line}."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            candidates = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for candidate in candidates:
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
    heavy = re.compile(r"^\s*(?:import|from) (?:torch|transformers|peft|accelerate)\b", re.M)
    for path in [ROOT / "argos.py", *(ROOT / "verifier").glob("*.py"), ROOT / "runs/errors.py", ROOT / "runs/files.py"]:
        assert not heavy.search(path.read_text()), path


@pytest.mark.parametrize("file, most", [("nano.py", 200), ("argos.py", 580)])
def test_first_steps_stay_short(file, most):
    assert len((ROOT / file).read_text().splitlines()) <= most


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
