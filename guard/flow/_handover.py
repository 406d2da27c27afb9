"""Hand a verdict that needs no detector to the deciding stage, which alone holds the key."""

from collections.abc import Sequence
from dataclasses import replace

from guard.core.notes import HandedOver
from guard.core.states import ScanState, Verdict
from guard.flow import _happened, dead_letter
from guard.flow._lease import Held
from guard.flow._warning import lets_through
from guard.flow.context import Guard
from guard.store import ledger, outbox, scans
from guard.store.session import transaction


def hand_over(
    guard: Guard, held: Held, verdict: Verdict, reasons: Sequence[str], *, then: str = ""
) -> None:
    """Have the deciding stage sign `verdict` for the scan that this worker holds.

    Args:
        then: what follows the verdict; a key of `_verdict.AFTER`.
    """
    with transaction(guard.engine) as session:
        held.check(session)
        scan = scans.get(session, held.scan_id)
        outcome = HandedOver(verdict=verdict, reasons=tuple(reasons), then=then)
        detail = replace(scan.detail, outcome=outcome)
        scans.move(
            session, scan.id, ScanState.DECIDING, guard.now(), lease=held.lease, detail=detail
        )
        outbox.add(session, "decide", {"scan_id": scan.id}, guard.now())


def give_up(guard: Guard, held: Held, task: str, sentence: str) -> None:
    """Record a dead letter, raise an alarm, and end a scan that cannot be finished.

    A scan that has no verdict yet ends with `inconclusive`.
    """
    scan = held.scan()
    dead_letter.record(guard, task, {"scan_id": scan.id}, sentence)
    if scan.verdict_id is None and scan.state in (ScanState.INSPECTING, ScanState.DETECTING):
        reason = f"The guard could not finish ({sentence})"
        hand_over(guard, held, Verdict.INCONCLUSIVE, (reason,), then="failed")
        return
    tried = scan.state is ScanState.PURIFYING
    if tried and lets_through(guard, scan, Verdict.REJECTED):
        with transaction(guard.engine) as session:
            held.check(session)
            scans.move(session, scan.id, ScanState.PUBLISHING, guard.now(), lease=held.lease)
            outbox.add(session, "publish", {"scan_id": scan.id}, guard.now())
        return
    with transaction(guard.engine) as session:
        held.check(session)
        own = ledger.get(session, scan.verdict_id) if tried and scan.verdict_id else None
        # A model that is held while a copy is repaired stays held, and a person can review it.
        waits = own is not None and own.verdict is Verdict.HELD
        ends = ScanState.DONE if waits else ScanState.FAILED
        scans.move(session, scan.id, ends, guard.now(), lease=held.lease, error=sentence)
        if waits:
            _happened.review_requested(guard, session, scan)
        candidate = scan.parent_scan_id is not None and scan.detail.rescan is None
        if candidate and scan.verdict_id is None:
            outbox.add(session, "purify", {"scan_id": scan.parent_scan_id}, guard.now())
