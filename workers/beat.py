"""What beat asks for again and again, each with its period and its queue.

The only list of periodic work. A message that nobody took within its period is dropped, since the
next one asks for the same: whatever holds a worker, at most one of each waits behind it. Two of the
same never run side by side (`guard.store.turns`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from guard.core.queues import NOTIFY, WATCH
from guard.settings import Settings

#: How soon the images of a model that waits for a person are there.
DRAW_SECONDS = 20.0
TIDY_SECONDS = 300.0  # between two looks for what is kept no longer, and for ended verdicts


@dataclass(frozen=True)
class Periodic:
    """Work that is asked for every `period` seconds, in `queue`."""

    period: Callable[[Settings], float]
    queue: str


PERIODIC: Mapping[str, Periodic] = {
    "sweep": Periodic(lambda settings: settings.sweep_seconds, "control"),
    "tidy": Periodic(lambda _: TIDY_SECONDS, "control"),
    "renew": Periodic(lambda settings: settings.rescan_seconds, "control"),
    "draw_waiting": Periodic(lambda _: DRAW_SECONDS, "inspect"),
    "reconcile": Periodic(lambda settings: settings.reconcile_seconds, WATCH),
    "rescue": Periodic(lambda settings: max(1.0, settings.lease_seconds / 3), WATCH),
    "deliver": Periodic(lambda settings: settings.notify_poll_seconds, NOTIFY),
    "tidy_notifications": Periodic(lambda _: TIDY_SECONDS, NOTIFY),
}


def schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Beat's schedule: each message expires when the next one is sent."""
    return {
        name: {
            "task": f"guard.{name}",
            "schedule": (period := one.period(settings)),
            "options": {"queue": one.queue, "expires": period},
        }
        for name, one in PERIODIC.items()
    }
