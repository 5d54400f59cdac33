r"""Mistakes of a person, told in one line: the errors of this project, and how a script ends with one.

Who needs it: everyone who reads a file or a flag, from the first script on. A typo in a path should cost one
line, not a stack of library frames; a bug in the code should still show its traceback. So what a person did
is a BadInput, raised where it is noticed with its cure in the message, and `run_main` turns it into that one
line. All else stays as it is.

Names in that line come from data sets, and a terminal obeys what it is sent: a file's name can clear the screen
or rename the window. So whatever came from data is printed through `printable`.

Next: runs/files.py
"""
import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress

import psutil

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk itself, or what this person may use of it


# ---- 1. What can be wrong ----------------------------------------------------------------------------------
class BadInput(ValueError):
    """A mistake in a file, a row or an option. The message is one line that names it and its cure."""


class BadMedia(BadInput):
    """A picture or video that cannot be used. Its sample is left out and counted, see Argos.usable."""


class Stopped(KeyboardInterrupt):
    """SIGTERM: what `kill`, the end of a cluster's time and a container's stop send. Handled as Ctrl-C is."""


# ---- 2. How it is said -------------------------------------------------------------------------------------
def printable(text):
    r"""Text out of a file, a path or a model, for a terminal: a character that does not print becomes its name.

    >>> print(printable("a\x1b[2J\n\u202eb.png"))
    a\x1b[2J\n\u202eb.png
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def first_line(error):
    r"""What a library's error says, in one line; its kind, where what it says is nothing, or a mere name.

    Libraries write pages, and the first line names the cause.

    >>> first_line(ValueError("no header\nat byte 0")), first_line(EOFError()), first_line(KeyError("step"))
    ('no header', 'EOFError', "KeyError: 'step'")
    """
    text = str(error).strip()
    if "trust_remote_code" in text:
        return "it needs Python code of its own, which is not run here; name a model that transformers has"
    line = text.partition("\n")[0][:200]
    kind = type(error).__name__
    if not line:
        return kind
    return line if " " in line else f"{kind}: {line}"


def warn(text):
    """One line on stderr."""
    print(printable(text), file=sys.stderr)


def out_of_memory(error):
    """Whether CUDA says that the GPU's memory is full. By name: who only reads errors need not import torch."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    begins = ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and str(error).startswith(begins)


# ---- 3. How a script ends ----------------------------------------------------------------------------------
def run_main(main):
    """Run a script's main().

    Bad input, a full disk and a full GPU become one line on stderr and exit code 2. Ctrl-C becomes one line and
    130, SIGTERM one line and 143, a reader that has gone (`| head`) 141: the shell's codes for them.
    """
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that do not know a letter
    try:
        with _terminable():
            main()
    except BadInput as error:
        _end(f"error: {error}", 2)
    except KeyboardInterrupt as stop:
        if _first():  # of several processes one says it
            warn("stopped; what was written stays, and scripts that have --resume continue after it")
        sys.exit(143 if isinstance(stop, Stopped) else 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python says so once more at its end
        _end("stopped; nobody reads the output any more", 141)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        _end(f"error: {error.filename or 'writing'}: the disk is full; make room, then run it again "
             "(with --resume, where there is one)", 2)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        _end(f"error: the GPU's memory is full ({first_line(error)}); lower --micro_batch, --sample_batch, "
             "--batch or --image_pixels, or name smaller teachers; train_grpo.py --dry_run lists what takes how "
             "much; then run it again (with --resume, where there is one)", 2)


def _end(line, code):
    """Say it and end. What all processes of one run notice, one says: the launcher ends the others meanwhile."""
    if not _first():
        time.sleep(5)  # seconds: the first is slow to end
    warn(line)
    sys.exit(code)


def _first():
    """Is this the only process, or the first of several? torchrun numbers them in RANK."""
    return os.environ.get("RANK", "0") == "0"


def _commands(process):
    """The commands that a process has started, and what a shell among them has: it passes no signal on."""
    try:
        for child in process.children():
            yield child
            if "python" not in child.name():
                yield from _commands(child)
    except psutil.Error:  # it has ended meanwhile
        return


@contextmanager
def _terminable():
    """Inside, SIGTERM ends our children and raises Stopped, so that files are closed and locks are let go.

    Of several processes (torchrun) the first does this; the others, which write nothing, die of it at once. Where
    the caller has said what SIGTERM means, so it stays.
    """
    owner = os.getpid()

    def stop(number, frame):
        if os.getpid() != owner:  # a forked worker has inherited this function: it has nothing to close
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut this; SIGKILL still does
        workers = {worker.pid for worker in multiprocessing.active_children()}  # their pool ends them
        for command in list(_commands(psutil.Process())):  # all of them, before the first is gone
            if command.pid not in workers:
                with suppress(psutil.Error):  # it has ended meanwhile
                    command.terminate()
        raise Stopped

    in_main_thread = threading.current_thread() is threading.main_thread()  # no other may set a handler
    ours = _first() and in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
