"""Sign a verdict, append it to the ledger and move the scan, in one commit or not at all."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from guard.attest import dsse, statement
from guard.core.states import ScanState
from guard.core.verdict import VerdictFacts
from guard.flow import _happened
from guard.flow._acts import changed_policy
from guard.flow._lease import Held
from guard.flow._modality import for_scan_in
from guard.flow._seal import seal
from guard.flow._warning import gated
from guard.flow.context import Guard
from guard.store import ledger, outbox, scans
from guard.store.rows import Lease, ScanRow
from guard.store.session import transaction

#: What a scan does after a verdict: the state it moves to and the task that works on it.
AFTER: Mapping[str, tuple[ScanState, str | None]] = {
    "publish": (ScanState.PUBLISHING, "publish"),
    "purify": (ScanState.PURIFYING, "purify"),
    "": (ScanState.DONE, None),
    "failed": (ScanState.FAILED, None),
}


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of a verdict: who decided, how long it holds, and what follows it.

    `lifetime` is in seconds, None for the policy's own; `until` goes before it: a verdict that
    rests on another one, or on a waiver, ends with it. `then` is a key of `AFTER`. `extends`: a
    warning gate extends a verdict that an enforcing one would let end. `blind`: what `purify` is to
    repair has no proven trigger.
    """

    then: str = ""
    basis: Mapping[str, Any] = field(default_factory=lambda: {"kind": "policy"})
    lifetime: float | None = None
    until: datetime | None = None
    extends: bool = False
    blind: bool = False


def conclude(guard: Guard, held: Held, subject: str, facts: VerdictFacts, terms: Terms) -> str:
    """Sign and record a verdict on the scan that this worker holds; return the verdict's id.

    Args:
        subject: SHA-256 of the artifact that the verdict is about.
    """
    with transaction(guard.engine) as session:
        held.check(session)
        scan = scans.get(session, held.scan_id)
        verdict_id = write(guard, session, scan, subject, facts, terms, lease=held.lease)
    seal(guard)
    return verdict_id


def write(
    guard: Guard,
    session: Session,
    scan: ScanRow,
    subject: str,
    facts: VerdictFacts,
    terms: Terms,
    *,
    lease: Lease | None = None,
) -> str:
    """Do what `conclude` does, inside the caller's transaction."""
    guard = for_scan_in(guard, session, scan, subject)
    verdict_id, issued = uuid.uuid4().hex, guard.now()
    lifetime = guard.policy.lifetime_seconds if terms.lifetime is None else terms.lifetime
    issue = statement.Issue(
        verdict_id=verdict_id,
        scan_id=scan.id,
        name=scan.name,
        policy=statement.PolicyName(name=guard.policy.name, digest=guard.policy.digest),
        cleanset=scan.cleanset_digest,
        basis=terms.basis,
        issued_at=issued,
        # A verdict never outlives a waiver that it rests on.
        expires_at=min(
            [
                terms.until or issued + timedelta(seconds=lifetime),
                *(waiver.until for waiver in facts.waivers),
            ]
        ),
    )
    stated = gated(
        guard,
        session,
        scan,
        subject,
        facts.verdict,
        expired=terms.extends,
        review=terms.basis["kind"] == "review",
    )
    body = statement.verdict_statement(subject, replace(facts, gate=stated), issue)
    ledger.append(
        session,
        verdict_id=verdict_id,
        artifact=subject,
        scan_id=scan.id,
        verdict=facts.verdict,
        envelope=dsse.sign(body, guard.signer),
        issued_at=issued,
        expires_at=issue.expires_at,
        policy_digest=guard.policy.digest,
    )
    changed_policy(guard, session)
    _happened.verdict(
        guard,
        session,
        scan,
        facts,
        verdict_id=verdict_id,
        subject=subject,
        expires_at=issue.expires_at,
        waits=not terms.then,
    )
    _move(
        session, scan, verdict_id, facts, terms, lease=lease, now=issued, policy=guard.policy.digest
    )
    return verdict_id


def _move(
    session: Session,
    scan: ScanRow,
    verdict_id: str,
    facts: VerdictFacts,
    terms: Terms,
    *,
    lease: Lease | None,
    now: datetime,
    policy: str,
) -> None:
    """Send the scan to what follows its verdict."""
    state, task = AFTER[terms.then]
    fields: dict[str, Any] = {"verdict_id": verdict_id, "policy_digest": policy}
    if terms.then == "failed":
        fields["error"] = " ".join(facts.reasons)
    if terms.then == "purify" and terms.blind:
        fields["detail"] = replace(scan.detail, blind=True)
    scans.move(session, scan.id, state, now, lease=lease, **fields)
    if task is not None:
        outbox.add(session, task, {"scan_id": scan.id}, now)
    if scan.detail.rescan is not None:
        scans.renew_verdict(session, scan.detail.rescan.of, verdict_id)
    elif scan.parent_scan_id is not None:
        # The parent's tournament waits for this verdict: on to the next defense, or done.
        outbox.add(session, "purify", {"scan_id": scan.parent_scan_id}, now)
