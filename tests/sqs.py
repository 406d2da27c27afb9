"""An emulation of SQS on loopback (moto) for tests.

All its servers of one process share one state, so that a queue that one test made is there for the
next: each queue has a name of its own.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.server import ThreadedMotoServer

from guard.events.bucket import make_client
from tests.services import LOOPBACK


@contextmanager
def emulation() -> Iterator[str]:
    """The endpoint of a server that answers for SQS and for S3 with notifications."""
    server = ThreadedMotoServer(ip_address=LOOPBACK, port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def make_sqs(endpoint: str) -> Any:
    """A client of the queues at an endpoint."""
    return make_client(endpoint=endpoint, access_key="a", secret_key="b", service="sqs")


def new_queue(client: Any, *, visible_again_after: int = 30) -> str:
    """The URL of a new, empty queue; a message that is not deleted is seen again (seconds)."""
    attributes = {"VisibilityTimeout": str(visible_again_after)}
    name = f"events-{secrets.token_hex(8)}"
    return str(client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])
