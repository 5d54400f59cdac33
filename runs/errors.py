"""Mistakes of a person, told in one line: the errors of this project, and how a script ends with one."""
import errno
import sys


# ---- 1. Files ---------------------------------------------------------------------------------------------------------
class BadInput(ValueError):
    """A mistake in a file, a row or an option. The message is one line that names it and its cure."""


class BadMedia(BadInput):
    """A picture or video that cannot be used. Training and evaluation leave its sample out and count it: Argos.usable."""


def run_main(main):
    """Run a script's main(): bad input or a full disk becomes one line on stderr and exit code 2, Ctrl-C one line and 130."""
    try:
        main()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; what was written stays, and scripts that have --resume continue after it", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error.filename or 'writing'}: the disk is full; make room, then run it again (with --resume, where there is one)", file=sys.stderr)
        sys.exit(2)
