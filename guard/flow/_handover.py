"""Ends of a stage that need no detector.

Handed to the deciding stage, which alone has the signing key.
"""

from collections.abc import Sequence

from guard.core.states import ScanState, Verdict
from guard.flow import dead_letter
from guard.flow._lease import Held
from guard.flow.context import Guard
from guard.store import outbox, scans
from guard.store.session import transaction

OUTCOME = "outcome"


def hand_over(
    guard: Guard, held: Held, verdict: Verdict, reasons: Sequence[str], *, then: str = ""
) -> None:
    """Let the deciding stage sign `verdict` for the scan that is held.

    Args:
        then: what follows the verdict, a key of `conclude.AFTER`.
    """
    with transaction(guard.engine) as session:
        held.check(session)
        scan = scans.get(session, held.scan_id)
        detail = {
            **scan.detail,
            OUTCOME: {"verdict": str(verdict), "reasons": list(reasons), "then": then},
        }
        scans.move(
            session, scan.id, ScanState.DECIDING, guard.now(), lease=held.lease, detail=detail
        )
        outbox.add(session, "decide", {"scan_id": scan.id}, guard.now())


def give_up(guard: Guard, held: Held, task: str, sentence: str) -> None:
    """Nothing helps.

    Record a dead letter, raise an alarm, and end the scan with `inconclusive` where it has no
    verdict yet.
    """
    scan = held.scan()
    dead_letter.record(guard, task, {"scan_id": scan.id}, sentence)
    if scan.verdict_id is None and scan.state in (ScanState.INSPECTING, ScanState.DETECTING):
        reason = f"The guard could not finish ({sentence})"
        hand_over(guard, held, Verdict.INCONCLUSIVE, (reason,), then="failed")
        return
    with transaction(guard.engine) as session:
        held.check(session)
        scans.move(
            session, scan.id, ScanState.FAILED, guard.now(), lease=held.lease, error=sentence
        )
        if scan.parent_scan_id is not None and scan.verdict_id is None:
            outbox.add(session, "purify", {"scan_id": scan.parent_scan_id}, guard.now())
