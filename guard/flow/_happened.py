"""What others are notified of beside what `guard.store` itself sees: verdicts and reviews."""

from datetime import datetime
from typing import TYPE_CHECKING

from guard.core.hooks import EventType
from guard.core.states import SERVABLE_VERDICTS, Verdict
from guard.core.verdict import VerdictFacts
from guard.flow.context import Guard
from guard.store import hook_events, outbox

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.core.notes import Attempt
    from guard.store.rows import ScanRow


def verdict(
    guard: Guard,
    session: "Session",
    scan: "ScanRow",
    facts: VerdictFacts,
    *,
    verdict_id: str,
    subject: str,
    expires_at: datetime,
    waits: bool,
) -> None:
    """A verdict was signed; `waits`: nothing is done about it before a person decides."""
    now = guard.now()
    why = f": {facts.reasons[0]}" if facts.reasons else "."
    hook_events.emit(
        session,
        EventType.VERDICT,
        now,
        f"{scan.name} is {facts.verdict}{why}",
        name=scan.name,
        scan_id=scan.id,
        digest=subject,
        verdict_id=verdict_id,
        verdict=str(facts.verdict),
        expires_at=expires_at.isoformat(),
    )
    candidate = scan.parent_scan_id is not None and scan.detail.rescan is None
    if facts.verdict is Verdict.HELD and waits and not candidate:
        review_requested(guard, session, scan)
    if not candidate:
        mark(guard, session, scan.id)


def review_requested(guard: Guard, session: "Session", scan: "ScanRow") -> None:
    """A held model waits for a person."""
    sentence = f"{scan.name} is held and waits for a review."
    kind = EventType.REVIEW_REQUESTED
    hook_events.emit(session, kind, guard.now(), sentence, name=scan.name, scan_id=scan.id)


def reviewed(
    guard: Guard, session: "Session", scan: "ScanRow", by: str, verdict_id: str, decided: Verdict
) -> None:
    """A person decided about a held model."""
    hook_events.emit(
        session,
        EventType.REVIEW_DECIDED,
        guard.now(),
        f"{by} decided about {scan.name}: {decided}.",
        name=scan.name,
        scan_id=scan.id,
        verdict_id=verdict_id,
        verdict=str(decided),
        by=by,
    )


def repaired(
    guard: Guard,
    session: "Session",
    scan: "ScanRow",
    tried: "list[Attempt]",
    own: Verdict,
) -> None:
    """A tournament of repairs came to its end; a model that is still held waits for a person."""
    won = [one for one in tried if one.verdict in SERVABLE_VERDICTS]
    sentence = (
        f"A copy of {scan.name} was repaired."
        if won
        else f"No repair of {scan.name} passed; {len(tried)} were tried."
    )
    outcome = "repaired" if won else "not_repaired"
    about = {
        "scan_id": scan.id,
        "outcome": outcome,
        "digest": (won[-1].digest or "") if won else "",
    }
    kind = EventType.REPAIR_DONE
    hook_events.emit(session, kind, guard.now(), sentence, name=scan.name, **about)
    if not won and own is Verdict.HELD:
        review_requested(guard, session, scan)


def mark(guard: Guard, session: "Session", scan_id: str) -> None:
    """Have the upload of a scan tagged with how it stands, where uploads are tagged."""
    if guard.settings.object_tags:
        outbox.add(session, "tag", {"scan_id": scan_id}, guard.now())
