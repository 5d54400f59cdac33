"""Find the bug: eight mistakes that ruin RL without an error. Put one in, look at its plots, take it out again.

    python -m exercises break 4         # bug 4 is in the code; what it is nobody says
    python train_grpo.py ... --out out/bug-4       # the run of exercises/BUGS.md
    python -m exercises.bugs out/bug-4  # out/bug-4/look.png: the run over three healthy ones
    python -m exercises mend 4          # it is out again, to the byte

A bug is one or two small replacements of text, in exercises/bugs/sealed.txt: a line of JSON each, every letter moved
13 places on in the alphabet (rot13), so that who lists the folder or searches it learns nothing. To read them, or to
mend one that no longer fits after the code has changed:

    tr A-Za-z N-ZA-Mn-za-m < exercises/bugs/sealed.txt

Nothing else is remembered anywhere. A bug is in where its new text stands, and out where its old text does, so
whatever else you write into these files stays, and there is nothing to lose track of.

Before: exercises/README.md. Next: exercises/BUGS.md (which run, what a healthy one looks like, hints and answers)
"""
import argparse
import codecs
import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draw into files, without a screen
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

from runs.errors import BadInput, run_main  # noqa: E402
from runs.files import read_jsonl, save_figure, write_atomically  # noqa: E402

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
    """Put a bug in. -> one line that says so. Raises BadInput where it does not fit; then nothing was changed."""
    patches = patches_of(number)
    if replace(root, [(patch, patch.old, patch.new) for patch in patches]):
        return "is in the code now. Run it, and look at plots and cards; git diff would be cheating"
    return "is in already"


def mend(root, number):
    """Take a bug out. -> one line that says so. Raises BadInput as break_code does."""
    patches = patches_of(number)
    if replace(root, [(patch, patch.new, patch.old) for patch in patches]):
        return "is out again"
    return "is not in the code"


def replace(root, changes):
    """Replace texts in files, all of them or none; those that were replaced already stay. -> was there anything to do?

    changes: of (patch, text that stands there, text to stand there)
    """
    to_do = []
    for patch, text, instead in changes:
        code = read_code(root / patch.file)
        counts = code.count(text.encode()), code.count(instead.encode())
        if counts == (1, 0):
            to_do.append((root / patch.file, text.encode(), instead.encode()))
        elif counts != (0, 1):
            raise BadInput(f"{patch.file}: bug {patch.bug} does not fit, as the lines it is about read differently "
                           "now; put them back as they were (python -m exercises restore all, or take the file "
                           "from the project again)")
    for path, text, instead in to_do:
        write_atomically(path, read_code(path).replace(text, instead))
    return bool(to_do)


def read_code(path):
    """Bytes, so that line ends and everything else stay as they are."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); take it from the project again") from None


# ---- 3. Looking --------------------------------------------------------------------------------------------
# (kind of row, name in metrics.jsonl, how it is drawn): two dozen numbers a step, these are the telling ones.
PANELS = [("train", "reward", "linear"), ("train", "outcome", "linear"), ("train", "grounding", "linear"),
          ("train", "reasoning", "linear"), ("train", "length", "linear"), ("train", "unfinished", "linear"),
          ("train", "skipped", "linear"), ("train", "loss", "symlog"), ("train", "entropy", "linear"),
          ("train", "kl", "symlog"), ("train", "sampler_gap", "log"), ("train", "grad_norm", "log"),
          ("eval", "answers", "linear"), ("eval", "judged", "linear"), ("eval", "grounding", "linear")]
SYMLOG = dict(linthresh=.01)  # linear below, logarithmic above


def series(log, kind, name):
    """A number of metrics.jsonl over the steps -> steps, values; without those that were not measured."""
    steps, values = [], []
    for _, row in read_jsonl(log, torn=True):
        if row.get("kind") == kind and row.get(name) is not None:
            steps.append(row["step"])
            values.append(row[name])
    return steps, values


def draw_look(log, own, healthy, path):
    """Draw a run, in red, over healthy ones: a panel for each number of PANELS.

    log: metrics.jsonl of the run; own: those of healthy runs on this machine, in black; healthy: the shipped ones,
    in gray; path: of the PNG
    """
    figure, grid = plt.subplots(3, 5, figsize=(20, 10), sharex=True)
    lines = [(one, "0.65", 1) for one in healthy] + [(one, "black", 1) for one in own] + [(log, "#c0392b", 2)]
    for axis, (kind, name, scale) in zip(grid.flat, PANELS):
        for one, color, width in lines:
            axis.plot(*series(one, kind, name), color=color, linewidth=width)
        axis.set_yscale(scale, **(SYMLOG if scale == "symlog" else {}))
        axis.set_title(f"{name}, held out" if kind == "eval" else name)
        axis.grid(alpha=.3)
    for axis in grid[-1]:
        axis.set_xlabel("GRPO step")
    figure.suptitle(f"{log} (red) over healthy runs: seeds 0, 1 and 2 as shipped (gray), your own (black)")
    figure.tight_layout()
    save_figure(figure, path)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description="Draw a run over healthy ones, into RUN/look.png.")
    parser.add_argument("run", metavar="RUN", help="a folder of train_grpo.py")
    parser.add_argument("own", metavar="HEALTHY", nargs="*", help="healthy runs of your own, beside the shipped ones")
    args = parser.parse_args()
    log, *own = [Path(folder) / "metrics.jsonl" for folder in (args.run, *args.own)]
    path = Path(args.run) / "look.png"
    draw_look(log, own, sorted(FOLDER.glob("healthy-*.jsonl")), path)
    print(f"wrote {path}")


if __name__ == "__main__":
    run_main(main)
