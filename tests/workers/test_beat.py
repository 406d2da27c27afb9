"""What beat asks for: each expires with its period, and none ever runs beside itself."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from celery.exceptions import Ignore

from guard.core.queues import QUEUES
from guard.settings import load_settings
from guard.store import outbox, turns
from guard.store.session import make_engine, reading, transaction
from tests import postgres
from tests.flow.place import Place
from workers import tasks
from workers.app import app, make_app
from workers.beat import PERIODIC

SCHEDULE = make_app(load_settings({})).conf.beat_schedule


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    if request.param == "postgresql":
        made.guard = replace(made.guard, engine=make_engine(postgres.migrated()))
    yield made
    made.guard.engine.dispose()


@pytest.mark.parametrize("name", SCHEDULE)
def test_a_message_of_beat_expires_when_the_next_one_is_sent(name: str) -> None:
    entry = SCHEDULE[name]

    assert set(entry) == {"task", "schedule", "options"}
    assert entry["options"]["expires"] == entry["schedule"] > 0
    assert entry["options"]["queue"] in QUEUES
    assert entry["task"] in app.tasks


def test_periods_are_those_of_the_settings() -> None:
    periods = make_app(
        load_settings({"GUARD_SWEEP_SECONDS": "7", "GUARD_LEASE_SECONDS": "30"})
    ).conf.beat_schedule

    assert periods["sweep"]["options"] == {"queue": "control", "expires": 7}
    assert periods["rescue"]["options"] == {"queue": "watch", "expires": 10}


def test_no_periodic_work_runs_beside_itself_on_any_host(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is asked for while another host is at it; what it would do is not done."""
    monkeypatch.setattr(tasks, "_guards", [place.guard])
    host = make_engine(place.guard.engine.url.render_as_string(hide_password=False))
    for name in PERIODIC:
        with turns.turn(host, name) as mine:
            assert mine
            with pytest.raises(Ignore):
                app.tasks[f"guard.{name}"]()
    with turns.turn(host, "sweep"):
        app.tasks["guard.rescue"]()  # another work has a turn of its own
    host.dispose()


def test_a_turn_ends_with_its_work_however_that_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_guards", [place.guard])
    place.upload()
    with transaction(place.guard.engine) as session:
        outbox.mark_sent(session, [row.id for row in outbox.due(session, place.clock)], place.clock)
    with pytest.raises(LookupError), turns.turn(place.guard.engine, "tidy"):
        raise LookupError
    place.clock += timedelta(hours=25)

    app.tasks["guard.tidy"]()

    with reading(place.guard.engine) as session:
        assert session.connection().exec_driver_sql("SELECT count(*) FROM outbox").scalar() == 0
