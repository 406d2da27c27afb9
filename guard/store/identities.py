"""People of identity providers, and which principal each is."""

import uuid
from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from guard.core.identity import Identity
from guard.store._read import first, insert_once, many, rows_of, table
from guard.store.access_tables import KnownIdentity
from guard.store.rows import IdentityRow, TokenRow
from guard.store.tables import Principal, Token

_IDENTITIES, _TOKENS = table(KnownIdentity), table(Token)
#: Stands where a token has the hash of its secret; no secret has this hash.
NO_SECRET = "0" * 64


def find(s: Session, issuer: str, subject: str) -> IdentityRow | None:
    """The person with this subject at this provider, or None."""
    same = (_IDENTITIES.c.issuer == issuer, _IDENTITIES.c.subject == subject)
    return first(s, IdentityRow, rows_of(KnownIdentity).where(*same))


def groups_of(s: Session, principal: str) -> frozenset[str]:
    """The groups of a principal when they last signed on; none for whoever has only tokens."""
    of = select(_IDENTITIES.c.groups).where(_IDENTITIES.c.principal == principal)
    found = s.execute(of).scalar()
    return frozenset(found or ())


def claim(s: Session, name: str, now: datetime) -> bool:
    """Make a principal; returns whether nobody had the name."""
    return insert_once(s, Principal, {"name": name, "created_at": now})


def add(s: Session, who: Identity, principal: str, now: datetime) -> None:
    """Record a person; the database refuses one who is known, or whose principal is somebody."""
    row = IdentityRow(
        id=uuid.uuid4().hex,
        issuer=who.issuer,
        subject=who.subject,
        principal=principal,
        groups=list(who.groups),
        created_at=now,
        last_used_at=now,
    )
    s.execute(insert(_IDENTITIES).values(**vars(row)))


def seen(s: Session, identity_id: str, groups: list[str], now: datetime) -> None:
    """Record that a person signed on, and their groups."""
    mine = _IDENTITIES.c.id == identity_id
    s.execute(update(_IDENTITIES).where(mine).values(groups=groups, last_used_at=now))


def tokens_of(s: Session, principal: str, now: datetime) -> list[TokenRow]:
    """The tokens in force that signing on gave a principal; no bearer holds them."""
    mine = (
        _TOKENS.c.principal == principal,
        _TOKENS.c.hash == NO_SECRET,
        _TOKENS.c.revoked_at.is_(None),
        _TOKENS.c.expires_at > now,
    )
    return many(s, TokenRow, rows_of(Token).where(*mine).order_by(_TOKENS.c.created_at))
