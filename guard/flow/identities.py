"""Sign a person of an identity provider on: which principal they are, with which roles.

A person is known by issuer and subject and stays the same principal whatever they are called. Their
roles are tokens as any other, one a role, without a secret that a bearer could show; they are made
anew at each sign-on and end with the session.
"""

import re
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from guard.core.digests import sha256
from guard.core.errors import InputError
from guard.core.identity import Identity
from guard.core.roles import Act, Role
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.principals import Credential, Principal
from guard.flow.sessions import OpenedSession, enter
from guard.flow.tokens import NAME, RESERVED
from guard.store import identities, principals
from guard.store.session import transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.flow.context import Guard

MAX_SEALED = 50  # groups that are signed with an act
_NOT_IN_NAMES = re.compile(r"[^a-z0-9._@-]+")


class NoRole(InputError):
    """None of a person's groups has a role here."""

    code = "no_role"


def sign_on(
    guard: "Guard", who: Identity, roles: Collection[Role], *, attempt: str
) -> OpenedSession:
    """Open a session for a person whom their provider signed on.

    Args:
        roles: those of their groups.
        attempt: the state with which they came back; it works once.

    Raises:
        NoRole: there are none; earlier sessions of the person end.
        AttemptUsed: the attempt opened a session before.
    """
    with transaction(guard.engine) as session:
        name = _principal_of(guard, session, who, new=bool(roles))
        ended = _end_others(guard, session, name, roles)
        opened = _enter(guard, session, name, who, sorted(roles), ended, attempt) if roles else None
        if ended and not roles:
            nobody, facts = Principal(name=name, role=None), {"ended": ended}
            note(guard, session, nobody, Act.SIGN_OUT, name, "No group has a role now.", facts)
    settle(guard)
    if opened is None:
        raise NoRole(f"None of your groups has a role here, {name or who.subject!r:.100}.")
    return opened


def _enter(
    guard: "Guard",
    session: "Session",
    name: str,
    who: Identity,
    roles: list[Role],
    ended: list[str],
    attempt: str,
) -> OpenedSession:
    expires = guard.now() + timedelta(hours=guard.settings.session_hours)
    held = [Credential(role, _give(guard, session, name, role, expires)) for role in roles]
    principal = Principal.of(name, held)
    opened = enter(guard, session, principal, attempt=attempt)
    detail = f"{who.subject!r:.100} of {who.issuer} as {', '.join(roles)}"
    facts = {
        "session": opened.session_id,
        "issuer": who.issuer,
        "subject": who.subject,
        "groups": list(who.groups[:MAX_SEALED]),
        "tokens": [one.token_id for one in held],
        "ended": ended,
    }
    note(guard, session, principal.acting(Act.SIGN_IN), Act.SIGN_IN, name, detail, facts)
    return opened


def _principal_of(guard: "Guard", session: "Session", who: Identity, *, new: bool) -> str:
    """The principal that a person is; one of their own where they come for the first time.

    A name that anybody has already, by a token or as another person, is never given again.

    Returns:
        Its name; empty for somebody who is not known, where none is to be made.
    """
    known = identities.find(session, who.issuer, who.subject)
    if known is not None:
        identities.seen(session, known.id, list(who.groups), guard.now())
        return known.principal
    if not new:
        return ""
    mark = sha256(f"{who.issuer}\n{who.subject}".encode())
    plain = _NOT_IN_NAMES.sub("-", who.name.lower()).strip("-._@")[:40] or "person"
    for name in (plain, f"{plain}-{mark[:8]}", f"person-{mark[:32]}"):
        free = NAME.fullmatch(name) and name not in RESERVED
        if free and identities.claim(session, name, guard.now()):
            identities.add(session, who, name, guard.now())
            return name
    raise InputError("There is no free name for this person.", code="bad_principal")


def _end_others(
    guard: "Guard", session: "Session", name: str, roles: Collection[Role]
) -> list[str]:
    """End the earlier sessions of a person whose roles changed; returns the tokens revoked."""
    earlier = identities.tokens_of(session, name, guard.now())
    if {row.role for row in earlier} == set(roles):
        return []
    for row in earlier:
        principals.revoke(session, row.id, guard.now())
    return [row.id for row in earlier]


def _give(guard: "Guard", session: "Session", name: str, role: Role, expires: datetime) -> str:
    row = principals.add_token(
        session,
        token_id=secrets.token_hex(8),
        principal=name,
        role=role,
        secret_hash=identities.NO_SECRET,
        now=guard.now(),
        expires_at=expires,
    )
    return row.id
