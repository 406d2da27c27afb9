"""Becomes the program of one component, after asking the kernel to end it when the supervisor dies.

Run as a script, isolated: `python -I -S _child.py SIGNAL PARENT PROGRAM [ARGUMENT...]`. Linux only;
elsewhere the program simply outlives a supervisor that was killed, until the next start finds it.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Replace this process by the program; exits with 1 if the supervisor is gone already."""
    signal_number, parent, program = int(arguments[0]), int(arguments[1]), arguments[2]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    # It may have died between fork and prctl.
    if os.getppid() != parent:
        raise SystemExit(1)
    os.execv(program, arguments[2:])  # noqa: S606 - the arguments are the supervisor's own


if __name__ == "__main__":
    main(sys.argv[1:])
