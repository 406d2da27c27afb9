"""Hold a scan while a stage works on it, so that two workers never write for one scan.

The lease is a row with a fencing token. A thread renews it; a worker that finds that the token has
changed stops without writing. Therefore a broker that delivers a message twice, late, or after its
visibility time-out does no harm.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from guard.core.errors import GuardError, LeaseLost
from guard.flow.context import Guard
from guard.store import scans
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.store.rows import Lease, ScanRow


class Held:
    """A scan that this worker holds until its lease is lost."""

    def __init__(self, guard: Guard, lease: "Lease") -> None:
        self._guard, self.lease = guard, lease
        self._lost = threading.Event()
        self._done = threading.Event()

    @property
    def scan_id(self) -> str:
        """The id of the scan that is held."""
        return self.lease.scan_id

    def scan(self) -> "ScanRow":
        """The scan's row as it is now."""
        with reading(self._guard.engine) as session:
            return scans.get(session, self.scan_id)

    def check(self, session: "Session") -> None:
        """Raise LeaseLost unless the scan is still ours; called in the transaction that writes."""
        scans.check(session, self.lease)

    def alive(self, done: float = 0.0, note: str = "") -> None:
        """A progress callback that raises LeaseLost once another worker has taken over."""
        del done, note
        if self._lost.is_set():
            raise LeaseLost(f"Another worker took over scan {self.scan_id}.")

    def keep(self) -> None:
        """Renew the lease after each third of its duration, until `release` or until it is lost."""
        period = self._guard.settings.lease_seconds / 3
        while not self._done.wait(period):
            try:
                with transaction(self._guard.engine) as session:
                    scans.renew(
                        session,
                        self.lease,
                        now=self._guard.now(),
                        seconds=self._guard.settings.lease_seconds,
                    )
            except LeaseLost:
                self._lost.set()
                return
            except GuardError:
                # The database does not answer; the lease may outlast that, and `check` decides
                # before any write.
                continue

    def release(self) -> None:
        """End `keep`; the caller releases the row."""
        self._done.set()


@contextmanager
def hold(guard: Guard, scan_id: str) -> Iterator[Held | None]:
    """Hold a scan for the duration of the block; None where another worker holds it."""
    with transaction(guard.engine) as session:
        lease = scans.claim(session, scan_id, now=guard.now(), seconds=guard.settings.lease_seconds)
    if lease is None:
        yield None
        return
    held = Held(guard, lease)
    keeper = threading.Thread(target=held.keep, name=f"lease-{scan_id[:8]}", daemon=True)
    keeper.start()
    done = False
    try:
        yield held
        done = True
    finally:
        held.release()
        keeper.join(timeout=5)
        with transaction(guard.engine) as session:
            scans.release(session, lease, done=done)
