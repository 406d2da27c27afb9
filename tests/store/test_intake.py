"""What intake asks the books, and the counts of the metrics."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from guard.core.states import ScanState
from guard.store import alarms, counts, dead_letters, intake, nominations, outbox, scans
from guard.store.rows import NominationState
from guard.store.session import transaction

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def scan(engine: Engine, number: int, version: str, parent: str | None = None) -> str:
    with transaction(engine) as session:
        row = scans.insert(
            session,
            scan_id=f"{number:032x}",
            bucket="b",
            key="k",
            version_id=version,
            name="n",
            now=NOW + timedelta(seconds=number),
            parent_scan_id=parent,
        )
    return row.id


def nominate(
    engine: Engine, number: int, version: str | None, state: NominationState = NominationState.NEW
) -> str:
    with transaction(engine) as session:
        row = nominations.add(
            session,
            nomination_id=f"{number:032x}",
            bucket="b",
            key="k",
            version_id=version,
            source="s3",
            now=NOW,
        )
        nominations.settle(session, row.id, state)
    return row.id


def test_the_scans_of_an_upload_are_its_own_and_those_with_a_late_manifest(engine: Engine) -> None:
    first = scan(engine, 1, "v%1")
    late = scan(engine, 2, "v%1#config=c1")
    scan(engine, 3, "v%1", parent=first)
    for number, other in enumerate(("v%12", "vx1#config=c1", "v%1#other", "v")):
        scan(engine, 10 + number, other)

    with transaction(engine) as session:
        found = intake.scans_of_upload(session, "b", "k", "v%1")

    assert [row.id for row in found] == [first, late]


def test_known_is_what_has_a_scan_or_a_nomination_that_waits_or_was_taken(engine: Engine) -> None:
    scan(engine, 1, "scanned")
    for number, state in enumerate(NominationState):
        nominate(engine, number, str(state), state)

    with transaction(engine) as session:
        found = intake.known(session, "b", ["k", "other"])
        nothing = intake.known(session, "other", ["k"])

    assert found == {("k", "scanned"), ("k", "new"), ("k", "accepted")}
    assert nothing == set()


@pytest.mark.parametrize("version", ["v1", None])
def test_an_open_nomination_is_of_the_same_version_and_nobody_acted_on_it(
    engine: Engine, version: str | None
) -> None:
    nominate(engine, 1, version, NominationState.ACCEPTED)
    nominate(engine, 2, "other")
    with transaction(engine) as session:
        assert intake.open_nomination(session, "b", "k", version) is None

    new = nominate(engine, 3, version)

    with transaction(engine) as session:
        found = intake.open_nomination(session, "b", "k", version)
    assert found is not None
    assert found.id == new


def test_everything_is_counted(engine: Engine) -> None:
    with transaction(engine) as session:
        assert counts.take(session, NOW) == counts.Counts(
            scans={},
            nominations={},
            verdicts={},
            unsent=0,
            oldest_due=None,
            dead_letters=0,
            alarms={},
            expiring=0,
            expired=0,
        )
    done = scan(engine, 1, "v1")
    scan(engine, 2, "v2")
    nominate(engine, 3, "v3")
    with transaction(engine) as session:
        scans.move(session, done, ScanState.DONE, NOW)
        outbox.add(session, "inspect", {}, NOW - timedelta(seconds=9))
        outbox.add(session, "inspect", {}, NOW, delay_seconds=60)
        dead_letters.add(session, "inspect", {}, "why", NOW)
        alarms.raise_(session, "drift", "a", "", NOW)
        alarms.raise_(session, "drift", "b", "", NOW)
        alarms.raise_(session, "other", "c", "", NOW)
        alarms.clear(session, "other", "c", NOW)
        found = counts.take(session, NOW)

    assert (found.scans, found.nominations) == ({"done": 1, "queued": 1}, {"new": 1})
    assert (found.unsent, found.oldest_due) == (2, NOW - timedelta(seconds=9))
    assert (found.dead_letters, found.alarms) == (1, {"drift": 2})
