"""Scans: who works on which, and every legal move between the states of `guard.core.states`."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, update
from sqlalchemy import select as sql_select
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.hooks import EventType
from guard.core.notes import ScanNotes, ScanProgress
from guard.core.states import ScanState, Verdict, may_move
from guard.store import _leases, hook_events
from guard.store._read import first, insert_once, many, rows_of, table
from guard.store.rows import Lease, ScanRow
from guard.store.scope import EVERYTHING, Scope
from guard.store.tables import LedgerEntry, Scan

_SCANS, _LEDGER = table(Scan), table(LedgerEntry)
_MOVABLE = frozenset(
    {
        "name",
        "upload_digest",
        "canonical_digest",
        "manifest",
        "cleanset_digest",
        "cleanset_name",
        "policy_digest",
        "verdict_id",
        "error",
        "detail",
    }
)
_RESTING = (ScanState.DONE, ScanState.FAILED)
MIN_PREFIX = 4


def insert(
    s: Session,
    *,
    scan_id: str,
    bucket: str,
    key: str,
    version_id: str | None,
    name: str,
    now: datetime,
    upload_digest: str | None = None,
    manifest: str | None = None,
    detail: ScanNotes | None = None,
    submitted_by: str | None = None,
    parent_scan_id: str | None = None,
    policy_digest: str | None = None,
    cleanset_name: str | None = None,
    cleanset_digest: str | None = None,
    uploaded_at: datetime | None = None,
) -> ScanRow:
    """Record a scan in state `queued`.

    An object version that already has its first scan is not recorded again: its existing row is
    returned, whose `id` is not `scan_id`. A re-scan gives `parent_scan_id` and is always a new row.
    """
    values = {
        "id": scan_id,
        "bucket": bucket,
        "key": key,
        "version_id": version_id,
        "name": name,
        "upload_digest": upload_digest,
        "manifest": manifest,
        "detail": detail or ScanNotes(),
        "submitted_by": submitted_by,
        "parent_scan_id": parent_scan_id,
        "policy_digest": policy_digest,
        "cleanset_name": cleanset_name,
        "uploaded_at": uploaded_at,
        "cleanset_digest": cleanset_digest,
        "state": ScanState.QUEUED,
        "attempts": 0,
        "lease_token": 0,
        "created_at": now,
        "updated_at": now,
    }
    if insert_once(s, Scan, values):
        if parent_scan_id is None:
            sentence, about = f"{name} was uploaded.", {"scan_id": scan_id, "name": name}
            digest = upload_digest or ""
            hook_events.emit(s, EventType.RECEIVED, now, sentence, digest=digest, **about)
        return _exactly(s, scan_id)
    there = _by_id(s, scan_id) or find_by_object(s, bucket, key, version_id)
    if there is None:
        raise InputError(
            f"The scan of s3://{bucket}/{key} could neither be recorded nor found; try again."
        )
    return there


def get(s: Session, id_or_prefix: str, scope: Scope = EVERYTHING) -> ScanRow:
    """The scan with this id, or the only one whose id starts with it (four characters or more).

    Raises:
        InputError: no such scan in `scope`, or several.
    """
    exact = _by_id(s, id_or_prefix, scope)
    if exact is not None:
        return exact
    found: list[ScanRow] = []
    if len(id_or_prefix) >= MIN_PREFIX:
        starts = _SCANS.c.id.startswith(id_or_prefix, autoescape=True)
        found = many(s, ScanRow, rows_of(Scan).where(starts, *scope.scans()).limit(2))
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"Several scans have an id that starts with {id_or_prefix!r}; give more of the id.",
            code="ambiguous_scan",
        )
    raise InputError(
        f"There is no scan {id_or_prefix!r}; `guard status` lists them.", code="unknown_scan"
    )


def by_ids(s: Session, ids: Collection[str]) -> dict[str, ScanRow]:
    """The scans with these ids, by id."""
    rows = many(s, ScanRow, rows_of(Scan).where(_SCANS.c.id.in_(list(ids)))) if ids else []
    return {row.id: row for row in rows}


def find_by_object(s: Session, bucket: str, key: str, version_id: str | None) -> ScanRow | None:
    """The latest scan of an object version, re-scans included."""
    where = (
        _SCANS.c.bucket == bucket,
        _SCANS.c.key == key,
        _SCANS.c.version_id.is_not_distinct_from(version_id),
    )
    return first(s, ScanRow, rows_of(Scan).where(*where).order_by(*_newest()).limit(1))


def for_digest(s: Session, digest: str, scope: Scope = EVERYTHING) -> list[ScanRow]:
    """Every scan whose upload or canonical file has this digest, the newest first."""
    where = or_(_SCANS.c.upload_digest == digest, _SCANS.c.canonical_digest == digest)
    return many(s, ScanRow, rows_of(Scan).where(where, *scope.scans()).order_by(*_newest()))


def list_recent(
    s: Session, limit: int = 50, *, state: ScanState | None = None, scope: Scope = EVERYTHING
) -> list[ScanRow]:
    """The newest scans first; of one state if given."""
    statement = rows_of(Scan).where(*scope.scans()).order_by(*_newest()).limit(limit)
    return many(
        s, ScanRow, statement if state is None else statement.where(_SCANS.c.state == state)
    )


def stuck(s: Session, now: datetime, *, quiet_seconds: float = 0.0) -> list[ScanRow]:
    """Unfinished scans that nobody holds or touched for `quiet_seconds`, the oldest first."""
    where = (
        _SCANS.c.state.not_in(_RESTING),
        _leases.free(_SCANS, now),
        _SCANS.c.updated_at <= now - timedelta(seconds=quiet_seconds),
    )
    return many(s, ScanRow, rows_of(Scan).where(*where).order_by(_SCANS.c.updated_at))


def claim(s: Session, scan_id: str, *, now: datetime, seconds: float) -> Lease | None:
    """Take a scan for `seconds`; None if another worker holds it or there is no such scan.

    The token grows with every claim: an older holder that resumes fails in `check`, `renew` and
    `move`.
    """
    return _leases.claim(s, _SCANS, scan_id, now=now, seconds=seconds)


def check(s: Session, lease: Lease) -> None:
    """Check that the lease is the latest one, and keep it so until this transaction ends.

    Raises:
        LeaseLost: another worker took the scan over.
    """
    _leases.check(s, _SCANS, lease)


def renew(s: Session, lease: Lease, now: datetime, seconds: float) -> None:
    """Hold a scan for `seconds` from now on; raises the errors of `check`."""
    _leases.renew(s, _SCANS, lease, now=now, seconds=seconds)


def release(s: Session, lease: Lease, *, done: bool = True) -> None:
    """Release a scan; harmless if the lease was lost.

    A stage that succeeded (`done`) resets the count of attempts; one that failed keeps it.
    """
    _leases.release(s, _SCANS, lease, done=done)


def forgive(s: Session, scan_id: str) -> None:
    """Take the last claim out of the count of attempts: a service was away, no worker crashed.

    Nothing is done where somebody holds the scan by now.
    """
    where = (_SCANS.c.id == scan_id, _SCANS.c.lease_until.is_(None), _SCANS.c.attempts > 0)
    s.execute(update(_SCANS).where(*where).values(attempts=_SCANS.c.attempts - 1))


def touch(s: Session, scan_id: str, now: datetime) -> None:
    """Record that something was done for a scan, so that `stuck` does not list it at once."""
    s.execute(update(_SCANS).where(_SCANS.c.id == scan_id).values(updated_at=now))


def show(s: Session, lease: Lease, now: datetime, progress: ScanProgress) -> None:
    """Note how far a scan is; raises the errors of `check`.

    Whoever moves the scan writes its notes as they were when the stage began, without this.
    """
    _leases.check(s, _SCANS, lease)
    notes = replace(_exactly(s, lease.scan_id).detail, progress=progress)
    where = _SCANS.c.id == lease.scan_id
    s.execute(update(_SCANS).where(where).values(detail=notes, updated_at=now))


def renew_verdict(s: Session, scan_id: str, verdict_id: str) -> None:
    """Record the verdict of a re-scan as the one in force for the first scan's model."""
    s.execute(update(_SCANS).where(_SCANS.c.id == scan_id).values(verdict_id=verdict_id))


def followers(s: Session, since: datetime) -> list[ScanRow]:
    """Scans that follow from another (re-scans, candidates): all unfinished and all since `since`.

    The newest come first.
    """
    where = (
        _SCANS.c.parent_scan_id.is_not(None),
        or_(_SCANS.c.state.not_in(_RESTING), _SCANS.c.created_at >= since),
    )
    return many(s, ScanRow, rows_of(Scan).where(*where).order_by(*_newest()))


def with_verdict(
    s: Session, verdicts: Collection[Verdict], *, before: datetime, limit: int
) -> list[ScanRow]:
    """The newest scans from before a time whose verdict in force is one of these."""
    where = (
        _SCANS.c.verdict_id == _LEDGER.c.id,
        _LEDGER.c.verdict.in_(list(verdicts)),
        _SCANS.c.created_at < before,
    )
    return many(s, ScanRow, rows_of(Scan).where(*where).order_by(*_newest()).limit(limit))


def latest_of_name(s: Session, name: str, scope: Scope = EVERYTHING) -> ScanRow | None:
    """The newest scan of a model of this name that has a verdict."""
    where = (_SCANS.c.name == name, _SCANS.c.verdict_id.is_not(None), *scope.scans())
    return first(s, ScanRow, rows_of(Scan).where(*where).order_by(*_newest()).limit(1))


def newest_under(s: Session, bucket: str, prefix: str, *, limit: int = 1000) -> list[ScanRow]:
    """Of each object at a prefix or below it the newest scan, which is no repair and no re-scan.

    Raises:
        InputError: there are more scans than `limit`.
    """
    where = (
        _SCANS.c.bucket == bucket,
        or_(_SCANS.c.key == prefix, _SCANS.c.key.startswith(f"{prefix}/", autoescape=True)),
        _SCANS.c.parent_scan_id.is_(None),
    )
    rows = many(s, ScanRow, rows_of(Scan).where(*where).order_by(*_newest()).limit(limit + 1))
    if len(rows) > limit:
        raise InputError(
            f"There are over {limit} scans under {prefix!r}; name a narrower place.",
            code="too_many_scans",
        )
    found: dict[str, ScanRow] = {}
    for row in rows:
        if row.detail.rescan is None:
            found.setdefault(row.key, row)
    return list(found.values())


def newest_upload(s: Session, name: str, scope: Scope = EVERYTHING) -> ScanRow | None:
    """The newest inspected upload of this name: no re-scan, repair or retrained network."""
    where = (
        _SCANS.c.name == name,
        _SCANS.c.parent_scan_id.is_(None),
        _SCANS.c.canonical_digest.is_not(None),
        *scope.scans(),
    )
    return first(s, ScanRow, rows_of(Scan).where(*where).order_by(*_newest()).limit(1))


def move(
    s: Session,
    scan_id: str,
    new_state: ScanState,
    now: datetime,
    *,
    lease: Lease | None = None,
    **fields: Any,
) -> ScanRow:
    """Put a scan into a state, and set `fields` (columns of `ScanRow`) in the same statement.

    Raises:
        InputError: no such scan, the move is not legal, or a field may not be set.
        LeaseLost: `lease` is given and no longer the latest.
    """
    odd = set(fields) - _MOVABLE
    if odd:
        raise InputError(
            f"A move may not set {', '.join(sorted(odd))}; it sets {', '.join(sorted(_MOVABLE))}."
        )
    found = s.execute(
        sql_select(_SCANS.c.state, _SCANS.c.lease_token)
        .where(_SCANS.c.id == scan_id)
        .with_for_update()
    ).first()
    if found is None:
        raise InputError(f"There is no scan {scan_id!r}.", code="unknown_scan")
    if lease is not None and (lease.scan_id, lease.token) != (scan_id, found.lease_token):
        raise _leases.lost(_SCANS, lease)
    if not may_move(found.state, new_state):
        raise InputError(
            f"Scan {scan_id} cannot go from {found.state} to {new_state}.", code="illegal_move"
        )
    values = {**fields, "state": new_state, "updated_at": now}
    s.execute(update(_SCANS).where(_SCANS.c.id == scan_id).values(values))
    row = _exactly(s, scan_id)
    if new_state is ScanState.FAILED is not found.state:
        sentence = f"The scan of {row.name} failed: {row.error or 'no reason is known'}"
        hook_events.emit(s, EventType.SCAN_FAILED, now, sentence, name=row.name, scan_id=scan_id)
    return row


def _newest() -> tuple[Any, Any]:
    return (_SCANS.c.created_at.desc(), _SCANS.c.id)


def _by_id(s: Session, scan_id: str, scope: Scope = EVERYTHING) -> ScanRow | None:
    return first(s, ScanRow, rows_of(Scan).where(_SCANS.c.id == scan_id, *scope.scans()))


def _exactly(s: Session, scan_id: str) -> ScanRow:
    return ScanRow(**s.execute(rows_of(Scan).where(_SCANS.c.id == scan_id)).one()._mapping)
