"""Files that survive a kill at any point: read_jsonl, append_jsonl, write_atomically, and who may write where."""
import io
import json
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from runs.errors import BadInput


def write_atomically(path, data):
    """Write str or bytes to `path` so that a reader sees the old file or the whole new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace"))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_jsonl(path, torn=False):
    """Yield (row number, object) of a JSONL file; blank lines are skipped. BadInput names file, row and cure.

    torn: an append-only log may hold lines cut by a kill; skip them instead.
    """
    try:
        with open(path, encoding="utf-8") as file:  # line by line: a log of long answers does not fit into memory
            for i, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    if torn:
                        continue
                    raise BadInput(f"{path} row {i}: is not JSON ({str(error)[:80]}); write one object per line") from None
                yield i, row
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as a UTF-8 JSONL file ({error.__class__.__name__}); check the path") from None


def append_jsonl(path, row):
    """Append one row. A line left half-written by a crash is ended first, so that it spoils no other."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        _lock(file)  # another process may be in the middle of its row
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        else:
            torn = False
        row = b"\n" * torn + json.dumps(row).encode() + b"\n"
        while row:
            row = row[file.write(row):]


def _lock(file, wait=True):
    """Until the file is closed, or this process dies. -> False where another has it. (Windows has no fcntl: nothing is locked there.)"""
    try:
        import fcntl
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except ImportError:
        pass
    except OSError:
        return False
    return True


def claim_run(log, config):
    """Begin or continue a training log. Without --resume an old run must not be mixed into a new one; with it, settings must agree."""
    rows = [row for _, row in read_jsonl(log, torn=True)] if Path(log).exists() else []
    if not rows:
        append_jsonl(log, dict(kind="config", **config))
        return
    if not config["resume"]:
        raise BadInput(f"{log}: holds a run already; continue it with --resume, or name another --out")
    for name, value in config.items():
        if name != "resume" and rows[0].get(name, value) != value:
            raise BadInput(f"{log}: was made with --{name} {rows[0][name]}, not {value}; resume with the same settings")


@contextmanager
def alone(folder):
    """Inside, no other process is: only one may work on a folder's files, and one that died is not in the way. Raises BadInput."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder, ".lock"), "w") as file:
        if not _lock(file, wait=False):
            raise BadInput(f"{folder}: another run is at work there; wait for it, or name another --out")
        yield


def file_name(text):
    """A sample's id as a safe file name: it comes from a dataset and may hold anything."""
    return re.sub(r"[^\w.-]", "_", text)[:120].lstrip(".") or "_"


def save_figure(figure, path):
    """Write a matplotlib figure or a PIL picture as PNG: complete or absent."""
    data = io.BytesIO()
    if isinstance(figure, Image.Image):
        figure.save(data, "PNG")
    else:
        figure.savefig(data, dpi=150, format="png")
    write_atomically(path, data.getvalue())


def weights_stamp(folder):
    """What changes when the weights do: the latest time that a part of them was written."""
    return max((file.stat().st_mtime_ns for file in Path(folder).glob("*.safetensors")), default=0)
