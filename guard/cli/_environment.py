"""The settings of a command: its own environment over that of a running stack.

Thus `guard status` in a second terminal finds what `guard up` started in the first on the same data
folder, and no variable has to be copied.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guard.settings import Settings


def inherited() -> dict[str, str]:
    """A copy of this process's environment, for the processes that `guard up` starts."""
    return dict(os.environ)


def own_token() -> str:
    """The caller's `GUARD_TOKEN`, never that of a running stack; empty where there is none."""
    from guard.settings import load_settings

    return load_settings(inherited()).token.reveal()


def settings_here() -> "Settings":
    """The settings in force for this command.

    Raises:
        InputError: a variable is unknown or wrong.
    """
    from guard.local.supervisor import running_environment
    from guard.settings import ALIASES, PREFIX, load_settings

    own = inherited()
    settings = load_settings(own)
    running = running_environment(settings.data_dir)
    if not running:
        return settings
    for alias, name in ALIASES.items():
        if own.get(alias):
            # Otherwise the stack's longer name would win over the caller's alias.
            running.pop(PREFIX + name.upper(), None)
    return load_settings({**running, **own})
