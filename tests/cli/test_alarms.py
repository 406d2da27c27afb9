"""`guard alarms`: what a person should see, and that somebody has."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guard.store import alarms
from guard.store.session import transaction
from tests.cli.conftest import Answer
from tests.flow.place import Place

Cli = Callable[..., Answer]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path)
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: made.guard)
    yield made
    made.guard.engine.dispose()


def test_an_alarm_is_listed_shown_and_closed_by_an_acknowledgement(place: Place, cli: Cli) -> None:
    assert "no open alarm" in cli("alarms", "list").out
    with transaction(place.guard.engine) as session:
        alarms.raise_(session, "name_taken", "s3://models/a", "It is taken.", place.clock)
    assert "name_taken" in cli("alarms", "list").out
    (row,) = json.loads(cli("alarms", "list", "--format", "json").out)
    shown = cli("alarms", "show", row["id"][:8])
    assert "s3://models/a" in shown.out
    assert "It is taken." in shown.out

    done = cli("alarms", "ack", row["id"], "--reason", "they moved")

    assert done.code == 0
    assert "closed" in done.out
    assert "they moved" in done.out
    assert "no open alarm" in cli("alarms", "list").out
    (closed,) = json.loads(cli("alarms", "list", "--all", "--format", "json").out)
    assert closed["reason"] == "they moved"
    assert json.loads(cli("alarms", "show", row["id"], "-f", "json").out) == closed
    assert cli("alarms", "ack", row["id"], "--reason", "again").code == 4
