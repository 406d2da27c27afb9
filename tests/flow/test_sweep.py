"""The sweep finds what no event told, once, and never more than its limit."""

import time
from datetime import datetime
from pathlib import Path

import pytest

from guard.bootstrap import open_guard
from guard.core.digests import sha256
from guard.core.errors import Unavailable
from guard.events import Nomination
from guard.events.bucket import Bucket, ObjectChanged, make_client
from guard.flow import _turn
from guard.flow.nominate import nominate
from guard.flow.receive import receive_nomination
from guard.flow.sweep import BATCH, sweep, sweep_guard
from guard.settings import load_settings
from guard.store import nominations, scans
from guard.store.rows import NominationState
from guard.store.session import reading
from tests import sqlite
from tests.flow.intake import CONFIG, World, new_world
from tests.services import shared_weed


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


def swept(world: World, limit: int = 1000) -> int:
    return sweep(world.engine, world.bucket, world.now(), limits=world.rules, limit=limit)


@pytest.mark.row(2)
def test_what_no_event_told_is_nominated_once_by_its_latest_version(world: World) -> None:
    world.put("in/a/m.pt", b"old")
    latest = world.put("in/a/m.pt", b"new")
    world.put("in/a/README.md", b"text")
    world.put("in/b/gone.pt", b"x")
    world.bucket.client.delete_object(Bucket=world.bucket.name, Key="in/b/gone.pt")

    assert swept(world) == 1
    assert swept(world) == 0
    assert [(row.key, row.version_id, row.source) for row in world.nominations()] == [
        ("in/a/m.pt", latest, "sweep")
    ]


def test_what_was_heard_of_is_left_alone_whatever_became_of_it(world: World) -> None:
    world.set_rules(max_upload_bytes=5, manifest_grace_seconds=0)
    for key, data in (("in/a/m.pt", b"small"), ("in/b/m.pt", b"too large"), ("in/c/m.pt", b"new")):
        world.nominate(key, world.put(key, data))
        if key != "in/c/m.pt":
            world.work()

    assert {row.state for row in world.nominations()} == set(NominationState) - {
        NominationState.IGNORED
    }
    assert swept(world) == 0


def test_a_refusal_is_reconsidered_once_its_reason_no_longer_holds(world: World) -> None:
    world.set_rules(max_upload_bytes=5, manifest_grace_seconds=0)
    world.put("in/b/m.pt", b"too large")
    assert swept(world) == 1
    world.work()
    world.pass_time(3600)
    assert swept(world) == 0

    world.set_rules(max_upload_bytes=1000)
    assert swept(world) == 1
    world.work()

    assert [scan.key for scan in world.scans()] == ["in/b/m.pt"]
    assert swept(world) == 0


def test_what_stays_refused_is_tried_ever_more_rarely(world: World) -> None:
    world.put("in/b/config.json", b"\xff")  # no text, which only reading it shows
    world.put("in/b/m.pt", b"weights")
    tries = []
    for minute in range(40):
        if swept(world):
            tries.append(minute)
            world.work()
        world.pass_time(60)

    assert tries == [0, 1, 3, 7, 15, 31]


def test_a_scan_without_a_nomination_counts_as_heard_of(world: World) -> None:
    world.put("in/a/config.json", CONFIG)
    world.put("in/a/m.pt", b"x")
    world.nominate("in/a/m.pt")  # no version: only the scan knows which
    world.work()
    world.nominate("in/a/config.json")
    world.work()
    swept(world)
    world.work()

    assert len(world.scans()) == 1
    assert swept(world) == 0


def test_an_event_ignored_for_its_bucket_is_made_good_once_the_bucket_is_allowed(
    world: World,
) -> None:
    version = world.put("in/a/m.pt", b"x")
    nominate(
        world.engine,
        [Nomination(world.bucket.name, "in/a/m.pt", version, "s3")],
        world.now(),
        buckets=["other"],
    )

    assert swept(world) == 1


def test_in_an_unversioned_bucket_each_content_is_found(tmp_path: Path) -> None:
    world = new_world(tmp_path, versioned=False)
    world.set_rules(allow_unversioned=True, manifest_grace_seconds=0)
    counts = []
    for data in (b"first", None, b"second"):
        if data is not None:
            world.put("in/a/m.pt", data)
        counts.append(swept(world))
        world.work()

    assert counts == [1, 0, 1]
    assert len(world.scans()) == 2


@pytest.mark.parametrize("notice", ["sweep", "event"])
def test_without_versions_old_bytes_uploaded_again_are_the_newest_upload(
    tmp_path: Path, notice: str
) -> None:
    world = new_world(tmp_path, versioned=False)
    world.set_rules(allow_unversioned=True, manifest_grace_seconds=0)
    for data in (b"first", b"second", b"first"):
        at = upload_in_a_new_second(world, "in/a/m.pt", data)
        for _ in range(2):  # a notice may come twice
            if notice == "sweep":
                swept(world)
            else:
                world.nominate("in/a/m.pt")
            world.work()

    found = sorted(world.scans(), key=_turn.order)
    assert [scan.upload_digest for scan in found] == [
        sha256(b"first"),
        sha256(b"second"),
        sha256(b"first"),
    ]
    assert found[2].uploaded_at is not None
    assert found[2].uploaded_at.replace(microsecond=0) == at
    assert swept(world) == 0


def test_a_repetition_that_was_replaced_before_it_was_read_is_refused(tmp_path: Path) -> None:
    world = new_world(tmp_path, versioned=False)
    world.set_rules(allow_unversioned=True, manifest_grace_seconds=0)
    upload_in_a_new_second(world, "in/a/m.pt", b"first")
    swept(world)
    world.work()
    for _ in range(2):
        upload_in_a_new_second(world, "in/a/m.pt", b"first")
        assert swept(world) == 1

    states = [one.state for one in world.work()]

    assert sorted(states) == [NominationState.ACCEPTED, NominationState.REFUSED]
    assert len(world.scans()) == 2


def upload_in_a_new_second(world: World, key: str, data: bytes) -> datetime:
    """Upload so that the store gives the object another time than before; that time."""
    try:
        before = world.bucket.head(key).modified
    except ObjectChanged:
        before = None
    while True:
        world.put(key, data)
        now = world.bucket.head(key).modified
        assert now is not None
        if now != before:
            return now
        time.sleep(0.1)


def test_a_pinned_content_that_was_replaced_since_is_refused_not_mixed_up(tmp_path: Path) -> None:
    world = new_world(tmp_path, versioned=False)
    world.set_rules(allow_unversioned=True, manifest_grace_seconds=0)
    world.put("in/a/m.pt", b"first")
    swept(world)
    world.put("in/a/m.pt", b"second")

    (done,) = world.work()

    assert (done.state, world.scans()) == (NominationState.REFUSED, [])
    assert "replaced" in done.reason
    assert swept(world) == 1


def test_keys_that_cannot_be_shown_are_refused_once(world: World) -> None:
    world.put("in/\u202egpj/m.pt", b"x")

    assert swept(world) == 1
    assert swept(world) == 0
    assert [row.state for row in world.nominations()] == [NominationState.REFUSED]


def test_a_sweep_makes_no_more_than_its_limit_and_the_next_goes_on(world: World) -> None:
    for number in range(7):
        world.put(f"in/{number}/m.pt", b"x")

    assert [swept(world, limit=3) for _ in range(4)] == [3, 3, 1, 0]
    assert len({row.key for row in world.nominations()}) == 7


def test_more_objects_than_a_batch_are_all_found(world: World) -> None:
    count = BATCH + 3
    for number in range(count):
        world.put(f"in/{number:04}/m.pt", b"x")

    assert swept(world) == count
    assert swept(world) == 0


@pytest.mark.row(6)
def test_the_guard_sweeps_all_its_buckets_and_receives_what_it_found(tmp_path: Path) -> None:
    weed = shared_weed()
    buckets = [weed.new_bucket() for _ in range(2)]
    for bucket in buckets:
        bucket.client.put_object(Bucket=bucket.name, Key="in/a/m.pt", Body=b"x")
        bucket.client.put_object(Bucket=bucket.name, Key="in/a/config.json", Body=CONFIG)
    names = ",".join(bucket.name for bucket in buckets)
    guard = open_guard(
        load_settings(
            {
                **weed.environment(buckets[0].name),
                "GUARD_INTAKE_BUCKETS": names,
                "GUARD_DATA_DIR": str(tmp_path),
                "GUARD_SWEEP_LIMIT": "3",
                "GUARD_SERVED_NAME": "{bucket}/{path}",
                "GUARD_DATABASE_URL": sqlite.migrated(tmp_path),
            }
        )
    )

    assert [sweep_guard(guard) for _ in range(3)] == [3, 1, 0]
    with reading(guard.engine) as session:
        waiting = nominations.pending(session)
    states = {receive_nomination(guard, row.id).state for row in waiting}

    assert states == {NominationState.ACCEPTED}
    with reading(guard.engine) as session:
        assert {scan.bucket for scan in scans.list_recent(session)} == {
            bucket.name for bucket in buckets
        }


def test_a_store_that_is_away_is_unavailable(tmp_path: Path) -> None:
    away = Bucket(
        make_client(endpoint="http://127.0.0.1:9", access_key="a", secret_key="b"), "models"
    )
    world = new_world(tmp_path, away)

    with pytest.raises(Unavailable):
        swept(world)
