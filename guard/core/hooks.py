"""What others are notified of: the types of events, who wants which, and what an event holds."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from guard.core.errors import InputError


class HookKind(StrEnum):
    """How a destination is reached, and in which form."""

    WEBHOOK = "webhook"  # CloudEvents, signed as Standard Webhooks
    SLACK = "slack"  # an incoming webhook of Slack or of what takes its blocks
    EMAIL = "email"  # by the configured relay


class DeliveryState(StrEnum):
    """How an event to one destination stands."""

    WAITING = "waiting"  # to be tried, or to be tried again
    SENT = "sent"  # the receiver took it
    DEAD = "dead"  # every try failed, or the receiver is gone for good
    DROPPED = "dropped"  # too many were waiting for this destination


class EventType(StrEnum):
    """The type of an event, as in the CloudEvents attribute `type`."""

    RECEIVED = "guard.model.received"
    SCAN_FAILED = "guard.scan.failed"
    VERDICT = "guard.verdict.issued"
    EXPIRING = "guard.verdict.expiring"
    REVIEW_REQUESTED = "guard.review.requested"
    REVIEW_DECIDED = "guard.review.decided"
    REPAIR_DONE = "guard.repair.done"
    PUBLISHED = "guard.model.published"
    UNPUBLISHED = "guard.model.unpublished"
    WITHDRAWN = "guard.model.withdrawn"
    DRIFT = "guard.drift.detected"
    CANARY_FAILED = "guard.canary.failed"
    TAG_FAILED = "guard.tag.failed"
    ALARM_RAISED = "guard.alarm.raised"
    ALARM_CLOSED = "guard.alarm.closed"
    TEST = "guard.hook.test"


_ALARM = ("kind", "about", "detail")
#: The fields of `data` that events of a type always have, beside `sentence`.
FIELDS: Mapping[EventType, tuple[str, ...]] = {
    EventType.RECEIVED: ("name", "scan_id", "digest"),
    EventType.SCAN_FAILED: ("name", "scan_id"),
    EventType.VERDICT: ("name", "scan_id", "digest", "verdict_id", "verdict", "expires_at"),
    EventType.EXPIRING: _ALARM,
    EventType.REVIEW_REQUESTED: ("name", "scan_id"),
    EventType.REVIEW_DECIDED: ("name", "scan_id", "verdict_id", "verdict", "by"),
    EventType.REPAIR_DONE: ("name", "scan_id", "outcome"),
    EventType.PUBLISHED: ("name", "digest", "version"),
    EventType.UNPUBLISHED: ("name", "digest", "version", "detail"),
    EventType.WITHDRAWN: ("digest", "by", "detail"),
    EventType.DRIFT: _ALARM,
    EventType.CANARY_FAILED: _ALARM,
    EventType.TAG_FAILED: _ALARM,
    EventType.ALARM_RAISED: _ALARM,
    EventType.ALARM_CLOSED: ("kind", "about"),
    EventType.TEST: ("by",),
}
#: Every field that `data` may have; all are texts.
ALL_FIELDS = (
    "sentence",
    "name",
    "scan_id",
    "digest",
    "verdict_id",
    "verdict",
    "expires_at",
    "outcome",
    "version",
    "by",
    "kind",
    "about",
    "detail",
    "link",
)
#: Alarms that events of a type of their own are about, by the alarm's kind.
OF_ALARM: Mapping[str, EventType] = {
    "verdict_expiring": EventType.EXPIRING,
    "canary_failed": EventType.CANARY_FAILED,
    "tag_failed": EventType.TAG_FAILED,
}


def of_alarm(kind: str) -> EventType:
    """The type of the event that an alarm of this kind was raised."""
    return (
        EventType.DRIFT
        if kind.startswith("serving_")
        else OF_ALARM.get(kind, EventType.ALARM_RAISED)
    )


def check_types(patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns of types, each once; `guard.verdict.*` fits every type that starts so.

    Raises:
        InputError: one fits no type.
    """
    for pattern in patterns:
        if not any(_fits(pattern, kind) for kind in EventType):
            raise InputError(
                f"{pattern!r} fits no type of event; there are "
                f"{', '.join(EventType)}, and guard.verdict.* fits all that start so.",
                code="unknown_event_type",
            )
    return tuple(dict.fromkeys(patterns))


def wants(types: Sequence[str], prefixes: Sequence[str], kind: str, name: str) -> bool:
    """Whether a destination is to be sent an event.

    Args:
        types: patterns of types; none means all types.
        prefixes: of served names; none means all events, also those about no model. Where there
            are some, nothing about other models goes out, and nothing about no model.
        kind: the event's type.
        name: the served name that the event is about, or "".
    """
    if kind == EventType.TEST:
        return False  # made for one destination
    typed = not types or any(_fits(pattern, kind) for pattern in types)
    return typed and (not prefixes or any(name.startswith(prefix) for prefix in prefixes))


def _fits(pattern: str, kind: str) -> bool:
    return kind.startswith(pattern[:-1]) if pattern.endswith(".*") else kind == pattern
