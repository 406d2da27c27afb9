"""All scans, running ones first by choice, and the search."""

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from guard.api.access import guard_of, scope_of
from guard.console._page import page
from guard.console._route import PageRoute
from guard.console._who import who_reads
from guard.core.errors import InputError
from guard.core.states import ScanState
from guard.store import listing
from guard.store.session import reading

PAGE = 50
RUNNING = frozenset(ScanState) - frozenset(listing.RESTING)
router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)


@router.get("/scans")
def show(
    request: Request,
    q: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    before: Annotated[str, Query(max_length=80)] = "",
) -> HTMLResponse:
    """The newest scans, those that run, or what a search finds."""
    reader, scope = who_reads(request), scope_of(request)
    with reading(guard_of(request).engine) as session:
        if q.strip():
            rows = listing.search(session, q, PAGE, scope)
        else:
            last_seen, states = key_of(before), _states(state)
            rows = listing.scans(session, PAGE, before=last_seen, states=states, scope=scope)
    following = ""
    if len(rows) == PAGE and not q.strip():
        last = key_text(rows[-1].created_at, rows[-1].id)
        following = f"/console/scans?{urlencode({'state': state, 'before': last})}"
    running = state == "running"
    return page(
        request, "scans.html.jinja", reader, rows=rows, q=q, running=running, next=following
    )


def _states(text: str) -> frozenset[ScanState]:
    if text == "running":
        return RUNNING
    try:
        return frozenset({ScanState(text)}) if text else frozenset()
    except ValueError as error:
        raise InputError(f"There is no state {text!r}.", code="bad_request") from error


def key_text(at: datetime, last: str) -> str:
    """The key of a row, as an address holds it."""
    return f"{at.astimezone(UTC).isoformat()}~{last}"


def key_of(text: str) -> listing.Key | None:
    """The inverse of `key_text`; None of an empty text.

    Raises:
        InputError: it is no key.
    """
    if not text:
        return None
    at, _, last = text.partition("~")
    try:
        found = datetime.fromisoformat(at)
    except ValueError as error:
        raise InputError("This address is not one of the console's.", code="bad_request") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)), last
