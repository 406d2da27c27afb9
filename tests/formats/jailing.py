"""Programs to run inside the jail in place of the converter.

And whether this machine has a jail at all.
"""

import io
import os

import pytest

from guard.core.contracts import Budget
from guard.core.errors import Unavailable
from guard.formats._jail import run_jailed

LOCKS = """
import ctypes, json, os, pickle, resource, socket, sys, threading
from guard.formats import _locks
limits = json.loads(sys.argv[1])
own = _locks.leave_the_world()
_locks.lock(memory_bytes=limits["memory_bytes"], cpu_seconds=limits["cpu_seconds"], drop_user=not own)
os.write(1, b"L")
"""  # noqa: E501 - a script of its own


def jailed(
    body: str, *, data: bytes = b"", budget: Budget | None = None, locks: str = LOCKS
) -> bytes:
    """What `body` says on descriptor 1 after b"S".

    When it runs in the jail with `data` on descriptor 0.
    """
    out = io.BytesIO()
    run_jailed(
        io.BytesIO(data), out, budget=budget or Budget(seconds=20), program=("-c", locks + body)
    )
    return out.getvalue()


def _has_jail() -> bool:
    try:
        return jailed("os.write(1, b'Sok')") == b"ok"
    except Unavailable:
        return False


needs_jail = pytest.mark.skipif(
    not _has_jail() and "CI" not in os.environ,
    reason="no Landlock or seccomp here; PyTorch files are refused",
)
