"""Find the bug: eight mistakes that ruin RL without an error. Put one in, look at its plots, take it out again.

    python -m exercises break 4                     # bug 4 is in the code; what it is nobody says
    python train_grpo.py ... --out out/bug-4        # the run of exercises/BUGS.md
    python -m exercises.look out/bug-4 out/healthy  # its numbers over those of healthy runs
    python -m exercises mend 4                      # it is out again, to the byte

A bug is one or two small replacements of text, in exercises/bugs/sealed.txt: a line of JSON each, every letter
moved 13 places on in the alphabet (rot13), so that who lists or searches the folder learns nothing. To read them,
or to mend one that no longer fits after the code has changed:

    tr A-Za-z N-ZA-Mn-za-m < exercises/bugs/sealed.txt

Nothing else is remembered anywhere. A bug is in where its new text stands, and out where its old text does. So
whatever else you write into these files stays, and there is nothing to lose track of.

Before: exercises/README.md. Next: exercises/BUGS.md (the run, hints, answers), look.py
"""
import codecs
import json
from dataclasses import dataclass
from pathlib import Path

from runs.errors import BadInput
from runs.files import write_atomically

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "bugs"
SEALED = FOLDER / "sealed.txt"


# ---- 1. The bugs -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Patch:
    """One replacement of text. Both texts stand once in the file that has them, or not at all."""
    bug: int
    test: str  # of tests/test_bugs.py: the one that the bug kills
    file: str
    old: str
    new: str


def read_patches(sealed=SEALED):
    """-> {number of a bug: its patches}"""
    try:
        text = codecs.decode(sealed.read_text(encoding="utf-8"), "rot13")
        patches = [Patch(**json.loads(line)) for line in text.splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{sealed}: is not the list of bugs ({error}); take it from the project again") from None
    bugs = {}
    for patch in patches:
        bugs.setdefault(patch.bug, []).append(patch)
    return bugs


def patches_of(number):
    """The patches of a bug, whose number may have been typed."""
    bugs = read_patches()
    if str(number) not in map(str, bugs):
        raise BadInput(f"bug {number}: choose 1 to {len(bugs)}")
    return bugs[int(number)]


# ---- 2. In and out -----------------------------------------------------------------------------------------
def break_code(root, number):
    """Put a bug in. -> one line that says so. BadInput: it does not fit, and nothing was changed."""
    patches = patches_of(number)
    if replace(root, [(patch, patch.old, patch.new) for patch in patches]):
        return "is in the code now. Run it, and look at plots and cards; git diff would be cheating"
    return "is in already"


def mend(root, number):
    """Take a bug out. -> one line that says so. BadInput as in break_code."""
    patches = patches_of(number)
    if replace(root, [(patch, patch.new, patch.old) for patch in patches]):
        return "is out again"
    return "is not in the code"


def replace(root, changes):
    """Replace texts in files, all of them or none. -> was there anything to do? What was replaced before stays.

    changes: of (patch, text that stands there, text to stand there)
    """
    to_do = []
    for patch, text, instead in changes:
        code = read_code(root / patch.file)
        counts = code.count(text.encode()), code.count(instead.encode())
        if counts == (1, 0):
            to_do.append((root / patch.file, text.encode(), instead.encode()))
        elif counts != (0, 1):
            raise BadInput(f"{patch.file}: bug {patch.bug} does not fit, as the lines it is about read "
                           "differently now; put them back as they were (python -m exercises restore all, or take "
                           "the file from the project again)")
    for path, text, instead in to_do:
        write_atomically(path, read_code(path).replace(text, instead))
    return bool(to_do)


def read_code(path):
    """Bytes, so that line ends and everything else stay as they are."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); take it from the project again") from None
