"""`guard dead-letters`: messages that no worker could handle, and another try."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guard.core.states import ScanState
from guard.flow import run_stage
from tests.cli.conftest import Answer
from tests.flow.place import Place

Cli = Callable[..., Answer]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path)
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: made.guard)
    yield made
    made.guard.engine.dispose()


def test_a_dead_letter_is_listed_shown_and_tried_again(place: Place, cli: Cli) -> None:
    assert "no dead letter" in cli("dead-letters", "list").out
    scan_id = place.upload()
    run_stage.bury(place.guard, "inspect", scan_id, "The disk was full.")
    assert "inspect" in cli("dead-letters", "list").out
    (row,) = json.loads(cli("dead-letters", "list", "-f", "json").out)
    shown = cli("dead-letters", "show", row["id"][:8])
    assert f"scan_id {scan_id}" in shown.out
    assert "The disk was full." in shown.out

    done = cli("dead-letters", "retry", row["id"])

    assert done.code == 0
    assert "tried again by" in done.out
    assert place.scan(scan_id).state is ScanState.QUEUED
    assert json.loads(cli("dead-letters", "show", row["id"], "-f", "json").out)["retried_by"]
    assert "by " in cli("dead-letters", "list").out
    refused = cli("dead-letters", "retry", row["id"])
    assert (refused.code, "nothing to try again" in refused.err) == (4, True)
