"""Sign in to the console with a principal's token, and sign out.

These routes answer browsers and are no part of the described API. The Gatekeeper has checked
already that forms come from a page of ours.
"""

import math
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from guard.api import sessions
from guard.api._login_page import login_page
from guard.api.access import BoundedRoute, guard_of
from guard.core.errors import Unavailable
from guard.flow.principals import Unauthorised, authenticate

if TYPE_CHECKING:
    from guard.api._attempts import Attempts

router = APIRouter(include_in_schema=False, route_class=BoundedRoute)
#: The same for a token that never existed, that is misspelt, expired or revoked.
WRONG = "The token is wrong, expired or revoked; ask an operator for another."
SLOW_DOWN = "Too many attempts failed from here; wait a minute and try again."
AWAY = "The database does not answer; try again soon."
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def page(status: int, wanted: str, problem: str = "", wait: float = 0.0) -> HTMLResponse:
    """The page on which a person signs in."""
    headers = {"Content-Security-Policy": POLICY}
    if wait > 0:
        headers["Retry-After"] = str(math.ceil(wait))
    return HTMLResponse(login_page(wanted=wanted, problem=problem), status, headers)


@router.get("/console/login")
def show(request: Request) -> Response:
    """Answer with the page on which a person signs in, or with where they wanted to go."""
    wanted = sessions.safe_next(request.query_params.get("next", ""))
    if sessions.session_of(guard_of(request), request) is not None:
        return RedirectResponse(wanted, 303)
    return page(200, wanted)


@router.post("/console/login")
async def sign_in(request: Request) -> Response:
    """Sign a browser in with the token of a form."""
    form = await sessions.form_of(request)
    return await run_in_threadpool(
        _sign_in, request, form.get("token", "").strip(), sessions.safe_next(form.get("next", ""))
    )


def _sign_in(request: Request, token: str, wanted: str) -> Response:
    guard = guard_of(request)
    attempts: Attempts = request.app.state.attempts
    address = request.client.host if request.client is not None else ""
    now = guard.now().timestamp()
    if (wait := attempts.wait(address, now)) > 0:
        return page(429, wanted, SLOW_DOWN, wait)
    try:
        opened = sessions.open_session(guard, authenticate(guard, token))
    except Unauthorised:
        attempts.failed(address, now)
        return page(401, wanted, WRONG)
    except Unavailable:
        return page(503, wanted, AWAY)
    response = RedirectResponse(wanted, 303)
    sessions.set_cookie(guard, request, response, opened)
    return response


@router.post("/console/logout")
def sign_out(request: Request) -> Response:
    """End the browser's session."""
    sessions.close_session(guard_of(request), request.cookies.get(sessions.COOKIE, ""))
    response = RedirectResponse(sessions.LOGIN, 303)
    sessions.drop_cookie(request, response)
    return response
