"""Two verdicts side by side, as they were signed: what differs, and what stayed."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from guard.api.access import guard_of, scope_of
from guard.console._page import page
from guard.console._route import PageRoute
from guard.console._who import who_reads
from guard.core.plain import iso, to_plain
from guard.flow.signed import signed
from guard.store import ledger
from guard.store.rows import LedgerRow
from guard.store.session import reading

_NONE = ("–",)
router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)


@router.get("/compare")
def show(
    request: Request,
    a: Annotated[str, Query(max_length=64)] = "",
    b: Annotated[str, Query(max_length=64)] = "",
) -> HTMLResponse:
    """What two signed statements say, row by row; those that differ are marked and come first."""
    reader = who_reads(request)
    rows, pair = list[tuple[str, tuple[str, ...], tuple[str, ...], bool]](), None
    if a and b:
        scope = scope_of(request)
        with reading(guard_of(request).engine) as session:
            pair = ledger.get(session, a, scope), ledger.get(session, b, scope)
        first, second = _stated(pair[0]), _stated(pair[1])
        named = [*first, *(name for name in second if name not in first)]
        found = [(name, first.get(name, _NONE), second.get(name, _NONE)) for name in named]
        rows = [(*one, one[1] != one[2]) for one in found]
        rows.sort(key=lambda one: not one[3])
    return page(request, "compare.html.jinja", reader, rows=rows, pair=pair, a=a, b=b)


def _stated(row: LedgerRow) -> dict[str, tuple[str, ...]]:
    """A statement as names and lines; raises IntegrityMismatch where it is no verdict of ours."""
    view = signed(row.envelope)
    facts = to_plain(view.facts.natural_apart())
    basis = to_plain(dict(view.basis))
    about: dict[str, Any] = {
        "verdict": facts.pop("verdict"),
        "reasons": facts.pop("reasons"),
        "artifact": view.digest,
        "name": view.name,
        "policy": f"{view.policy.name} {view.policy.digest}",
        "clean set": view.cleanset,
        "issued": iso(view.issued_at),
        "ends": iso(view.expires_at),
        "basis": basis,
        **facts,
    }
    return {str(name): _lines(value) for name, value in about.items()}


def _lines(value: Any) -> tuple[str, ...]:
    """Of a list or a mapping a line for each item; what is inside an item stays on one."""
    if value and isinstance(value, dict):
        return tuple(f"{name}: {_text(item)}" for name, item in value.items())
    return tuple(map(_text, value)) if value and isinstance(value, list) else (_text(value),)


def _text(value: Any) -> str:
    if value is None or value in ({}, []):
        return "–"
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_text(item)}" for name, item in value.items())
    if isinstance(value, list):
        return " · ".join(_text(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
