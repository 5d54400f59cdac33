"""Mistakes of a person, told in one line: the errors of this project, and how a script ends with one.

Who needs it: everyone who reads a file or a flag, from the first script on. A typo in a path should cost one
line, not a stack of library frames; a bug in the code should still show its traceback. So what a person did
is a BadInput, raised where it is noticed with its cure in the message, and `run_main` turns it into that one
line. All else stays as it is.

Next: runs/files.py
"""
import errno
import sys


class BadInput(ValueError):
    """A mistake in a file, a row or an option. The message is one line that names it and its cure."""


class BadMedia(BadInput):
    """A picture or video that cannot be used. Its sample is left out and counted, see Argos.usable."""


def out_of_memory(error):
    """Whether CUDA says that the GPU's memory is full. By name: who only reads errors need not import torch."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    begins = ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and str(error).startswith(begins)


def run_main(main):
    """Run a script's main().

    Bad input, a full disk and a full GPU become one line on stderr and exit code 2; Ctrl-C becomes one line and
    130, the shell's code for it.
    """
    try:
        main()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; what was written stays, and scripts that have --resume continue after it",
              file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error.filename or 'writing'}: the disk is full; make room, then run it again "
              "(with --resume, where there is one)", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        first_line = str(error).strip().partition("\n")[0][:200]
        print(f"error: the GPU's memory is full ({first_line}); lower --micro_batch, --sample_batch, --batch or "
              "--image_pixels, or name smaller teachers; train_grpo.py --dry_run lists what takes how much; then "
              "run it again (with --resume, where there is one)", file=sys.stderr)
        sys.exit(2)
