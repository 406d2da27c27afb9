"""Run the program of one component so that it ends when the supervisor dies.

Run as an isolated script: `python -I -S _child.py SIGNAL PARENT PROGRAM [ARGUMENT...]`. It asks the
kernel to send SIGNAL when PARENT dies. That works on Linux only; elsewhere the program outlives a
supervisor that was killed, until the next start finds it.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Replace this process by the program; exit with 1 if the supervisor is gone already."""
    signal_number, parent, program = int(arguments[0]), int(arguments[1]), arguments[2]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    # The parent may have died between fork and prctl.
    if os.getppid() != parent:
        raise SystemExit(1)
    os.execv(program, arguments[2:])  # noqa: S606 - the arguments are the supervisor's own


if __name__ == "__main__":
    main(sys.argv[1:])
