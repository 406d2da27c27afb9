"""The settings as a command sees them.

Its own environment over that of a stack which runs on the same data folder.

So `guard status` in a second terminal finds what `guard up` started in the first, without a
variable to copy.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guard.settings import Settings


def inherited() -> dict[str, str]:
    """A copy of this process's environment.

    To be handed on to the processes that `guard up` starts.
    """
    return dict(os.environ)


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
            running.pop(
                PREFIX + name.upper(), None
            )  # else the stack's longer name would win over the caller's alias
    return load_settings({**running, **own})
