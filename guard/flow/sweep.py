"""Find uploads whose event was lost: list the intake buckets and nominate what is unknown."""

from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from guard.events import Nomination
from guard.flow import _object_keys
from guard.flow._intake_settings import IntakeSettings
from guard.flow._upload_pin import pin_of
from guard.flow.nominate import nominate
from guard.flow.receive import may_be_taken
from guard.store import intake
from guard.store.session import reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from guard.events.bucket import Bucket, ObjectFacts
    from guard.flow.context import Guard

_LOG = structlog.get_logger()
_FIRST_WAIT, _LONGEST_WAIT = 60.0, 86_400.0  # seconds, before a refused object is tried again
BATCH = 200  # keys per database query; memory stays within a batch however many objects there are


def sweep_guard(guard: "Guard") -> int:
    """Sweep every intake bucket and return the number of objects that were nominated."""
    left = guard.settings.sweep_limit
    for name in guard.settings.intake_buckets:
        left -= sweep(
            guard.engine, guard.make_bucket(name), guard.now(), limits=guard.settings, limit=left
        )
    return guard.settings.sweep_limit - left


def sweep(
    engine: "Engine",
    bucket: "Bucket",
    now: datetime,
    *,
    limits: IntakeSettings,
    limit: int = 1000,
) -> int:
    """Nominate the latest version of each object that has neither a nomination nor a scan.

    An object that was refused is nominated again if the rules let it in now: a minute after the
    first refusal, then each time twice as late, up to a day. Otherwise a second sweep finds nothing
    new.

    Args:
        limits: the rules of intake.
        limit: the most nominations to make; the rest is left to the next sweep.

    Returns:
        The number of nominated objects.

    Raises:
        Unavailable: the store or the database did not answer; nominations made so far stay.
    """
    made = 0
    for batch in _batches(
        facts for facts in bucket.latest() if not _object_keys.not_a_model(facts.key)
    ):
        if made >= limit:
            break
        keys = [_object_keys.shown(facts.key) for facts in batch]
        with reading(engine) as session:
            known = intake.known(session, bucket.name, keys)
            last = intake.last_uploads(session, bucket.name, keys)
            refused = intake.refused(session, bucket.name, keys)
        fresh = [
            (facts, pin)
            for facts in batch
            if (place := (_object_keys.shown(facts.key), pin := pin_of(facts, last))) not in known
            and (place not in refused or _is_due(*refused[place], now))
            and (place not in refused or may_be_taken(facts, limits))
        ][: limit - made]
        wanted = [Nomination(facts.bucket, facts.key, pin, "sweep") for facts, pin in fresh]
        made += len(nominate(engine, wanted, now, buckets=(bucket.name,)))
    if made:
        _LOG.info("sweep_nominated", bucket=bucket.name, count=made)
    return made


def _is_due(count: int, last: datetime, now: datetime) -> bool:
    wait = timedelta(seconds=min(_FIRST_WAIT * 2.0 ** min(count - 1, 20), _LONGEST_WAIT))
    return now - last >= wait


def _batches(found: "Iterator[ObjectFacts]") -> "Iterator[list[ObjectFacts]]":
    while batch := list(islice(found, BATCH)):
        yield batch
