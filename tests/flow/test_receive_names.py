"""Claims, turns and the order of uploads, as `receive` makes them from a real bucket."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from guard.core.states import ScanState
from guard.flow import _fair_share, _turn
from guard.store import alarms, claims, principals, scans, uploaders
from guard.store.rows import NominationState
from guard.store.session import reading, transaction
from tests.flow.intake import CONFIG, World, new_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = new_world(tmp_path)
    yield made
    made.engine.dispose()


def put(world: World, key: str, by: str | None, data: bytes = b"weights") -> NominationState:
    world.put(key.rpartition("/")[0] + "/config.json", CONFIG)
    own(world, key.rpartition("/")[0] + "/", by)
    nomination = world.nominate(key, world.put(key, data))
    return world.receive(nomination).state


def own(world: World, prefix: str, by: str | None) -> None:
    """Make one principal the only owner of a prefix; None: nobody."""
    bucket, now = world.bucket.name, world.now()
    with transaction(world.engine) as session:
        for row in uploaders.list_owners(session):
            if row.prefix == prefix and row.principal != by:
                uploaders.remove_owner(
                    session, bucket=bucket, prefix=prefix, principal=row.principal, now=now
                )
        if by is not None:
            principals.put(session, by, now)
            uploaders.add_owner(session, bucket=bucket, prefix=prefix, principal=by, now=now)


def test_the_first_upload_claims_its_name_for_its_folder_and_uploader(world: World) -> None:
    assert put(world, "models/fraud/m.pt", "ann") is NominationState.ACCEPTED

    with reading(world.engine) as session:
        (claim,) = claims.list_all(session)
    assert (claim.name, claim.prefix, claim.owner) == ("fraud", "models/fraud/", "ann")
    assert (claim.bucket, claim.since) == (world.bucket.name, world.time)


@pytest.mark.parametrize(
    ("key", "by"),
    [
        ("models/fraud/m.pt", "mallory"),
        ("models/fraud/other.pt", "mallory"),
        ("models/fraud/m.pt", None),
        ("fraud/m.pt", "ann"),
        ("fraud/m.pt", "mallory"),
    ],
)
def test_who_asks_for_the_name_of_another_is_refused_before_it_is_read_and_an_alarm_is_raised(
    world: World, key: str, by: str | None
) -> None:
    put(world, "models/fraud/m.pt", "ann")

    for data in (b"one", b"two"):
        assert put(world, key, by, data) is NominationState.REFUSED

    assert len(world.scans()) == len(world.messages("inspect")) == 1
    assert len(list(world.blobs.root.rglob("*"))) <= 4
    refused = [row for row in world.nominations() if row.state is NominationState.REFUSED]
    assert ["belongs to" in row.reason for row in refused] == [True, True]
    with reading(world.engine) as session:
        (alarm,) = alarms.open_alarms(session, "name_taken")
    assert alarm.subject.startswith(f"s3://{world.bucket.name}/")


def test_a_folder_keeps_its_name_when_the_rule_changes(world: World) -> None:
    put(world, "team-a/fraud/m.pt", "ann")
    world.set_rules(served_name="prod-{path}")
    put(world, "team-a/fraud/m.pt", "ann", b"newer")

    assert {scan.name for scan in world.scans()} == {"team-a--fraud"}


def test_uploads_of_one_second_are_in_the_order_of_the_store(world: World) -> None:
    world.put("models/fraud/config.json", CONFIG)
    versions = [world.put("models/fraud/m.pt", bytes([number])) for number in range(5)]
    for version in (versions[3], versions[0], versions[4], versions[2], versions[1]):
        world.receive(world.nominate("models/fraud/m.pt", version))
        world.pass_time(1)

    assert [scan.version_id for scan in sorted(world.scans(), key=_turn.order)] == versions


@pytest.mark.threat("C08", "C17")
def test_who_has_as_many_scans_open_as_allowed_waits_and_holds_nobody_up(world: World) -> None:
    world.set_rules(uploader_scans=2)
    flood = [put(world, f"models/a{number}/m.pt", "ann") for number in range(4)]
    other = put(world, "models/b/m.pt", "bob")
    nobodys = [put(world, f"models/c{number}/m.pt", None) for number in range(3)]

    taken, waiting = NominationState.ACCEPTED, NominationState.NEW
    assert flood == [taken, taken, waiting, waiting]
    assert other is taken
    assert nobodys == [taken] * 3

    with transaction(world.engine) as session:
        ended = next(row for row in scans.list_recent(session) if row.name == "a0")
        scans.move(session, ended.id, ScanState.FAILED, world.now())
    world.pass_time(31)
    world.work()

    assert sorted(row.name for row in world.scans() if row.submitted_by == "ann") in (
        ["a0", "a1", "a2"],
        ["a0", "a1", "a3"],
    )
    assert sum(row.state is waiting for row in world.nominations()) == 1


def test_what_has_waited_long_is_looked_at_more_rarely() -> None:
    pauses = [_fair_share.turn(timedelta(seconds=age))[0] for age in (0, 400, 10_000)]

    assert pauses == [30.0, 100.0, 600.0]
