"""What answers now, since when, and what ends soon."""

from datetime import timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from guard.api.access import guard_of, scope_of
from guard.console._page import page
from guard.console._route import PageRoute
from guard.console._who import who_reads
from guard.store import exhibits, listing
from guard.store.session import reading

PAGE = 50
MOST_ENDING = 10
LATE = timedelta(minutes=5)
router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)


@router.get("/served")
def show(
    request: Request,
    name: Annotated[str, Query(max_length=1024)] = "",
    version: Annotated[str, Query(max_length=32)] = "",
) -> HTMLResponse:
    """Publications in force, each with the verdict that counts.

    The API has no way to the serving system: a worker compares the two every few seconds, puts back
    or takes out what differs, and raises an alarm.
    """
    reader, guard = who_reads(request), guard_of(request)
    now, scope = guard.now(), scope_of(request)
    soon = now + timedelta(seconds=guard.policy.rescan_before_seconds)
    with reading(guard.engine) as session:
        after = (name, version) if name else None
        rows = listing.served(session, PAGE, after=after, scope=scope)
        ending = listing.expiring(session, now, soon, MOST_ENDING, scope)
        checked = exhibits.last_beat(session, "reconcile")
    following = ""
    if len(rows) == PAGE:
        last = {"name": rows[-1].name, "version": rows[-1].version}
        following = f"/console/served?{urlencode(last)}"
    return page(
        request,
        "served.html.jinja",
        reader,
        rows=rows,
        ending=ending,
        checked=checked,
        late=checked is None or now - checked > LATE,
        next=following,
    )
