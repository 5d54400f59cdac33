"""Files that survive a kill at any point, and who may write where.

Who needs it: every script that writes. Runs take hours and are killed: by a person, by a cluster, by a
full disk.

Why atomic: a file that is half written looks like a whole one to the next reader. So write_atomically fills
a file of another name, then renames it, and a rename happens at once or not at all.

Why append: a log (JSONL, one JSON object per line) only grows. A kill can cut its last line and nothing else,
and read_jsonl(torn=True) skips such a line.

Why locks: several processes may append to one log, and their rows must not mix; and two runs in one folder
would overwrite each other. The system drops a lock when its process dies, so none is ever left behind.

Before: runs/errors.py. Next: runs/settings.py
"""
import hashlib
import io
import json
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from runs.errors import BadInput


# ---- 1. Whole files ----------------------------------------------------------------------------------------
def write_atomically(path, data):
    """Write str or bytes to `path`: a reader sees the old file or the whole new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, str):
        data = data.encode("utf-8", "backslashreplace")  # of a lone surrogate, too
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # same folder: same disk
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def save_figure(figure, path):
    """Write a matplotlib figure or a PIL picture as PNG: complete or absent."""
    data = io.BytesIO()
    if isinstance(figure, Image.Image):
        figure.save(data, "PNG")
    else:
        figure.savefig(data, dpi=150, format="png")
    write_atomically(path, data.getvalue())


# ---- 2. Logs that grow -------------------------------------------------------------------------------------
def read_jsonl(path, torn=False):
    """Yield (row number from 1, object) of a JSONL file; blank lines are skipped.

    torn: skip lines that are not JSON: an append-only log may hold one that a kill cut off

    Raises BadInput that names file, row and cure.
    """
    try:
        with open(path, encoding="utf-8") as file:
            # line by line: a log of long answers does not fit into memory
            for i, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    if torn:
                        continue
                    raise BadInput(f"{path} row {i}: is not JSON ({str(error)[:80]}); "
                                   "write one object per line") from None
                yield i, row
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as a UTF-8 JSONL file ({error.__class__.__name__}); "
                       "check the path") from None


def append_jsonl(path, row):
    """Append one row. A line left half-written by a crash is ended first, so that it spoils no other."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        _lock(file)  # another process may be in the middle of its row
        line = json.dumps(row).encode() + b"\n"
        size = file.seek(0, os.SEEK_END)
        if size > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        while line:
            written = file.write(line)  # unbuffered: may take a part only
            line = line[written:]


def claim_run(log, config):
    """Begin or continue a training log, whose first row holds the settings.

    Without --resume an old run must not be mixed into a new one; with it, the settings must agree. Raises
    BadInput.
    """
    rows = []
    if Path(log).exists():
        rows = [row for _, row in read_jsonl(log, torn=True)]
    if not rows:
        append_jsonl(log, dict(kind="config", **config))
        return
    if not config["resume"]:
        raise BadInput(f"{log}: holds a run already; continue it with --resume, or name another --out")
    old = rows[0]
    for name, value in config.items():
        if name != "resume" and old.get(name, value) != value:
            raise BadInput(f"{log}: was made with --{name} {old[name]}, not {value}; "
                           "resume with the same settings")


# ---- 3. Locks ----------------------------------------------------------------------------------------------
@contextmanager
def alone(folder):
    """Inside, no other process works on this folder's files. Raises BadInput where one already does."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder, ".lock"), "w") as file:
        if not _lock(file, wait=False):
            raise BadInput(f"{folder}: another run is at work there; wait for it, or name another --out")
        yield


def _lock(file, wait=True):
    """Lock a file until it is closed or this process dies. -> False where another has it, without wait."""
    try:
        import fcntl  # here, because Windows has none: nothing is locked there
    except ImportError:
        return True
    how = fcntl.LOCK_EX
    if not wait:
        how |= fcntl.LOCK_NB
    try:
        fcntl.flock(file, how)
    except OSError:
        return False
    return True


# ---- 4. Names ----------------------------------------------------------------------------------------------
def file_name(text):
    """A sample's id as a safe file name: it comes from a dataset and may hold anything.

    Example: file_name("../a b/c") == "_a_b_c"
    """
    return re.sub(r"[^\w.-]", "_", text)[:120].lstrip(".") or "_"


def file_stamp(path):
    """A digest of a file's content: rows that were corrected are not the rows that were asked."""
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=8).hexdigest()


def weights_stamp(folder):
    """The time at which a model's weights were last written, in nanoseconds; 0 where there are none.

    Answers are stored under a key that holds it: after more training the folder has the same name, and the
    old answers must not count as the new model's.
    """
    times = [file.stat().st_mtime_ns for file in Path(folder).glob("*.safetensors")]
    return max(times, default=0)
