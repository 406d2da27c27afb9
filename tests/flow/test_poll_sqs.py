"""A message of the queue becomes a nomination; it stays in the queue while the database is away."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from guard.bootstrap import open_guard
from guard.core.errors import Unavailable
from guard.events.bucket import make_client
from guard.flow.poll_sqs import poll_queue
from guard.settings import Settings
from guard.store import nominations
from guard.store.session import make_engine, reading
from tests.api.conftest import event
from tests.flow.intake import new_database


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield make_client(
        endpoint=f"http://{host}:{port}", access_key="a", secret_key="b", service="sqs"
    )
    server.stop()


def test_a_message_is_nominated_once_the_database_answers(client: Any, tmp_path: Path) -> None:
    url = client.create_queue(QueueName="events", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody=json.dumps(event("in/a+b/m.pt")))
    guard = open_guard(
        Settings(data_dir=tmp_path, database_url=new_database(tmp_path), sqs_queue_url=url)
    )
    away = replace(guard, engine=make_engine(f"sqlite:///{tmp_path / 'no-tables.db'}"))

    with pytest.raises(Unavailable):
        poll_queue(away, client, wait_seconds=0)
    done = poll_queue(guard, client, wait_seconds=0)
    again = poll_queue(guard, client, wait_seconds=0)

    assert (done.handled, again.handled) == (1, 0)
    with reading(guard.engine) as session:
        assert [(row.key, row.source) for row in nominations.list_recent(session)] == [
            ("in/a b/m.pt", "s3")
        ]
