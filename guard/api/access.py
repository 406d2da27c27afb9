"""Who may call, and how much they may send."""

from fastapi import Request

from guard.core.errors import InputError
from guard.flow.context import Guard
from guard.flow.nominate import MAX_BODY_BYTES, check_auth


def guard_of(request: Request) -> Guard:
    """The Guard that the application was made with."""
    guard: Guard = request.app.state.guard
    return guard


def require_token(request: Request) -> None:
    """Let in whoever holds the bearer token.

    Signatures are for events only: they cover a body, not which resource is asked for.
    """
    guard = guard_of(request)
    bearer = {"authorization": request.headers.get("authorization", "")}
    check_auth(
        bearer, b"", token=guard.settings.webhook_token.reveal(), hmac_key="", now=guard.now()
    )


async def read_body(request: Request) -> bytes:
    """The body, never more than the limit in memory.

    Raises:
        InputError: it is larger; code `event_too_large`.
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
