"""Sign a verdict, append it to the ledger and move the scan, in one commit.

There is never one without the others.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from guard.attest import dsse, statement
from guard.core.evidence import AsrEstimate, Target
from guard.core.states import ScanState, Verdict
from guard.flow._lease import Held
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


def conclude(
    guard: Guard,
    held: Held,
    verdict: Verdict,
    *,
    subject: str,
    reasons: Sequence[str],
    then: str = "",
    **facts: Any,
) -> str:
    """Sign and record the verdict on the scan that is held; returns the verdict's id.

    Args:
        subject: digest of the artifact that the verdict is about.
        then: what follows, a key of `AFTER`.
        facts: passed to `write`.
    """
    with transaction(guard.engine) as session:
        held.check(session)
        scan = scans.get(session, held.scan_id)
        return write(
            guard,
            session,
            scan,
            verdict,
            subject=subject,
            reasons=reasons,
            then=then,
            lease=held.lease,
            **facts,
        )


def write(
    guard: Guard,
    session: Session,
    scan: ScanRow,
    verdict: Verdict,
    *,
    subject: str,
    reasons: Sequence[str],
    then: str = "",
    lease: Lease | None = None,
    score: float | None = None,
    target: Target = None,
    asr: AsrEstimate | None = None,
    asr_upper: float | None = None,
    calibration: str | None = None,
    known_gaps: Mapping[str, Any] | None = None,
    purification: Mapping[str, Any] | None = None,
    coverage: Sequence[str] = (),
    evidence: Sequence[str] = (),
    parent: str | None = None,
    basis: Mapping[str, Any] | None = None,
    lifetime: float | None = None,
) -> str:
    """Sign and record a verdict inside the caller's transaction; `lifetime` is in seconds."""
    verdict_id = uuid.uuid4().hex
    issued = guard.now()
    expires = issued + timedelta(
        seconds=lifetime if lifetime is not None else guard.policy.lifetime_seconds
    )
    body = statement.verdict_statement(
        digest=subject,
        name=scan.name,
        verdict_id=verdict_id,
        scan_id=scan.id,
        verdict=verdict,
        score=score,
        target=target,
        asr=asr,
        asr_upper=asr_upper,
        calibration=calibration,
        known_gaps=known_gaps,
        purification=purification,
        coverage=tuple(coverage),
        reasons=tuple(reasons),
        evidence=tuple(evidence),
        policy_name=guard.policy.name,
        policy_digest=guard.policy.digest,
        cleanset=scan.cleanset_digest,
        parent=parent,
        basis=dict(basis or {"kind": "policy"}),
        issued_at=issued,
        expires_at=expires,
    )
    envelope = dsse.sign(body, guard.signer)
    ledger.append(
        session,
        verdict_id=verdict_id,
        artifact=subject,
        scan_id=scan.id,
        verdict=verdict,
        envelope=envelope,
        issued_at=issued,
        expires_at=expires,
        policy_digest=guard.policy.digest,
    )
    state, task = AFTER[then]
    _move(
        session,
        scan,
        state,
        issued,
        lease,
        verdict_id,
        guard.policy.digest,
        reasons if then == "failed" else (),
    )
    if task is not None:
        outbox.add(session, task, {"scan_id": scan.id}, issued)
    if scan.parent_scan_id is not None:
        # The parent's tournament waits for this word: on to the next defense, or done.
        outbox.add(session, "purify", {"scan_id": scan.parent_scan_id}, issued)
    return verdict_id


def _move(
    session: Session,
    scan: ScanRow,
    state: ScanState,
    now: datetime,
    lease: Lease | None,
    verdict_id: str,
    policy_digest: str,
    reasons: Sequence[str],
) -> None:
    fields: dict[str, Any] = {"verdict_id": verdict_id, "policy_digest": policy_digest}
    if reasons:
        fields["error"] = " ".join(reasons)
    scans.move(session, scan.id, state, now, lease=lease, **fields)
