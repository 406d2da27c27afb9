"""Wake scans and jobs that nobody works on: a worker was killed, a message lost, a broker emptied.

The broker returns a killed worker's message only after its visibility time-out, which is hours
long; an expired lease shows the loss within seconds. If the stage had finished after all, its
second run finds that the scan has moved on, and does nothing.
"""

from datetime import timedelta

from guard.core.states import ScanState
from guard.flow.context import Guard
from guard.store import nominations, orders, outbox, scans, training_jobs
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
    """Announce the stage of every idle scan and training job again; returns their ids."""
    quiet = guard.settings.lease_seconds
    with transaction(guard.engine) as session:
        now = guard.now()
        waiting = outbox.unsent_ids(session)
        idle = [
            scan
            for scan in scans.stuck(session, now, quiet_seconds=quiet)
            if scan.id not in waiting
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
