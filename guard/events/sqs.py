"""Poll an SQS queue that a bucket notifies.

A message is deleted only after its nominations have been committed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from guard.core.errors import InputError, Unavailable
from guard.events.parse import decode

_LOG = structlog.get_logger()
BATCH = 10  # the most that SQS gives at once


@dataclass(frozen=True)
class Polled:
    """What one poll did, in messages."""

    handled: int = 0
    refused: int = 0  # unreadable, therefore deleted: they would come back for ever


def poll_once(
    client: Any, url: str, sink: Callable[[Any], object], *, wait_seconds: int = 20
) -> Polled:
    """Receive up to ten messages and hand each body to `sink`.

    Args:
        client: a boto3 SQS client.
        sink: takes the decoded JSON and returns after its commit. `InputError` means that a
            repetition does not help; any other error leaves the message (and those after it) in the
            queue, to be received again.
        wait_seconds: how long to wait for a message in an empty queue, 0..20.

    Raises:
        Unavailable: the queue does not answer.
    """
    handled = refused = 0
    queue = _Queue(client, url)
    for message in queue.receive(wait_seconds):
        try:
            sink(decode(message["Body"].encode(errors="surrogatepass")))
            handled += 1
        except InputError as error:
            refused += 1
            _LOG.warning(
                "sqs_message_refused", message_id=message.get("MessageId"), code=error.code
            )
        queue.delete(message["ReceiptHandle"])
    return Polled(handled=handled, refused=refused)


class _Queue:
    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    def receive(self, wait_seconds: int) -> list[dict[str, Any]]:
        answer = self._call(
            "receive_message", MaxNumberOfMessages=BATCH, WaitTimeSeconds=wait_seconds
        )
        return list(answer.get("Messages", []))

    def delete(self, handle: str) -> None:
        self._call("delete_message", ReceiptHandle=handle)

    def _call(self, name: str, **what: Any) -> dict[str, Any]:
        try:
            return dict(getattr(self._client, name)(QueueUrl=self._url, **what))
        except (ClientError, BotoCoreError) as error:
            raise Unavailable(
                f"The SQS queue does not answer ({type(error).__name__}); check its URL."
            ) from error
