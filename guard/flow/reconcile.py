"""Compare what is served with what may be served, and remove, restore and report the difference.

The gate decides from signed verdicts; rows only say what to look for. If the process is killed at
any line and runs again, the result is the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from guard.core.contracts import Publisher, Served
from guard.core.errors import GuardError, IntegrityMismatch, NotServable
from guard.core.states import GateMode, ScanState
from guard.flow import _newest
from guard.flow._aging import extend_late, root_of
from guard.flow._modality import mode_of
from guard.flow._seal import tend
from guard.flow._standing import Standing, standing
from guard.flow._warning import permission
from guard.flow.context import Guard
from guard.store import alarms, exhibits, outbox, projects, publications, scans
from guard.store.rows import LedgerRow, PublicationRow, ScanRow
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from guard.attest.keys import TrustedKeys
    from guard.blobs import Blobs

Republish = Callable[[PublicationRow], None]
Mode = Callable[["Session", ScanRow | None], GateMode]
_MANY = 1000
#: Under this name the database keeps when what is served was last compared with what may be.
HEARTBEAT = "reconcile"


class Kind(StrEnum):
    """What reconcile did about one model."""

    WITHDRAWN = "withdrawn"  # it was served and must not be
    CLOSED = "closed"  # its publication was active, but its verdict no longer holds
    REPUBLISHED = "republished"  # it should be served and was not, or was not the default
    MISSING = "missing"  # the same, but it cannot be restored now
    STUCK = "stuck"  # it must not be served and could not be removed


@dataclass(frozen=True, kw_only=True)
class Action:
    """One difference and what was done about it."""

    kind: Kind
    name: str
    version: str
    digest: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """One difference to act on; `row` is the publication concerned, where there is one."""

    kind: Kind
    name: str
    version: str
    digest: str | None
    reason: str
    row: PublicationRow | None = None

    @property
    def key(self) -> tuple[Kind, str, str]:
        """Two differences with this key are the same one."""
        return (self.kind, self.name, self.version)


@dataclass(frozen=True, kw_only=True)
class _Records:
    """The database's rows, read in one transaction, and what they are judged by."""

    standing: Standing
    trusted: "TrustedKeys"
    now: datetime
    modes: Mapping[tuple[str, str], GateMode]  # by (name, digest)
    active: tuple[PublicationRow, ...]  # by name and age
    verdicts: Mapping[tuple[str, str], LedgerRow | None]  # that count, by (name, digest)
    underway: frozenset[tuple[str, str]]  # (name, digest) that a worker is publishing now


def reconcile_guard(guard: Guard) -> list[Action]:
    """Run `reconcile` with the parts of a Guard.

    A missing model is published again by the `publish` stage of its own scan.

    Raises:
        Unavailable: serving or the database did not answer.
    """

    def republish(row: PublicationRow) -> None:
        with transaction(guard.engine) as session:
            finished = [
                scan
                for scan in scans.for_digest(session, row.digest)
                if scan.canonical_digest == row.digest
                and scan.name == row.name
                and scan.state is ScanState.DONE
                and scan.verdict_id
            ]
            if not finished:
                raise NotServable(
                    f"No finished scan of {row.digest[:12]} is left to publish from; scan it again."
                )
            # Of a scan and its re-scans, the one that has the verdict that counts.
            latest = _newest.verdict(session, row.digest, guard.trusted, finished[0])
            finished.sort(key=lambda scan: latest is None or scan.verdict_id != latest.id)
            # The stage asks the gate again before it publishes.
            scans.move(session, finished[0].id, ScanState.PUBLISHING, guard.now())
            outbox.add(session, "publish", {"scan_id": finished[0].id}, guard.now())

    tend(guard)
    extend_late(guard)
    found = reconcile(
        guard.engine,
        guard.publisher,
        guard.trusted,
        guard.blobs,
        guard.now(),
        republish,
        standing=lambda: standing(guard, patient=True),
        mode=lambda session, scan: mode_of(guard, session, scan),
    )
    with transaction(guard.engine) as session:
        exhibits.beat(session, HEARTBEAT, guard.now())
    return found


def reconcile(
    engine: "Engine",
    publisher: Publisher,
    trusted: "TrustedKeys",
    blobs: "Blobs",
    now: datetime,
    republish: Republish,
    *,
    standing: Callable[[], Standing],
    mode: Mode = lambda _session, _scan: GateMode.ENFORCE,
) -> list[Action]:
    """Find and act on every difference; each one also raises an alarm.

    Args:
        republish: asked to publish an active publication again; raises GuardError where that cannot
            be done.
        standing: what is revoked, and whether the ledger agrees with its checkpoints. Where it does
            not, things are taken out of serving as ever, and nothing is put back.
        mode: the gate's, by the policy that rules a scan; None is asked for where no project has a
            policy of its own. Where it enforces, what was let through is taken
            out; where it warns, only a signed release that says so keeps a model in service.

    Returns:
        What was done; empty where serving is as it should be.

    Raises:
        Unavailable: serving or the database did not answer.
    """

    def look() -> list[_Difference]:
        ledger_now, state = standing(), publisher.state()
        return _look(state, _read(engine, ledger_now, trusted, now, mode))

    differences = look()
    if differences:
        # A publish or a withdrawal may have ended between asking serving and reading the books:
        # look twice.
        again = {difference.key for difference in look()}
        differences = [difference for difference in differences if difference.key in again]
    acts = {
        Kind.CLOSED: lambda one: _close(engine, one, now),
        Kind.WITHDRAWN: lambda one: _remove(engine, publisher, one, now),
        Kind.REPUBLISHED: lambda one: _restore(engine, blobs, republish, one, now),
    }
    return [acts[difference.kind](difference) for difference in differences]


def _look(state: list[Served], records: _Records) -> list[_Difference]:
    """All differences, in the order in which they are acted on."""
    refused = {
        row.id: reason
        for row in records.active
        if (reason := _refusal(row.name, row.digest, records, row))
    }
    found = [
        _Difference(
            kind=Kind.CLOSED,
            name=row.name,
            version=row.version,
            digest=row.digest,
            row=row,
            reason=refused[row.id],
        )
        for row in records.active
        if row.id in refused
    ]
    rows = {(row.name, row.version): row for row in records.active}
    # The default is removed last: TorchServe keeps it as long as there are other versions.
    for one in sorted(state, key=lambda one: one.default):
        row = rows.get((one.name, one.version))
        reason = refused[row.id] if row and row.id in refused else _objection(one, row, records)
        if reason:
            found.append(
                _Difference(
                    kind=Kind.WITHDRAWN,
                    name=one.name,
                    version=one.version,
                    digest=one.digest,
                    reason=reason,
                )
            )
    removed = {(one.name, one.version) for one in found}
    served = {(one.name, one.version) for one in state if one.ready and one.default} - removed
    # Rows are ordered by age, so the newest of each name remains.
    newest = {row.name: row for row in records.active if row.id not in refused}
    # Serving switches to the new version before the database records it.
    replaced = {name for name, _ in records.underway}
    return found + [
        _Difference(
            kind=Kind.REPUBLISHED,
            name=row.name,
            version=row.version,
            digest=row.digest,
            row=row,
            reason="it is vetted and active, but was not served by default",
        )
        for row in newest.values()
        if (row.name, row.version) not in served
        and row.name not in replaced
        and not records.standing.broken
    ]


def _read(
    engine: "Engine", ledger_now: Standing, trusted: "TrustedKeys", now: datetime, mode: Mode
) -> _Records:
    with reading(engine) as session:
        active = tuple(publications.active(session))
        underway = scans.list_recent(session, _MANY, state=ScanState.PUBLISHING)
        # What each rests on; None where one policy rules all.
        apart = bool(projects.with_policy(session))
        roots = {
            (row.name, row.digest): root_of(session, row) if apart else None for row in active
        } | {
            (scan.name, scan.canonical_digest): scan if apart else None
            for scan in underway
            if scan.canonical_digest
        }
        return _Records(
            standing=ledger_now,
            trusted=trusted,
            now=now,
            modes={key: mode(session, scan) for key, scan in roots.items()},
            active=active,
            verdicts={
                key: _newest.verdict(session, key[1], trusted, scan) for key, scan in roots.items()
            },
            underway=frozenset(
                (scan.name, scan.canonical_digest) for scan in underway if scan.canonical_digest
            ),
        )


def _refusal(name: str, digest: str, records: _Records, row: PublicationRow | None = None) -> str:
    """Why the gate refuses a digest under a name; "" where it allows it.

    `row` is its active publication, if it has one: where the gate only warns, its signed release
    has to say so, unless a worker is just publishing it anew.
    """
    verdict = records.verdicts.get((name, digest))
    if verdict is None:
        return "there is no verdict about it"
    if row is not None and (name, digest) in records.underway:
        row = None
    try:
        permission(
            verdict,
            row,
            records.trusted,
            now=records.now,
            revoked=records.standing.revoked,
            mode=records.modes[name, digest],
        )
    except (NotServable, IntegrityMismatch) as error:
        return error.sentence
    return ""


def _objection(
    one: Served,
    row: PublicationRow | None,
    records: _Records,
) -> str:
    """Why a served model must not be served; "" where it may.

    `row` is its active publication, if the gate allows that one.
    """
    problem = str(one.detail.get("problem", ""))
    if row is not None:
        if one.digest is None and not one.ready:
            return ""  # it does not answer yet; TorchServe may still be unpacking it
        if one.digest != row.digest:
            return problem or f"it serves {str(one.digest)[:12]}, not the vetted {row.digest[:12]}"
        return problem
    # A publishing worker has the model served before it can record the publication.
    underway = {digest for name, digest in records.underway if name == one.name}
    if one.digest in underway and not problem:
        return _refusal(one.name, str(one.digest), records)
    if underway and one.digest is None and not one.ready:
        return ""
    return problem or "it is not an active publication of the guard"


def _remove(engine: "Engine", publisher: Publisher, one: _Difference, now: datetime) -> Action:
    try:
        publisher.withdraw(one.name, one.version)
    except GuardError as error:
        # A failure to remove one model must not keep the others served.
        return _report(
            engine, one, Kind.STUCK, f"{one.reason}; it could not be removed: {error.sentence}", now
        )
    return _report(engine, one, one.kind, one.reason, now)


def _close(engine: "Engine", one: _Difference, now: datetime) -> Action:
    if one.row is not None:
        with transaction(engine) as session:
            publications.withdraw(session, one.row.id, reason=one.reason, now=now)
    return _report(engine, one, one.kind, one.reason, now)


def _restore(
    engine: "Engine", blobs: "Blobs", republish: Republish, one: _Difference, now: datetime
) -> Action:
    try:
        if one.row is None or not blobs.has(one.row.digest):
            raise NotServable(f"The bytes of {str(one.digest)[:12]} are not in the blob store.")
        republish(one.row)
    except GuardError as error:
        return _report(
            engine,
            one,
            Kind.MISSING,
            f"{one.reason}; it could not be restored: {error.sentence}",
            now,
        )
    return _report(engine, one, one.kind, one.reason, now)


def _report(engine: "Engine", one: _Difference, kind: Kind, reason: str, now: datetime) -> Action:
    with transaction(engine) as session:
        alarms.raise_(session, f"serving_{kind}", f"{one.name} {one.version}".strip(), reason, now)
    return Action(kind=kind, name=one.name, version=one.version, digest=one.digest, reason=reason)
