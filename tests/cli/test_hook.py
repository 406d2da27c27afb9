"""`guard hook`: destinations of notifications, and how their deliveries went."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guard.core.hooks import DeliveryState
from guard.core.roles import Role
from guard.store import deliveries, hooks
from guard.store.session import transaction
from tests import people
from tests.cli.conftest import Answer
from tests.flow.place import Place

Cli = Callable[..., Answer]
SLACK = "https://hooks.slack.example/services/T0/B0/verysecret"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path)
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: made.guard)
    monkeypatch.setenv("GUARD_TOKEN", people.give(made.guard, "olga", Role.OPERATOR))
    yield made
    made.guard.engine.dispose()


def test_a_secret_is_printed_once_and_an_address_never(
    place: Place, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no destination" in cli("hook", "list").out
    made = cli("hook", "add", "webhook", "https://a.example/in?token=hidden")
    hook_id, secret = made.out.split()
    assert (made.code, secret[:6]) == (0, "whsec_")
    assert "not shown again" in made.err
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SLACK}\n"))
    more = ("--type", "guard.review.*", "--prefix", "team-a", "--format", "json")
    slack = json.loads(cli("hook", "add", "slack", "-", *more).out)
    assert slack["secret"] is None
    quiet = cli("hook", "add", "email", "ops@example.com")
    assert quiet.err == ""

    for command in (("list",), ("list", "-f", "json"), ("show", hook_id), ("show", slack["id"])):
        out = cli("hook", *command).out
        assert "hidden" not in out
        assert "verysecret" not in out
        assert secret not in out
    table = cli("hook", "list").out
    assert "https://hooks.slack.example/" in table
    assert "guard.review.* about team-a*" in table
    rows = json.loads(cli("hook", "list", "-f", "json").out)
    assert {row["kind"] for row in rows} == {"webhook", "slack", "email"}
    assert json.loads(cli("hook", "show", hook_id[:8], "-f", "json").out) in rows
    gone = cli("hook", "remove", hook_id)
    assert "removed" in gone.out
    assert cli("hook", "test", hook_id).code == 4


def test_a_secret_of_ones_own_comes_by_standard_input(
    place: Place, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "whsec_" + "QUJD" * 10
    command = ("hook", "add", "webhook", "https://a.example/", "--secret-stdin")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{secret}\n"))
    assert cli(*command).out.split()[1] == secret
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    refused = cli(*command)
    assert (refused.code, refused.out) == (4, "")
    assert "Standard input" in refused.err


def test_the_log_shows_status_and_error_of_the_last_try(place: Place, cli: Cli) -> None:
    assert "no delivery" in cli("hook", "log").out
    hook_id = cli("hook", "add", "slack", SLACK).out.strip()
    tested = json.loads(cli("hook", "test", hook_id, "--format", "json").out)
    assert "waiting" in cli("hook", "log").out
    with transaction(place.guard.engine) as session:
        for status, error in ((None, "No answer: TimeoutError."), (500, "<b>no</b>\\x1b")):
            deliveries.record(
                session,
                tested["delivery"],
                at=place.clock,
                status=status,
                error=error,
                seconds=0.25,
            )
            if status is None:
                assert deliveries.attempts(session, tested["delivery"])[0].status is None
        deliveries.end(session, tested["delivery"], DeliveryState.DEAD, place.clock)
        hooks.failed(session, hook_id, place.clock)

    table = cli("hook", "log", hook_id[:8], "--dead").out
    assert "guard.hook.test" in table
    assert "500" in table
    [row] = json.loads(cli("hook", "log", "-f", "json").out)
    assert [one["status"] for one in row["attempts"]] == [None, 500]
    assert "rests until" in cli("hook", "show", hook_id).out
    again = cli("hook", "retry", tested["delivery"][:8])
    assert again.out.strip() == tested["delivery"]
    assert cli("hook", "retry", tested["delivery"]).code == 4
    with transaction(place.guard.engine) as session:
        deliveries.end(session, tested["delivery"], DeliveryState.DEAD, place.clock)
    again = cli("hook", "retry", tested["delivery"], "-f", "json")
    assert json.loads(again.out) == tested
