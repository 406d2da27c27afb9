"""What is done to a message after its connection was lost is a lost connection.

As Celery knows it; a real broker.
"""

import logging
import uuid

import pytest
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.message import Message

from guard.settings import load_settings
from tests.services import shared_valkey
from workers.app import make_app


def connect() -> Connection:
    return make_app(load_settings({"GUARD_REDIS_URL": shared_valkey().url})).connection_for_read()


def taken(connection: Connection, queue: Queue) -> Message:
    channel = connection.channel()
    queue(channel).declare()
    connection.Producer(channel).publish({"scan_id": "one"}, routing_key=queue.name)
    message = queue(channel).get(no_ack=False)
    assert isinstance(message, Message)
    return message


def test_a_task_that_ends_after_its_connection_does_not_end_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection, queue = connect(), Queue(f"lost-{uuid.uuid4().hex}")
    message = taken(connection, queue)
    errors = connection.connection_errors
    connection.release()

    message.ack_log_error(
        logging.getLogger(__name__), errors
    )  # plain kombu 5.7: AttributeError, and the worker ends

    assert "Couldn't ack" in caplog.text


def test_a_message_under_way_is_not_given_back_through_the_lost_connection() -> None:
    connection, queue = connect(), Queue(f"kept-{uuid.uuid4().hex}")
    taken(connection, queue)
    connection.release()

    with connect() as again:
        assert again.channel().client.llen(queue.name) == 0
