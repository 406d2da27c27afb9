"""The row of an order that was placed in the console."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from guard.core.roles import Act


class OrderState(StrEnum):
    """What became of an order."""

    WAITING = "waiting"
    WORKING = "working"  # begun, at most once: one that stays so was cut off
    DONE = "done"
    REFUSED = "refused"  # `answer` says why


@dataclass(frozen=True, kw_only=True)
class OrderRow:
    """An act that a person asked for.

    Attributes:
        wanted: what the use case is called with: ids, names and the reason.
        principal: who asked, with the `role` and the `token_id` that were checked; they are checked
            again when it is done.
        answer: what came of it, as a sentence; empty until there is something.
        result: the same as plain values, where there is more than a sentence.
    """

    id: str
    act: Act
    wanted: Mapping[str, Any]
    principal: str
    role: str
    token_id: str
    state: OrderState
    answer: str
    result: Mapping[str, Any] | None
    at: datetime
    ended_at: datetime | None
