"""The queue: what waits for a person, the oldest first, and why."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from guard.api.access import guard_of, scope_of
from guard.console._page import page
from guard.console._route import PageRoute
from guard.console._who import who_reads
from guard.flow import review

PAGE = 50
router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)


@router.get("/")
def show(request: Request, after: Annotated[int, Query(ge=0)] = 0) -> HTMLResponse:
    """Held models and waivers that wait for somebody."""
    from guard.flow import waivers

    reader = who_reads(request)
    guard, scope = guard_of(request), scope_of(request)
    rows, last = review.queue(guard, PAGE, after=after, scope=scope)
    asked = waivers.waiting(guard, PAGE, scope) if not after else []
    following = f"/console/?after={last}" if last is not None else ""
    return page(request, "queue.html.jinja", reader, rows=rows, waivers=asked, next=following)
