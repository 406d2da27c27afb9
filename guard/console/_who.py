"""Who reads a page, and whether a form came from one of ours."""

import hmac
from dataclasses import dataclass

from fastapi import Request

from guard.api.access import require_token
from guard.core.errors import InputError
from guard.flow.principals import Principal


class Forged(InputError):
    """A form that no page of this session has sent."""

    code = "forbidden"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Who reads a page; `csrf` must come back with every form, where a cookie vouches for them."""

    principal: Principal
    csrf: str = ""


def who_reads(request: Request) -> Reader:
    """Who asks for a page.

    Raises:
        Unauthorised: there is no session, nor a token, in force.
    """
    return Reader(principal=require_token(request))


def check_form(reader: Reader, sent: str) -> None:
    """Refuse a form that another site has sent.

    Raises:
        Forged: it lacks the session's own secret.
    """
    if not hmac.compare_digest(sent.encode(), reader.csrf.encode()):
        raise Forged("This form is not from this session; load the page again and send it anew.")
