"""What both listeners share: tokens, bounded bodies, and errors as the protocol writes them."""

import asyncio
import json
from collections.abc import Collection, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from guard.core.errors import GuardError
from guard.core.secret import Secret
from guard.inference._keys import admits

#: How long a client may take to send one body.
BODY_SECONDS = 30.0
#: The status of each error; any other error of the request is 400.
_STATUS = {
    "no_such_model": 404,
    "release_expired": 403,
    "load_refused": 409,
    "non_finite": 500,
    "request_too_large": 413,
    "too_slow": 408,
    "overloaded": 503,
}


class Refused(GuardError):
    """The server does not take this request; `code` decides the status."""

    code = "overloaded"


class Guarded:
    """An application of which only the `public` paths answer without the token."""

    def __init__(self, app: ASGIApp, key: Secret, public: Collection[str] = ()) -> None:
        self._app, self._key, self._public = app, key, frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._public:
            header = Request(scope).headers.get("authorization", "")
            if not admits(self._key, header):
                answer = error_answer(
                    401, "Send the header `Authorization: Bearer KEY`.", code="no_key"
                )
                answer.headers["WWW-Authenticate"] = "Bearer"
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def json_answer(
    value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON answer."""
    return Response(json.dumps(value), status, headers, media_type="application/json")


def error_answer(status: int, sentence: str, *, code: str) -> Response:
    """An error as the protocol writes it, with the guard's stable code."""
    answer = json_answer({"error": sentence, "code": code}, status)
    if status == 503:
        answer.headers["Retry-After"] = "1"
    return answer


async def body_of(request: Request, most: int) -> bytes:
    """The body, read within a time and a size.

    Raises:
        Refused: it is larger, compressed, or does not come in time.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused("Send the body uncompressed.", code="bad_inputs")
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated[:20]) > most:
        raise Refused(f"A body may have {most} bytes.", code="request_too_large")
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise Refused(f"A body may have {most} bytes.", code="request_too_large")
                parts.append(part)
    except TimeoutError as error:
        raise Refused("The body did not come in time.", code="too_slow") from error
    return b"".join(parts)


async def on_guard_error(_request: Request, error: Exception) -> Response:
    """An error that is raised on purpose, for the client."""
    assert isinstance(error, GuardError)  # noqa: S101 - registered for this type alone
    return error_answer(_STATUS.get(error.code, 400), error.sentence, code=error.code)


async def on_http_error(_request: Request, error: Exception) -> Response:
    """No such path, or no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type alone
    return error_answer(error.status_code, error.detail, code="no_such_path")


async def on_disconnect(_request: Request, _error: Exception) -> Response:
    """Nobody waits for an answer any more."""
    return Response(status_code=400)


async def on_other_error(_request: Request, _error: Exception) -> Response:
    """A fault of the server; what it was stands in its log, and not in the answer."""
    return error_answer(500, "The server failed; see its log.", code="failed")


#: For `Starlette(exception_handlers=...)`.
HANDLERS: Mapping[Any, Any] = {
    GuardError: on_guard_error,
    HTTPException: on_http_error,
    ClientDisconnect: on_disconnect,
    Exception: on_other_error,
}
