"""The SQS poller, for AWS, where S3 puts its events into a queue.

Run as `python -m workers.poller`.
"""

import signal
import threading

import structlog

from guard.bootstrap import open_guard
from guard.core.errors import InputError, Unavailable
from guard.events.bucket import make_client
from guard.flow.poll_sqs import poll_queue
from guard.logs import configure
from workers.alive import Alive

log = structlog.get_logger()


def main() -> None:
    """Poll until a signal stops the process; wait while the queue or the database is unavailable.

    Raises:
        InputError: no queue is set.
    """
    guard = open_guard()
    settings = guard.settings
    configure(settings.log_level, json=settings.log_json)
    if not settings.sqs_queue_url:
        raise InputError("No queue is set; set GUARD_SQS_QUEUE_URL, or do not start the poller.")
    client = make_client(
        endpoint=settings.sqs_endpoint,
        region=settings.s3_region,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.reveal(),
        service="sqs",
    )
    stop, alive = threading.Event(), Alive(settings.data_dir, "poller")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.is_set():
        alive.mark()
        try:
            polled = poll_queue(guard, client)
        except Unavailable as error:
            log.warning("poller_waits", error=error.sentence)
            stop.wait(5)
            continue
        log.info("queue_polled", result=str(polled))


if __name__ == "__main__":
    main()
