"""Principals and their tokens. A token's secret is never stored, only its SHA-256."""

from datetime import datetime

from sqlalchemy import bindparam, insert, select, text, update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.roles import Role
from guard.store._read import first, insert_once, many, rows_of, table
from guard.store.rows import TokenRow
from guard.store.tables import Principal, Token

_PRINCIPALS, _TOKENS = table(Principal), table(Token)
_FIND = rows_of(Token).where(_TOKENS.c.id == bindparam("wanted"))


def exist(s: Session) -> bool:
    """Whether any principal was ever made; a revoked token does not make its principal vanish."""
    return s.execute(select(_PRINCIPALS.c.name).limit(1)).first() is not None


def is_known(s: Session, name: str) -> bool:
    """Whether a principal has this name."""
    named = select(_PRINCIPALS.c.name).where(_PRINCIPALS.c.name == name)
    return s.execute(named).first() is not None


def lock(s: Session) -> None:
    """Let no other transaction make a principal until this one ends."""
    # On SQLite, `transaction` holds the write lock from its start.
    if s.get_bind().dialect.name == "postgresql":
        s.execute(text("LOCK TABLE principals IN SHARE ROW EXCLUSIVE MODE"))


def put(s: Session, name: str, now: datetime) -> None:
    """Record a principal; harmless if it exists."""
    insert_once(s, Principal, {"name": name, "created_at": now})


def add_token(
    s: Session,
    *,
    token_id: str,
    principal: str,
    role: Role,
    secret_hash: str,
    now: datetime,
    expires_at: datetime,
) -> TokenRow:
    """Record a token of a principal that exists."""
    row = TokenRow(
        id=token_id,
        principal=principal,
        role=role,
        hash=secret_hash,
        created_at=now,
        expires_at=expires_at,
        revoked_at=None,
        last_used_at=None,
    )
    s.execute(insert(_TOKENS).values(**vars(row)))
    return row


def find_token(s: Session, token_id: str) -> TokenRow | None:
    """The token with this id, or None."""
    return first(s, TokenRow, _FIND, wanted=token_id)


def list_tokens(s: Session) -> list[TokenRow]:
    """Every token, by principal and age."""
    order = (_TOKENS.c.principal, _TOKENS.c.created_at, _TOKENS.c.id)
    return many(s, TokenRow, rows_of(Token).order_by(*order))


def revoke(s: Session, id_or_name: str, now: datetime) -> list[TokenRow]:
    """Revoke one token by its id, or all of a principal's by its name; returns those revoked now.

    Raises:
        InputError: there is no such token or principal.
    """
    mine = (_TOKENS.c.id == id_or_name) | (_TOKENS.c.principal == id_or_name)
    found = many(s, TokenRow, rows_of(Token).where(mine).order_by(_TOKENS.c.created_at))
    if not found:
        raise InputError(
            f"There is no token or principal {id_or_name!r}; `guard token list` shows them.",
            code="unknown_token",
        )
    s.execute(update(_TOKENS).where(mine, _TOKENS.c.revoked_at.is_(None)).values(revoked_at=now))
    return [row for row in found if row.revoked_at is None]


def touch(s: Session, token_id: str, now: datetime) -> None:
    """Record that a token was used."""
    s.execute(update(_TOKENS).where(_TOKENS.c.id == token_id).values(last_used_at=now))
