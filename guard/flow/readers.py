"""What a principal may read: what is their projects', and what they own.

Operators and signers see everything, and so does who shows no token: a login reads the database by
its address. Where there is no project there is nothing to keep apart. Removing somebody from their
last project leaves them nothing to see, never everything.
"""

from typing import TYPE_CHECKING

from guard.core.roles import Role
from guard.flow.principals import Forbidden, Principal
from guard.store import identities, projects, uploaders
from guard.store.scope import EVERYTHING, Place, Scope
from guard.store.session import reading

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from guard.flow.context import Guard
    from guard.store.project_rows import ProjectRow

_EVERYWHERE = frozenset({Role.OPERATOR, Role.SIGNER})
#: Before the name of a group of the identity provider in GUARD_READ_ALL.
GROUP = "group:"


def scope_of(guard: "Guard", session: "Session", who: Principal | str) -> Scope:
    """What somebody may read, as of now; a bounded number of queries."""
    if isinstance(who, str) or not who.authenticated:
        return EVERYTHING
    if any(one.role in _EVERYWHERE for one in who.credentials):
        return EVERYTHING
    known = projects.list_all(session)
    if not known:
        return EVERYTHING
    groups = identities.groups_of(session, who.name)
    everywhere = frozenset(guard.settings.read_all)
    if who.name in everywhere or any(GROUP + one in everywhere for one in groups):
        return EVERYTHING
    mine = projects.of_member(session, who.name, groups)
    own = [(one.bucket, one.prefix) for one in known if one.name in mine]
    others = [one for one in known if one.name not in mine]
    return Scope(
        principal=who.name,
        places=tuple(
            _place(*one, others) for one in (*own, *uploaders.prefixes_of(session, who.name))
        ),
        projects=mine,
        rest=guard.settings.read_unassigned,
        taken=tuple(Place(bucket=one.bucket, prefix=one.prefix) for one in known),
    )


def scope_for(guard: "Guard", who: Principal | str) -> Scope:
    """What `scope_of` gives, in a session of its own."""
    with reading(guard.engine) as session:
        return scope_of(guard, session, who)


def check_everything(scope: Scope, what: str) -> None:
    """Check that somebody sees all projects, which `what` is about.

    Raises:
        Forbidden: they do not.
    """
    if not scope.everything:
        raise Forbidden(f"{what} is about all projects; ask an operator.")


def check_project(scope: Scope, name: str) -> None:
    """Check that somebody sees a project.

    Raises:
        InputError: they do not; the same as where there is none.
    """
    if not scope.reads_project(name):
        raise projects.unknown(name)


def _place(bucket: str, prefix: str, others: "Iterable[ProjectRow]") -> Place:
    """A place without the longer prefixes in it that are other people's."""
    inner = [one.prefix for one in others if one.bucket == bucket and one.prefix != prefix]
    return Place(
        bucket=bucket,
        prefix=prefix,
        without=tuple(sorted(one for one in inner if one.startswith(prefix))),
    )
