"""Intake in the API: an event becomes a row and a message in one commit.

Nothing here looks at the object itself.
"""

import uuid
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy.orm import Session

from guard.core.tracing import Place, span
from guard.events import Nomination, parse_event
from guard.events.auth import Seen, Unauthorised, check_auth, check_claim, signature_of
from guard.events.parse import MAX_BODY_BYTES, decode
from guard.flow import _object_keys
from guard.store import intake, nominations, outbox
from guard.store.rows import NominationState
from guard.store.session import transaction

if TYPE_CHECKING:
    from sqlalchemy import Engine

_LOG = structlog.get_logger()
#: The API handles events through this module only.
__all__ = [
    "MAX_BODY_BYTES",
    "Seen",
    "Unauthorised",
    "accept",
    "check_auth",
    "check_claim",
    "decode",
    "nominate",
    "record",
    "signature_of",
]


def accept(engine: "Engine", body: Any, now: datetime, *, buckets: Collection[str]) -> list[str]:
    """Nominate every object that a decoded notification names; return the nominations' ids.

    Raises:
        InputError: it is not a notification that the guard knows; nothing was recorded.
        Unavailable: the database did not answer; nothing was recorded.
    """
    return nominate(engine, parse_event(body), now, buckets=buckets)


def nominate(
    engine: "Engine", wanted: Iterable[Nomination], now: datetime, *, buckets: Collection[str]
) -> list[str]:
    """Record nominations and have a worker examine their objects, all in one commit.

    A nomination that leads nowhere (another bucket, a removed object, a README) is recorded as
    ignored or refused, with the reason. A second one of the same object joins the first while that
    one waits.

    Args:
        buckets: the buckets whose objects may be nominated; if empty, nothing is nominated.

    Returns:
        One id for each of `wanted`, in order.
    """
    with transaction(engine) as session:
        return [record(session, item, now, buckets) for item in wanted]


def record(session: Session, item: Nomination, now: datetime, buckets: Collection[str]) -> str:
    """What `nominate` does for one object, inside the caller's transaction."""
    refused = _object_keys.unusable(item.bucket, item.key, item.version_id)
    ignored = _ignored(item, buckets)
    if not refused and not ignored:
        waiting = intake.open_nomination(session, item.bucket, item.key, item.version_id)
        if waiting is not None:
            return waiting.id
    new = uuid.uuid4().hex
    place = Place(trace_id=new, stage="nominate", nomination_id=new)
    with span("upload", place, root=True) as seen:
        outcome = _write(session, new, item, now, refused=refused, ignored=ignored)
        seen.note(source=item.source, outcome=outcome)
        _LOG.info("nominated", source=item.source, outcome=outcome)
    return new


def _write(
    session: Session, new: str, item: Nomination, now: datetime, *, refused: str, ignored: str
) -> str:
    # What cannot be shown is escaped, so that the row can be stored and read.
    nominations.add(
        session,
        nomination_id=new,
        bucket=_object_keys.shown(item.bucket),
        key=_object_keys.shown(item.key),
        version_id=None if item.version_id is None else _object_keys.shown(item.version_id),
        source=item.source,
        now=now,
    )
    if refused or ignored:
        state = NominationState.REFUSED if refused else NominationState.IGNORED
        nominations.settle(session, new, state, reason=refused or ignored)
        return str(state)
    outbox.add(session, "receive", {"nomination_id": new}, now)
    return str(NominationState.NEW)


def _ignored(item: Nomination, buckets: Collection[str]) -> str:
    if item.bucket not in buckets:
        return "The bucket is not an intake bucket (GUARD_INTAKE_BUCKETS)."
    if item.removed:
        return "The object was removed; there is nothing to vet."
    return _object_keys.not_a_model(item.key)
