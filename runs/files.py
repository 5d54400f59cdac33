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
import math
import os
import re
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image

from runs.errors import DISK_FULL, BadInput


# ---- 1. Whole files ----------------------------------------------------------------------------------------
@contextmanager
def writing(path):
    """Inside, `path` is written: what the system refuses becomes BadInput, one line that names it and its cure.

    A file in the way, a link to nowhere, a folder that may only be read. A full disk passes: run_main tells it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            error.filename = str(path)  # a failed write does not know it
            raise
        what = f"{path}: cannot be written ({error.strerror or type(error).__name__})"
        raise BadInput(f"{what}; name another place, or clear the way") from error


def make_folder(path):
    """Make a folder where there is none, with its parents. BadInput: it cannot be."""
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def write_atomically(path, data):
    """Write str or bytes to `path`: a reader sees the old file or the whole new one, never half of it.

    Raises BadInput where nothing can be written there.
    """
    path = Path(path)
    make_folder(path.parent)
    if isinstance(data, str):
        data = data.encode("utf-8", "backslashreplace")  # of a lone surrogate, too
    with writing(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # same folder: same disk
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
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

    torn: skip lines that are no JSON objects: an append-only log may hold one that a kill cut off

    Raises BadInput that names file, row and cure.
    """
    try:
        with open(path, "rb") as file:
            # line by line: a log of long answers does not fit into memory
            for i, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = _json_object(line)
                except ValueError as error:
                    if torn:
                        continue
                    raise BadInput(f"{path} row {i}: {error}") from None
                yield i, row
    except OSError as error:
        raise BadInput(f"{path}: cannot be read as a JSONL file ({error.strerror}); check the path") from None


def _json_object(line):
    """A line of bytes -> dict. ValueError: it is none, and the cure."""
    try:
        row = json.loads(line.decode("utf-8-sig"))  # some editors put a mark in front of the first line
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8; save it so (unpacked, if it is an archive)") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({str(error)[:80]}); write one {{...}} per line") from None
    if not isinstance(row, dict):
        raise ValueError("is not a JSON object; write one {...} per line")
    return row


def is_score(value):
    """Is a logged value a score: a number, or None where nothing was scored? A damaged row may hold anything.

    >>> [is_score(value) for value in (.5, 1, None, True, "1", float("nan"), [1])]
    [True, True, True, False, False, False, False]
    """
    return value is None or type(value) in (int, float) and math.isfinite(value)


def append_jsonl(path, *rows):
    """Append rows, all of them or none. A line left half-written by a crash is ended first, so that it spoils no
    other. Raises BadInput where nothing can be written there."""
    path = Path(path)
    make_folder(path.parent)
    with writing(path), open(path, "ab+", buffering=0) as file:
        _lock(file)  # another process may be in the middle of its row
        lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        size = file.seek(0, os.SEEK_END)
        if size > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                lines = b"\n" + lines
        try:
            while lines:
                written = file.write(lines)  # unbuffered: may take a part only
                lines = lines[written:]
        except BaseException:  # a full disk, or Ctrl-C
            with suppress(OSError):
                file.truncate(size)
            raise


def logged_settings(log):
    """The settings of the run that a log holds, from its "config" row; None where it holds none."""
    for _, row in read_jsonl(log, torn=True):
        if row.get("kind") == "config":
            return row
    return None


def claim_run(log, config):
    """Begin or continue a training log, whose first row holds the settings.

    Without --resume an old run must not be mixed into a new one; with it, the settings must agree. Raises
    BadInput.
    """
    begun = Path(log).exists() and any(True for _ in read_jsonl(log, torn=True))
    if not begun:
        append_jsonl(log, dict(kind="config", **config))
        return
    if not config["resume"]:
        raise BadInput(f"{log}: holds a run already; continue it with --resume, or name another --out")
    old = logged_settings(log)
    if old is None:
        raise BadInput(f"{log}: its first row, the settings, is lost; name another --out")
    for name, value in config.items():
        if name != "resume" and old.get(name, value) != value:
            raise BadInput(f"{log}: was made with --{name} {old[name]}, not {value}; "
                           "resume with the same settings")


# ---- 3. Locks ----------------------------------------------------------------------------------------------
@contextmanager
def alone(folder):
    """Inside, no other process works on this folder's files. Raises BadInput where one already does, or where the
    folder cannot be written."""
    make_folder(folder)
    with writing(folder):
        file = open(Path(folder, ".lock"), "w")
    with file:
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
    except BlockingIOError:
        return False
    except OSError:  # a network disk that was mounted without locks: nothing is locked there, either
        return True
    return True


# ---- 4. Names ----------------------------------------------------------------------------------------------
MAX_NAME = 120  # bytes of a file's name; with what is put around it, a file system takes 255


def file_name(text):
    """A sample's id as a safe file name, without ending: it comes from a dataset and may hold anything.

    Two ids never share a name, not even where a file system takes A for a. One of small letters, digits and "_.-"
    stays as it is; any other gets a digest, and so does one that ends as if it had one.

    >>> file_name("val-00003"), file_name("../a b/c"), file_name("A")
    ('val-00003', '_a_b_c--32d4c7078f', 'A--b685b2f862')
    """
    plain = re.fullmatch(r"[a-z0-9_-][a-z0-9_.-]*", text) and not re.search(r"--[0-9a-f]{10}$", text)
    if plain and len(text) <= MAX_NAME:
        return text
    name = re.sub(r"[^\w.-]", "_", text).lstrip(".")
    name = name.encode()[:MAX_NAME].decode(errors="ignore") or "_"  # a letter may have four bytes
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
    return f"{name}--{digest}"


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
