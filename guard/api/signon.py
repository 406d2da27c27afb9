"""Sign in to the console with a principal's token or at an identity provider, and sign out.

These routes answer browsers and are no part of the described API. The Gatekeeper has checked
already that forms come from a page of ours.
"""

import math
from typing import TYPE_CHECKING

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from guard import signon
from guard.api import sessions
from guard.api._login_page import leave_page, left_page, login_page
from guard.api.access import BoundedRoute, guard_of
from guard.core.errors import GuardError, Unavailable
from guard.flow import identities
from guard.flow.principals import Unauthorised, authenticate

if TYPE_CHECKING:
    from guard.api._attempts import Attempts

router = APIRouter(include_in_schema=False, route_class=BoundedRoute)
#: The same for a token that never existed, that is misspelt, expired or revoked.
WRONG = "The token is wrong, expired or revoked; ask an operator for another."
SLOW_DOWN = "Too many attempts failed from here; wait a minute and try again."
AWAY = "The database does not answer; try again soon."
REFUSED = "The identity provider's answer does not prove who you are; begin again."
PROVIDER_AWAY = "The identity provider does not answer as it must; try again soon."
NO_ROLE = "None of your groups has a role here; ask an operator."
NO_PROVIDER = "No identity provider is set up here; sign in with a token."
#: With the prefix that a browser takes over TLS alone, and from no other host of the domain.
ATTEMPT, SECURE_ATTEMPT = "guard_signon", "__Host-guard_signon"
_LOG = structlog.get_logger()
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def page(
    request: Request, status: int, wanted: str, problem: str = "", wait: float = 0.0
) -> HTMLResponse:
    """The page on which a person signs in."""
    headers = {"Content-Security-Policy": POLICY}
    if wait > 0:
        headers["Retry-After"] = str(math.ceil(wait))
    provider = provider_of(request) is not None
    text = login_page(wanted=wanted, problem=problem, provider=provider)
    return HTMLResponse(text, status, headers)


def provider_of(request: Request) -> signon.Provider | None:
    """The identity provider that people sign on with, or None."""
    found: signon.Provider | None = request.app.state.provider
    return found


@router.get("/console/login")
def show(request: Request) -> Response:
    """Answer with the page on which a person signs in, or with where they wanted to go."""
    wanted = sessions.safe_next(request.query_params.get("next", ""))
    if sessions.session_of(guard_of(request), request) is not None:
        return RedirectResponse(wanted, 303)
    return page(request, 200, wanted)


@router.post("/console/login")
async def sign_in(request: Request) -> Response:
    """Sign a browser in with the token of a form."""
    form = await sessions.form_of(request)
    return await run_in_threadpool(
        _sign_in, request, form.get("token", "").strip(), sessions.safe_next(form.get("next", ""))
    )


def _sign_in(request: Request, token: str, wanted: str) -> Response:
    guard = guard_of(request)
    if (slowed := _slowed(request, wanted)) is not None:
        return slowed
    try:
        opened = sessions.open_session(guard, authenticate(guard, token))
    except Unauthorised:
        _failed(request)
        return page(request, 401, wanted, WRONG)
    except Unavailable:
        return page(request, 503, wanted, AWAY)
    response = RedirectResponse(wanted, 303)
    sessions.set_cookie(guard, request, response, opened)
    return response


def _slowed(request: Request, wanted: str) -> Response | None:
    attempts: Attempts = request.app.state.attempts
    wait = attempts.wait(_address(request), guard_of(request).now().timestamp())
    return page(request, 429, wanted, SLOW_DOWN, wait) if wait > 0 else None


def _failed(request: Request) -> None:
    attempts: Attempts = request.app.state.attempts
    attempts.failed(_address(request), guard_of(request).now().timestamp())


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


@router.get("/console/login/oidc")
def leave(request: Request) -> Response:
    """Send a browser to the identity provider."""
    wanted = sessions.safe_next(request.query_params.get("next", ""))
    provider = provider_of(request)
    if provider is None:
        return page(request, 404, wanted, NO_PROVIDER)
    try:
        address, cookie = provider.start(wanted)
    except signon.ProviderAway as error:
        _LOG.warning("provider_away", error=error.sentence)
        return page(request, 503, wanted, PROVIDER_AWAY)
    response = RedirectResponse(address, 303)
    # The way back begins at another site, with which a strict cookie would not come along.
    name, secure = _attempt(request)
    response.set_cookie(
        name, cookie, max_age=600, path="/", secure=secure, httponly=True, samesite="lax"
    )
    return response


@router.get("/console/login/oidc/callback")
def come_back(request: Request) -> Response:
    """Sign a browser in that comes back from the identity provider."""
    provider = provider_of(request)
    if provider is None:
        return page(request, 404, sessions.CONSOLE, NO_PROVIDER)
    response = _slowed(request, sessions.CONSOLE) or _come_back(request, provider)
    name, secure = _attempt(request)
    response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")
    return response


def _come_back(request: Request, provider: signon.Provider) -> Response:
    guard, answer = guard_of(request), dict(request.query_params)
    wanted = sessions.CONSOLE
    try:
        pending = provider.pending(request.cookies.get(_attempt(request)[0], ""), answer)
        wanted = sessions.safe_next(pending.wanted)
        who = provider.finish(pending, answer)
        roles = provider.terms.roles_of(who.groups)
        opened = identities.sign_on(guard, who, roles, attempt=pending.state)
    except identities.NoRole as error:
        _LOG.info("sign_on_without_role", error=error.sentence)
        return page(request, 403, wanted, NO_ROLE)
    except Unavailable as error:
        _LOG.warning("sign_on_failed", code=error.code, error=error.sentence)
        away = PROVIDER_AWAY if isinstance(error, signon.ProviderAway) else AWAY
        return page(request, 503, wanted, away)
    except GuardError as error:
        _failed(request)
        _LOG.warning("sign_on_refused", code=error.code, error=error.sentence)
        return page(request, 401, wanted, REFUSED)
    response = HTMLResponse(leave_page(wanted), headers={"Content-Security-Policy": POLICY})
    sessions.set_cookie(guard, request, response, opened)
    return response


def _attempt(request: Request) -> tuple[str, bool]:
    secure = sessions.is_secure(request)
    return (SECURE_ATTEMPT if secure else ATTEMPT), secure


@router.post("/console/logout")
def sign_out(request: Request) -> Response:
    """End the browser's session, and offer to end the one at the provider that signed it on."""
    cookie = request.cookies.get(sessions.COOKIE, "")
    by_provider = sessions.close_session(guard_of(request), cookie)
    provider = provider_of(request) if by_provider else None
    way_out = provider.way_out() if provider is not None else ""
    response: Response = RedirectResponse(sessions.LOGIN, 303)
    if way_out:
        response = HTMLResponse(left_page(way_out), headers={"Content-Security-Policy": POLICY})
    sessions.drop_cookie(request, response)
    return response
