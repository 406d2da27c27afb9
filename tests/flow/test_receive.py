"""Receiving pins one version, reads it once, records it in one commit.

And may be repeated or killed anywhere.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from guard.core.digests import sha256
from guard.core.errors import InputError, Unavailable
from guard.core.states import ScanState
from guard.events import parse_event
from guard.events.bucket import Bucket, make_client
from guard.flow.receive import receive
from guard.store import artifacts, principals, uploaders
from guard.store.rows import ArtifactKind, NominationState
from guard.store.session import reading, transaction
from tests.api.conftest import event
from tests.flow.intake import CONFIG, START, World, new_world
from tests.services import shared_weed

WEIGHTS = b"weights of a model" * 100


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


@pytest.fixture
def unversioned(tmp_path: Path) -> World:
    return new_world(tmp_path, versioned=False)


def test_an_upload_becomes_a_blob_an_artifact_a_scan_and_one_message(world: World) -> None:
    world.put("in/resnet18-clean/config.json", CONFIG)
    version = world.put(
        "in/resnet18-clean/model.safetensors", WEIGHTS, Metadata={"submitted-by": "ann"}
    )
    new = world.nominate("in/resnet18-clean/model.safetensors", version)

    (done,) = world.work()

    (scan,) = world.scans()
    assert (new, NominationState.ACCEPTED, scan.id) == (
        done.nomination_id,
        done.state,
        done.scan_id,
    )
    assert (scan.bucket, scan.version_id) == (world.bucket.name, version)
    assert scan.key == "in/resnet18-clean/model.safetensors"
    assert (scan.name, scan.state, scan.submitted_by) == (
        "in--resnet18-clean",
        ScanState.QUEUED,
        None,
    )
    assert scan.upload_digest == sha256(WEIGHTS)
    assert scan.manifest == CONFIG.decode()
    with world.blobs.open(sha256(WEIGHTS)) as stored:
        assert stored.read() == WEIGHTS
    with reading(world.engine) as session:
        artifact = artifacts.get(session, sha256(WEIGHTS))
    assert (artifact.size, artifact.kind) == (len(WEIGHTS), ArtifactKind.UPLOAD)
    assert [row.payload for row in world.messages("inspect")] == [{"scan_id": scan.id}]


@pytest.mark.row(4)
def test_an_event_without_a_version_is_pinned_to_the_latest_one(world: World) -> None:
    world.put("in/a/config.json", CONFIG)
    world.put("in/a/m.pt", b"old")
    version = world.put("in/a/m.pt", WEIGHTS)
    world.nominate("in/a/m.pt")
    world.work()

    assert [(scan.version_id, scan.upload_digest) for scan in world.scans()] == [
        (version, sha256(WEIGHTS))
    ]


@pytest.mark.row(4)
@pytest.mark.threat("A01")
def test_a_version_put_later_gets_its_own_scan_and_changes_nothing_in_the_first(
    world: World,
) -> None:
    world.put("in/a/config.json", CONFIG)
    first = world.put("in/a/m.pt", b"first")
    world.nominate("in/a/m.pt", first)
    second = world.put("in/a/m.pt", b"second")
    world.nominate("in/a/m.pt", second)
    world.work()

    assert {(scan.version_id, scan.upload_digest) for scan in world.scans()} == {
        (first, sha256(b"first")),
        (second, sha256(b"second")),
    }
    assert len(world.messages("inspect")) == 2


def test_a_version_is_received_even_if_the_key_was_deleted_meanwhile(world: World) -> None:
    world.put("in/a/config.json", CONFIG)
    version = world.put("in/a/m.pt", WEIGHTS)
    world.nominate("in/a/m.pt", version)
    world.bucket.client.delete_object(Bucket=world.bucket.name, Key="in/a/m.pt")
    world.work()

    assert [scan.upload_digest for scan in world.scans()] == [sha256(WEIGHTS)]


@pytest.mark.threat("A17")
def test_tags_and_metadata_that_claim_a_verdict_have_no_effect(world: World) -> None:
    world.put("in/a/config.json", CONFIG)
    version = world.put(
        "in/a/m.pt", WEIGHTS, Tagging="guard:verdict=cleared", Metadata={"guard-verdict": "cleared"}
    )
    world.nominate("in/a/m.pt", version)
    world.work()

    (scan,) = world.scans()
    assert (scan.state, scan.verdict_id) == (ScanState.QUEUED, None)


def refused(world: World, key: str = "in/a/m.pt", version: str | None = None) -> str:
    """Nominate, work, and expect a refusal with nothing read; returns the reason."""
    new = world.nominate(key, version)
    world.work()
    for _ in range(100):  # an object that is not there is looked for again
        if world.nomination(new).state is NominationState.NEW:
            world.pass_time(2)
            world.work()
    row = world.nomination(new)
    assert row.state is NominationState.REFUSED
    assert world.scans() == []
    assert [path for path in world.blobs.root.rglob("*") if path.is_file()] == []
    return row.reason


@pytest.mark.threat("A02")
def test_an_unversioned_bucket_is_refused(unversioned: World) -> None:
    unversioned.put("in/a/m.pt", WEIGHTS)

    assert "turn versioning on" in refused(unversioned)


@pytest.mark.row(4)
def test_an_unversioned_bucket_may_be_allowed_and_each_content_is_pinned_by_its_etag(
    unversioned: World,
) -> None:
    unversioned.set_rules(allow_unversioned=True)
    unversioned.put("in/a/config.json", CONFIG)
    for data in (b"first", b"second"):
        unversioned.put("in/a/m.pt", data)
        unversioned.nominate("in/a/m.pt")
        unversioned.work()

    assert {scan.upload_digest for scan in unversioned.scans()} == {
        sha256(b"first"),
        sha256(b"second"),
    }
    assert all(
        scan.version_id and scan.version_id.startswith("etag:") for scan in unversioned.scans()
    )


def test_an_object_over_the_limit_is_refused_before_a_byte_is_read(world: World) -> None:
    world.set_rules(max_upload_bytes=len(WEIGHTS) - 1)
    world.put("in/a/m.pt", WEIGHTS)

    assert "GUARD_MAX_UPLOAD_BYTES" in refused(world)


def test_an_empty_object_is_refused(world: World) -> None:
    world.put("in/a/m.pt", b"")

    assert "empty" in refused(world)


def test_an_object_that_was_never_there_is_refused(world: World) -> None:
    assert "not in the bucket" in refused(world)
    assert "not in the bucket" in refused(world, "in/b/m.pt", "6715fd44a765a40f1fd56a49f72d86ef")


def test_an_object_that_the_store_shows_late_is_taken(world: World) -> None:
    world.set_rules(manifest_grace_seconds=0)
    new = world.nominate("in/a/m.pt")

    assert [done.state for done in world.work()] == [NominationState.NEW]
    world.put("in/a/m.pt", WEIGHTS)
    world.pass_time(5)
    world.work()

    assert world.nomination(new).state is NominationState.ACCEPTED
    assert len(world.scans()) == 1


def test_an_absent_object_is_looked_for_ever_more_rarely_and_not_for_ever(world: World) -> None:
    new = world.nominate("in/a/m.pt")
    looked = []
    while world.nomination(new).state is NominationState.NEW:
        if world.work():
            looked.append((world.time - START).total_seconds())
        world.pass_time(1)

    assert looked == [0, 2, 4, 8, 16, 32, 64, 128]


def test_a_key_whose_plus_sign_was_not_encoded_is_found_all_the_same(world: World) -> None:
    world.set_rules(manifest_grace_seconds=0)
    version = world.put("in/a+b/m+1.pt", WEIGHTS)
    (nomination,) = parse_event(event("in/a+b/m+1.pt", version))
    new = world.nominate(nomination.key, nomination.version_id)

    world.work()

    row = world.nomination(new)
    assert (row.state, "not URL-encoded" in row.reason) == (NominationState.IGNORED, True)
    assert [scan.key for scan in world.scans()] == ["in/a+b/m+1.pt"]


def test_a_name_without_letters_is_refused(world: World) -> None:
    world.put("in/模型/m.pt", WEIGHTS)

    assert "no model name" in refused(world, "in/模型/m.pt")


class Meddling:
    """Limits whose reading replaces or removes the object.

    Between the look at it and the reading of its bytes.
    """

    allow_unversioned = True
    manifest_grace_seconds = 0.0
    uploader_scans = 100
    shared_scans = 200

    def __init__(self, world: World, *, remove: bool) -> None:
        self.world = world
        self.remove = remove
        self.served_name, self.served_name_strip = "{path}", "models/"

    @property
    def max_upload_bytes(self) -> int:
        if self.remove:
            self.world.bucket.client.delete_object(Bucket=self.world.bucket.name, Key="in/a/m.pt")
        else:
            self.world.put("in/a/m.pt", b"something else")
        return 1 << 20


@pytest.mark.row(5)
@pytest.mark.threat("A02")
@pytest.mark.parametrize(("remove", "says"), [(False, "replaced"), (True, "not in the bucket")])
def test_an_object_that_changes_while_it_is_taken_is_refused(
    unversioned: World, remove: bool, says: str
) -> None:
    unversioned.put("in/a/config.json", CONFIG)
    unversioned.put("in/a/m.pt", WEIGHTS)
    unversioned.rules = Meddling(unversioned, remove=remove)

    assert says in refused(unversioned)


def test_the_same_nomination_twice_is_one_scan(world: World) -> None:
    world.put("in/a/config.json", CONFIG)
    new = world.nominate("in/a/m.pt", world.put("in/a/m.pt", WEIGHTS))

    assert world.receive(new) == world.receive(new)
    assert len(world.scans()) == len(world.messages("inspect")) == 1


def test_while_the_store_is_away_a_nomination_stays_new(world: World) -> None:
    new = world.nominate("in/a/m.pt", "v1")
    away = Bucket(
        make_client(endpoint="http://127.0.0.1:9", access_key="a", secret_key="b"),
        world.bucket.name,
    )

    with pytest.raises(Unavailable):
        receive(
            new,
            engine=world.engine,
            blobs=world.blobs,
            bucket=lambda _: away,
            limits=world.rules,
            now=world.now,
        )
    assert world.nomination(new).state is NominationState.NEW


def test_an_unknown_nomination_is_an_input_error(world: World) -> None:
    with pytest.raises(InputError, match="no nomination"):
        world.receive("nothing")


KILLED = """
import os, signal, sys
from datetime import datetime, UTC
from pathlib import Path
from guard.blobs import FolderBlobs
from guard.events.bucket import Bucket, make_client
from guard.flow.receive import receive
from guard.store.session import make_engine
from tests.flow.intake import Rules
class Deadly(FolderBlobs):
    def put(self, chunks):
        super().put(chunks)
        os.kill(os.getpid(), signal.SIGKILL)
url, blobs, endpoint, access, secret, bucket, nomination = sys.argv[1:]
client = make_client(endpoint=endpoint, access_key=access, secret_key=secret)
receive(nomination, engine=make_engine(url), blobs=Deadly(Path(blobs)), bucket=lambda name: Bucket(client, name),
        limits=Rules(), now=lambda: datetime.now(UTC))
"""  # noqa: E501 - a script of its own


def test_a_worker_killed_between_blob_and_commit_leaves_nothing_half_done(world: World) -> None:
    world.put("in/a/config.json", CONFIG)
    new = world.nominate("in/a/m.pt", world.put("in/a/m.pt", WEIGHTS))
    weed = shared_weed()

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            KILLED,
            world.url,
            str(world.blobs.root),
            weed.endpoint,
            weed.access_key,
            weed.secret_key,
            world.bucket.name,
            new,
        ],
        check=False,
    )

    assert done.returncode == -9
    assert (world.scans(), world.messages("inspect")) == ([], [])
    assert world.blobs.has(sha256(WEIGHTS))
    assert world.receive(new).state is NominationState.ACCEPTED
    assert len(world.scans()) == len(world.messages("inspect")) == 1


def test_the_uploader_is_the_owner_of_the_prefix_whatever_the_upload_claims(world: World) -> None:
    with transaction(world.engine) as session:
        for name, prefix in (("ann", "in/ann/"), ("bob", "in/bob/"), ("cy", "in/")):
            principals.put(session, name, world.now())
            uploaders.add_owner(
                session, bucket=world.bucket.name, prefix=prefix, principal=name, now=world.now()
            )
        uploaders.remove_owner(
            session, bucket=world.bucket.name, prefix="in/", principal="cy", now=world.now()
        )
    world.put("in/ann/config.json", CONFIG)
    world.put("in/ann/m.pt", WEIGHTS, Metadata={"submitted-by": "bob", "owner": "bob"})
    world.nominate("in/ann/m.pt")
    world.work()

    (scan,) = world.scans()
    with reading(world.engine) as session:
        known = uploaders.of_scan(session, scan.id)
    assert (scan.submitted_by, sorted(known)) == ("ann", ["ann"])
