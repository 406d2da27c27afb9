"""The files from which another worker goes on with a training, as blobs that the job's row names.

The job that trains has no credentials and writes its state into a folder; the worker that watches
it copies each new state into the blob store. A row that names a blob that is gone, or is not what
it was, begins anew: that costs time and changes no bit of the result.
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from guard.core.errors import GuardError, IntegrityMismatch
from guard.store import training_jobs
from guard.store.session import transaction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.flow._lease import HeldJob
    from guard.flow.context import Guard

#: Copying may take this share of the time: large states are copied less often.
SHARE = 0.1


class JobFiles:
    """The folder of one job's state, kept as blobs.

    Args:
        folder: where the job writes it.
    """

    def __init__(self, guard: "Guard", held: "HeldJob", folder: Path) -> None:
        self._guard, self._held, self._folder = guard, held, folder
        self._digests: dict[str, str] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._next = 0.0

    def restore(self, files: "Mapping[str, str]") -> None:
        """Bring what an earlier worker left into the folder, all of it or nothing."""
        self._folder.mkdir(mode=0o700)
        self._digests = dict(files)
        try:
            for name, digest in files.items():
                place = self._folder / Path(name).name
                with self._guard.blobs.open(digest) as blob, place.open("xb") as file:
                    shutil.copyfileobj(blob, file, 1 << 20)
                self._seen[name] = _mark(place.stat())
        except IntegrityMismatch:  # one is gone or damaged
            shutil.rmtree(self._folder)
            self._folder.mkdir(mode=0o700)
            self._seen.clear()

    def ship(self) -> None:
        """Copy what the job has written since the last time, where it is time again.

        Raises:
            LeaseLost: another worker took the job over; what was copied is named by no row.
        """
        begun = time.monotonic()
        if begun < self._next:
            return
        new: dict[str, tuple[int, int, int]] = {}
        digests = dict(self._digests)
        for place in sorted(self._folder.glob("[!.]*.*")):  # whole files only, and no lock
            with suppress(FileNotFoundError), place.open("rb") as file:
                mark = _mark(os.fstat(file.fileno()))
                if self._seen.get(place.name) != mark:
                    digests[place.name], _ = self._guard.blobs.put(
                        iter(lambda file=file: file.read(1 << 20), b"")  # type: ignore[misc]
                    )
                    new[place.name] = mark
        if not new:
            return
        with transaction(self._guard.engine) as session:
            now = self._guard.now()
            training_jobs.keep(session, self._held.lease, now, progressed=True, files=digests)
        old = set(self._digests.values()) - set(digests.values())
        self._digests = digests
        self._seen |= new
        forget(self._guard, old)
        ended = time.monotonic()
        self._next = ended + (ended - begun) * (1 / SHARE - 1)


def forget(guard: "Guard", digests: "set[str]") -> None:
    """Delete blobs that no row names any more; one that stays is only waste."""
    for digest in digests:
        with suppress(GuardError):
            guard.blobs.delete(digest)


def _mark(found: os.stat_result) -> tuple[int, int, int]:
    """What changes when a file is replaced."""
    return found.st_ino, found.st_mtime_ns, found.st_size
