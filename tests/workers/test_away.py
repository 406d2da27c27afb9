"""A service that is away is an alarm that closes again, and no heap of dead letters."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Task
from celery.signals import task_failure, task_success

from guard.core.errors import Unavailable
from guard.core.states import ScanState
from guard.flow import away, receive, run_stage
from guard.flow._lease import Held
from guard.flow.context import Guard
from guard.store import alarms, dead_letters, outbox, scans
from guard.store.rows import OutboxRow
from guard.store.session import reading, transaction
from tests.flow.place import Place
from workers import tasks
from workers.retries import FIRST_PAUSE, LONGEST_PAUSE, PATIENCE_SECONDS

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


def moves_and_fails(guard: Guard, held: Held) -> None:
    """A try moves the scan, as inspecting does before it needs the store."""
    with transaction(guard.engine) as session:
        scans.move(session, held.scan_id, ScanState.INSPECTING, guard.now(), lease=held.lease)
    raise STORE_IS_AWAY


def sent(place: Place) -> list[OutboxRow]:
    """Every message that waits, as a relay takes them."""
    with transaction(place.guard.engine) as session:
        rows = outbox.due(session, place.clock + timedelta(days=1))
        outbox.mark_sent(session, [row.id for row in rows], place.clock)
    return rows


def test_a_scan_waits_longer_after_each_try_and_is_given_up_after_an_hour(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_id = place.upload()
    sent(place)
    monkeypatch.setitem(run_stage.STAGES, "inspect", moves_and_fails)
    begun, pauses = place.clock - timedelta(minutes=55), []
    message: dict[str, Any] = {"scan_id": scan_id, "since": begun.isoformat()}
    while True:
        tasks.inspect(**message)
        row = sent(place)[-1]
        if row.task != "inspect":
            break
        message = dict(row.payload)
        pauses.append((row.not_before - place.clock).total_seconds())
        place.clock = row.not_before

    wanted = [min(LONGEST_PAUSE, FIRST_PAUSE * 2**number) for number in range(len(pauses))]
    assert all(most / 2 <= one <= most for one, most in zip(pauses, wanted, strict=True))
    assert 9 <= len(pauses) < 20
    assert PATIENCE_SECONDS < (place.clock - begun).total_seconds() <= PATIENCE_SECONDS + 60
    assert (row.task, place.scan(scan_id).state) == ("decide", ScanState.DECIDING)


@pytest.mark.parametrize("stage", list(run_stage.STAGES))
def test_each_stage_knows_how_often_a_service_was_away_and_since_when(
    place: Place, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    scan_id, since = place.upload(), place.clock.isoformat()
    sent(place)
    monkeypatch.setitem(run_stage.STAGES, stage, moves_and_fails)
    place.clock += timedelta(minutes=10)
    getattr(tasks, stage)(scan_id, tries=9, since=since)

    (row,) = sent(place)
    assert (row.task, row.payload) == (stage, {"scan_id": scan_id, "tries": 10, "since": since})
    assert (row.not_before - place.clock).total_seconds() >= LONGEST_PAUSE / 2
    place.clock += timedelta(hours=1)
    getattr(tasks, stage)(scan_id, tries=10, since=since)
    assert standing(place)[1] == [f"Unavailable: {STORE_IS_AWAY.sentence}"]


def test_an_object_that_no_store_gives_is_asked_for_more_and_more_seldom(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody_answers(*_: object) -> None:
        raise STORE_IS_AWAY

    monkeypatch.setattr(receive, "receive", nobody_answers)
    tasks.receive_("0" * 32, tries=6)

    with reading(place.guard.engine) as session:
        (later,) = outbox.due(session, place.clock + timedelta(days=1))
    assert later.payload == {"nomination_id": "0" * 32, "tries": 7}
    assert (later.not_before - place.clock).total_seconds() >= LONGEST_PAUSE / 2
