r"""The exercises: take the heart of a matter out of the code, write it yourself, have it tested.

    python -m exercises                 # the list: minutes, and where each one stands
    python -m exercises strip 3         # its body goes; a NotImplementedError stands there
    python -m exercises check 3         # grade it: the tests of `pytest -m ex3`
    python -m exercises restore 3       # the project's body comes back, to the byte

Several at once: `strip 3 5`, `strip all`. A body stands between two comments, of which an exercise may have more
than one pair; what you write goes between them, too:

    # BEGIN SOLUTION ex3
    raise NotImplementedError("exercise 3: Whose pixels? (exercises/03-pixels.md)")
    # END SOLUTION

Nothing is lost. What `strip` takes out is kept in exercises/.solutions until `restore` puts it back; what you
wrote is kept in exercises/.saved whenever either of them replaces it. No git is needed. A folder that is handed on
without exercises/.solutions is one without solutions: `restore` says so.

Next: exercises/README.md (the table, and in which order)
"""
import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from exercises import bugs
from runs.errors import BadInput, run_main
from runs.files import write_atomically

ROOT = Path(__file__).parent.parent


# ---- 1. The table ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Exercise:
    number: int
    title: str
    page: str      # in exercises/
    minutes: int
    files: tuple   # where its bodies stand


EXERCISES = [
    Exercise(1, "The gate", "01-gate.md", 15, ("argos.py",)),
    Exercise(2, "Is it on the mask?", "02-mask.md", 15, ("verifier/points.py",)),
    Exercise(3, "Whose pixels?", "03-pixels.md", 10, ("verifier/coordinates.py",)),
    Exercise(4, "One answer only", "04-answer.md", 25, ("verifier/claims.py",)),
    Exercise(5, "Spraying points", "05-spraying.md", 20, ("verifier/points.py",)),
    Exercise(6, "A teacher fails: who pays?", "06-failure.md", 25, ("verifier/asking.py",)),
    Exercise(7, "Advantages", "07-advantages.md", 20, ("train_grpo.py",)),
    Exercise(8, "Clip, KL, average", "08-loss.md", 40, ("train_grpo.py",)),
    Exercise(9, "One prefill, G rollouts", "09-prefill.md", 30, ("policy.py",)),
    Exercise(10, "A judge that can be fooled", "10-judge.md", 25, ("verifier/foils.py",)),
    Exercise(11, "What survives", "11-survivors.md", 20, ("curate.py",)),
    Exercise(12, "Break theorem 1, mend it", "12-theorem.md", 45, ("theory/landscapes.py", "theory/bounds.py")),
]
BY_NUMBER = {exercise.number: exercise for exercise in EXERCISES}


def chosen(words):
    """What was typed -> exercises.

    >>> [exercise.title for exercise in chosen(["3", "1"])]
    ['Whose pixels?', 'The gate']
    """
    if "all" in words:
        return EXERCISES
    unknown = [word for word in words if not (word.isdecimal() and int(word) in BY_NUMBER)]
    if unknown:
        raise BadInput(f"exercise {unknown[0]!r}: choose 1 to {len(EXERCISES)}, or all")
    return [BY_NUMBER[int(word)] for word in dict.fromkeys(words)]


# ---- 2. Bodies in the code ---------------------------------------------------------------------------------
END = "# END SOLUTION"


@dataclass
class Body:
    """What stands between a BEGIN and an END: lines first .. end - 1 of a file."""
    file: str
    first: int
    end: int
    text: str
    stub: str      # what stands there once it is stripped
    missing: bool  # is it stripped now?


def read_lines(path):
    """The lines of a file, each with the line end that it has."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read().splitlines(keepends=True)
    except (OSError, UnicodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); take it from the project again") from None


def bodies(root, exercise):
    """The bodies of an exercise as they stand in the code now, in the order of its files and their lines."""
    begin = f"# BEGIN SOLUTION ex{exercise.number}"
    problem = f"exercise {exercise.number} begins with {begin!r} and ends with {END!r}; put both lines back"
    found = []
    for file in exercise.files:
        lines = read_lines(root / file)
        begins = [i for i, line in enumerate(lines) if line.strip() == begin]
        if not begins:
            raise BadInput(f"{file}: {problem}")
        for i in begins:
            marks = (j for j in range(i + 1, len(lines)) if lines[j].strip().startswith(("# BEGIN SOLUTION", END)))
            end = next(marks, None)
            if end is None or lines[end].strip() != END:
                raise BadInput(f"{file} line {i + 1}: {problem}")
            indent = lines[i][:lines[i].index("#")]
            line_end = lines[i][len(lines[i].rstrip("\r\n")):]
            raising = f'raise NotImplementedError("exercise {exercise.number}: '
            stub = f'{indent}{raising}{exercise.title} (exercises/{exercise.page})"){line_end}'
            text = "".join(lines[i + 1:end])
            missing = text.strip().startswith(raising) and text.strip().count("\n") == 0
            found.append(Body(file, i + 1, end, text, stub, missing))
    return found


def replace(root, old, new):
    """Put texts in the place of bodies."""
    for file in dict.fromkeys(body.file for body in old):
        lines = read_lines(root / file)
        pairs = [(body, text) for body, text in zip(old, new) if body.file == file]
        for body, text in reversed(pairs):  # from the end: lines above keep their numbers
            lines[body.first:body.end] = [text]
        write_atomically(root / file, "".join(lines))


# ---- 3. What is kept aside ---------------------------------------------------------------------------------
def solution_file(root, exercise):
    return root / "exercises/.solutions" / f"{exercise.number:02d}.json"


def solution(root, exercise):
    """The texts that `strip` took out, one per body; None: nothing was taken out."""
    path = solution_file(root, exercise)
    if not path.exists():
        return None
    try:
        texts = json.loads(path.read_bytes())
    except (OSError, ValueError):
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadInput(f"{path}: is not what `strip` wrote; delete it, and take the code from the project again")
    return texts


def save_own(root, exercise, found):
    """Keep what a person wrote. -> where, the name of a file that was not there before"""
    number = 1
    path = root / f"exercises/.saved/{exercise.number:02d}-1.py"
    while path.exists():
        number += 1
        path = path.with_name(f"{exercise.number:02d}-{number}.py")
    parts = [f"# {body.file}\n{body.text}" for body in found]
    write_atomically(path, "\n".join(parts))
    return path.relative_to(root).as_posix()


# ---- 4. Strip and restore ----------------------------------------------------------------------------------
def state(root, exercise):
    """whole: the project's code. stripped: a body is to be written. yours: it is written."""
    found = bodies(root, exercise)
    missing = sum(body.missing for body in found)
    if missing and len(found) > 1:
        return f"stripped, {missing} of {len(found)} parts to write"
    if missing:
        return "stripped"
    kept = solution(root, exercise)
    if kept is None or kept == [body.text for body in found]:
        return "whole"
    return "yours"


def strip(root, exercise):
    """Take its bodies out. -> what happened, in a few words"""
    found = bodies(root, exercise)
    kept = solution(root, exercise)
    texts = [body.text for body in found]
    written = [body for body in found if not body.missing]
    note = ""
    if not written:
        return "is stripped already"
    if kept is None:
        if len(written) < len(found):
            raise BadInput(f"exercise {exercise.number}: a part of it is stripped, and exercises/.solutions has "
                           "no solution; take it from the project again")
        write_atomically(solution_file(root, exercise), json.dumps(texts, indent=1))
    elif texts != kept:
        note = f"; yours is kept in {save_own(root, exercise, written)}"
    replace(root, found, [body.stub for body in found])
    return f"stripped in {', '.join(exercise.files)}{note}"


def restore(root, exercise):
    """Bring the project's bodies back. -> what happened, in a few words"""
    found = bodies(root, exercise)
    kept = solution(root, exercise)
    written = [body for body in found if not body.missing]
    note = ""
    if kept is None:
        if len(written) == len(found):
            return "is whole already"
        raise BadInput(f"exercise {exercise.number}: exercises/.solutions has no solution, so nothing was "
                       "changed; this is a copy without solutions")
    if len(kept) != len(found):
        raise BadInput(f"exercise {exercise.number} has {len(found)} bodies and {len(kept)} solutions; put the "
                       "BEGIN and END lines back as they were")
    if written and [body.text for body in found] != kept:
        note = f"; yours is kept in {save_own(root, exercise, written)}"
    replace(root, found, kept)
    solution_file(root, exercise).unlink()
    return f"restored{note}"


# ---- 5. The command line -----------------------------------------------------------------------------------
def on_each(change):
    """A command that changes exercises one by one, once all of them are seen to be in order."""
    def command(root, args):
        exercises = chosen(args.numbers)
        for exercise in exercises:  # an error stops here, before anything has changed
            bodies(root, exercise)
        for exercise in exercises:
            print(f"{exercise.number:4d} {exercise.title:30}{change(root, exercise)}")
    return command


def show(root, args):
    print("     exercise                      min  state\n")
    for exercise in EXERCISES:
        print(f"{exercise.number:4d} {exercise.title:30}{exercise.minutes:3d}  {state(root, exercise)}")
    print("\nexercises/README.md says how to work with them; python -m exercises strip 1 begins.")


def check(root, args):
    """Run the tests of some exercises; the exit code is pytest's."""
    marks = " or ".join(f"ex{exercise.number}" for exercise in chosen(args.numbers))
    if not find_spec("pytest"):
        raise BadInput("check needs pytest: python -m pip install -r requirements.txt")
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "--tb=short", "--no-header", "-m", marks,
               "tests/test_exercises.py"]
    done = subprocess.run(command, cwd=root)
    if done.returncode:
        sys.exit(done.returncode)


def on_each_bug(change):
    """A command that puts planted bugs in or takes them out (exercises/BUGS.md), once all of them are known."""
    def command(root, args):
        numbers = bugs.read_patches() if args.numbers == ["all"] else args.numbers
        for number in numbers:
            bugs.patches_of(number)
        for number in numbers:
            print(f"bug {number} {change(root, number)}")
    return command


COMMANDS = {  # name -> (what it does, its help). Each gets the project's folder and the arguments.
    "strip": (on_each(strip), "take the bodies of exercises out of the code"),
    "restore": (on_each(restore), "bring them back; what you wrote is kept"),
    "check": (check, "run the tests of exercises"),
    "break": (on_each_bug(bugs.break_code), "put a planted bug into the code"),
    "mend": (on_each_bug(bugs.mend), "take it out again"),
}


def main(arguments=None, root=ROOT):
    parser = argparse.ArgumentParser(prog="python -m exercises", description="Without a command: the list.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, explained) in COMMANDS.items():
        command = commands.add_parser(name, help=explained, description=explained)
        command.add_argument("numbers", nargs="+", metavar="N", help="numbers, or all")
    args = parser.parse_args(arguments)
    run, _ = COMMANDS.get(args.command, (show, ""))
    run(root, args)


if __name__ == "__main__":
    run_main(main)
