"""Principals for tests: a token of a role, given by the first operator."""

from collections.abc import Sequence

from guard.core.roles import Role
from guard.flow import tokens
from guard.flow.context import Guard
from guard.flow.principals import Principal, authenticate
from guard.store import principals
from guard.store.session import reading

ROOT = "root"


def give(
    guard: Guard, name: str, role: Role, *, prefixes: Sequence[str] = (), days: int = 30
) -> str:
    """The text of a new token; the first call makes the first operator, `root`."""
    with reading(guard.engine) as session:
        fresh = not principals.exist(session)
    nobody = Principal(name="login", role=None)
    if fresh:
        text = tokens.create(guard, nobody, ROOT, Role.OPERATOR, days=300, first=True).text
        guard.settings.data_dir.joinpath("root-token").write_text(text)
    root = authenticate(guard, guard.settings.data_dir.joinpath("root-token").read_text())
    return tokens.create(guard, root, name, role, days=days, prefixes=prefixes).text


def who(guard: Guard, name: str, role: Role, *, prefixes: Sequence[str] = ()) -> Principal:
    """A principal that has shown such a token."""
    return authenticate(guard, give(guard, name, role, prefixes=prefixes))
