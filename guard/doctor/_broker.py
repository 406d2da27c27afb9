"""Broker: reachable, asks for a password, holds JSON only; and a worker for each queue."""

import json
from typing import Any
from urllib.parse import urlsplit

from guard.core.queues import QUEUES
from guard.doctor._check import Check, Finding, Ground, failed, ok, unknown, warning

LOOK = 20  # messages of each queue
SECONDS = 4.0
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_FIRST = "Mend `broker` first."


def _redis(ground: Ground) -> Any:
    import redis

    return redis.Redis.from_url(
        ground.settings.redis_url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS
    )


def broker(ground: Ground) -> Finding:
    """Whether it answers, and not just anybody."""
    import redis

    try:
        with _redis(ground) as client:
            client.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        return failed(
            f"The broker does not answer ({type(error).__name__}).",
            "Start it, or correct GUARD_REDIS_URL.",
        )
    url = urlsplit(ground.settings.redis_url)
    if not url.password and url.scheme != "unix" and url.hostname not in _LOOPBACK:
        return warning(
            "The broker of another host needs no password: whoever reaches it sends tasks.",
            "Set `requirepass` there, and redis://:PASSWORD@HOST in GUARD_REDIS_URL.",
        )
    return ok("The broker answers.")


def messages(ground: Ground) -> Finding:
    """Whether what waits is JSON; workers refuse everything else."""
    import redis

    depth, odd = 0, []
    try:
        with _redis(ground) as client:
            for name in QUEUES:
                if client.type(name) != b"list":
                    continue
                depth += int(client.llen(name))
                odd += [name for raw in client.lrange(name, 0, LOOK - 1) if not _is_json(raw)]
    except (redis.RedisError, ValueError, OSError):
        return unknown("The broker does not answer.", _FIRST)
    if odd:
        return failed(
            f"Queue {odd[0]} holds a message that is not JSON; somebody else writes there.",
            "Give the guard a broker of its own, and find out who sent it.",
        )
    return ok(f"{depth} messages wait, and those that were looked at are JSON.")


def _is_json(raw: bytes) -> bool:
    try:
        return bool(json.loads(raw).get("content-type") == "application/json")
    except (ValueError, AttributeError):
        return False


def workers(ground: Ground) -> Finding:
    """Whether each queue has a worker that answers."""
    from celery import Celery
    from kombu.exceptions import OperationalError

    app = Celery("guard-doctor", broker=ground.settings.redis_url, set_as_current=False)
    app.conf.update(
        broker_connection_retry=False,
        broker_connection_max_retries=0,
        broker_transport_options={"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS},
        accept_content=["json"],
    )
    try:
        _redis(ground).ping()  # kombu would try for longer
        answers = app.control.inspect(timeout=SECONDS / 2).active_queues() or {}
    except (OperationalError, OSError, ValueError):
        return unknown("The broker does not answer.", _FIRST)
    except Exception as error:  # noqa: BLE001 - redis' own errors have no common base with these
        return unknown(f"The broker does not answer ({type(error).__name__}).", _FIRST)
    finally:
        app.close()
    alive = {str(one.get("name")) for found in answers.values() for one in found}
    missing = [name for name in QUEUES if name not in alive and name != "train"]
    if missing:
        return failed(
            f"No worker answers for the queue {', '.join(missing)}.",
            f"Start one: celery -A workers.app worker -Q {missing[0]}.",
        )
    if "train" not in alive:
        return warning(
            "No worker answers for the queue train.",
            "Start one where the policy has [retrain]; otherwise --skip workers.",
        )
    return ok(f"{len(answers)} workers answer, and each queue has one.")


CHECKS = (
    Check("broker", broker),
    Check("broker_messages", messages),
    Check("workers", workers),
)
