"""The tasks of the queue `notify`: nothing of an upload is in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from guard.core.hooks import DeliveryState, HookKind
from guard.core.queues import NOTIFY
from guard.core.roles import Role
from guard.flow import hooks
from guard.settings import load_settings
from guard.store import alarms, outbox
from guard.store.session import transaction
from tests import people
from tests.flow.place import Place
from tests.notify.receiver import Receiver, receiver
from tests.services import shared_valkey
from workers import tasks
from workers.app import STAGE_QUEUE, make_app
from workers.relay import send_due


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as facts:
        yield facts


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    env = {"GUARD_NOTIFY_ALLOWED": "127.0.0.1", "GUARD_OBJECT_TAGS": "true"}
    made = Place(tmp_path, env)
    monkeypatch.setattr(tasks, "_guards", [made.guard])
    yield made
    made.guard.engine.dispose()


def test_an_event_goes_out_by_tasks_of_a_queue_of_their_own(place: Place, there: Receiver) -> None:
    olga = people.who(place.guard, "olga", Role.OPERATOR)
    hooks.add(place.guard, olga, HookKind.WEBHOOK, there.url)
    broker = shared_valkey().url
    app = make_app(load_settings({"GUARD_REDIS_URL": broker}))
    client = redis.Redis.from_url(broker)
    client.delete(NOTIFY)
    with transaction(place.guard.engine) as session:
        alarms.raise_(session, "odd", "x", "Wrong.", place.clock)
        [row] = outbox.due(session, place.clock)

    assert send_due(place.guard, app) == 1
    assert client.llen(NOTIFY) == 1
    tasks.notify_(**row.payload)
    tasks.deliver_()
    assert [str(one.row.state) for one in hooks.log(place.guard)] == [DeliveryState.SENT]
    tasks.tidy_notifications_()
    assert len(there.got) == 1
    client.delete(NOTIFY)


def test_a_tag_is_a_task_of_that_queue(place: Place) -> None:
    scan_id = place.upload()
    with transaction(place.guard.engine) as session:
        session.connection().exec_driver_sql("UPDATE scans SET version_id = NULL")
    tasks.tag_(scan_id, tries=99)

    with transaction(place.guard.engine) as session:
        assert [row.kind for row in alarms.open_alarms(session)] == ["tag_failed"]
    own = {task for task, queue in STAGE_QUEUE.items() if queue == NOTIFY}
    assert own == {"notify", "tag"}
    schedule = make_app(load_settings({})).conf.beat_schedule
    queues = {name: one["options"]["queue"] for name, one in schedule.items()}
    assert queues["deliver"] == queues["tidy_notifications"] == NOTIFY
