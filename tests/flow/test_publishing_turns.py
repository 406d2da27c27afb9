"""Two workers that publish under one name at the same moment take turns: the newer upload stays."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from sqlalchemy import update

from guard.core.contracts import AnySmoke, Receipt
from guard.core.errors import LeaseLost, Unavailable
from guard.core.states import ScanState
from guard.flow import publish, run_stage
from guard.flow._lease import hold
from guard.publishers.folder import Folder
from guard.store import claims, publications, scans
from guard.store._read import table
from guard.store.session import make_engine, reading, transaction
from guard.store.tables import Scan
from tests import postgres
from tests.flow.place import NOW, Place, finding

PATIENCE = 20.0  # seconds


class Gatekept(Folder):
    """A folder whose publication of one artifact waits in the middle; it notes what it served."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.slow = ""
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.order: list[str] = []

    def publish(self, approved: Any, weights: BinaryIO, smoke: AnySmoke) -> Receipt:
        if approved.digest == self.slow:
            self.inside.set()
            self.go_on.wait(PATIENCE)
        receipt = super().publish(approved, weights, smoke)
        self.order.append(approved.digest)
        return receipt


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    publisher = Gatekept(made.served)
    engine = made.guard.engine
    if request.param == "postgresql":
        engine = make_engine(postgres.migrated())
    made.guard = replace(made.guard, engine=engine, make_publisher=lambda: publisher)
    yield made
    engine.dispose()


def ready(place: Place, seed: int, second: int) -> str:
    """A cleared upload that waits to be published; the store took it at `second`."""
    scan_id = place.upload(seed=seed, name="fraud")
    rows = table(Scan)
    with transaction(place.guard.engine) as session:
        at = NOW + timedelta(seconds=second)
        session.execute(update(rows).where(rows.c.id == scan_id).values(uploaded_at=at))
    assert run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, finding(suspicious=False))
    run_stage.work(place.guard, "decide", scan_id)
    assert place.scan(scan_id).state is ScanState.PUBLISHING
    return scan_id


def publisher_of(place: Place) -> Gatekept:
    publisher = place.guard.publisher
    assert isinstance(publisher, Gatekept)
    return publisher


def test_an_older_upload_that_is_slow_to_publish_never_replaces_a_newer(place: Place) -> None:
    old, new = ready(place, 0, 1), ready(place, 1, 2)
    digests = [place.scan(scan_id).canonical_digest for scan_id in (old, new)]
    publisher = publisher_of(place)
    publisher.slow = digests[0] or ""
    workers = [
        threading.Thread(target=run_stage.work, args=(place.guard, "publish", scan_id))
        for scan_id in (old, new)
    ]
    workers[0].start()
    assert publisher.inside.wait(PATIENCE)
    workers[1].start()
    workers[1].join(1.0)  # without turns it is done by now, and the slow one comes after it
    publisher.go_on.set()
    for worker in workers:
        worker.join(PATIENCE)

    assert publisher.order == digests
    assert [one.digest for one in publisher.state()] == [digests[1]]
    with reading(place.guard.engine) as session:
        active = publications.active(session, "fraud")
    assert [(row.digest, row.version) for row in active] == [(digests[1], "2.0")]
    assert [place.scan(scan_id).state for scan_id in (old, new)] == [ScanState.DONE] * 2


def test_an_older_upload_that_waited_is_skipped(place: Place) -> None:
    old, new = ready(place, 0, 1), ready(place, 1, 2)
    digests = [place.scan(scan_id).canonical_digest for scan_id in (old, new)]
    publisher = publisher_of(place)
    publisher.slow = digests[1] or ""
    workers = [
        threading.Thread(target=run_stage.work, args=(place.guard, "publish", scan_id))
        for scan_id in (new, old)
    ]
    workers[0].start()
    assert publisher.inside.wait(PATIENCE)
    workers[1].start()
    workers[1].join(0.5)
    assert place.scan(old).state is ScanState.PUBLISHING
    publisher.go_on.set()
    for worker in workers:
        worker.join(PATIENCE)

    assert publisher.order == [digests[1]]
    assert "newer upload" in str(place.scan(old).detail.not_published)


def test_only_one_of_two_leases_has_the_turn_and_a_dead_worker_leaves_it(place: Place) -> None:
    old, new = ready(place, 0, 1), ready(place, 1, 2)
    engine, now = place.guard.engine, place.clock
    with transaction(engine) as session:
        first = scans.claim(session, old, now=now, seconds=30)
        second = scans.claim(session, new, now=now, seconds=300)
        assert first is not None
        assert second is not None
        claims.take(
            session, name="fraud", bucket="b", prefix="models/fraud/", owner="alice", now=now
        )

    def turn(lease: Any, at: Any) -> bool:
        with transaction(engine) as session:
            claims.lock(session, "fraud")
            return claims.turn(session, "fraud", lease, at)

    assert [turn(first, now), turn(first, now), turn(second, now)] == [True, True, False]
    assert turn(second, now + timedelta(seconds=31))  # its worker is dead, or lost its lease
    assert not turn(first, now + timedelta(seconds=31))


def test_who_lost_the_turn_records_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    scan_id = ready(place, 0, 1)
    publisher = publisher_of(place)
    inner = Gatekept.publish

    def overtaken(self: Gatekept, approved: Any, weights: BinaryIO, smoke: AnySmoke) -> Receipt:
        with transaction(place.guard.engine) as session:
            claims.change(session, "fraud", publisher_scan_id="0" * 32)
        return inner(self, approved, weights, smoke)

    monkeypatch.setattr(Gatekept, "publish", overtaken)
    with hold(place.guard, scan_id) as held:
        assert held is not None
        with pytest.raises(LeaseLost, match="publishes under 'fraud'"):
            publish.run(place.guard, held)

    assert publisher.order
    with reading(place.guard.engine) as session:
        assert publications.active(session) == []


def test_a_name_that_stays_busy_is_tried_again_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_id = ready(place, 0, 1)
    settings = replace(place.guard.settings, lease_seconds=0.3)
    place.guard = replace(place.guard, settings=settings)
    monkeypatch.setattr(claims, "turn", lambda *_args: False)

    with pytest.raises(Unavailable, match="publishing under 'fraud' for too long"):
        run_stage.work(place.guard, "publish", scan_id)

    assert place.scan(scan_id).state is ScanState.PUBLISHING


def test_what_was_overtaken_in_the_middle_leaves_the_newer_one_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = ready(place, 0, 1), ready(place, 1, 2)
    publisher = publisher_of(place)
    inner, newest = Gatekept.publish, place.scan(new).canonical_digest

    def overtaken(self: Gatekept, approved: Any, weights: BinaryIO, smoke: AnySmoke) -> Receipt:
        receipt = inner(self, approved, weights, smoke)
        if approved.digest != newest:
            # As if this worker had slept until its lease was over.
            with transaction(place.guard.engine) as session:
                claims.change(session, "fraud", publisher_scan_id=None)
            run_stage.work(place.guard, "publish", new)
        return receipt

    monkeypatch.setattr(Gatekept, "publish", overtaken)
    run_stage.work(place.guard, "publish", old)

    assert [one.digest for one in publisher.state()] == [newest]
    assert place.scan(old).detail.not_published
