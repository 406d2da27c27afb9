"""`guard project` makes, changes and shows projects."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guard.core.roles import Role
from tests import people
from tests.cli.conftest import Answer
from tests.flow.place import Place

Cli = Callable[..., Answer]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path)
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: made.guard)
    monkeypatch.setenv("GUARD_TOKEN", people.give(made.guard, "olga", Role.OPERATOR))
    yield made
    made.guard.engine.dispose()


def test_a_project_is_made_changed_and_shown(place: Place, cli: Cli) -> None:
    place.add_cleanset("squares")
    assert "no project" in cli("project", "list").out
    limits = ("--scans-a-day", "5", "--bytes-a-day", "100", "--open-scans", "2")
    made = cli("project", "create", "vision", "--prefix", "models/vision", *limits)
    assert made.code == 0, made.err
    assert all(one in made.out for one in ("models/vision/", "normal", "0 of 5", "0 of 100"))

    more = ("--cleanset", "squares", "--priority", "low", "--scans-a-day", "0")
    out = cli("project", "set", "vision", *more, "--policy", "strict").out
    assert "squares" in out
    assert "strict" in out
    assert cli("project", "set", "vision", "--policy", "absent").code == 4
    role = ("--role", "reviewer")
    assert cli("project", "member", "add", "vision", "--group", "ml", *role).out == (
        "ml is reviewer of vision\n"
    )
    assert "reviewer: group ml" in cli("project", "show", "vision").out

    (found,) = json.loads(cli("project", "list", "--format", "json").out)
    assert found["project"]["scans_a_day"] is None
    assert (found["project"]["priority"], found["project"]["cleanset"]) == ("low", "squares")
    assert found["project"]["policy"] == "strict"
    assert (found["members"][0]["member"], found["usage"]["open"]) == ("ml", 0)

    assert cli("project", "set", "vision", "--cleanset", "none", "--policy", "none").code == 0
    out = cli("project", "member", "remove", "vision", "--group", "ml", *role).out
    assert out == "ml is not reviewer of vision any more\n"
    shown = json.loads(cli("project", "show", "vision", "--format", "json").out)
    assert (shown[0]["members"], shown[0]["project"]["cleanset"]) == ([], None)
    assert shown[0]["project"]["policy"] is None


def test_a_member_is_a_principal_or_a_group(place: Place, cli: Cli) -> None:
    cli("project", "create", "vision", "--prefix", "models/vision")
    for wrong in ((), ("--principal", "olga", "--group", "ml")):
        answer = cli("project", "member", "add", "vision", "--role", "uploader", *wrong)
        assert (answer.code, "--principal or with --group" in answer.err) == (4, True)


def test_nothing_to_change_is_refused(place: Place, cli: Cli) -> None:
    cli("project", "create", "vision", "--prefix", "models/vision")
    assert cli("project", "set", "vision").code == 4
