"""Who asks, proved by a token, and whether their role lets them.

A token is `guard_ID_SECRET`. The secret is 256 random bits, so that a plain SHA-256 is enough to
store it: a slow hash protects passwords, which can be guessed, and nobody guesses 256 bits.
"""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from guard.core.digests import sha256
from guard.core.errors import InputError
from guard.core.roles import MAY, NEEDS_TOKEN, Act, Role
from guard.events.auth import Unauthorised
from guard.store import principals, uploaders
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.flow.context import Guard
    from guard.store.rows import TokenRow

__all__ = ["Forbidden", "Principal", "Unauthorised", "authenticate", "permit", "person"]

#: The operator that `GUARD_WEBHOOK_TOKEN` stands for; no token is ever given out under this name.
API = "api"
TOKEN = re.compile(r"guard_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
TOUCH_SECONDS = (
    60.0  # the time of last use is that coarse, so that reading does not write each time
)
_NOBODY = "0" * 64


class Forbidden(InputError):
    """The caller is known, and its role does not include what it asks for."""

    code = "forbidden"


#: Which of several tokens an act is done with: that of the role which may most.
_RANK = (Role.OPERATOR, Role.SIGNER, Role.REVIEWER, Role.UPLOADER, Role.VIEWER)


class Credential(NamedTuple):
    """A role, and the token that proves it; the operator `api` has no id."""

    role: Role
    token_id: str


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who asks; `role` is None and `token_id` empty for a login that showed no token.

    `others` are the tokens that a browser session holds beside the first one.
    """

    name: str
    role: Role | None
    token_id: str = ""
    others: tuple[Credential, ...] = ()

    @classmethod
    def of(cls, name: str, held: Iterable[Credential]) -> "Principal":
        """A principal that has shown tokens, at least one."""
        first, *others = sorted(held, key=lambda one: _RANK.index(one.role))
        return cls(name=name, role=first.role, token_id=first.token_id, others=tuple(others))

    @property
    def authenticated(self) -> bool:
        """Whether a token proved the name."""
        return self.role is not None

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """Every token that was shown."""
        first = () if self.role is None else (Credential(self.role, self.token_id),)
        return (*first, *self.others)

    def may(self, act: Act) -> bool:
        """Whether one of its roles includes an act; whether its token counts, `permit` checks."""
        return any(one.role in MAY[act] for one in self.credentials)

    def acting(self, act: Act) -> "Principal":
        """The same principal with the one token that it does an act with."""
        fit = [one for one in self.credentials if one.role in MAY[act]]
        return Principal.of(self.name, fit[:1] or self.credentials[:1])


def authenticate(guard: "Guard", token: str) -> Principal:
    """The principal that holds a token; its time of last use is kept.

    Raises:
        Unauthorised: the token is unknown, wrong, expired or revoked; the sentence does not reveal
            which.
    """
    api = guard.settings.webhook_token.reveal()
    if hmac.compare_digest(token.encode(errors="replace"), api.encode()) and api:
        return Principal(name=API, role=Role.OPERATOR)
    found = TOKEN.fullmatch(token)
    token_id, secret = found.groups() if found else ("", "")
    now = guard.now()
    with reading(guard.engine) as session:
        row = principals.find_token(session, token_id)
    # Compared even where there is no such token, so that the time taken reveals nothing.
    same = hmac.compare_digest(sha256(secret.encode()), row.hash if row is not None else _NOBODY)
    if row is None or not same or not in_force(row, now):
        raise Unauthorised("The token is wrong, expired or revoked; ask an operator for another.")
    if row.last_used_at is None or now - row.last_used_at > timedelta(seconds=TOUCH_SECONDS):
        with transaction(guard.engine) as session:
            principals.touch(session, row.id, now)
    return Principal(name=row.principal, role=row.role, token_id=row.id)


def person(guard: "Guard", token: str, login: str) -> Principal:
    """Who sits at a keyboard: the holder of `token`, or without one the `login`, unauthenticated.

    Raises:
        Unauthorised: as `authenticate`. Whether a login may act is for `permit` to decide.
    """
    return authenticate(guard, token) if token else Principal(name=login, role=None)


def permit(guard: "Guard", session: "Session", who: Principal | str, act: Act) -> Principal:
    """Check that `who` may do `act` now; the last check, in the transaction that does it.

    Args:
        who: a name stands for a login that showed no token.

    Returns:
        The principal with the one token that it does the act with.

    Raises:
        Unauthorised: a token is needed and was not shown, or was revoked meanwhile.
        Forbidden: the role does not include the act.
    """
    who = Principal(name=who, role=None) if isinstance(who, str) else who
    if who.role is None:
        if act in NEEDS_TOKEN or guard.settings.require_principals or principals.exist(session):
            raise Unauthorised(
                "This needs a token: set GUARD_TOKEN to one that `guard token create` printed."
            )
        return who
    shown, may = " and ".join(one.role for one in who.credentials), who.may(act)
    who = who.acting(act)
    if who.name != API:
        row = principals.find_token(session, who.token_id)
        if row is None or not in_force(row, guard.now()) or row.role is not who.role:
            raise Unauthorised("The token was revoked or has expired; ask an operator for another.")
    if not may:
        needed = " or ".join(sorted(MAY[act]))
        raise Forbidden(f"{who.name} shows a token of role {shown}; {act} needs {needed}.")
    return who


def name_of(guard: "Guard", who: Principal | str, act: Act) -> str:
    """The name under which `who` does an act that has no transaction of its own.

    A login that showed no token is marked. Raises as `permit`.
    """
    with reading(guard.engine) as session:
        who = permit(guard, session, who, act)
    return who.name if who.authenticated else f"{who.name} (unauthenticated)"


def may_submit(
    guard: "Guard", session: "Session", who: Principal | str, bucket: str, key: str
) -> Principal:
    """Check that `who` may have an object looked at: operators any, uploaders their own.

    Raises:
        Unauthorised, Forbidden: as `permit`, or the uploader owns no prefix of the key.
    """
    who = permit(guard, session, who, Act.SUBMIT)
    own = who.role is not Role.UPLOADER or who.name in uploaders.may_upload(session, bucket, key)
    if not own:
        raise Forbidden(
            f"{who.name} owns no prefix of s3://{bucket}/{key}, nor is an uploader of its project; "
            "ask an operator."
        )
    return who


def in_force(row: "TokenRow", now: datetime) -> bool:
    """Whether a token counts now."""
    return row.revoked_at is None and row.expires_at > now
