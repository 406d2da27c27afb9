"""Shared by the commands that use the service: the opened guard, and the user's login name."""

import os
import pwd
from typing import TYPE_CHECKING

from guard.core.errors import InputError

if TYPE_CHECKING:
    from guard.flow.context import Guard


def open_service() -> "Guard":
    """Open the guard that the settings describe."""
    from guard.bootstrap import open_guard
    from guard.cli._environment import settings_here

    return open_guard(settings_here())


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
