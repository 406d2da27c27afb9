"""Liveness, readiness and metrics."""

from datetime import timedelta
from functools import cache

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse

from guard.api import metrics
from guard.api.access import guard_of, require_token
from guard.core.errors import Unavailable
from guard.core.states import GateMode
from guard.flow.served import on_warning
from guard.store import counts, migrate
from guard.store.session import reading

router = APIRouter(tags=["operation"])


@router.get("/healthz", include_in_schema=False)
@router.get("/health/live")
def live() -> dict[str, str]:
    """Answer that the process is alive."""
    return {"status": "live"}


@router.get("/health/ready")
def ready(request: Request) -> dict[str, str]:
    """Answer that the database responds and has this release's schema; otherwise 503."""
    found = migrate.current_of(guard_of(request).engine)
    if found != _head():
        raise Unavailable(
            f"The database schema is at {found or 'nothing'}, but this release needs {_head()}; "
            "run `guard db upgrade`.",
            code="schema_differs",
        )
    return {"status": "ready", "schema": found}


@router.get("/metrics", dependencies=[Depends(require_token)])
def show_metrics(request: Request) -> PlainTextResponse:
    """Answer with the metrics in Prometheus' text format."""
    guard = guard_of(request)
    with reading(guard.engine) as session:
        window = timedelta(seconds=guard.policy.rescan_before_seconds)
        found = counts.take(session, guard.now(), window=window)
        through = len(on_warning(session))
    gate = metrics.Gate(guard.policy.gate_mode is GateMode.WARN, through)
    page = metrics.page(found, request.app.state.events, guard.now(), gate)
    return PlainTextResponse(page, media_type=metrics.CONTENT_TYPE)


@cache
def _head() -> str:
    return migrate.head()
