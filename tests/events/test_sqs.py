"""The queue that AWS notifies.

Real payloads from moto's S3 and SQS, deleted only after the commit.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from guard.core.errors import Unavailable
from guard.events import Nomination, parse_event
from guard.events.bucket import make_client
from guard.events.sqs import Polled, poll_once
from tests.sqs import emulation, make_sqs, new_queue


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with emulation() as started:
        yield started


@pytest.fixture
def sqs(endpoint: str) -> Any:
    return make_sqs(endpoint)


@pytest.fixture
def queue(sqs: Any) -> str:
    return new_queue(sqs, visible_again_after=0)


def waiting(sqs: Any, queue: str) -> int:
    answer = sqs.get_queue_attributes(
        QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


@pytest.mark.row(2)
def test_what_s3_tells_the_queue_becomes_nominations(endpoint: str, sqs: Any, queue: str) -> None:
    s3 = make_client(endpoint=endpoint, access_key="a", secret_key="b")
    s3.create_bucket(Bucket="models")
    s3.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    s3.put_bucket_notification_configuration(
        Bucket="models",
        NotificationConfiguration={
            "QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]
        },
    )
    version = s3.put_object(Bucket="models", Key="incoming/a+b c.pt", Body=b"x")["VersionId"]
    found: list[Nomination] = []

    done = [
        poll_once(sqs, queue, lambda body: found.extend(parse_event(body)), wait_seconds=0)
        for _ in range(3)
    ]

    assert sum(polled.handled for polled in done) == 2  # the test event comes first
    assert [(item.bucket, item.key) for item in found] == [("models", "incoming/a+b c.pt")]
    assert found[0].version_id in (version, None)
    assert waiting(sqs, queue) == 0


def test_a_message_stays_until_its_sink_returned(sqs: Any, queue: str) -> None:
    sqs.send_message(QueueUrl=queue, MessageBody="{}")

    def fails(_body: Any) -> None:
        raise Unavailable("the database is away")

    with pytest.raises(Unavailable):
        poll_once(sqs, queue, fails, wait_seconds=0)
    assert waiting(sqs, queue) == 1

    seen: list[Any] = []
    assert Polled(handled=1) == poll_once(sqs, queue, seen.append, wait_seconds=0)
    assert seen == [{}]
    assert waiting(sqs, queue) == 0


def test_a_message_nobody_can_read_is_removed_and_counted(sqs: Any, queue: str) -> None:
    sqs.send_message(QueueUrl=queue, MessageBody="not json")
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps({"unknown": 1}))

    done = poll_once(sqs, queue, parse_event, wait_seconds=0)
    again = poll_once(sqs, queue, parse_event, wait_seconds=0)

    assert done.refused + again.refused == 2
    assert waiting(sqs, queue) == 0


def test_two_queues_of_one_process_are_two(sqs: Any, queue: str) -> None:
    with emulation() as another:
        assert new_queue(make_sqs(another)) != new_queue(sqs) != queue


def test_an_empty_queue_is_nothing(sqs: Any, queue: str) -> None:
    assert Polled() == poll_once(sqs, queue, parse_event, wait_seconds=0)


def test_a_queue_that_is_not_there_is_unavailable(sqs: Any, queue: str) -> None:
    with pytest.raises(Unavailable, match="SQS"):
        poll_once(sqs, queue + "-other", parse_event, wait_seconds=0)
