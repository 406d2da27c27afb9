"""Who reads a page. The Gatekeeper has let nobody in without a session, nor a foreign form."""

from dataclasses import dataclass

from fastapi import Request

from guard.api.sessions import SessionInForce, SignInNeeded
from guard.flow.principals import Principal


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Who reads a page; `csrf` comes back with every form."""

    principal: Principal
    csrf: str

    @property
    def roles(self) -> str:
        """The roles that the session's tokens prove, as text."""
        return ", ".join(str(one.role) for one in self.principal.credentials)


def who_reads(request: Request) -> Reader:
    """Who asks for a page.

    Raises:
        SignInNeeded: there is no session in force.
    """
    found: SessionInForce | None = getattr(request.state, "session", None)
    if found is None:
        raise SignInNeeded("Sign in first; the session has ended or there was none.")
    return Reader(principal=found.principal, csrf=found.csrf)
