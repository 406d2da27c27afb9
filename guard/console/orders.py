"""What people ask for: taken as an order, done by the process with the key, followed here."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from guard.api.access import guard_of
from guard.console._form import fields_of
from guard.console._page import page
from guard.console._route import PageRoute
from guard.console._who import who_reads
from guard.core.errors import InputError
from guard.core.roles import Act
from guard.flow import orders
from guard.store.order_rows import OrderRow, OrderState

MOST = 50  # of one's own orders that are listed
#: What an order may hold beside its act.
FIELDS = ("scan", "reason", "name", "to", "finding", "until", "waiver", "alarm", "letter", "policy")
router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)


@router.post("/orders")
async def place(request: Request) -> RedirectResponse:
    """Take an order; what came of it is shown at its own address."""
    fields = await fields_of(request)
    order_id = await run_in_threadpool(_place, request, fields)
    return RedirectResponse(f"/console/orders/{order_id}", 303)


def _place(request: Request, fields: dict[str, str]) -> str:
    reader = who_reads(request)
    try:
        act = Act(fields.get("act", ""))
    except ValueError as error:
        raise InputError("The form names no act.", code="not_ordered") from error
    wanted = {name: fields[name] for name in FIELDS if fields.get(name, "").strip()}
    return orders.place(guard_of(request), reader.principal, act, wanted).id


@router.get("/orders")
def list_own(request: Request) -> HTMLResponse:
    """What whoever looks has asked for lately."""
    reader = who_reads(request)
    rows = orders.of(guard_of(request), reader.principal, MOST)
    return page(request, "orders.html.jinja", reader, rows=rows)


@router.get("/orders/{order_id}")
def show(order_id: str, request: Request) -> HTMLResponse:
    """What became of an order; whoever did not place it sees none."""
    reader = who_reads(request)
    row = orders.find(guard_of(request), order_id, reader.principal)
    template = "simulated.html.jinja" if row.act is Act.READ else "order.html.jinja"
    return page(
        request,
        template,
        reader,
        order=row,
        open=row.state in (OrderState.WAITING, OrderState.WORKING),
        back=_back(row),
    )


def _back(row: OrderRow) -> str:
    if row.wanted.get("scan"):
        return f"/console/scans/{row.wanted['scan']}"
    if row.act in (Act.ACKNOWLEDGE, Act.RETRY):
        return "/console/alarms"
    return "/console/served" if "name" in row.wanted else "/console/"
