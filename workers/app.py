"""The Celery application: JSON only, late acknowledgement, one message at a time."""

import math
from functools import cache
from typing import Any

from celery import Celery
from celery.signals import heartbeat_sent, setup_logging, worker_init, worker_shutting_down
from kombu.entity import Queue

from guard.core import plugins
from guard.core.importing import uncollected
from guard.core.queues import NOTIFY, QUEUE_OF, QUEUES
from guard.core.training_jobs import MAX_BUDGET
from guard.flow.context import SPARE
from guard.jobs import client, preload
from guard.logs import configure
from guard.settings import Settings, child_environment, load_settings
from guard.vetting.repair_probes import SECONDS as PROOF_SECONDS
from workers import beat, shutdown
from workers.alive import Alive

STAGE_QUEUE = {
    **QUEUE_OF,
    "order": "control",
    "draw": "inspect",
    "notify": NOTIFY,
    "tag": NOTIFY,
}
# Queues whose stages hand work to a job server often; `train` starts it with its first job.
RUN_JOBS = frozenset({"inspect", "scan"})
# Queues whose stages need the methods' versions, for the canary's key or for the policy.
NEED_VERSIONS = frozenset({"scan", "control"})
consumed: set[str] = set()  # the queues of this worker, known once it starts
# Seconds that a stage gets after its jobs' time limits, before a worker that hangs is killed.
GRACE = 300
# Longer than any stage; otherwise Redis delivers a running task a second time.
VISIBILITY_SECONDS = 12 * 3600


# The longest that a job on a training set may be worked on: the policy's limit on budgets.
LONGEST_TRAINING = math.ceil(MAX_BUDGET) + GRACE


def longest_stage(seconds: float) -> float:
    """The most seconds that any stage takes if the methods of a job may take `seconds`.

    A detection may run three jobs in a row: the canary, the preparation of a clean set, and the
    search. A repair is followed by its probes.
    """
    return max(3 * (seconds + SPARE), seconds + PROOF_SECONDS + SPARE)


def make_app(settings: Settings) -> Celery:
    """Build the application.

    Importing this module must not load torch (forked children would hang).
    """
    limit = math.ceil(longest_stage(settings.scan_seconds)) + GRACE
    app = Celery("guard", broker=settings.redis_url, include=["workers.tasks"])
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_default_queue="control",
        task_queues=[Queue(name) for name in QUEUES],
        task_routes={f"guard.{stage}": {"queue": queue} for stage, queue in STAGE_QUEUE.items()},
        broker_transport="workers.transport:Transport",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_hijack_root_logger=False,
        task_time_limit=limit,
        broker_transport_options={
            "visibility_timeout": max(VISIBILITY_SECONDS, limit + GRACE),
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
        },
        beat_schedule=beat.schedule(settings),
    )
    return app


@setup_logging.connect
def _logs(**_: object) -> None:
    """Set up structured logging in place of Celery's own."""
    settings = load_settings()
    configure(settings.log_level, json=True)


@worker_init.connect
def _get_ready(sender: Any, **_: object) -> None:
    """Import slow modules before the pool is forked, so that its processes share them."""
    queues = set(sender.app.amqp.queues.consume_from)
    consumed.update(queues)
    if queues & RUN_JOBS:
        # The server does its imports in parallel; the first job may have to wait for it.
        client.warm_up(child_environment())
    with uncollected():
        if queues & NEED_VERSIONS:
            preload.methods()


@cache
def _alive() -> Alive:
    return Alive(_settings.data_dir, "worker-" + "-".join(sorted(consumed)))


@heartbeat_sent.connect
def _mark(**_: object) -> None:
    """Sent by the worker's own loop every two seconds, whatever its tasks do."""
    _alive().mark()


@worker_shutting_down.connect
def _end_in_time(**_: object) -> None:
    """Sent by Celery's handlers of SIGTERM and SIGQUIT, in the main process."""
    shutdown.watch(app)


_settings = load_settings()
plugins.use(_settings.plugins)  # before Celery starts: an unsafe folder ends the process
app = make_app(_settings)
