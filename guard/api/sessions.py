"""Browser sessions over HTTP: the cookie, and what keeps other sites from using it.

The cookie opens the console's pages and nothing else; every other route asks for a bearer token.
The Gatekeeper calls `admit` before a page's route runs, so that no page can forget a check.
"""

import hmac
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from guard.api.forms import pairs_of
from guard.core.errors import InputError
from guard.flow import sessions
from guard.flow.context import Guard
from guard.flow.principals import Unauthorised
from guard.flow.sessions import OpenedSession, SessionInForce, close_session, open_session

__all__ = ["OpenedSession", "SessionInForce", "close_session", "open_session", "session_of"]

COOKIE = "guard_session"
CONSOLE = "/console/"
LOGIN = "/console/login"
#: What a browser may load before it is signed in.
STATIC = "/console/static/"
MAX_FIELDS = 200
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class SignInNeeded(Unauthorised):
    """A page of the console was asked for without a session in force."""

    code = "sign_in_needed"


class ForeignForm(InputError):
    """A form was sent by a page of another site, or without the session's `csrf`."""

    code = "cross_site"


class BadForm(InputError):
    """The body of a form cannot be read."""

    code = "bad_form"


def is_console(path: str) -> bool:
    """Whether a path is the console's, for which the cookie counts."""
    return path.startswith(CONSOLE)


def session_of(guard: Guard, request: Request) -> SessionInForce | None:
    """The session of the browser that asks, or None; only for paths of the console."""
    if not is_console(request.scope["path"]):
        return None
    cookie = request.cookies.get(COOKIE, "")
    return sessions.find_session(guard, cookie) if cookie else None


async def admit(guard: Guard, request: Request) -> SessionInForce | None:
    """Check whose browser asks for a page of the console; None for what needs no session.

    Raises:
        SignInNeeded: nobody is signed in.
        ForeignForm: something is to be changed, and the browser does not say that our page asks.
    """
    if request.method not in _SAFE_METHODS:
        check_same_origin(guard, request)
    path = request.scope["path"]
    if path == LOGIN or path.startswith((f"{LOGIN}/", STATIC)):
        return None
    found = await run_in_threadpool(session_of, guard, request)
    if found is None:
        raise SignInNeeded("Sign in first; the session has ended or there was none.")
    return found


def check_form(request: Request, session: SessionInForce, body: bytes) -> None:
    """Check that what is to be changed carries the session's `csrf`, as a field or a header.

    Raises:
        ForeignForm: it does not.
        BadForm: the body is no form.
    """
    if request.method in _SAFE_METHODS:
        return
    given = request.headers.get("csrf") or read_form(request, body).get("csrf", "")
    if not hmac.compare_digest(given.encode(errors="replace"), session.csrf.encode()):
        raise ForeignForm("The form is not of this session; reload the page and send it again.")


def check_same_origin(guard: Guard, request: Request) -> None:
    """Check by what the browser itself says that a page of ours sends the request.

    Raises:
        ForeignForm: another site sends it, or the browser says nothing.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    # A browser that is asked to reveal no referrer sends "null"; then the other header decides.
    fits = origin in _origins(guard, request) or (origin == "null" and site is not None)
    if (
        (site, origin) == (None, None)
        or site not in {None, "same-origin"}
        or not (origin is None or fits)
    ):
        raise ForeignForm(
            "Another site sent this, or the address in the browser is not GUARD_PUBLIC_URL."
        )


def _origins(guard: Guard, request: Request) -> set[str]:
    public = urlsplit(guard.settings.public_url)
    own = {f"{request.url.scheme}://{request.headers.get('host', '')}"}
    return own | ({f"{public.scheme}://{public.netloc}"} if public.netloc else set())


def read_form(request: Request, body: bytes) -> dict[str, str]:
    """The fields of a form, the last of each name; empty for a body of another type.

    Raises:
        BadForm: it is not UTF-8, or has more than `MAX_FIELDS` fields.
    """
    try:
        return dict(pairs_of(request.headers.get("content-type", ""), body, MAX_FIELDS))
    except ValueError as error:
        raise BadForm("The form cannot be read; send it as UTF-8, with fewer fields.") from error


async def form_of(request: Request) -> Mapping[str, str]:
    """The fields of the form that a request carries; raises as `read_form`."""
    return read_form(request, await request.body())


def set_cookie(guard: Guard, request: Request, response: Response, opened: OpenedSession) -> None:
    """Give the browser its session."""
    response.set_cookie(
        COOKIE,
        opened.cookie,
        max_age=max(int((opened.expires - guard.now()).total_seconds()), 0),
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="strict",
    )


def drop_cookie(request: Request, response: Response) -> None:
    """Have the browser forget its session."""
    response.delete_cookie(
        COOKIE, path="/", secure=is_secure(request), httponly=True, samesite="strict"
    )


def is_secure(request: Request) -> bool:
    """Whether cookies are for TLS alone: always, but for plain HTTP on this machine."""
    return request.url.scheme != "http" or request.url.hostname not in _LOOPBACK


def safe_next(wanted: str) -> str:
    """Where to go after signing in: a page of the console, never another site."""
    plain = wanted.isascii() and wanted.isprintable() and "\\" not in wanted and "//" not in wanted
    usable = plain and is_console(wanted) and not wanted.startswith((LOGIN, f"{CONSOLE}logout"))
    return quote(wanted, safe="/?&=%+:@,;!$'()*~-._") if usable else CONSOLE


def to_login(request: Request) -> Response:
    """Send a browser to sign in, and back afterwards to the page that it wanted."""
    wanted = request.scope["path"]
    if request.url.query:
        wanted += f"?{request.url.query}"
    target = f"{LOGIN}?next={quote(safe_next(wanted), safe='/')}"
    if "hx-request" in request.headers:  # a part of a page: the whole page has to move
        return Response(status_code=401, headers={"HX-Redirect": target})
    return RedirectResponse(target, 303)
