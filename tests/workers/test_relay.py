"""The relay on a real broker.

What is committed is sent, and nothing is lost while the broker is away.
"""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.exceptions import ContentDisallowed, OperationalError

from guard.bootstrap import open_guard
from guard.flow.context import Guard
from guard.settings import load_settings
from guard.store import outbox
from guard.store.session import reading, transaction
from tests import postgres, sqlite
from tests.services import shared_valkey
from tests.sqlite import migrate_like_bootstrap
from workers.app import make_app
from workers.relay import BATCH, send_due

MANY = 6 * BATCH


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    settings = load_settings({"GUARD_DATA_DIR": str(tmp_path)})
    migrate_like_bootstrap(settings)
    return open_guard(settings)


@pytest.fixture
def broker() -> str:
    return shared_valkey().url


def app_at(url: str) -> Celery:
    return make_app(load_settings({"GUARD_REDIS_URL": url}))


def add(guard: Guard, task: str, scan_id: str) -> None:
    with transaction(guard.engine) as session:
        outbox.add(session, task, {"scan_id": scan_id}, guard.now())


def waiting(guard: Guard) -> int:
    with reading(guard.engine) as session:
        return outbox.waiting(session)


def test_each_stage_goes_to_its_queue_as_json(guard: Guard, broker: str) -> None:
    app = app_at(broker)
    redis.Redis.from_url(broker).delete("inspect", "scan", "train")
    add(guard, "inspect", "one")
    add(guard, "detect", "two")
    add(guard, "retrain", "three")
    add(guard, "sift", "four")

    assert send_due(guard, app) == 4

    client = redis.Redis.from_url(broker)
    assert client.llen("inspect") == 1
    assert client.llen("scan") == 1
    assert client.llen("train") == 2
    message = client.lindex("scan", 0)
    assert message is not None
    assert b'"content-type": "application/json"' in message
    assert waiting(guard) == 0


def test_a_sent_message_is_not_sent_again(guard: Guard, broker: str) -> None:
    app = app_at(broker)
    add(guard, "decide", "one")
    send_due(guard, app)

    assert send_due(guard, app) == 0


def test_two_relays_share_the_work_and_send_each_message_once(tmp_path: Path, broker: str) -> None:
    """As two hosts: a connection to the database and to the broker each."""
    for url in (sqlite.migrated(tmp_path), postgres.migrated()):
        env = {"GUARD_DATA_DIR": str(tmp_path), "GUARD_DATABASE_URL": url}
        relays = [(open_guard(load_settings(env)), app_at(broker)) for _ in range(2)]
        guard, client = relays[0][0], redis.Redis.from_url(broker)
        client.delete("scan")
        with transaction(guard.engine) as session:
            for number in range(MANY):
                outbox.add(session, "detect", {"scan_id": f"m{number}"}, guard.now())
        start = threading.Barrier(2)

        def send(relay: tuple[Guard, Celery], start: threading.Barrier) -> list[int]:
            start.wait()
            found = []
            while waiting(relay[0]):
                found.append(send_due(*relay))
            return found

        with ThreadPoolExecutor(2) as pool:
            counts = [job.result() for job in [pool.submit(send, one, start) for one in relays]]
        bodies = [json.loads(one)["body"] for one in client.lrange("scan", 0, -1)]
        ids = [json.loads(base64.b64decode(body))[1]["scan_id"] for body in bodies]

        assert sorted(ids) == sorted(f"m{number}" for number in range(MANY))
        assert sum(map(sum, counts)) == MANY
        assert all(sum(one) >= BATCH for one in counts), "both had some of it"
        client.delete("scan")
        for one, _ in relays:
            one.engine.dispose()


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.threat("C11")
@pytest.mark.parametrize("accept", [None, ["json", "pickle"]])
def test_a_worker_opens_no_message_but_json(
    broker: str, tmp_path: Path, accept: list[str] | None
) -> None:
    """The second case shows that the payload works where pickles are accepted."""
    app = app_at(broker)
    if accept:
        app.conf.accept_content = accept
    redis.Redis.from_url(broker).delete("inspect")
    canary = tmp_path / "canary"
    taken: list[object] = []
    with app.connection_for_write() as connection:
        connection.SimpleQueue("inspect", serializer="pickle").put([[Payload(canary)], {}, {}])
        consumer = app.amqp.TaskConsumer(
            connection.default_channel,
            queues=[app.amqp.queues["inspect"]],
            callbacks=[lambda body, message: taken.append(body)],
            on_decode_error=lambda message, error: taken.append(error),
        )
        with consumer:
            connection.drain_events(timeout=10)
    redis.Redis.from_url(broker).delete("inspect")

    assert len(taken) == 1
    assert isinstance(taken[0], ContentDisallowed) == (accept is None)
    assert canary.exists() == bool(accept)


def test_while_the_broker_is_away_messages_wait_and_are_at_once_due_for_another_relay(
    guard: Guard, broker: str
) -> None:
    app = app_at("redis://127.0.0.1:1/0")
    add(guard, "inspect", "one")

    with pytest.raises((OperationalError, ConnectionError)):
        send_due(guard, app)

    assert waiting(guard) == 1
    assert send_due(guard, app_at(broker)) == 1
