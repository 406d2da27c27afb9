"""Browsers that are signed in: opened with a principal's token, ended with it.

A cookie is `ID.SECRET`. The database keeps the SHA-256 of the secret; what a form must carry
against forgery (`csrf`) is an HMAC under it and is stored nowhere. A session lends no rights of its
own: it stands for tokens, and each act is checked against those, as for any other caller.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from guard.core.digests import sha256
from guard.core.errors import InputError
from guard.core.roles import Act, Role
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.principals import API, TOUCH_SECONDS, Credential, Principal, in_force, permit
from guard.store import principals, sessions
from guard.store.rows import SessionRow
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.flow.context import Guard

COOKIE = re.compile(r"([0-9a-f]{16})\.([A-Za-z0-9_-]{43})")


class AttemptUsed(InputError):
    """An attempt to sign on opened a session before."""

    code = "attempt_used"


@dataclass(frozen=True, kw_only=True)
class OpenedSession:
    """A session as it was just made; `cookie` is stored nowhere."""

    session_id: str
    cookie: str = field(repr=False)
    csrf: str = field(repr=False)
    expires: datetime


@dataclass(frozen=True, kw_only=True)
class SessionInForce:
    """Who a browser is, what its forms must carry, and when it has to sign in again."""

    principal: Principal
    csrf: str = field(repr=False)
    expires: datetime


def open_session(guard: "Guard", principal: Principal) -> OpenedSession:
    """Sign a browser in as a principal that has shown a token.

    Raises:
        Unauthorised: it has shown none, or one that was revoked meanwhile.
    """
    with transaction(guard.engine) as session:
        who = permit(guard, session, principal, Act.SIGN_IN)
        made = enter(guard, session, principal)
        detail = f"until {made.expires:%Y-%m-%d %H:%M} UTC"
        note(guard, session, who, Act.SIGN_IN, who.name, detail, {"session": made.session_id})
    settle(guard)
    return made


def enter(
    guard: "Guard",
    session: "Session",
    principal: Principal,
    *,
    attempt: str | None = None,
    sid: str | None = None,
) -> OpenedSession:
    """Make the session in the caller's transaction; the caller has checked who it is.

    Args:
        attempt: the state with which somebody came back from their identity provider.
        sid: the SHA-256 of issuer and session there.

    Raises:
        AttemptUsed: the attempt opened a session before.
    """
    session_id, secret, now = secrets.token_hex(8), secrets.token_urlsafe(32), guard.now()
    expires = now + timedelta(hours=guard.settings.session_hours)
    ids = [] if principal.name == API else [one.token_id for one in principal.credentials]
    for token_id in ids:
        row = principals.find_token(session, token_id)
        expires = min(expires, row.expires_at if row is not None else now)
    opened = SessionRow(
        id=session_id,
        hash=sha256(secret.encode()),
        principal=principal.name,
        token_ids=ids,
        seal="" if ids else _seal_of(guard, secret),
        attempt=None if attempt is None else sha256(attempt.encode()),
        sid=sid,
        created_at=now,
        expires_at=expires,
        last_used_at=now,
        ended_at=None,
    )
    if not sessions.add(session, opened):
        raise AttemptUsed("This attempt opened a session before; begin another.")
    return OpenedSession(
        session_id=session_id,
        cookie=f"{session_id}.{secret}",
        csrf=_mac(secret, "csrf"),
        expires=expires,
    )


def find_session(guard: "Guard", cookie: str) -> SessionInForce | None:
    """The session that a cookie stands for; its time of last use is kept.

    None where there is none, where it ended or idled too long, or where one of its tokens was
    revoked, has expired or has another role by now.
    """
    now = guard.now()
    with reading(guard.engine) as session:
        row, secret = _row_of(session, cookie)
        if row is None or row.ended_at is not None or row.expires_at <= now:
            return None
        if now - row.last_used_at > timedelta(minutes=guard.settings.session_idle_minutes):
            return None
        principal = _principal_of(guard, session, row, secret)
    if principal is None:
        return None
    if now - row.last_used_at > timedelta(seconds=TOUCH_SECONDS):
        with transaction(guard.engine) as session:
            sessions.touch(session, row.id, now)
    return SessionInForce(principal=principal, csrf=_mac(secret, "csrf"), expires=row.expires_at)


def close_session(guard: "Guard", cookie: str) -> bool:
    """Sign a browser out; harmless where it is not signed in.

    Returns:
        Whether an identity provider had signed it on.
    """
    found = find_session(guard, cookie)
    if found is None:
        return False
    with transaction(guard.engine) as session:
        session_id = cookie.partition(".")[0]
        row = sessions.find(session, session_id)
        if sessions.end(session, session_id, guard.now()):
            who = permit(guard, session, found.principal, Act.SIGN_OUT)
            note(guard, session, who, Act.SIGN_OUT, who.name, "", {"session": session_id})
    settle(guard)
    return row is not None and row.attempt is not None


def _row_of(session: "Session", cookie: str) -> tuple[SessionRow | None, str]:
    found = COOKIE.fullmatch(cookie)
    session_id, secret = found.groups() if found else ("", "")
    row = sessions.find(session, session_id)
    # Compared even where there is no such session, so that the time taken reveals nothing.
    same = hmac.compare_digest(sha256(secret.encode()), row.hash if row is not None else "0" * 64)
    return (row if same else None), secret


def _principal_of(
    guard: "Guard", session: "Session", row: SessionRow, secret: str
) -> Principal | None:
    if not row.token_ids:
        same = guard.settings.webhook_token and hmac.compare_digest(
            row.seal, _seal_of(guard, secret)
        )
        return Principal(name=API, role=Role.OPERATOR) if same else None
    found = [principals.find_token(session, token_id) for token_id in row.token_ids]
    held = [
        Credential(one.role, one.id)
        for one in found
        if one is not None and one.principal == row.principal and in_force(one, guard.now())
    ]
    return Principal.of(row.principal, held) if len(held) == len(found) else None


def _seal_of(guard: "Guard", secret: str) -> str:
    """Ties a session of the operator `api` to the token that GUARD_WEBHOOK_TOKEN holds now."""
    return _mac(secret, f"api {guard.settings.webhook_token.reveal()}")


def _mac(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
