"""Hold a scan or a training job while a worker is on it, so that two never write for one.

The lease is a row with a fencing token. A thread renews it; a worker that finds that the token has
changed stops without writing. Therefore a broker that delivers a message twice, late, or after its
visibility time-out does no harm.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from guard.core.errors import GuardError, LeaseLost
from guard.flow.context import Guard
from guard.store import scans, training_jobs
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.store.rows import Lease, ScanRow
    from guard.store.training_rows import TrainingJobRow


class _Leased(Protocol):
    """A module of `guard.store` whose rows are held."""

    def claim(
        self, s: "Session", row_id: str, /, *, now: datetime, seconds: float
    ) -> "Lease | None":
        """Take a row, or None."""

    def check(self, s: "Session", lease: "Lease") -> None:
        """Raise LeaseLost where another worker took it."""

    def renew(self, s: "Session", lease: "Lease", now: datetime, seconds: float) -> None:
        """Hold it longer."""

    def release(self, s: "Session", lease: "Lease", *, done: bool = True) -> None:
        """Let it go."""


class _Holding:
    """A row that this worker holds until its lease is lost."""

    rows: _Leased

    def __init__(self, guard: Guard, lease: "Lease") -> None:
        self._guard, self.lease = guard, lease
        self._lost = threading.Event()
        self._done = threading.Event()

    def check(self, session: "Session") -> None:
        """Raise LeaseLost unless the row is still ours; called in the transaction that writes."""
        self.rows.check(session, self.lease)

    def alive(self, done: float = 0.0, note: str = "") -> None:
        """A progress callback that raises LeaseLost once another worker has taken over."""
        del done, note
        if self._lost.is_set():
            raise LeaseLost(f"Another worker took over {self.lease.scan_id}.")

    def keep(self) -> None:
        """Renew the lease after each third of its duration, until `release` or until it is lost."""
        period = self._guard.settings.lease_seconds / 3
        while not self._done.wait(period):
            try:
                with transaction(self._guard.engine) as session:
                    self.rows.renew(
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


class Held(_Holding):
    """A scan that this worker holds."""

    rows = scans

    @property
    def scan_id(self) -> str:
        """The id of the scan that is held."""
        return self.lease.scan_id

    def scan(self) -> "ScanRow":
        """The scan's row as it is now."""
        with reading(self._guard.engine) as session:
            return scans.get(session, self.scan_id)


class HeldJob(_Holding):
    """A training job that this worker holds."""

    rows = training_jobs

    def job(self) -> "TrainingJobRow":
        """The job's row as it is now."""
        with reading(self._guard.engine) as session:
            return training_jobs.get(session, self.lease.scan_id)


_H = TypeVar("_H", bound=_Holding)


@contextmanager
def hold(guard: Guard, scan_id: str) -> Iterator[Held | None]:
    """Hold a scan for the duration of the block; None where another worker holds it."""
    with _hold(guard, scan_id, Held) as held:
        yield held


@contextmanager
def hold_job(guard: Guard, job_id: str) -> Iterator[HeldJob | None]:
    """Hold a training job for the duration of the block; None where another worker holds it."""
    with _hold(guard, job_id, HeldJob) as held:
        yield held


@contextmanager
def _hold(guard: Guard, row_id: str, kind: type[_H]) -> Iterator[_H | None]:
    rows = kind.rows
    with transaction(guard.engine) as session:
        lease = rows.claim(session, row_id, now=guard.now(), seconds=guard.settings.lease_seconds)
    if lease is None:
        yield None
        return
    held = kind(guard, lease)
    keeper = threading.Thread(target=held.keep, name=f"lease-{row_id[:8]}", daemon=True)
    keeper.start()
    done = False
    try:
        yield held
        done = True
    finally:
        held.release()
        keeper.join(timeout=5)
        with transaction(guard.engine) as session:
            rows.release(session, lease, done=done)
