"""The identity provider reports who signed out there (OpenID Connect Back-Channel Logout 1.0).

No cookie and no token of ours comes along: what counts is the provider's signature. The route is no
part of the described API.
"""

import math
from typing import TYPE_CHECKING

import structlog
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from guard.api.access import BoundedRoute, RequestTooLarge, guard_of, read_body
from guard.api.sessions import read_form
from guard.api.signon import provider_of
from guard.core.errors import GuardError, InputError
from guard.flow import identities

if TYPE_CHECKING:
    from guard.api._attempts import Attempts
    from guard.signon import Provider

MAX_BYTES = 16 << 10
#: Failures of one address in a minute. Many, since a proxy in front may make all addresses one, and
#: whoever fills it would keep the provider out; a signature is checked in less than a millisecond.
MOST = 300
_LOG = structlog.get_logger()
router = APIRouter(include_in_schema=False, route_class=BoundedRoute)


class TooManyLogouts(InputError):
    """An address has sent too many logout tokens that do not fit."""

    code = "too_many_logouts"

    def __init__(self, seconds: float) -> None:
        super().__init__("Too many logout tokens from here did not fit; wait a minute.")
        self.retry_after = math.ceil(seconds)


@router.post("/oidc/backchannel-logout")
async def receive_logout(request: Request) -> Response:
    """End the sessions of whoever signed out at the provider, by its logout token."""
    provider = provider_of(request)
    if provider is None:
        raise HTTPException(404, "No identity provider is set up here.")
    attempts: Attempts = request.app.state.sign_offs
    address = request.client.host if request.client is not None else ""
    now = guard_of(request).now().timestamp()
    if (wait := attempts.wait(address, now)) > 0:
        raise TooManyLogouts(wait)
    try:
        body = await read_body(request, MAX_BYTES, RequestTooLarge)
        count = await run_in_threadpool(_end, request, provider, body)
    except GuardError as error:
        attempts.failed(address, now)
        _LOG.warning("logout_not_taken", code=error.code, error=error.sentence)
        raise
    _LOG.info("signed_out_by_provider", sessions=count)
    return Response(status_code=200)


def _end(request: Request, provider: "Provider", body: bytes) -> int:
    token = read_form(request, body).get("logout_token", "")
    return identities.sign_off(guard_of(request), provider.signed_off(token))
