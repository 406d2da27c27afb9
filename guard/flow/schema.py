"""Bring the database to this release's schema, record who did, and give its roles their rights."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from guard.core.errors import Unavailable
from guard.core.roles import MAY, Act
from guard.flow._seal import settle
from guard.flow.principals import Forbidden, Principal
from guard.store import acts, grants, migrate

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.flow.context import Guard


def upgrade(guard: "Guard", login: str, caller: Callable[[], Principal]) -> bool:
    """Upgrade the schema, with the act in the same transaction; whether there was anything to do.

    Nobody is asked for a token: a release is often installed by a process that has none, and
    whoever has the database's address could do the same without this. Who shows one is checked.

    Args:
        login: who acts where no token is shown, or where the old schema knows none.
        caller: who shows a token; called before anything is changed.

    Raises:
        Unauthorised: the token is wrong, expired or revoked; nothing was changed.
        Forbidden: it is not an operator's; nothing was changed.
        Unavailable: the database did not answer.
    """
    url, head = guard.settings.database_url, migrate.head()
    before = migrate.current(url)
    if before == head:
        return False
    who = Principal(name=login, role=None)
    if before is not None:
        with suppress(Unavailable):  # a schema without tokens
            who = caller()
    if who.role is not None and who.role not in MAY[Act.UPGRADE_DATABASE]:
        raise Forbidden(f"{who.name} shows a token of role {who.role}; this needs an operator's.")

    def record(session: "Session") -> None:
        acts.add(
            session,
            act=Act.UPGRADE_DATABASE,
            principal=who.name,
            role=str(who.role or ""),
            authenticated=who.authenticated,
            token_id=who.token_id,
            subject=head,
            detail=f"from {before}" if before else "a new database",
            facts={"before": before or ""},
            now=guard.now(),
        )

    migrate.upgrade(url, then=record)
    settle(guard)
    return True


def role_statements(prefix: str) -> list[str]:
    """The SQL of `grant_roles`; raises InputError for a wrong prefix."""
    return grants.statements(prefix)


def grant_roles(guard: "Guard", prefix: str) -> list[str]:
    """Make the database's roles and give them their rights; returns their names.

    Raises the errors of `guard.store.grants.grant`.
    """
    return grants.grant(guard.engine, prefix)
