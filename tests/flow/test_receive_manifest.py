"""Weights and their `config.json` may come in any order; the text is kept as it was uploaded."""

from pathlib import Path

import pytest

from guard.core.digests import sha256
from guard.core.manifest import MAX_MANIFEST_BYTES
from guard.flow.receive import MANIFEST_PAUSE_SECONDS
from guard.store.rows import NominationState
from tests.flow.intake import CONFIG, World, new_world

WEIGHTS = b"weights of a model"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (b" " * (MAX_MANIFEST_BYTES + 1), "larger than"),
        (b"\xff{}", "UTF-8"),
        (b'{"a": "\0"}', "UTF-8"),
    ],
)
def test_a_manifest_that_cannot_be_kept_is_refused(world: World, config: bytes, says: str) -> None:
    world.put("in/a/config.json", config)
    world.put("in/a/m.pt", WEIGHTS)

    new = world.nominate("in/a/m.pt")
    world.work()

    row = world.nomination(new)
    assert (row.state, world.scans()) == (NominationState.REFUSED, [])
    assert says in row.reason


def test_weights_wait_for_their_manifest_and_then_go_on_without(world: World) -> None:
    version = world.put("in/a/m.pt", WEIGHTS)
    new = world.nominate("in/a/m.pt", version)

    (waiting,) = world.work()
    assert (waiting.state, waiting.scan_id) == (NominationState.NEW, None)
    (message,) = world.messages("receive")
    assert (message.not_before - world.time).total_seconds() == MANIFEST_PAUSE_SECONDS

    world.pass_time(world.rules.manifest_grace_seconds)
    (done,) = world.work()
    (scan,) = world.scans()
    assert (done.nomination_id, done.scan_id, scan.manifest) == (new, scan.id, None)


def test_a_manifest_within_the_grace_period_is_used(world: World) -> None:
    world.nominate("in/a/m.pt", world.put("in/a/m.pt", WEIGHTS))
    world.work()
    world.put("in/a/config.json", CONFIG)
    world.pass_time(MANIFEST_PAUSE_SECONDS)
    world.work()

    assert [scan.manifest for scan in world.scans()] == [CONFIG.decode()]


def test_a_manifest_that_comes_alone_nominates_the_weights_beside_it_and_only_those(
    world: World,
) -> None:
    world.put("in/a/config.json", CONFIG)
    for key in (
        "in/a/m.pt",
        "in/a/other.bin",
        "in/a/README.md",
        "in/a/sub/deep.pt",
        "in/ab/m.pt",
        "in/a/empty.pt",
    ):
        world.put(key, b"" if "empty" in key else key.encode())
    world.nominate("in/a/config.json")
    world.work()

    assert {scan.key for scan in world.scans()} == {"in/a/m.pt", "in/a/other.bin"}
    assert all(scan.manifest == CONFIG.decode() for scan in world.scans())


def test_a_manifest_after_the_grace_period_has_the_weights_scanned_again_once(world: World) -> None:
    world.set_rules(manifest_grace_seconds=0)
    world.nominate("in/a/m.pt", world.put("in/a/m.pt", WEIGHTS))
    world.work()
    for text in (CONFIG, CONFIG + b"\n"):
        world.put("in/a/config.json", text)
        world.nominate("in/a/config.json")
        world.nominate("in/a/m.pt")
        world.work()

    assert sorted(scan.manifest or "" for scan in world.scans()) == ["", CONFIG.decode()]
    assert {scan.upload_digest for scan in world.scans()} == {sha256(WEIGHTS)}
    assert len(world.messages("inspect")) == 2
