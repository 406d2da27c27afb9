"""A service that is away is an alarm that closes again, and no heap of dead letters."""

from pathlib import Path

import pytest
from celery import Task
from celery.signals import task_failure, task_success

from guard.core.errors import Unavailable
from guard.core.states import ScanState
from guard.flow import away, run_stage
from guard.store import alarms, dead_letters
from guard.store.session import reading
from tests.flow.place import Place
from workers import tasks

STORE_IS_AWAY = Unavailable("The object store does not answer; check GUARD_S3_ENDPOINT.")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    monkeypatch.setattr(tasks, "_guards", [made.guard])
    return made


def failed(task: Task, error: Exception) -> None:
    task_failure.send(sender=task, args=(), kwargs={}, exception=error)


def standing(place: Place) -> tuple[list[str], list[str]]:
    with reading(place.guard.engine) as session:
        found = alarms.open_alarms(session)
        letters = dead_letters.list_all(session)
    return [f"{row.kind} {row.subject}: {row.detail}" for row in found], [
        row.error for row in letters
    ]


def test_a_round_of_the_sweep_that_finds_no_store_is_one_alarm_until_the_next_success(
    place: Place,
) -> None:
    for _ in range(3):
        failed(tasks.sweep_, STORE_IS_AWAY)

    assert standing(place) == ([f"{away.ALARM} guard.sweep: {STORE_IS_AWAY.sentence}"], [])
    task_success.send(sender=tasks.rescue_)
    assert len(standing(place)[0]) == 1
    task_success.send(sender=tasks.sweep_)
    task_success.send(sender=tasks.receive_)
    assert standing(place) == ([], [])


def test_another_fault_of_a_periodic_task_is_still_a_dead_letter(place: Place) -> None:
    failed(tasks.sweep_, TypeError("wrong"))
    failed(tasks.draw_, STORE_IS_AWAY)

    assert len(standing(place)[1]) == 2


def test_a_service_that_stays_away_for_many_tries_ends_no_scan(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody_answers(*_: object) -> None:
        raise STORE_IS_AWAY

    scan_id = place.upload()
    monkeypatch.setitem(run_stage.STAGES, "inspect", nobody_answers)
    for _ in range(run_stage.MAX_CRASHES + 3):
        tasks.inspect(scan_id)

    assert place.scan(scan_id).state is ScanState.QUEUED
    assert place.scan(scan_id).attempts == 0
    assert standing(place) == ([], [])
