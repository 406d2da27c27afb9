"""Decide who may call the API and how much a caller may send."""

from fastapi import Request

from guard.core.errors import InputError
from guard.flow.context import Guard
from guard.flow.nominate import MAX_BODY_BYTES, check_auth


def guard_of(request: Request) -> Guard:
    """The Guard with which the application was made."""
    guard: Guard = request.app.state.guard
    return guard


def require_token(request: Request) -> None:
    """Admit a caller who holds the bearer token.

    Signatures serve events only: they cover a body, not the requested resource.
    """
    guard = guard_of(request)
    bearer = {"authorization": request.headers.get("authorization", "")}
    check_auth(
        bearer, b"", token=guard.settings.webhook_token.reveal(), hmac_key="", now=guard.now()
    )


async def read_body(request: Request) -> bytes:
    """The body of a request, of which never more than the limit is in memory.

    Raises:
        InputError: the body is larger; code `event_too_large`.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise InputError(
                f"The body exceeds {MAX_BODY_BYTES} bytes; send fewer records.",
                code="event_too_large",
            )
        parts.append(part)
    return b"".join(parts)
