"""A message of the queue becomes a nomination; it stays in the queue while the database is away."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.bootstrap import open_guard
from guard.core.errors import Unavailable
from guard.flow.poll_sqs import poll_queue
from guard.settings import Settings
from guard.store import nominations
from guard.store.session import make_engine, reading
from tests import sqlite, sqs
from tests.api.conftest import event


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with sqs.emulation() as endpoint:
        yield sqs.make_sqs(endpoint)


def test_a_message_is_nominated_once_the_database_answers(client: Any, tmp_path: Path) -> None:
    url = sqs.new_queue(client, visible_again_after=0)
    client.send_message(QueueUrl=url, MessageBody=json.dumps(event("in/a+b/m.pt")))
    guard = open_guard(
        Settings(data_dir=tmp_path, database_url=sqlite.migrated(tmp_path), sqs_queue_url=url)
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
