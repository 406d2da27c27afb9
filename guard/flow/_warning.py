"""A gate that only warns (`[gate] mode = "warn"`): what it lets through, and what it never does.

The deciding stage signs into the verdict what an enforcing gate would have done, and the publishing
one signs it into the release. Blocked in any mode: what was revoked, what no format reads, what a
reviewer rejected, and a repaired copy that did not pass (the upload itself is let through).
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from guard.attest import dsse, gate
from guard.attest.views import read_release
from guard.core.errors import IntegrityMismatch, NotServable
from guard.core.states import SERVABLE_VERDICTS, GateMode, Verdict
from guard.core.verdict import Gated
from guard.flow.signed import signed
from guard.store import alarms, artifacts, ledger, publications
from guard.store.rows import ArtifactKind
from guard.store.session import reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.attest.keys import TrustedKeys
    from guard.flow.context import Guard
    from guard.store.rows import LedgerRow, PublicationRow, ScanRow

ALARM = "served_on_warning"


def gated(
    guard: "Guard",
    session: "Session",
    scan: "ScanRow",
    subject: str,
    verdict: Verdict,
    *,
    expired: bool = False,
    review: bool = False,
) -> Gated | None:
    """What a verdict on `subject` is signed with; None where the gate enforces or blocks anyway."""
    found = guard.policy.gated(verdict, expired=expired)
    if found is None or verdict in SERVABLE_VERDICTS:
        return found
    candidate = scan.parent_scan_id is not None and scan.detail.rescan is None
    if candidate or review or _rejected_by_a_person(session, subject):
        return None
    return found


def lets_through(guard: "Guard", scan: "ScanRow", verdict: Verdict) -> bool:
    """Whether an artifact goes on to be published though its verdict does not permit that."""
    subject = scan.canonical_digest
    if subject is None or scan.detail.smoke is None or not guard.settings.auto_publish:
        return False  # without smoke samples nobody can check what is served
    with reading(guard.engine) as session:
        found = gated(guard, session, scan, subject, verdict)
        return bool(found and found.let_through) and not _repaired(session, scan.name, subject)


def permission(
    verdict: "LedgerRow",
    publication: "PublicationRow | None",
    trusted: "TrustedKeys",
    *,
    now: datetime,
    revoked: Collection[str],
    mode: GateMode,
) -> Gated | None:
    """Why an artifact is let through that an enforcing gate refuses; None where that one passes it.

    Args:
        publication: what its signed release is taken from, which has to say so. None while a worker
            publishes it: then the serving host alone checks the release.

    Raises:
        NotServable, IntegrityMismatch: nothing lets it through.
    """
    digest = verdict.artifact_digest
    try:
        _ask(verdict, trusted, now, revoked, GateMode.ENFORCE)
    except (NotServable, IntegrityMismatch):
        if mode is GateMode.ENFORCE:
            raise
        view = _ask(verdict, trusted, now, revoked, mode)
        if publication is None:
            return view.gate
        release = gate.check_release(
            publication.envelope,
            trusted,
            digest=digest,
            name=publication.name,
            version=publication.version,
            now=now,
        )
        if release.gate is None or not release.gate.let_through:
            raise
        return release.gate
    return None


def released(row: "PublicationRow") -> Gated | None:
    """What the signed release of a publication says; its signature is checked elsewhere."""
    return read_release(dsse.payload(row.envelope)).gate


def let_through(session: "Session") -> dict[str, Gated]:
    """What is served only because the gate warns, by name and version."""
    found = {}
    for row in publications.active(session):
        with suppress(IntegrityMismatch):  # one that cannot be read vouches for nothing: reconcile
            stated = released(row)
            if stated is not None and stated.let_through:
                found[f"{row.name} {row.version}"] = stated
    return found


def alarm(session: "Session", served: Mapping[str, Gated], now: datetime) -> None:
    """Have exactly one open alarm for each model that is served only because the gate warns."""
    for subject, stated in served.items():
        alarms.raise_(session, ALARM, subject, stated.sentence, now)
    for row in alarms.open_alarms(session, ALARM):
        if row.subject not in served:
            alarms.clear(session, ALARM, row.subject, now)


def _ask(
    verdict: "LedgerRow",
    trusted: "TrustedKeys",
    now: datetime,
    revoked: Collection[str],
    mode: GateMode,
) -> gate.VerdictView:
    return gate.servable(
        verdict.envelope,
        trusted,
        digest=verdict.artifact_digest,
        now=now,
        revoked=revoked,
        mode=mode,
        ledger_row=verdict,
    )


def _rejected_by_a_person(session: "Session", subject: str) -> bool:
    """Whether the last reviewer who decided about the artifact rejected it."""
    for row in reversed(ledger.for_artifact(session, subject)):
        if signed(row.envelope).basis["kind"] == "review":
            return row.verdict is Verdict.REJECTED
    return False


def _repaired(session: "Session", name: str, subject: str) -> bool:
    """Whether the name serves a repaired copy of the artifact, which is the better answer."""
    served = (artifacts.find(session, row.digest) for row in publications.active(session, name))
    return any(
        found is not None and found.kind is ArtifactKind.PURIFIED and found.parent_digest == subject
        for found in served
    )
