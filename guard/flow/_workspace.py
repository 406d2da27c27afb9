"""Private folders of stages, which are removed also after a process that was killed.

Whoever works in a folder holds a lock on it, which the kernel gives back at the process's end. A
folder that nobody holds is removed by whoever makes the next one.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Between the making of a folder and its lock; a job of a worker that was killed ends meanwhile.
GRACE_SECONDS = 60.0


@contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """A folder below `root` that is removed at the end of the block."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_abandoned(root)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(OSError):  # a file system without locks; there nobody gets one, see below
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(folder)
        finally:
            os.close(handle)


def _remove_abandoned(root: Path) -> None:
    limit = time.time() - GRACE_SECONDS
    for folder in root.iterdir():
        with suppress(OSError):  # somebody holds it, or was faster
            if folder.is_symlink() or folder.stat().st_mtime > limit:
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
