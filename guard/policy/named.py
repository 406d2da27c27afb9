"""Policies that projects name: files of one folder of the operator's, or packaged ones."""

import re
from pathlib import Path
from typing import Any

from guard.core.errors import PolicyError
from guard.core.shelf import Shelf
from guard.policy.load import load_policy, packaged
from guard.policy.rules import Policy

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_State = tuple[int, int]


class NamedPolicies:
    """Read a policy by its name; a file is read again once it has changed.

    Args:
        folder: where `NAME.toml` lies; None for packaged policies alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._read: dict[str, tuple[_State, Policy]] = {}

    def __call__(self, name: str) -> Policy:
        """The policy of this name.

        Raises:
            PolicyError: there is none, there are two, it breaks a rule or names an unknown method.
        """
        if not NAME.fullmatch(name):
            raise PolicyError(f"{name!r:.100} cannot name a policy; use a-z, 0-9 and -.")
        file = None if self._folder is None else self._folder / f"{name}.toml"
        state = _state(file)
        if file is None or state is None:
            if name not in packaged():
                raise PolicyError(
                    f"There is no policy called {name!r}: GUARD_POLICY_FOLDER has no {name}.toml, "
                    f"and the packaged ones are {', '.join(packaged())}."
                )
            return load_policy(Path(name))
        if name in packaged():
            raise PolicyError(
                f"{name!r} is a packaged policy and a file of GUARD_POLICY_FOLDER; rename the file."
            )
        known = self._read.get(name)
        if known is None or known[0] != state:
            known = self._read[name] = (state, _checked(load_policy(file)))
        return known[1]


def _state(file: Path | None) -> _State | None:
    try:
        found = None if file is None else file.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PolicyError(f"The policy file {file} cannot be read: {error.strerror}.") from error
    return found and (found.st_mtime_ns, found.st_size)


def _checked(policy: Policy) -> Policy:
    """Refuse methods that are not there, which would fail every scan; imports no plug-in."""
    for kind, names in (
        ("detectors", list(policy.detectors)),
        ("defenses", [rule.name for rule in policy.defenses]),
    ):
        known = Shelf[Any](f"guard.{kind}").names()
        if unknown := [name for name in names if name not in known]:
            raise PolicyError(
                f"The policy names {unknown[0]!r}, but the {kind} are: {', '.join(known)}.",
                code="unknown_method",
            )
    return policy
