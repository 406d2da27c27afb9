"""An index and its shards become one scan, in whatever order their events come."""

from itertools import permutations
from pathlib import Path

import pytest

from guard.core.shards import opening
from guard.flow.receive import Received
from guard.flow.sweep import sweep
from guard.store.rows import NominationState
from tests.flow.intake import CONFIG, World, new_world

INDEX = "in/a/model.safetensors.index.json"
FIRST, SECOND = (f"in/a/model-0000{place}-of-00002.safetensors" for place in (1, 2))
FILES = {"in/a/config.json": CONFIG, FIRST: b"first", SECOND: b"second", INDEX: b"{}"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = new_world(tmp_path)
    world.set_rules(manifest_grace_seconds=0.0)
    return world


def upload(world: World, *keys: str) -> list[Received]:
    for key in keys:
        world.nominate(key, world.put(key, FILES[key]))
    return world.work()


def packed(**changes: bytes) -> bytes:
    first = changes.get("first", FILES[FIRST])
    names = [(FIRST.rpartition("/")[2], len(first)), (SECOND.rpartition("/")[2], 6)]
    return opening(INDEX, 2, names) + FILES[INDEX] + first + FILES[SECOND]


def test_the_last_scan_is_of_all_files_in_any_order_of_events(world: World) -> None:
    for place, order in enumerate(list(permutations((FIRST, SECOND, INDEX)))[::2]):
        folder = f"in/{place}/"
        world.put(f"{folder}config.json", CONFIG)
        for key in order:
            own = key.replace("in/a/", folder)
            world.nominate(own, world.put(own, FILES[key]))
        world.work()

        (scan,) = [one for one in world.scans() if one.key.startswith(folder)]
        assert scan.key == f"{folder}model.safetensors.index.json"
        assert scan.manifest == CONFIG.decode()
        assert world.blobs.path(str(scan.upload_digest)).read_bytes() == packed()


def test_shards_wait_for_their_index_and_the_index_for_its_shards(world: World) -> None:
    world.set_rules(manifest_grace_seconds=30.0)
    upload(world, "in/a/config.json", FIRST)
    world.pass_time(10)
    assert {one.state for one in upload(world, INDEX)} == {
        NominationState.NEW,
        NominationState.ACCEPTED,
    }
    world.pass_time(10)
    upload(world, SECOND)
    assert world.scans() == []
    world.pass_time(30)
    world.work()

    (scan,) = world.scans()
    assert world.blobs.path(str(scan.upload_digest)).read_bytes() == packed()


@pytest.mark.threat("A22")
def test_a_shard_that_is_uploaded_again_makes_a_scan_of_the_new_bytes(world: World) -> None:
    upload(world, *FILES)
    world.nominate(FIRST, world.put(FIRST, b"other"))
    world.work()

    newest, older = world.scans()
    assert newest.version_id != older.version_id
    assert {world.blobs.path(str(one.upload_digest)).read_bytes() for one in world.scans()} == {
        packed(),
        packed(first=b"other"),
    }


def test_a_sweep_finds_shards_whose_events_were_lost_and_then_nothing_more(world: World) -> None:
    for key, data in FILES.items():
        world.put(key, data)

    for _ in range(2):
        sweep(world.engine, world.bucket, world.now(), limits=world.rules)
        world.work()

    assert [scan.key for scan in world.scans()] == [INDEX]
    assert sweep(world.engine, world.bucket, world.now(), limits=world.rules) == 0


def test_without_versions_a_shard_that_is_replaced_makes_another_scan(tmp_path: Path) -> None:
    world = new_world(tmp_path, versioned=False)
    world.set_rules(manifest_grace_seconds=0.0, allow_unversioned=True)
    upload(world, *FILES)
    world.put(SECOND, b"SECOND")
    world.nominate(SECOND)
    world.work()

    assert len({scan.upload_digest for scan in world.scans()}) == 2


def test_shards_that_are_too_large_together_are_refused(world: World) -> None:
    world.set_rules(max_upload_bytes=len(CONFIG))
    world.put(FIRST, bytes(len(CONFIG) // 2 + 1))
    world.put(SECOND, bytes(len(CONFIG) // 2 + 1))
    new = world.nominate(INDEX, world.put(INDEX, b"{}"))
    world.work()

    row = world.nomination(new)
    assert row.state is NominationState.REFUSED
    assert "GUARD_MAX_UPLOAD_BYTES" in row.reason
    assert world.scans() == []


def test_other_files_beside_an_index_are_models_of_their_own(world: World) -> None:
    others = ("in/a/model-00001-of-00002.bin", "in/a/model-final.safetensors")
    for key in others:
        world.put(key, b"weights")
        world.nominate(key)
    upload(world, *FILES)

    assert {scan.key for scan in world.scans()} == {INDEX, *others}
    (scan,) = [one for one in world.scans() if one.key == INDEX]
    assert world.blobs.path(str(scan.upload_digest)).read_bytes() == packed()
