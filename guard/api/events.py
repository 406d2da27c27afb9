"""Receive events: authenticated, limited in size, and answered once they are recorded."""

import structlog
from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from guard.api.access import BoundedRoute, guard_of, read_body, require_token, scope_of
from guard.api.answers import Accepted, NominationAnswer
from guard.api.problems import USUAL, refusals
from guard.core.errors import GuardError, InputError, Unavailable
from guard.core.tracing import called
from guard.flow.nominate import (
    Seen,
    Unauthorised,
    accept,
    check_auth,
    check_claim,
    decode,
    signature_of,
)
from guard.store import nominations
from guard.store.session import reading

_LOG = structlog.get_logger()
#: As far as it is described: which fields count differs by sender.
_NOTICE = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
router = APIRouter(route_class=BoundedRoute)


@router.post(
    "/events/s3",
    status_code=202,
    tags=["events"],
    responses=refusals(400, 401, 413, 503),
    openapi_extra={"requestBody": _NOTICE},
)
async def receive_event(request: Request) -> Accepted:
    """Receive an object notification: S3 JSON, EventBridge or a SeaweedFS webhook.

    The sender has a bearer token or signs the event with `X-Guard-Timestamp` (seconds) and
    `X-Guard-Signature: sha256=HMAC(timestamp + "." + body)`.
    """
    counter = request.app.state.events
    try:
        _check_claim(request)
        body = await read_body(request)
        ids = await run_in_threadpool(_take, request, body)
    except GuardError as error:
        outcome = _outcome(error)
        counter.add(outcome)
        _LOG.warning("event_not_taken", outcome=outcome, code=error.code)
        raise
    counter.add("accepted")
    return Accepted(nominations=ids)


def _outcome(error: GuardError) -> str:
    if isinstance(error, Unauthorised):
        return "unauthorised"
    return "refused" if isinstance(error, InputError) else "failed"


def _check_claim(request: Request) -> None:
    """Refuse who cannot be a sender before a byte of the body is read."""
    guard = guard_of(request)
    settings = guard.settings
    check_claim(
        request.headers,
        token=settings.webhook_token.reveal(),
        hmac_key=settings.webhook_hmac_key.reveal(),
        now=guard.now(),
        window_seconds=settings.webhook_window_seconds,
    )


def _take(request: Request, body: bytes) -> list[str]:
    guard, seen = guard_of(request), request.app.state.seen
    settings = guard.settings
    check_auth(
        request.headers,
        body,
        token=settings.webhook_token.reveal(),
        hmac_key=settings.webhook_hmac_key.reveal(),
        now=guard.now(),
        seen=seen,
        window_seconds=settings.webhook_window_seconds,
    )
    try:
        with called(request.headers.get("traceparent", "")):
            return accept(guard.engine, decode(body), guard.now(), buckets=settings.intake_buckets)
    except Unavailable:
        seen.forget(signature_of(request.headers))
        raise


@router.get(
    "/nominations/{nomination_id}",
    tags=["events"],
    dependencies=[Depends(require_token)],
    responses=USUAL | refusals(404),
)
def show_nomination(nomination_id: str, request: Request, response: Response) -> NominationAnswer:
    """Show what became of a nomination.

    It is `new` (waiting), `accepted` (see `scan_id`), or `ignored` or `refused` (see `reason`).
    """
    scope = scope_of(request)
    with reading(guard_of(request).engine) as session:
        row = nominations.get(session, nomination_id, scope)
    if row.scan_id is not None:
        response.headers["Link"] = f'</scans/{row.scan_id}>; rel="related"'
    return NominationAnswer.of(row)


def new_memory() -> Seen:
    """An empty memory of the event signatures that one application has seen."""
    return Seen()
