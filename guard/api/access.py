"""Decide who may call the API and how much a caller may send, before anything is read or parsed."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guard.api import sessions
from guard.api.problems import answer_to
from guard.core.errors import GuardError, InputError
from guard.flow import readers
from guard.flow.context import Guard
from guard.flow.nominate import MAX_BODY_BYTES, Unauthorised
from guard.flow.principals import Principal, authenticate
from guard.store.scope import Scope as ReadScope

MAX_REQUEST_BYTES = 64 << 10  # several times the longest reason that a form takes
SHORT = 4 << 10  # bytes of JSON that are parsed in tens of microseconds
#: What a load balancer and a person without a token may see; none of it reveals anything.
OPEN = frozenset({"/healthz", "/health/live", "/health/ready", "/docs"})
#: Events are signed or bear the webhook's token, logout tokens are signed by the identity provider;
#: these routes check that, and bound what they read.
SELF_CHECKED = frozenset({"/events/s3", "/oidc/backchannel-logout"})


class EventTooLarge(InputError):
    """The body of a notification is over its limit."""

    code = "event_too_large"


class RequestTooLarge(InputError):
    """The body of any other request is over its limit."""

    code = "request_too_large"


def guard_of(request: Request) -> Guard:
    """The Guard with which the application was made."""
    guard: Guard = request.app.state.guard
    return guard


def scope_of(request: Request) -> ReadScope:
    """What whoever asks may read; the same for the whole request."""
    known: ReadScope | None = getattr(request.state, "scope", None)
    if known is None:
        known = request.state.scope = readers.scope_for(guard_of(request), _known(request))
    return known


class Gatekeeper:
    """Let a request in once its token is in force and its body, of bounded size, is there.

    Paths that do not exist ask for a token too, so that nobody can list what there is. Pages of the
    console ask for a browser's session instead, which opens nothing else.
    """

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self.app = app
        self.guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or hand on what is none."""
        if scope["type"] != "http" or scope["path"] in SELF_CHECKED:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            if sessions.is_console(scope["path"]):
                body = await self._page(request)
            else:
                if scope["path"] not in OPEN:
                    who = await run_in_threadpool(_bearer, self.guard, request)
                    scope["state"] = {**scope.get("state", {}), "principal": who}
                body = await read_body(request, MAX_REQUEST_BYTES, RequestTooLarge)
        except ClientDisconnect:
            return
        except sessions.SignInNeeded as error:
            asked = request.method in {"GET", "HEAD"}
            answer = sessions.to_login(request) if asked else answer_to(error)
            await answer(scope, receive, send)
            return
        except GuardError as error:
            await answer_to(error)(scope, receive, send)
            return
        await self.app(scope, _replay(body, receive), send)

    async def _page(self, request: Request) -> bytes:
        session = await sessions.admit(self.guard, request)
        body = await read_body(request, MAX_REQUEST_BYTES, RequestTooLarge)
        if session is not None:
            sessions.check_form(request, session, body)
            more = {"principal": session.principal, "session": session}
            request.scope["state"] = {**request.scope.get("state", {}), **more}
        return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """A channel that gives a body that was read already, then what the server has to report."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again


class BoundedRoute(APIRoute):
    """A route whose JSON is parsed in a thread where it is long, so that it holds up no other."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """FastAPI's handler, given a request that parses long bodies in a thread."""
        handle = super().get_route_handler()

        async def threaded(request: Request) -> Response:
            return await handle(_Threaded(request.scope, request.receive))

        return threaded


class _Threaded(Request):
    async def json(self) -> Any:
        body = await self.body()
        # A thread costs more than a short text takes.
        return json.loads(body) if len(body) < SHORT else await run_in_threadpool(json.loads, body)


async def require_token(request: Request) -> Principal:
    """Let in whoever holds a token in force; every role may read.

    The Gatekeeper has asked the database already; nothing here waits.

    Signatures are for events only: they cover a body, not which resource is asked for.

    Raises:
        Unauthorised: the bearer token is missing, wrong, expired or revoked.
    """
    return _known(request)


def _known(request: Request) -> Principal:
    known: Principal | None = getattr(request.state, "principal", None)
    if known is None:
        raise Unauthorised("The request carries no bearer token.")
    return known


def _bearer(guard: Guard, request: Request) -> Principal:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise Unauthorised("The request carries no bearer token.")
    return authenticate(guard, token.strip())


def has_token(request: Request) -> bool:
    """Whether an open path is asked by somebody with a token in force.

    While the database is away only the token of GUARD_WEBHOOK_TOKEN is.
    """
    try:
        _bearer(guard_of(request), request)
    except GuardError:
        return False
    return True


async def read_body(
    request: Request, most: int = MAX_BODY_BYTES, kind: type[InputError] = EventTooLarge
) -> bytes:
    """The body of a request, of which never more than `most` bytes are in memory.

    Raises:
        InputError: the body is larger, or says so before it is read; of `kind`.
    """
    refusal = kind(f"The body exceeds {most} bytes; send less at once.")
    stated = request.headers.get("content-length", "0")
    if not (stated.isascii() and stated.isdigit() and len(stated) < 20) or int(stated) > most:
        raise refusal
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise refusal
        parts.append(part)
    return b"".join(parts)
