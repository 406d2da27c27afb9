"""Wake scans that nobody works on: a worker was killed, a message lost, a broker emptied.

The broker returns a killed worker's message only after its visibility time-out, which is hours
long; an expired lease shows the loss within seconds. If the stage had finished after all, its
second run finds that the scan has moved on, and does nothing.
"""

from datetime import timedelta

from guard.core.states import ScanState
from guard.flow.context import Guard
from guard.store import nominations, outbox, scans
from guard.store.session import transaction

STAGE: dict[ScanState, str] = {
    ScanState.QUEUED: "inspect",
    ScanState.FETCHING: "inspect",
    ScanState.INSPECTING: "inspect",
    ScanState.DETECTING: "detect",
    ScanState.DECIDING: "decide",
    ScanState.PURIFYING: "purify",
    ScanState.PUBLISHING: "publish",
}


def rescue(guard: Guard) -> list[str]:
    """Announce the stage of every idle scan again and return the ids of those scans."""
    with transaction(guard.engine) as session:
        now = guard.now()
        waiting = outbox.unsent_ids(session)
        idle = [
            scan
            for scan in scans.stuck(session, now, quiet_seconds=guard.settings.lease_seconds)
            if scan.id not in waiting
        ]
        for scan in idle:
            outbox.add(session, STAGE[scan.state], {"scan_id": scan.id}, now)
            scans.touch(session, scan.id, now)
        old = now - timedelta(seconds=2 * guard.settings.lease_seconds)
        for row in nominations.pending(session, limit=1000):
            if row.id not in waiting and row.received_at < old:
                outbox.add(session, "receive", {"nomination_id": row.id}, now)
    return [scan.id for scan in idle]
