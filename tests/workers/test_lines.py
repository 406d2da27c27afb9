"""Each stage's lines say to which trace, scan and stage they belong."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from guard.core.errors import Unavailable
from guard.flow import receive, run_stage
from guard.logs import configure
from guard.store import outbox
from guard.store.session import reading
from tests.flow.place import NOW, Place
from workers import tasks

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    stream = io.StringIO()
    configure(stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    monkeypatch.setattr(tasks, "_guards", [made.guard])
    return made


def fails(*_: object, **__: object) -> None:
    raise Unavailable("The store at redis://me:hunter2222@host is away.")


@pytest.mark.parametrize("stage", list(run_stage.STAGES))
def test_each_line_of_a_stage_has_its_trace_scan_and_stage(
    place: Place,
    lines: Callable[[], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    scan_id = place.upload(trace=TRACE)
    monkeypatch.setitem(run_stage.STAGES, stage, fails)
    getattr(tasks, stage)(scan_id)

    found = {line["event"]: line for line in lines()}
    assert {"stage_started", "stage_ended", "stage_failed"} <= set(found)
    for event in ("stage_started", "stage_ended", "stage_failed"):
        line = found[event]
        assert (line["trace_id"], line["scan_id"], line["stage"]) == (TRACE, scan_id, stage)
    assert found["stage_ended"]["outcome"] == "error"
    assert "hunter2222" not in json.dumps(found)


def test_each_line_of_intake_has_the_trace_that_is_the_nomination(
    place: Place,
    lines: Callable[[], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receive, "receive", fails)
    tasks.receive_(TRACE)

    found = lines()
    assert [line["event"] for line in found] == ["stage_started", "stage_ended", "receive_failed"]
    assert {(line["trace_id"], line["nomination_id"], line["stage"]) for line in found} == {
        (TRACE, TRACE, "receive")
    }
    with reading(place.guard.engine) as session:
        assert [row.task for row in outbox.due(session, NOW.replace(year=2027))] == ["receive"]


def test_a_stage_that_another_worker_holds_says_so(
    place: Place, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    tasks.inspect("0" * 32)

    assert [line["event"] for line in lines()] == ["stage_held_elsewhere"]
