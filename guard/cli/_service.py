"""What commands that speak to the service share.

The opened guard, and who is sitting at the keyboard.
"""

import os
import pwd
from typing import TYPE_CHECKING

from guard.core.errors import InputError

if TYPE_CHECKING:
    from guard.flow.context import Guard


def open_service() -> "Guard":
    """The guard that the settings describe."""
    from guard.bootstrap import open_guard
    from guard.cli._environment import settings_here

    return open_guard(settings_here())


def operator() -> str:
    """The login name that the operating system vouches for.

    Not `getpass.getuser()`, and no option: both take the word of whoever types the command, and a
    review counts only if its author cannot pick a name (threat model A13).

    Raises:
        InputError: this user id has no name; reviews need one.
    """
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise InputError(
            f"User id {os.getuid()} has no login name; review as a named user.", code="nameless"
        ) from None
