"""Make the images of reports once, where blobs can be read, for the console, which reads none."""

import structlog

from guard.core.errors import GuardError
from guard.flow.context import Guard
from guard.flow.report import report_for
from guard.reports.exhibited import stored
from guard.store import exhibits, outbox, reviews, scans
from guard.store.scope import EVERYTHING, Scope
from guard.store.session import reading, transaction

_LOG = structlog.get_logger()
MOST_AT_ONCE = 10  # verdicts whose images are made in one go


def draw(guard: Guard, scan_id: str) -> bool:
    """Make and keep the images of the verdict in force for a scan; False where there are some.

    What cannot be drawn is kept too, with its reason: it is not tried for ever.

    Raises:
        InputError: there is no such scan, or it has no verdict yet.
    """
    report = report_for(guard, scan_id)
    try:
        shown = stored(report)
    except (ArithmeticError, GuardError, LookupError, TypeError, ValueError) as error:
        _LOG.warning("not_drawn", scan_id=scan_id, error=str(error), kind=type(error).__name__)
        shown = {"failed": f"The images cannot be made ({type(error).__name__})."}
    with transaction(guard.engine) as session:
        return exhibits.add(session, report.verdict_id or "", shown, guard.now())


def due(guard: Guard) -> list[str]:
    """Scans that wait for a person and have no images yet, the oldest first."""
    with reading(guard.engine) as session:
        rows = reviews.waiting(session, MOST_AT_ONCE, undrawn=True)
    return [row.scan_id for row in rows]


def ask(guard: Guard, scan_id: str, scope: Scope = EVERYTHING) -> None:
    """Have the images of a scan made soon, unless they are or it is asked for already.

    Raises:
        InputError: there is no such scan, or it has no verdict yet.
    """
    with transaction(guard.engine) as session:
        scan = scans.get(session, scan_id, scope)
        there = exhibits.find(session, scan.verdict_id) if scan.verdict_id else None
        if there is None and scan.id not in outbox.unsent_ids(session):
            outbox.add(session, "draw", {"scan_id": scan.id}, guard.now())
