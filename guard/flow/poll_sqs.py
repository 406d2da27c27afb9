"""Take events from an SQS queue, for stores that cannot reach the API.

They become the same nominations as those that the API receives.
"""

from typing import TYPE_CHECKING, Any

from guard.flow.nominate import accept

if TYPE_CHECKING:
    from guard.events.sqs import Polled
    from guard.flow.context import Guard


def poll_queue(guard: "Guard", client: Any, *, wait_seconds: int = 20) -> "Polled":
    """Take up to ten messages from GUARD_SQS_QUEUE_URL and nominate their objects.

    Each message is deleted after its nominations are committed.

    Args:
        client: from `guard.events.bucket.make_client(service="sqs")`.

    Raises:
        Unavailable: the queue or the database did not answer; what was not committed is
            delivered again.
    """
    from guard.events.sqs import poll_once  # imports boto3, which only users of a queue need

    def sink(body: Any) -> None:
        accept(guard.engine, body, guard.now(), buckets=guard.settings.intake_buckets)

    return poll_once(client, guard.settings.sqs_queue_url, sink, wait_seconds=wait_seconds)
