"""What happens to what is served as its verdict ages: alarms, and the policy's `on_expiry`."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from guard.attest import gate
from guard.core.errors import IntegrityMismatch, NotServable
from guard.core.notes import Rescan, ScanNotes
from guard.core.states import SERVABLE_VERDICTS, UNDECIDED, GateMode, ScanState, Verdict, WouldBe
from guard.core.verdict import Gated
from guard.flow import _newest, _warning
from guard.flow._modality import for_scan, for_scan_in, in_force
from guard.flow._verdict import Terms, write
from guard.flow.context import Guard
from guard.flow.signed import signed
from guard.store import alarms, ledger, publications, revocations, scans
from guard.store.rows import LedgerRow, PublicationRow, ScanRow
from guard.store.session import reading, transaction

EXPIRING, EXTENDED = "verdict_expiring", "verdict_extended"
#: How long an extension lasts.
EXTENSION = timedelta(days=1)


def act(guard: Guard) -> None:
    """Raise and clear the alarms, and apply `on_expiry` to what no re-scan renewed in time."""
    now = guard.now()
    last = now + timedelta(seconds=2 * guard.settings.rescan_seconds)
    aging: dict[str, tuple[ScanRow, LedgerRow, str]] = {}
    with reading(guard.engine) as session:
        for publication in publications.active(session):
            root = root_of(session, publication)
            if root is None or root.verdict_id is None:
                continue
            row = ledger.get(session, root.verdict_id)
            own = for_scan_in(guard, session, root)
            # Half of the time for a re-scan is over: a person has the other half.
            late = now + timedelta(seconds=own.policy.rescan_before_seconds / 2)
            if row.expires_at <= late and may_be_served(row):
                aging[f"{publication.name} {publication.version}"] = (
                    root,
                    row,
                    own.policy.lifetime.on_expiry,
                )
        warned = _warning.let_through(session)
    _alarm(guard, {subject: (row, then) for subject, (_, row, then) in aging.items()}, warned)
    for subject, (root, row, _) in aging.items():
        own = for_scan(guard, root)
        if row.expires_at <= last and (now < row.expires_at or _warns(own)):
            _at_the_end(own, subject, root, row)


def extend_late(guard: Guard) -> None:
    """Where the gate only warns: extend what ended before `act` came to it, after an outage say."""
    late: dict[str, tuple[ScanRow, LedgerRow]] = {}
    with reading(guard.engine) as session:
        policies = in_force(guard, session)
        if not any(policy.gate_mode is GateMode.WARN for policy in policies):
            return
        for publication in publications.active(session):
            root = root_of(session, publication)
            newest = _newest.verdict(session, publication.digest, guard.trusted, root)
            if newest is None or guard.now() < newest.expires_at or not may_be_served(newest):
                continue
            if root is not None:
                late[f"{publication.name} {publication.version}"] = (root, newest)
    for subject, (root, row) in late.items():
        own = for_scan(guard, root)
        if _warns(own):
            _at_the_end(own, subject, root, row)


def _warns(guard: Guard) -> bool:
    return guard.policy.gate_mode is GateMode.WARN


def root_of(session: Session, row: PublicationRow) -> ScanRow | None:
    """The newest scan of what was published, by the name it was published under; no re-scan.

    One that decided, where there is one: an upload of the same bytes that nobody could look at
    vouches for nothing, and must not keep what vouches from being renewed.
    """
    found = [
        scan
        for scan in scans.for_digest(session, row.digest)
        if scan.canonical_digest == row.digest
        and scan.name == row.name
        and scan.verdict_id is not None
        and scan.detail.rescan is None
    ]
    if len(found) > 1:
        found.sort(key=lambda scan: ledger.get(session, scan.verdict_id or "").verdict in UNDECIDED)
    return found[0] if found else None


def may_be_served(row: LedgerRow) -> bool:
    """Whether the row names a verdict under which something is served; the gate decides."""
    stated = signed(row.envelope).gate
    return row.verdict in SERVABLE_VERDICTS or (stated is not None and stated.let_through)


def only_extended(row: LedgerRow) -> bool:
    """Whether the verdict had ended, and a gate that only warned went on serving the model."""
    stated = signed(row.envelope).gate
    return stated is not None and stated.would_be is WouldBe.EXPIRED


def is_approval(row: LedgerRow) -> bool:
    """Whether a person gave the verdict."""
    return signed(row.envelope).basis["kind"] == "review"


def insert(session: Session, root: ScanRow, notes: ScanNotes, now: datetime) -> ScanRow:
    """A new scan of an artifact that was inspected before, in the state `inspecting`."""
    made = scans.insert(
        session,
        scan_id=uuid.uuid4().hex,
        bucket=root.bucket,
        key=root.key,
        version_id=root.version_id,
        name=root.name,
        now=now,
        upload_digest=root.upload_digest,
        manifest=root.manifest,
        detail=notes,
        submitted_by=root.submitted_by,
        parent_scan_id=root.id,
    )
    return scans.move(
        session, made.id, ScanState.INSPECTING, now, canonical_digest=root.canonical_digest
    )


def _alarm(
    guard: Guard, aging: Mapping[str, tuple[LedgerRow, str]], warned: Mapping[str, Gated]
) -> None:
    now = guard.now()
    with transaction(guard.engine) as session:
        _warning.alarm(session, warned, now)
        for subject, (row, then) in aging.items():
            sentence = (
                f"The verdict ends at {row.expires_at:%Y-%m-%d %H:%M} UTC and no re-scan has "
                f"renewed it; on_expiry is {then}."
            )
            alarms.raise_(session, EXPIRING, subject, sentence, now)
        for kind in (EXPIRING, EXTENDED):
            for alarm in alarms.open_alarms(session, kind):
                if alarm.subject not in aging:
                    alarms.clear(session, kind, alarm.subject, now)


def _at_the_end(guard: Guard, subject: str, root: ScanRow, row: LedgerRow) -> None:
    rule = guard.policy.lifetime.on_expiry
    what = "warn" if _warns(guard) else rule
    if what == "unpublish":
        return  # the gate refuses what has expired, and reconcile removes it
    with reading(guard.engine) as session:
        giver, revoked = scans.get(session, row.scan_id), revocations.digests(session)
    try:
        facts = gate.servable(
            row.envelope,
            guard.trusted,
            digest=row.artifact_digest,
            now=min(guard.now(), row.expires_at - timedelta(microseconds=1)),
            revoked=revoked,
            mode=guard.policy.gate_mode,
            ledger_row=row,
        ).facts
    except (NotServable, IntegrityMismatch):
        return
    if facts.waivers and what == "warn":
        return  # a verdict that rests on a waiver ends with it
    terms = Terms(
        then="publish",
        basis={"kind": "extension", "verdict": row.id},
        until=max(guard.now(), row.expires_at) + EXTENSION,
        extends=rule != "warn",
    )
    if what == "review":
        sentence = "Its verdict ended before a re-scan could renew it; a person must look."
        facts, terms = facts.reviewed(Verdict.HELD, sentence), Terms()
    with transaction(guard.engine) as session:
        notes = replace(
            giver.detail,
            reuses=None,
            trace=None,
            rescan=Rescan(of=root.id, why=what, extension=True),
        )
        scan = insert(session, root, notes, guard.now())
        scan = scans.move(
            session,
            scan.id,
            ScanState.DECIDING,
            guard.now(),
            cleanset_digest=giver.cleanset_digest,
            cleanset_name=giver.cleanset_name,
        )
        write(guard, session, scan, row.artifact_digest, facts, terms)
        if what == "warn":
            detail = "Served on an extension of its verdict; no re-scan has renewed it."
            alarms.raise_(session, EXTENDED, subject, detail, guard.now())
