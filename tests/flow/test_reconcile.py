"""Reconcile on a real database and a real folder publisher.

What may not be served goes, what should be comes back.
"""

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from guard.attest.keys import TrustedKeys
from guard.blobs.folder import FolderBlobs
from guard.core.contracts import Served
from guard.core.errors import IntegrityMismatch, NotServable, Unavailable
from guard.core.states import ScanState, Verdict
from guard.flow._standing import standing
from guard.flow.context import Guard
from guard.flow.reconcile import Kind, reconcile, reconcile_guard
from guard.policy import load_policy
from guard.publishers.folder import Folder
from guard.settings import Settings
from guard.store import alarms, artifacts, ledger, outbox, publications, revocations, scans
from guard.store.rows import ArtifactKind, PublicationRow, PublicationState
from guard.store.session import make_engine, reading, transaction
from tests import sqlite
from tests.publishers.making import Authority, Vetted, flip, vetted

NOW = datetime.now(UTC)


@dataclass
class World:
    """A guard with one scan to its name, and where it publishes."""

    engine: Engine
    publisher: Folder
    authority: Authority
    blobs: FolderBlobs
    root: Path
    asked: list[PublicationRow] = field(default_factory=list)

    def vet(
        self,
        model: Vetted,
        name: str = "digits",
        verdict: Verdict = Verdict.CLEARED,
        seconds: float = 3600,
    ) -> str:
        """Record a scan and its signed verdict; returns the scan's id."""
        scan_id, verdict_id = uuid.uuid4().hex, uuid.uuid4().hex
        envelope = self.authority.envelope(
            model.digest,
            name,
            verdict=verdict,
            seconds=seconds,
            verdict_id=verdict_id,
            scan_id=scan_id,
            now=NOW,
        )
        with transaction(self.engine) as session:
            artifacts.put(
                session, digest=model.digest, size=1, kind=ArtifactKind.CANONICAL, now=NOW
            )
            scans.insert(
                session,
                scan_id=scan_id,
                bucket="models",
                key=scan_id,
                version_id="v",
                name=name,
                now=NOW,
            )
            ledger.append(
                session,
                verdict_id=verdict_id,
                artifact=model.digest,
                scan_id=scan_id,
                verdict=verdict,
                envelope=envelope,
                issued_at=NOW,
                expires_at=NOW + timedelta(seconds=seconds),
                policy_digest="0" * 64,
            )
            for state in (ScanState.INSPECTING, ScanState.DECIDING, ScanState.PUBLISHING):
                scans.move(
                    session,
                    scan_id,
                    state,
                    NOW,
                    canonical_digest=model.digest,
                    verdict_id=verdict_id,
                )
        self.blobs.put_bytes(model.path.read_bytes())
        return scan_id

    def serve(self, model: Vetted, name: str = "digits", version: str = "1.0") -> None:
        with model.open() as weights:
            self.publisher.publish(
                self.authority.approve(model.digest, name, version), weights, model.smoke
            )

    def book(self, model: Vetted, scan_id: str, name: str = "digits", version: str = "1.0") -> None:
        """What the publish stage writes at its end."""
        with transaction(self.engine) as session:
            publications.add(
                session,
                publication_id=uuid.uuid4().hex,
                digest=model.digest,
                name=name,
                version=version,
                publisher="folder",
                archive_digest="0" * 64,
                receipt={},
                envelope={},
                now=NOW,
            )
            scans.move(session, scan_id, ScanState.DONE, NOW)

    def publish(
        self, model: Vetted, name: str = "digits", version: str = "1.0", **options: Any
    ) -> None:
        scan_id = self.vet(model, name, **options)
        self.serve(model, name, version)
        self.book(model, scan_id, name, version)

    def run(
        self,
        *,
        now: datetime = NOW,
        republish: Callable[[PublicationRow], None] | None = None,
        publisher: Folder | None = None,
    ) -> list[tuple[Kind, str, str]]:
        guard = self.guard(now=now)
        done = reconcile(
            self.engine,
            publisher or self.publisher,
            guard.trusted,
            self.blobs,
            now,
            republish or self.asked.append,
            standing=lambda: standing(guard),
        )
        return [(action.kind, action.name, action.version) for action in done]

    def guard(self, now: datetime = NOW) -> Guard:
        trusted = TrustedKeys.load(self.authority.trusted)
        return Guard(
            settings=Settings(data_dir=self.root.parent),
            engine=self.engine,
            blobs=self.blobs,
            policy=load_policy(None),
            make_bucket=lambda _name: pytest.fail("no bucket is read"),
            make_signer=lambda: self.authority.signer,
            make_trusted=lambda: trusted,
            make_publisher=lambda: self.publisher,
            child_environment={},
            now=lambda: now,
        )

    @property
    def served(self) -> list[tuple[str, str]]:
        return [(one.name, one.version) for one in self.publisher.state()]

    @property
    def alarms(self) -> set[tuple[str, str]]:
        with reading(self.engine) as session:
            return {(row.kind, row.subject) for row in alarms.open_alarms(session)}

    def states(self) -> list[PublicationState]:
        with reading(self.engine) as session:
            return [row.state for row in publications.list_all(session)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Vetted:
    return vetted(tmp_path_factory.mktemp("models"), seed=1)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Vetted:
    return vetted(tmp_path_factory.mktemp("models"), seed=2)


@pytest.fixture
def world(tmp_path: Path) -> World:
    url = sqlite.migrated(tmp_path)
    root, authority = tmp_path / "served", Authority(tmp_path / "keys" / "trusted.json")
    return World(
        make_engine(url),
        Folder(root, authority.trusted),
        authority,
        FolderBlobs(tmp_path / "blobs"),
        root,
    )


def test_serving_as_it_should_be_gives_no_action_and_no_alarm(world: World, model: Vetted) -> None:
    world.publish(model)

    assert world.run() == []
    assert world.alarms == set()
    assert world.served == [("digits", "1.0")]


@pytest.mark.threat("A05")
def test_an_unknown_model_is_removed_and_alarmed(world: World, model: Vetted) -> None:
    (world.root / "evil" / "1.0").mkdir(parents=True)
    (world.root / "evil" / "1.0" / "weights.safetensors").write_bytes(model.path.read_bytes())

    assert world.run() == [(Kind.WITHDRAWN, "evil", "1.0")]
    assert world.served == []
    assert world.alarms == {("serving_withdrawn", "evil 1.0")}


def test_a_vetted_model_under_a_name_it_was_not_published_as_is_removed(
    world: World, model: Vetted
) -> None:
    world.publish(model)
    world.serve(model, "alias")

    assert world.run() == [(Kind.WITHDRAWN, "alias", "1.0")]


@pytest.mark.row(43)
@pytest.mark.threat("A08")
@pytest.mark.parametrize("member", ["weights.safetensors", "config.json", "release.dsse.json"])
def test_a_tampered_copy_is_removed_at_once_and_put_back_from_the_blob(
    world: World, model: Vetted, member: str
) -> None:
    world.publish(model)
    flip(world.root / "digits" / "1.0" / member)

    def republish(row: PublicationRow) -> None:
        world.serve(model, row.name, row.version)

    assert world.run(republish=republish) == [
        (Kind.WITHDRAWN, "digits", "1.0"),
        (Kind.REPUBLISHED, "digits", "1.0"),
    ]
    assert world.publisher.state()[0].digest == model.digest
    assert world.run() == []


@pytest.mark.threat("C21")
def test_an_expired_verdict_ends_serving_and_closes_the_book(world: World, model: Vetted) -> None:
    world.publish(model, seconds=60)

    assert world.run(now=NOW + timedelta(seconds=59)) == []
    assert world.run(now=NOW + timedelta(seconds=60)) == [
        (Kind.CLOSED, "digits", "1.0"),
        (Kind.WITHDRAWN, "digits", "1.0"),
    ]
    assert world.served == []
    assert world.states() == [PublicationState.WITHDRAWN]
    assert world.run(now=NOW + timedelta(seconds=61)) == []


@pytest.mark.threat("A12")
def test_a_revoked_model_is_removed_though_its_verdict_stands(world: World, model: Vetted) -> None:
    world.publish(model)
    with transaction(world.engine) as session:
        revocations.add(
            session, revocation_id="r", digest=model.digest, reason="x", by="me", now=NOW
        )

    assert (Kind.WITHDRAWN, "digits", "1.0") in world.run()
    assert world.served == []
    assert world.asked == []


@pytest.mark.row(44)
def test_a_newer_verdict_that_rejects_ends_serving(world: World, model: Vetted) -> None:
    world.publish(model)
    world.vet(model, verdict=Verdict.REJECTED)

    assert (Kind.WITHDRAWN, "digits", "1.0") in world.run()
    assert world.served == []


@pytest.mark.threat("A14")
def test_a_verdict_changed_in_the_database_ends_serving(world: World, model: Vetted) -> None:
    """The row says cleared, the signature does not: the gate reads the signature."""
    world.publish(model, verdict=Verdict.CLEARED)
    world.vet(model, verdict=Verdict.REJECTED)
    with world.engine.begin() as connection:
        triggers = [
            name
            for (name,) in connection.execute(
                text(
                    "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = "
                    "'verdicts'"
                )
            )
        ]
        for name in triggers:
            connection.execute(text(f"DROP TRIGGER {name}"))
        connection.execute(text("UPDATE verdicts SET verdict = 'cleared'"))

    assert (Kind.WITHDRAWN, "digits", "1.0") in world.run()


def test_what_is_missing_is_asked_for_once_and_not_while_it_is_under_way(
    world: World, model: Vetted
) -> None:
    world.publish(model)
    world.publisher.withdraw("digits", "1.0")

    assert world.run() == [(Kind.REPUBLISHED, "digits", "1.0")]
    assert [row.digest for row in world.asked] == [model.digest]
    with transaction(world.engine) as session:
        (scan,) = scans.for_digest(session, model.digest)
        scans.move(session, scan.id, ScanState.PUBLISHING, NOW)
    assert world.run() == []


def test_what_cannot_be_put_back_is_alarmed(world: World, model: Vetted) -> None:
    world.publish(model)
    world.publisher.withdraw("digits", "1.0")

    def refuse(row: PublicationRow) -> None:
        raise NotServable("no scan")

    assert world.run(republish=refuse) == [(Kind.MISSING, "digits", "1.0")]
    world.blobs.delete(model.digest)
    assert world.run() == [(Kind.MISSING, "digits", "1.0")]
    assert world.asked == []


def test_a_publish_under_way_is_not_torn_down_but_only_for_its_own_bytes(
    world: World, model: Vetted, other: Vetted
) -> None:
    world.vet(model)
    world.serve(model)  # served, and not yet in the books

    assert world.run() == []
    world.serve(other, version="2.0")
    assert world.run() == [(Kind.WITHDRAWN, "digits", "2.0")]


def test_a_version_that_is_just_being_replaced_is_not_put_back(
    world: World, model: Vetted, other: Vetted
) -> None:
    world.publish(model)
    world.vet(other)
    world.serve(other, version="2.0")  # the default already, while the books still name 1.0

    assert world.run() == []
    assert world.asked == []
    assert world.alarms == set()


def test_a_publish_under_way_whose_verdict_does_not_hold_is_torn_down(
    world: World, model: Vetted
) -> None:
    world.vet(model, seconds=60)
    world.serve(model)

    assert world.run(now=NOW + timedelta(seconds=61)) == [(Kind.WITHDRAWN, "digits", "1.0")]


class Stubborn(Folder):
    """Cannot remove one of its models."""

    def withdraw(self, name: str, version: str) -> None:
        if name == "evil":
            raise IntegrityMismatch("It stays.")
        super().withdraw(name, version)


def test_one_model_that_resists_does_not_keep_the_others_served(
    world: World, tmp_path: Path
) -> None:
    for name in ("evil", "worse"):
        (world.root / name / "1.0").mkdir(parents=True)

    assert world.run(publisher=Stubborn(world.root)) == [
        (Kind.STUCK, "evil", "1.0"),
        (Kind.WITHDRAWN, "worse", "1.0"),
    ]
    assert ("serving_stuck", "evil 1.0") in world.alarms


class Flicker(Folder):
    """Shows a stranger at the first look only.

    As when a withdrawal ends between asking and reading.
    """

    looks = 0

    def state(self) -> list[Served]:
        self.looks += 1
        found = super().state()
        if self.looks == 1:
            found.append(Served(name="gone", version="1.0", digest=None, ready=True, default=True))
        return found


def test_a_difference_that_is_gone_at_the_second_look_is_none(world: World, model: Vetted) -> None:
    world.publish(model)

    assert world.run(publisher=Flicker(world.root)) == []
    assert world.alarms == set()


def test_the_default_is_removed_after_the_other_versions(world: World, model: Vetted) -> None:
    order: list[str] = []

    class Listed(Folder):
        def state(self) -> list[Served]:
            return [
                Served(name="a", version=version, digest=None, ready=True, default=version == "1.0")
                for version in ("1.0", "2.0")
                if version not in order
            ]

        def withdraw(self, name: str, version: str) -> None:
            order.append(version)

    world.run(publisher=Listed(world.root))

    assert order == ["2.0", "1.0"]


def test_serving_that_does_not_answer_is_unavailable_and_changes_nothing(
    world: World, model: Vetted
) -> None:
    class Away(Folder):
        def state(self) -> list[Served]:
            raise Unavailable("away")

    world.publish(model, seconds=60)
    with pytest.raises(Unavailable):
        world.run(publisher=Away(world.root), now=NOW + timedelta(seconds=61))

    assert world.states() == [PublicationState.ACTIVE]
    assert asdict(world.publisher.state()[0])["name"] == "digits"


def test_with_a_whole_guard_what_is_missing_goes_through_its_own_publish_stage(
    world: World, model: Vetted
) -> None:
    guard = world.guard()
    world.publish(model)
    world.publisher.withdraw("digits", "1.0")
    first, second = reconcile_guard(guard), reconcile_guard(guard)
    with reading(world.engine) as session:
        (scan,) = scans.for_digest(session, model.digest)
        waiting = [(row.task, row.payload) for row in outbox.due(session, NOW, 10)]

    assert [action.kind for action in first] == [Kind.REPUBLISHED]
    assert second == []
    assert scan.state is ScanState.PUBLISHING
    assert waiting == [("publish", {"scan_id": scan.id})]
