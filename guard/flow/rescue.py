"""Wake scans and jobs that nobody works on: a worker was killed, a message lost, a broker emptied.

The broker returns a killed worker's message only after its visibility time-out, which is hours
long; an expired lease shows the loss within seconds. If the stage had finished after all, its
second run finds that the scan has moved on, and does nothing.
"""

from datetime import datetime, timedelta

from guard.core.states import ScanState
from guard.flow.context import Guard
from guard.store import nominations, orders, outbox, scans, training_jobs
from guard.store.rows import ScanRow
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
#: Whoever waits in a long queue looks like a lost message; each is announced a quarter of its age
#: later than before. Otherwise a queue grew by a message for each scan in it and each lease.
AGES = 4


def rescue(guard: Guard) -> list[str]:
    """Announce the stage of every idle scan and training job again; returns their ids."""
    quiet = guard.settings.lease_seconds
    with transaction(guard.engine) as session:
        now = guard.now()
        waiting = outbox.unsent_ids(session)
        idle = [
            scan
            for scan in scans.stuck(session, now, quiet_seconds=quiet)
            if scan.id not in waiting and _is_due(scan, now)
        ]
        jobs = [
            job
            for job in training_jobs.stuck(session, now, quiet_seconds=quiet)
            if job.id not in waiting
        ]
        for job in jobs:
            outbox.add(session, str(job.kind), {"job_id": job.id}, now)
            training_jobs.touch(session, job.id, now)
        for scan in idle:
            outbox.add(session, STAGE[scan.state], {"scan_id": scan.id}, now)
            scans.touch(session, scan.id, now)
        old = now - timedelta(seconds=2 * quiet)
        for order in orders.waiting(session, old):
            if order.id not in waiting:
                outbox.add(session, "order", {"order_id": order.id}, now)
        for row in nominations.pending(session, limit=1000):
            if row.id not in waiting and row.received_at < old:
                outbox.add(session, "receive", {"nomination_id": row.id}, now)
    return [scan.id for scan in idle] + [job.id for job in jobs]


def _is_due(scan: ScanRow, now: datetime) -> bool:
    """At once where a lease ran out: its worker was killed."""
    if scan.lease_until is not None:
        return True
    return now - scan.updated_at >= (now - scan.created_at) / (AGES + 1)
