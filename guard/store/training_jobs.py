"""Jobs on training sets: who works on which, how far it is, and how it ends."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, select, update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.plain import from_plain, to_plain
from guard.core.training_jobs import OPEN_STATES, JobKind, JobOrder, JobState
from guard.store import _leases
from guard.store._read import insert_once, rows_of, table
from guard.store.rows import Lease
from guard.store.scope import EVERYTHING, Scope
from guard.store.training_rows import TrainingJobRow
from guard.store.training_tables import TrainingJob

_JOBS = table(TrainingJob)
MIN_PREFIX = 4
_LIVE = _JOBS.c.state.in_(OPEN_STATES)


def insert(
    s: Session,
    *,
    job_id: str,
    request: str,
    wanted: JobOrder,
    scan_id: str,
    principal: str,
    budget_seconds: float,
    now: datetime,
) -> bool:
    """Record a job in state `queued`; False where an open one has the same request."""
    values = {
        "id": job_id,
        "kind": wanted.kind,
        "request": request,
        "wanted": to_plain(wanted),
        "scan_id": scan_id,
        "artifact_digest": wanted.artifact,
        "state": JobState.QUEUED,
        "principal": principal,
        "budget_seconds": budget_seconds,
        "spent_seconds": 0.0,
        "done": 0.0,
        "note": "",
        "files": {},
        "attempts": 0,
        "lease_token": 0,
        "created_at": now,
        "updated_at": now,
    }
    return insert_once(s, TrainingJob, values)


def get(s: Session, id_or_prefix: str, scope: Scope = EVERYTHING) -> TrainingJobRow:
    """The job with this id, or the only one whose id starts with it (four characters or more).

    Raises:
        InputError: no such job in `scope`, or several.
    """
    seen = rows_of(TrainingJob).where(*scope.of_scan(_JOBS.c.scan_id))
    found = _rows(s, seen.where(_JOBS.c.id == id_or_prefix))
    if not found and len(id_or_prefix) >= MIN_PREFIX:
        starts = _JOBS.c.id.startswith(id_or_prefix, autoescape=True)
        found = _rows(s, seen.where(starts).limit(2))
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"Several training jobs have an id that starts with {id_or_prefix!r}; give more of it.",
            code="ambiguous_training_job",
        )
    raise InputError(
        f"There is no training job {id_or_prefix!r:.80}; `guard status` lists them.",
        code="unknown_training_job",
    )


def same(s: Session, request: str) -> TrainingJobRow | None:
    """The job for a request that is open, or else the newest that was done."""
    states = (*OPEN_STATES, JobState.DONE)
    where = (_JOBS.c.request == request, _JOBS.c.state.in_(states))
    found = _rows(s, rows_of(TrainingJob).where(*where).order_by(*_newest()))
    return min(found, key=lambda job: job.state is JobState.DONE, default=None)


def list_recent(
    s: Session,
    limit: int = 50,
    *,
    only_open: bool = False,
    kind: JobKind | None = None,
    scope: Scope = EVERYTHING,
) -> list[TrainingJobRow]:
    """The newest jobs first, of one kind if given."""
    seen = scope.of_scan(_JOBS.c.scan_id)
    statement = rows_of(TrainingJob).where(*seen).order_by(*_newest()).limit(limit)
    if only_open:
        statement = statement.where(_LIVE)
    if kind is not None:
        statement = statement.where(_JOBS.c.kind == kind)
    return _rows(s, statement)


def count_open(s: Session) -> int:
    """How many jobs are queued or running."""
    return int(s.execute(select(func.count()).select_from(_JOBS).where(_LIVE)).scalar_one())


def stuck(s: Session, now: datetime, *, quiet_seconds: float = 0.0) -> list[TrainingJobRow]:
    """Open jobs that nobody holds or touched for `quiet_seconds`, the oldest first."""
    quiet = _JOBS.c.updated_at <= now - timedelta(seconds=quiet_seconds)
    where = (_LIVE, _leases.free(_JOBS, now), quiet)
    return _rows(s, rows_of(TrainingJob).where(*where).order_by(_JOBS.c.updated_at))


def touch(s: Session, job_id: str, now: datetime) -> None:
    """Record that something was done for a job, so that `stuck` does not list it at once."""
    s.execute(update(_JOBS).where(_JOBS.c.id == job_id).values(updated_at=now))


def claim(s: Session, job_id: str, *, now: datetime, seconds: float) -> Lease | None:
    """Take a job for `seconds`; None if another worker holds it or there is no such job."""
    return _leases.claim(s, _JOBS, job_id, now=now, seconds=seconds)


def check(s: Session, lease: Lease) -> None:
    """Check that the lease is the latest one, and keep it so until this transaction ends.

    Raises:
        LeaseLost: another worker took the job over.
    """
    _leases.check(s, _JOBS, lease)


def renew(s: Session, lease: Lease, now: datetime, seconds: float) -> None:
    """Hold a job for `seconds` from now on; raises the errors of `check`."""
    _leases.renew(s, _JOBS, lease, now=now, seconds=seconds)


def release(s: Session, lease: Lease, *, done: bool = True) -> None:
    """Release a job; harmless if the lease was lost."""
    _leases.release(s, _JOBS, lease, done=done)


def keep(
    s: Session, lease: Lease, now: datetime, *, progressed: bool = False, **fields: Any
) -> str | None:
    """Write how far a held job is, or the files from which another worker goes on.

    Args:
        progressed: a worker that is killed now has lost nothing that counts, so that its attempts
            are counted anew.
        fields: columns of `TrainingJobRow`.

    Returns:
        Who wants the job to end; None where nobody does.

    Raises:
        LeaseLost: another worker took the job over.
    """
    values = {**fields, "state": JobState.RUNNING, "updated_at": now}
    if progressed:
        values["attempts"] = 1
    found = s.execute(
        update(_JOBS)
        .where(*_leases.mine(_JOBS, lease))
        .values(values)
        .returning(_JOBS.c.cancelled_by)
    ).first()
    if found is None:
        raise _leases.lost(_JOBS, lease)
    asked: str | None = found.cancelled_by
    return asked


def end(s: Session, lease: Lease, state: JobState, now: datetime, **fields: Any) -> None:
    """Put a held job into its last state; its files are no more than forgotten.

    Raises:
        LeaseLost: another worker took the job over.
    """
    check(s, lease)
    values = {**fields, "state": state, "files": {}, "seconds_left": None, "updated_at": now}
    values["ended_at"] = now
    s.execute(update(_JOBS).where(_JOBS.c.id == lease.scan_id).values(values))


def cancel(s: Session, job_id: str, by: str, now: datetime) -> TrainingJobRow:
    """Have an open job end: at once where nobody works on it, else its worker ends it soon.

    A job that has ended stays as it is.
    """
    mine = (_JOBS.c.id == job_id, _LIVE)
    s.execute(update(_JOBS).where(*mine).values(cancelled_by=by, updated_at=now))
    never_begun = (*mine, _JOBS.c.state == JobState.QUEUED, _leases.free(_JOBS, now))
    s.execute(update(_JOBS).where(*never_begun).values(state=JobState.CANCELLED, ended_at=now))
    return get(s, job_id)


def _newest() -> tuple[Any, Any]:
    return _JOBS.c.created_at.desc(), _JOBS.c.id


def _rows(s: Session, statement: Any) -> list[TrainingJobRow]:
    return [_row(found) for found in s.execute(statement)]


def _row(found: Row[Any]) -> TrainingJobRow:
    values = {str(name): value for name, value in found._mapping.items()}
    return TrainingJobRow(**{**values, "wanted": from_plain(JobOrder, values["wanted"])})
