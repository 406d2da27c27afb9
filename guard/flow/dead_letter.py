"""Record a message that cannot be handled, so that it stays readable and the queue goes on."""

from collections.abc import Mapping

from guard.flow.context import Guard
from guard.store import alarms, dead_letters
from guard.store.session import transaction

ALARM = "dead_letter"


def record(guard: Guard, task: str, payload: dict[str, str], error: str) -> None:
    """Store the message of `task` with the sentence of its error, and raise an alarm."""
    with transaction(guard.engine) as session:
        dead_letters.add(session, task=task, payload=payload, error=error, now=guard.now())
        alarms.raise_(session, ALARM, subject(task, payload), error, guard.now())


def subject(task: str, payload: Mapping[str, str]) -> str:
    """What the alarm of a dead letter is about."""
    return f"{task} {sorted(payload.values())}"
