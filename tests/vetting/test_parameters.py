"""Parameters take the types of a dataclass's fields, and a wrong one is told with what is right."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from guard.core.errors import InputError
from guard.vetting.parameters import checked


@dataclass(frozen=True, kw_only=True)
class Wonder:
    """Of each type one."""

    version: ClassVar[int] = 1
    rounds: int = 3
    rate: float = 0.5
    text: str = "linf"
    on: bool = False


def test_a_whole_number_is_recorded_as_the_fraction_that_it_stands_for() -> None:
    found = checked(Wonder, {"rate": 1, "rounds": 2, "text": "l2", "on": True})

    assert found == {"rate": 1.0, "rounds": 2, "text": "l2", "on": True}
    assert type(found["rate"]) is float
    assert type(found["rounds"]) is int


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", 2.5),
        ("rounds", True),
        ("rounds", "2"),
        ("rate", False),
        ("rate", float("nan")),
        ("rate", float("-inf")),
        ("rate", 10**400),
        ("rate", None),
        ("text", 3),
        ("on", 1),
        ("on", "yes"),
        ("rate", [1]),
    ],
)
def test_another_type_is_refused_with_the_default(name: str, value: Any) -> None:
    with pytest.raises(
        InputError, match=rf"parameter {name} is .*default is {getattr(Wonder, name)!r}"
    ):
        checked(Wonder, {name: value})


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(
        InputError,
        match=r"no parameter 'version'; it has: on .bool., rate .float., rounds .int., t",
    ):
        checked(Wonder, {"version": 2})
