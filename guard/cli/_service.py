"""Shared by the commands that use the service: the opened guard, and the user's login name."""

import os
import pwd
from typing import TYPE_CHECKING

from guard.core.errors import InputError

if TYPE_CHECKING:
    from guard.flow.context import Guard
    from guard.flow.principals import Principal


def open_service() -> "Guard":
    """Open the guard that the settings describe."""
    from guard.bootstrap import open_guard
    from guard.cli._environment import settings_here

    return open_guard(settings_here())


def open_upgraded() -> "Guard":
    """The same, on a database that is brought to this release's schema, by a recorded act."""
    from guard.flow.schema import upgrade

    guard = open_service()
    upgrade(guard, login_name(), lambda: caller(guard, named=False))
    return guard


def login_name() -> str:
    """The login of whoever calls, for the record; of a user id without a name its number."""
    return _login(named=False)


def caller(guard: "Guard", *, named: bool = True) -> "Principal":
    """Who calls this command: the holder of `GUARD_TOKEN`, or without one the login.

    Whether that may act is checked by the use case.

    Args:
        named: a user id without a name is refused; otherwise its number is the name.

    Raises:
        Unauthorised: the token is wrong, expired or revoked.
        InputError: there is no token, and the user id has no name.
    """
    from guard.cli._environment import own_token
    from guard.flow.principals import person

    token = own_token()
    return person(guard, token, "" if token else _login(named))


def _login(named: bool) -> str:
    try:
        return operator()
    except InputError:
        if named:
            raise
        return f"uid {os.getuid()}"


def operator() -> str:
    """The user's login name as the operating system knows it.

    It is neither `getpass.getuser()` nor an option, since with both the user could choose the name,
    and a review counts only if its author cannot (threat model A13).

    Raises:
        InputError: this user id has no name; reviews need one.
    """
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise InputError(
            f"User id {os.getuid()} has no login name; review as a named user.", code="nameless"
        ) from None
