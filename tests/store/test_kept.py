"""No table grows without an end or a stated reason, and what is deleted is what nobody misses."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from guard.core.hooks import EventType
from guard.core.roles import Act, Role
from guard.flow.tidy import in_batches, tidy
from guard.store import (
    alarms,
    dead_letters,
    deliveries,
    hook_events,
    kept,
    nominations,
    orders,
    outbox,
)
from guard.store._read import table
from guard.store._table import Base
from guard.store.access_tables import BrowserSession
from guard.store.identities import NO_SECRET
from guard.store.order_rows import OrderState
from guard.store.rows import NominationState
from guard.store.session import make_engine, reading, transaction
from guard.store.tables import Canary, Principal, Token
from tests import postgres
from tests.flow.place import NOW, Place

DAY = timedelta(days=1)


def test_each_table_has_a_bound_or_a_reason() -> None:
    assert kept.STAYS.keys() & kept.PASSING.keys() == set()
    assert kept.STAYS.keys() | kept.PASSING.keys() == set(Base.metadata.tables)
    assert all(kept.STAYS.values())
    assert all(one.why for one in kept.PASSING.values())
    assert {one.kept for one in kept.PASSING.values()} == {
        "keep_sent_hours",
        "keep_ended_days",
        "notify_keep_days",
    }


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    if request.param == "postgresql":
        made.guard = replace(made.guard, engine=make_engine(postgres.migrated()))
    yield made
    made.guard.engine.dispose()


def held(place: Place) -> Counter[str]:
    with reading(place.guard.engine) as session:
        return Counter(
            {
                name: len(session.execute(select(one)).all())
                for name, one in Base.metadata.tables.items()
            }
        )


def fill(place: Place) -> None:
    """Of each passing table one row that ends 29 days from now on, and one that ended today."""
    with transaction(place.guard.engine) as s:
        s.execute(insert(table(Principal)).values(name="ann", created_at=NOW))
        for number, end in enumerate((NOW, NOW + 29 * DAY)):
            begin = {"created_at": NOW, "last_used_at": NOW, "expires_at": end}
            own = {"principal": "ann", "role": Role.VIEWER, "revoked_at": None}
            for name, secret in ((f"s{number}", NO_SECRET), (f"p{number}", "a" * 64)):
                s.execute(insert(table(Token)).values(id=name, hash=secret, **own, **begin))
            s.execute(
                insert(table(BrowserSession)).values(
                    id=str(number), hash="b" * 64, principal="ann", token_ids=[], seal="", **begin
                )
            )
            s.execute(
                insert(table(Canary)).values(
                    id=str(number), worker="w", methods="c" * 64, passed=True, trials=[], at=end
                )
            )
            order = orders.add(
                s, act=Act.READ, wanted={}, principal="ann", role="viewer", token_id="", now=NOW
            )
            orders.begin(s, order.id)
            orders.end(s, order.id, OrderState.DONE, "", None, end)
        orders.add(
            s, act=Act.READ, wanted={}, principal="ann", role="viewer", token_id="", now=NOW
        )  # nobody has done it yet
        crashed = orders.add(
            s, act=Act.READ, wanted={}, principal="ann", role="viewer", token_id="", now=NOW
        )
        orders.begin(s, crashed.id)  # and its worker died
        alarms.raise_(s, "odd", "m", "detail", NOW)
        alarms.clear(s, "odd", "m", NOW)
        dead_letters.add(s, "inspect", {}, "boom", NOW)


def test_what_is_over_for_long_is_deleted_and_everything_else_stays(place: Place) -> None:
    fill(place)
    before = held(place)
    place.clock = NOW + 30 * DAY
    tidy(place.guard)
    assert held(place) == before, "a day more or less is not enough"

    place.clock += timedelta(seconds=1)
    tidy(place.guard)

    assert before - held(place) == Counter(
        {"tokens": 1, "browser_sessions": 1, "canaries": 1, "orders": 2}
    )
    with reading(place.guard.engine) as session:
        ids = sorted(session.execute(select(table(Token).c.id)).scalars())
    assert ids == ["p0", "p1", "s1"]


def test_sent_messages_are_deleted_a_bounded_number_at_a_time(place: Place) -> None:
    with transaction(place.guard.engine) as s:
        for number in range(7):
            outbox.add(s, "inspect", {"scan_id": str(number)}, NOW)
        rows = outbox.due(s, NOW)
        outbox.mark_sent(s, [row.id for row in rows[1:]], NOW)
        outbox.mark_sent(s, [rows[-1].id], NOW + timedelta(hours=1))
    place.clock = NOW + timedelta(hours=24, seconds=1)

    assert tidy(place.guard, batch=2, most=3)["outbox"] == 3
    assert tidy(place.guard, batch=2, most=3)["outbox"] == 2
    assert tidy(place.guard, batch=2, most=3)["outbox"] == 0
    assert held(place)["outbox"] == 2, "one is not sent, and one was sent later"


def test_of_an_object_that_is_refused_the_newest_notice_stays(place: Place) -> None:
    def notice(
        name: str, key: str, state: NominationState, hours: int, version: str | None = None
    ) -> None:
        nominations.add(
            s,
            nomination_id=name,
            bucket="b",
            key=key,
            version_id=version,
            source="sweep",
            now=NOW + timedelta(hours=hours),
        )
        nominations.settle(s, name, state)

    with transaction(place.guard.engine) as s:
        refused = NominationState.REFUSED
        for number in range(3):
            notice(f"many {number}", "k", refused, number)
        notice("another version", "k", refused, 0, "v")
        notice("readme", "README.md", NominationState.IGNORED, 0)
        notice("late readme", "README.md", NominationState.IGNORED, 9)
        notice("waits", "m", NominationState.NEW, 0)
        notice("taken", "t", NominationState.ACCEPTED, 0)
        notice("taken again", "t", NominationState.ACCEPTED, 1)
    place.clock = NOW + 30 * DAY + timedelta(hours=5)
    tidy(place.guard)

    with reading(place.guard.engine) as session:
        left = {row.id for row in nominations.list_recent(session)}
    assert left == {
        "many 2",
        "another version",
        "late readme",
        "waits",
        "taken",
        "taken again",
    }


def test_old_events_are_deleted_whole_a_bounded_number_at_a_time(place: Place) -> None:
    with transaction(place.guard.engine) as s:
        for number in range(5):
            hook_events.add(s, EventType.TEST, NOW + timedelta(seconds=number), "it happened")
    before = partial(deliveries.prune, before=NOW + timedelta(seconds=4))

    assert in_batches(place.guard, before, batch=2, most=3) == 3
    assert in_batches(place.guard, before, batch=2, most=9) == 1
    assert held(place)["hook_events"] == 1
