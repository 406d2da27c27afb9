"""Options of which some go together and others do not, for commands that also ask the service."""

from typing import TypeVar

from guard.core.errors import InputError

_T = TypeVar("_T")


def given(value: _T | None, what: str, command: str) -> _T:
    """An argument or option that this way of calling `command` needs."""
    if value is None:
        raise InputError(
            f"{what} is missing; `guard {command} --help` shows how.", code="missing_option"
        )
    return value


def without(value: object, option: str, *, to: str) -> None:
    """Refuse an option that goes with another way of calling the command only, named by `to`."""
    if value is not None:
        raise InputError(f"{option} goes with {to} only.", code="option_elsewhere")
