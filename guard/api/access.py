"""Decide who may call the API and how much a caller may send."""

from fastapi import Request

from guard.core.errors import InputError
from guard.flow.context import Guard
from guard.flow.nominate import MAX_BODY_BYTES, Unauthorised
from guard.flow.principals import Principal, authenticate


def guard_of(request: Request) -> Guard:
    """The Guard with which the application was made."""
    guard: Guard = request.app.state.guard
    return guard


def require_token(request: Request) -> Principal:
    """Let in whoever holds a token in force; every role may read.

    Signatures are for events only: they cover a body, not which resource is asked for.

    Raises:
        Unauthorised: the bearer token is missing, wrong, expired or revoked.
    """
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise Unauthorised("The request carries no bearer token.")
    return authenticate(guard_of(request), token.strip())


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
