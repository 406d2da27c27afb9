"""The audit log with the chain's state, and alarms with dead letters."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from guard.api.access import guard_of, scope_of
from guard.console._page import page
from guard.console._route import PageRoute
from guard.console._who import who_reads
from guard.console.scans import key_of, key_text
from guard.store import ledger, ledger_acts, listing
from guard.store.session import reading

PAGE = 50
router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)


@router.get("/acts")
def show_acts(
    request: Request,
    before: Annotated[int | None, Query(ge=0)] = None,
    by: Annotated[str, Query(max_length=200)] = "",
) -> HTMLResponse:
    """Who did what, the newest first, and where the chain that seals it stands."""
    reader, scope = who_reads(request), scope_of(request)
    with reading(guard_of(request).engine) as session:
        rows = listing.acts(session, PAGE, before=before, principal=by, scope=scope)
        seals = listing.seals(session, [row.id for row in rows])
        heads = (ledger.last(session), ledger_acts.last(session))
        noted = ledger_acts.last_checkpoint(session)
        broken = listing.open_of_kind(session, ("ledger_broken", "checkpoint_failed"), scope)
    following = ""
    if len(rows) == PAGE:
        following = f"/console/acts?{urlencode({'before': rows[-1].seq, 'by': by})}"
    return page(
        request,
        "acts.html.jinja",
        reader,
        rows=rows,
        seals=seals,
        verdicts=heads[0],
        chain=heads[1],
        noted=noted,
        broken=broken,
        by=by,
        next=following,
    )


@router.get("/alarms")
def show_alarms(
    request: Request,
    *,
    closed: bool = False,
    before: Annotated[str, Query(max_length=80)] = "",
) -> HTMLResponse:
    """Open alarms and dead letters, each with the way out."""
    from guard.flow import alarms, retry

    reader, guard, scope = who_reads(request), guard_of(request), scope_of(request)
    rows = alarms.page(guard, PAGE, before=key_of(before), closed=closed, scope=scope)
    letters = retry.listed(guard, PAGE, scope) if not before else []
    following = ""
    if len(rows) == PAGE:
        last: dict[str, Any] = {"before": key_text(rows[-1].row.at, rows[-1].row.id)}
        following = f"/console/alarms?{urlencode(last | ({'closed': 'true'} if closed else {}))}"
    return page(
        request,
        "alarms.html.jinja",
        reader,
        rows=rows,
        lasting=frozenset(one.row.id for one in rows if alarms.lasts(one.row)),
        letters=letters,
        closed=closed,
        next=following,
    )
