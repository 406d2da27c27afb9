"""The rows of destinations, events and deliveries, as the named queries return them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from guard.core.hooks import DeliveryState, HookKind


@dataclass(frozen=True, kw_only=True)
class HookRow:
    """A destination; `shown` is what people see of its address."""

    id: str
    kind: HookKind
    shown: str
    sealed: str = field(repr=False)
    types: list[str]
    prefixes: list[str]
    created_by: str
    created_at: datetime
    removed_at: datetime | None
    failures: int
    resting_until: datetime | None


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """Something that happened; `name` is the served name that it is about, or ""."""

    id: str
    type: str
    name: str
    data: Mapping[str, str]
    at: datetime
    fanned_out_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class DeliveryRow:
    """One event to one destination; `seq` is the order in which they came to be."""

    seq: int
    id: str
    event_id: str
    hook_id: str
    state: DeliveryState
    attempts: int
    next_at: datetime
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """One try of a delivery; `status` is None where no answer came."""

    seq: int
    delivery_id: str
    at: datetime
    status: int | None
    error: str
    seconds: float
