"""A file whose age shows whether a process still goes round its loop; probes look at it.

Neither broker nor database is asked: a process that waits for one of them is alive, and to start it
again would help nobody.
"""

import time
from contextlib import suppress
from pathlib import Path

FOLDER = "alive"  # in the data folder
EVERY = 10.0  # seconds between two touches


class Alive:
    """The file of one process.

    Args:
        data_dir: the process's data folder.
        name: what it is called among those that share the folder.
    """

    def __init__(self, data_dir: Path, name: str) -> None:
        self._path = data_dir / FOLDER / name
        self._last: float | None = None

    def mark(self) -> None:
        """Touch the file, if the last time is long enough ago.

        A full disk is no reason to stop: the file grows old, and the probe sees it.
        """
        now = time.monotonic()
        if self._last is not None and now - self._last < EVERY:
            return
        self._last = now
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)
