"""Sign a person of an identity provider on and off: which principal they are, with which roles.

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
from guard.core.identity import Identity, SignedOff
from guard.core.roles import Act, Role
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.principals import Credential, Principal
from guard.flow.sessions import OpenedSession, enter
from guard.flow.tokens import NAME, RESERVED
from guard.store import identities, principals, sessions
from guard.store.rows import SessionRow
from guard.store.session import transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.flow.context import Guard

MAX_SEALED = 50  # groups that are signed with an act
_NOT_IN_NAMES = re.compile(r"[^a-z0-9._@-]+")


class LogoutReplayed(InputError):
    """A logout token came before."""

    code = "logout_replayed"


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


def sign_off(guard: "Guard", ended: SignedOff) -> int:
    """End the sessions of whoever signed out at their provider, with the tokens that they act by.

    Returns:
        How many there were.

    Raises:
        LogoutReplayed: the provider's statement came before.
    """
    now, count = guard.now(), 0
    with transaction(guard.engine) as session:
        statement = sha256(f"{ended.issuer}\n{ended.statement_id}".encode())
        if not sessions.receive_once(session, statement, now):
            raise LogoutReplayed("This logout token came before; each counts once.")
        for principal, rows in _sessions_of(guard, session, ended).items():
            mine = [row.id for row in rows if sessions.end(session, row.id, now)]
            held = [token_id for row in rows for token_id in row.token_ids]
            for token_id in held:
                principals.revoke(session, token_id, now)
            who = Principal(name=principal, role=None)
            facts = {"issuer": ended.issuer, "sessions": mine, "ended": held}
            note(guard, session, who, Act.SIGN_OUT, principal, "Signed out at the provider.", facts)
            count += len(mine)
    settle(guard)
    return count


def _sessions_of(
    guard: "Guard", session: "Session", ended: SignedOff
) -> dict[str, list[SessionRow]]:
    """The sessions that a statement ends, by principal; of somebody who is not known, none."""
    principal = None
    if ended.subject:
        known = identities.find(session, ended.issuer, ended.subject)
        if known is None:
            return {}
        principal = known.principal
    found: dict[str, list[SessionRow]] = {}
    sid = _sid(ended.issuer, ended.sid)
    for row in sessions.of_provider(session, guard.now(), principal=principal, sid=sid):
        found.setdefault(row.principal, []).append(row)
    return found


def _sid(issuer: str, sid: str) -> str | None:
    return sha256(f"{issuer}\n{sid}".encode()) if sid else None


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
    opened = enter(guard, session, principal, attempt=attempt, sid=_sid(who.issuer, who.sid))
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
