"""Errors as `application/problem+json` (RFC 9457): one table from error to status."""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from guard.api.answers import CleanJson
from guard.core.errors import (
    GuardError,
    InputError,
    IntegrityMismatch,
    LeaseLost,
    NotServable,
    Unavailable,
)

_LOG = structlog.get_logger()
TYPE = "https://registry-guard.dev/problems/"


class Problem(BaseModel):
    """Why a request was refused: `code` is for programs, `detail` a sentence for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str


#: Looked up by code first, then by class, where the nearest ancestor wins.
STATUS_OF_CODE: dict[str, int] = {
    "unauthorised": 401,
    "stale_event": 401,
    "replayed_event": 401,
    "sign_in_needed": 401,
    "forbidden": 403,
    "cross_site": 403,
    "retrain_not_allowed": 403,
    "unknown_scan": 404,
    "unknown_verdict": 404,
    "unknown_nomination": 404,
    "unknown_artifact": 404,
    "unknown_waiver": 404,
    "unknown_project": 404,
    "project_exists": 409,
    "unknown_alarm": 404,
    "unknown_dead_letter": 404,
    "unknown_order": 404,
    "unknown_hook": 404,
    "unknown_delivery": 404,
    "hook_removed": 409,
    "delivery_waits": 409,
    "too_many_hooks": 409,
    "alarm_closed": 409,
    "nothing_to_retry": 409,
    "waiver_not_waiting": 409,
    "unknown_training_job": 404,
    "ambiguous_scan": 409,
    "ambiguous_training_job": 409,
    "training_job_ended": 409,
    "training_job_ending": 409,
    "too_many_training_jobs": 429,
    "project_quota": 429,
    "too_many_logouts": 429,
    "event_too_large": 413,
    "request_too_large": 413,
    "not_nominated": 422,
}
STATUS_OF_CLASS: dict[type[GuardError], int] = {
    InputError: 400,
    NotServable: 412,
    Unavailable: 503,
    LeaseLost: 409,
    IntegrityMismatch: 500,
    GuardError: 500,
}
_TITLES = {
    400: "The request is not valid",
    401: "Not authorised",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    412: "The gate does not allow it",
    413: "Too large",
    422: "There is nothing to vet",
    429: "Too much at once",
    500: "The guard failed",
    503: "A component does not answer",
}
_MOST_FAULTS = 20  # of one body that are named
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}


def status_of(error: GuardError) -> int:
    """The HTTP status of a deliberate error."""
    if error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    return next(STATUS_OF_CLASS[kind] for kind in type(error).__mro__ if kind in STATUS_OF_CLASS)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How a route's description has it that it answers with problems of these statuses."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _TITLES[status], "content": content} for status in statuses}


#: What every route answers with whose callers have a token.
USUAL = refusals(401, 413, 503)


def problem(status: int, code: str, detail: str, **more: Any) -> CleanJson:
    """One problem document; `more` are its additional members."""
    body: dict[str, Any] = {
        "type": TYPE + code,
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": detail,
        **more,
    }
    return CleanJson(
        body, status, headers=_HEADERS.get(status), media_type="application/problem+json"
    )


def answer_to(error: GuardError) -> CleanJson:
    """The problem document of a deliberate error."""
    status = status_of(error)
    if status >= 500:
        _LOG.error("request_failed", code=error.code, error=error.sentence)
    answer = problem(status, error.code, error.sentence)
    if (seconds := getattr(error, "retry_after", None)) is not None:
        answer.headers["Retry-After"] = str(seconds)
    return answer


def install(app: FastAPI) -> None:
    """Have every error answered as a problem; an unexpected one reveals nothing of the inside."""

    @app.exception_handler(GuardError)
    async def deliberate(_request: Request, error: GuardError) -> CleanJson:
        return answer_to(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> CleanJson:
        return problem(
            400, "bad_request", "; ".join(_wrong(item) for item in error.errors()[:_MOST_FAULTS])
        )

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> CleanJson:
        return problem(error.status_code, "http_error", str(error.detail))

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, error: Exception) -> CleanJson:
        _LOG.error("request_crashed", kind=type(error).__name__, exc_info=error)
        return problem(
            500, "internal", "Something unexpected happened; the log of the API has the details."
        )


def _wrong(item: Mapping[str, Any]) -> str:
    # The input itself is not repeated: it may be a secret sent to the wrong place.
    return f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
