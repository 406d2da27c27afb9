"""Liveness, readiness and metrics."""

from functools import cache

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse

from guard.api import metrics
from guard.api.access import BoundedRoute, guard_of, has_token, require_token, scope_of
from guard.api.problems import USUAL, refusals
from guard.core.errors import Unavailable
from guard.flow import readers
from guard.flow.watch import look
from guard.store import migrate

_LOG = structlog.get_logger()
_HIDDEN = "The service is not ready; its log says why, and this route to who sends a token."
router = APIRouter(tags=["operation"], route_class=BoundedRoute)


@router.get("/healthz", include_in_schema=False)
@router.get("/health/live", responses=refusals(413))
def live() -> dict[str, str]:
    """Answer that the process is alive."""
    return {"status": "live"}


@router.get("/health/ready", responses=refusals(413, 503))
def ready(request: Request) -> dict[str, str]:
    """Answer that the database responds and has this release's schema; otherwise 503.

    What is wrong, and the schema, only a caller with a token sees.
    """
    known = has_token(request)
    try:
        found = _schema(request)
    except Unavailable as error:
        if not known:
            _LOG.warning("not_ready", code=error.code, error=error.sentence)
            raise Unavailable(_HIDDEN, code="api_not_ready") from None
        raise
    return {"status": "ready"} | ({"schema": found} if known else {})


def _schema(request: Request) -> str:
    found = migrate.current_of(guard_of(request).engine)
    if found is None or found != _head():
        raise Unavailable(
            f"The database schema is at {found or 'nothing'}, but this release needs {_head()}; "
            "run `guard db upgrade`.",
            code="schema_differs",
        )
    return found


@router.get(
    "/metrics",
    dependencies=[Depends(require_token)],
    response_class=PlainTextResponse,
    responses=USUAL,
)
def show_metrics(request: Request) -> PlainTextResponse:
    """Answer with the metrics in Prometheus' text format."""
    readers.check_everything(scope_of(request), "What the metrics count")
    page = metrics.page(look(guard_of(request)), request.app.state.events)
    return PlainTextResponse(page, media_type=metrics.CONTENT_TYPE)


@cache
def _head() -> str:
    return migrate.head()
