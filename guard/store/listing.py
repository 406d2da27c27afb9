"""What lists of the console show, page by page: bounded queries, whose number no row adds to.

A page goes on behind the key of the last row before it, never behind a count of rows; and no list
reads an envelope, a manifest or notes.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, literal_column, or_, select
from sqlalchemy.orm import Session, aliased

from guard.core.states import UNDECIDED, ScanState, Verdict
from guard.store._read import many, rows_of, table
from guard.store.rows import ActRow, AlarmRow, PublicationState
from guard.store.scope import EVERYTHING, Scope
from guard.store.tables import (
    ActRecord,
    Alarm,
    LedgerAct,
    LedgerEntry,
    Publication,
    Scan,
    Uploader,
)

_SCANS, _VERDICTS, _ACTS = table(Scan).c, table(LedgerEntry).c, table(ActRecord).c
_CHAIN = table(LedgerAct).c
_SERVED, _ALARMS, _UPLOADERS = table(Publication).c, table(Alarm).c, table(Uploader).c
MOST_NAMES = 20  # of a search; a longer text finds fewer
MIN_DIGEST = 6
RESTING = (ScanState.DONE, ScanState.FAILED)
_FAILED = frozenset({ScanState.FAILED})
Key = tuple[datetime, str]


@dataclass(frozen=True, kw_only=True)
class ScanLine:
    """A scan in a list; `verdict` is the one in force, None where there is none."""

    id: str
    name: str
    bucket: str
    key: str
    state: ScanState
    canonical_digest: str | None
    upload_digest: str | None
    submitted_by: str | None
    parent_scan_id: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    verdict: Verdict | None
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ServedLine:
    """A publication that should be served, with the verdict that counts on its digest."""

    name: str
    version: str
    digest: str
    publisher: str
    at: datetime
    verdict: Verdict | None
    expires_at: datetime | None
    scan_id: str | None


@dataclass(frozen=True, kw_only=True)
class VersionLine:
    """A version of a served name, withdrawn or not."""

    version: str
    digest: str
    state: PublicationState
    at: datetime
    withdrawn_at: datetime | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class VerdictLine:
    """A verdict in a history."""

    seq: int
    id: str
    scan_id: str
    verdict: Verdict
    issued_at: datetime
    expires_at: datetime


def scans(
    s: Session,
    limit: int,
    *,
    before: Key | None = None,
    states: Collection[ScanState] = (),
    scope: Scope = EVERYTHING,
) -> list[ScanLine]:
    """The newest scans first; of these states if any are given.

    Args:
        before: `created_at` and id of the last scan of the page before.
    """
    found = _lines(scope).order_by(_SCANS.created_at.desc(), _SCANS.id).limit(limit)
    if states:
        found = found.where(_in_states(frozenset(states)))
    if before is not None:
        at, last = before
        later = and_(_SCANS.created_at == at, _SCANS.id > last)
        found = found.where(_SCANS.created_at <= at, or_(_SCANS.created_at < at, later))
    return many(s, ScanLine, found)


def by_id(s: Session, ids: Collection[str], scope: Scope = EVERYTHING) -> dict[str, ScanLine]:
    """The scans with these ids."""
    rows = many(s, ScanLine, _lines(scope).where(_SCANS.id.in_(list(ids)))) if ids else []
    return {row.id: row for row in rows}


def of_digest(s: Session, digest: str, limit: int, scope: Scope = EVERYTHING) -> list[ScanLine]:
    """The newest scans of one artifact."""
    where = _SCANS.canonical_digest == digest
    return many(s, ScanLine, _newest(_lines(scope).where(where), limit))


def search(s: Session, text: str, limit: int, scope: Scope = EVERYTHING) -> list[ScanLine]:
    """The newest scans whose id or digest starts with `text`, whose name holds it, or of a person.

    Args:
        text: an uploader's whole name, any part of a model's name, or the first `MIN_DIGEST`
            characters of a digest or an id.
    """
    text = text.strip()
    if not text:
        return []
    names = (
        select(_SCANS.name)
        .where(_SCANS.name.icontains(text, autoescape=True), *scope.scans())
        .distinct()
        .limit(MOST_NAMES)
    )
    wanted: list[ColumnElement[bool]] = [_SCANS.name.in_(list(s.execute(names).scalars()))]
    seen = (_UPLOADERS.principal == text, *scope.of_scan(_UPLOADERS.scan_id))
    own = select(_UPLOADERS.scan_id).where(*seen).limit(limit)
    wanted.append(_SCANS.id.in_(list(s.execute(own).scalars())))
    wanted.append(_SCANS.submitted_by == text)
    low = text.lower()
    if len(low) >= MIN_DIGEST and set(low) <= set("0123456789abcdef"):
        columns = (_SCANS.id, _SCANS.canonical_digest, _SCANS.upload_digest)
        # A range, which an index serves; "g" comes after every hexadecimal digit.
        wanted += [and_(one >= low, one < low + "g") for one in columns]
    # One query a condition: of several joined by OR a planner may use no index.
    rows = {
        row.id: row
        for where in wanted
        for row in many(s, ScanLine, _newest(_lines(scope).where(where), limit))
    }
    return sorted(rows.values(), key=lambda row: (row.created_at, row.id), reverse=True)[:limit]


def served(
    s: Session,
    limit: int,
    *,
    after: tuple[str, str] | None = None,
    scope: Scope = EVERYTHING,
) -> list[ServedLine]:
    """What should be served, by name and version; behind `after`, the last of the page before."""
    found = _published(scope).order_by(_SERVED.name, _SERVED.version).limit(limit)
    if after is not None:
        name, version = after
        same = and_(_SERVED.name == name, _SERVED.version > version)
        found = found.where(_SERVED.name >= name, or_(_SERVED.name > name, same))
    return many(s, ServedLine, found)


def expiring(
    s: Session, now: datetime, until: datetime, limit: int, scope: Scope = EVERYTHING
) -> list[ServedLine]:
    """What is served and whose verdict ends between `now` and `until`, the soonest first."""
    ends = (_VERDICTS.expires_at >= now, _VERDICTS.expires_at <= until)
    found = _published(scope).where(*ends).order_by(_VERDICTS.expires_at, _SERVED.name).limit(limit)
    return many(s, ServedLine, found)


def of_artifact(
    s: Session, digest: str, limit: int, scope: Scope = EVERYTHING
) -> list[VerdictLine]:
    """The newest verdicts on an artifact."""
    columns = [_VERDICTS[name] for name in ("seq", "id", "scan_id", "verdict", "issued_at")]
    where = (_VERDICTS.artifact_digest == digest, *scope.of_scan(_VERDICTS.scan_id))
    found = select(*columns, _VERDICTS.expires_at).where(*where)
    return many(s, VerdictLine, found.order_by(_VERDICTS.seq.desc()).limit(limit))


def acts(
    s: Session,
    limit: int,
    *,
    before: int | None = None,
    principal: str = "",
    subjects: Sequence[str] = (),
    scope: Scope = EVERYTHING,
) -> list[ActRow]:
    """The newest acts first; behind number `before`, of one principal, about some subjects."""
    found = rows_of(ActRecord).where(*scope.acts()).order_by(_ACTS.seq.desc()).limit(limit)
    if before is not None:
        found = found.where(_ACTS.seq < before)
    if principal:
        found = found.where(_ACTS.principal == principal)
    if subjects:
        found = found.where(_ACTS.subject.in_(list(subjects)))
    return many(s, ActRow, found)


def seals(s: Session, ids: Sequence[str]) -> frozenset[str]:
    """Which of these acts the ledger's chain holds."""
    if not ids:
        return frozenset()
    found = select(_CHAIN.id).where(_CHAIN.id.in_(list(ids)))
    return frozenset(s.execute(found).scalars())


def versions_of(s: Session, name: str, limit: int, scope: Scope = EVERYTHING) -> list[VersionLine]:
    """What was given to serving under a name, the last first."""
    found = select(*(_SERVED[one] for one in VersionLine.__dataclass_fields__))
    found = found.where(_SERVED.name == name, *scope.published()).order_by(
        _SERVED.at.desc(), _SERVED.id
    )
    return many(s, VersionLine, found.limit(limit))


def alarms(
    s: Session,
    limit: int,
    *,
    before: Key | None = None,
    closed: bool = False,
    scope: Scope = EVERYTHING,
) -> list[AlarmRow]:
    """Open alarms, the newest first; with `closed` those that are over as well."""
    found = rows_of(Alarm).where(*scope.alarms(_ALARMS.subject))
    found = found.order_by(_ALARMS.at.desc(), _ALARMS.id).limit(limit)
    if not closed:
        found = found.where(_ALARMS.cleared_at.is_(None))
    if before is not None:
        at, last = before
        later = and_(_ALARMS.at == at, _ALARMS.id > last)
        found = found.where(_ALARMS.at <= at, or_(_ALARMS.at < at, later))
    return many(s, AlarmRow, found)


def open_of_kind(s: Session, kinds: Sequence[str], scope: Scope = EVERYTHING) -> list[AlarmRow]:
    """The open alarms of some kinds."""
    where = (
        _ALARMS.cleared_at.is_(None),
        _ALARMS.kind.in_(list(kinds)),
        *scope.alarms(_ALARMS.subject),
    )
    return many(s, AlarmRow, rows_of(Alarm).where(*where).limit(len(kinds)))


def open_alarms(s: Session, most: int, scope: Scope = EVERYTHING) -> int:
    """How many alarms are open; no more than `most` are counted."""
    where = (_ALARMS.cleared_at.is_(None), *scope.alarms(_ALARMS.subject))
    some = select(_ALARMS.id).where(*where).limit(most).subquery()
    return int(s.execute(select(func.count()).select_from(some)).scalar_one())


def _lines(scope: Scope) -> Select[Any]:
    columns = [_SCANS[name] for name in ScanLine.__dataclass_fields__ if name in _SCANS]
    found = select(*columns, _VERDICTS.verdict, _VERDICTS.expires_at).join_from(
        table(Scan), table(LedgerEntry), _VERDICTS.id == _SCANS.verdict_id, isouter=True
    )
    return found.where(*scope.scans())


def _in_states(states: frozenset[ScanState]) -> ColumnElement[bool]:
    """The condition that a scan is in one of these states, as an index has it where one does.

    A planner uses a partial index only where the condition holds no parameter.
    """
    if states == _FAILED:
        return _SCANS.state == literal_column("'failed'")
    if states == frozenset(ScanState).difference(RESTING):
        return and_(*(_SCANS.state != literal_column(f"'{one}'") for one in RESTING))
    return _SCANS.state.in_(list(states))


def _newest(found: Select[Any], limit: int) -> Select[Any]:
    return found.order_by(_SCANS.created_at.desc(), _SCANS.id).limit(limit)


def _published(scope: Scope) -> Select[Any]:
    later = aliased(LedgerEntry)
    newer = (
        select(later.seq)
        .where(
            later.artifact_digest == _SERVED.digest,
            later.seq > _VERDICTS.seq,
            later.verdict.not_in(list(UNDECIDED)),
        )
        .exists()
    )
    counts = and_(
        _VERDICTS.artifact_digest == _SERVED.digest,
        _VERDICTS.verdict.not_in(list(UNDECIDED)),
        ~newer,
    )
    columns = [_SERVED[name] for name in ServedLine.__dataclass_fields__ if name in _SERVED]
    return (
        select(*columns, _VERDICTS.verdict, _VERDICTS.expires_at, _VERDICTS.scan_id)
        .join_from(table(Publication), table(LedgerEntry), counts, isouter=True)
        .where(_SERVED.state == PublicationState.ACTIVE, *scope.published())
    )
