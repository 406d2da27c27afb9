"""`guard acts list`: who did what, the newest first."""

import json
from collections.abc import Callable

import pytest

from guard.core.roles import Role
from guard.core.states import Verdict
from tests import people
from tests.cli.conftest import Answer, Service

Cli = Callable[..., Answer]


def test_acts_are_listed_with_who_did_them_and_why(
    service: Service, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("acts", "list").out == "none\n"
    held = service.scan(Verdict.HELD)
    monkeypatch.setenv("GUARD_TOKEN", people.give(service.guard, "bob", Role.REVIEWER))
    cli("review", "reject", held.id, "--reason", "a \x1b[2Jloop")
    table = cli("acts", "list", "--limit", "1").out
    rows = json.loads(cli("acts", "list", "--format", "json").out)

    assert "bob (reviewer)  reject" in table
    assert "loop" in table
    assert "\x1b" not in table
    assert [row["act"] for row in rows] == [
        "reject",
        "token_create",
        "token_create",
        "policy_change",
    ]
    assert (rows[0]["principal"], rows[0]["authenticated"]) == ("bob", True)
    assert "(unauthenticated)  token_create" in cli("acts", "list").out
