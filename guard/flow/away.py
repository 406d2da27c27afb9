"""What beat asks for again by itself, and could not be done because a service is away.

That is one alarm, which closes with the next success, and no dead letter: nobody has anything to
try again, and an outage of an hour would leave hundreds.
"""

from typing import TYPE_CHECKING

from guard.store import alarms
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from guard.flow.context import Guard

ALARM = "service_away"


def failed(guard: "Guard", task: str, sentence: str) -> None:
    """Raise the alarm about a periodic task, once."""
    with transaction(guard.engine) as session:
        alarms.raise_(session, ALARM, task, sentence, guard.now())


def done(guard: "Guard", task: str) -> None:
    """Close the alarm, if there is one."""
    with reading(guard.engine) as session:
        is_open = any(row.subject == task for row in alarms.open_alarms(session, ALARM))
    if is_open:
        with transaction(guard.engine) as session:
            alarms.clear(session, ALARM, task, guard.now())
