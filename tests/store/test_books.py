"""Artifacts, evidence, reviews, publications, revocations and clean sets."""

import dataclasses
import math
import uuid
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from guard.core.errors import CleanSetError, InputError, MethodFailed
from guard.core.evidence import AsrEstimate, CleanSetFacts, Evidence, Finding, Outcome
from guard.core.states import ScanState, Verdict
from guard.core.trainset import TrainingSetFacts
from guard.store import (
    artifacts,
    cleansets,
    evidence,
    publications,
    reviews,
    revocations,
    rows,
    scans,
    tables,
    training_rows,
    training_tables,
    trainsets,
)
from guard.store._table import Base
from guard.store.rows import ArtifactKind, Decided, PublicationRow, PublicationState, TrainingSetRow
from guard.store.session import StoreConflict, transaction
from tests.store.rows import NOW, a_digest, a_scan, a_verdict, an_artifact

FACTS = CleanSetFacts(
    name="cifar",
    digest="a" * 64,
    classes=10,
    channels=3,
    height=32,
    width=32,
    per_class=50,
    search=250,
    calibration=100,
    holdout=150,
)


def an_evidence(artifact: str, **fields: object) -> Evidence:
    asr = AsrEstimate(
        target=3, family="patch", successes=9, trials=10, estimate=0.9, low=0.6, high=0.98
    )
    finding = Finding(
        family="patch",
        target=3,
        suspicious=True,
        score=0.9,
        statement="s",
        numbers={"t": 4.5},
        asr=asr,
        trigger_digest="b" * 64,
    )
    made = Evidence(
        artifact=artifact,
        method="m",
        version=1,
        parameters={"steps": 3},
        cleanset="c" * 64,
        seed=0,
        outcome=Outcome.FINDINGS,
        families=("patch",),
        findings=(finding,),
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def publish(
    s: Session, name: str, version: str | None = None, digest: str | None = None
) -> PublicationRow:
    return publications.add(
        s,
        publication_id=uuid.uuid4().hex,
        digest=digest or an_artifact(s),
        name=name,
        version=version or publications.next_version(s, name),
        publisher="folder",
        archive_digest="e" * 64,
        receipt={"a": 1},
        envelope={"payload": "x"},
        now=NOW,
    )


def test_every_row_has_the_columns_of_its_table() -> None:
    pairs = {
        tables.Scan: rows.ScanRow,
        tables.Nomination: rows.NominationRow,
        tables.Artifact: rows.ArtifactRow,
        tables.LedgerEntry: rows.LedgerRow,
        tables.Review: rows.ReviewRow,
        tables.Publication: rows.PublicationRow,
        tables.Revocation: rows.RevocationRow,
        tables.LedgerAct: rows.LedgerActRow,
        tables.CheckpointNote: rows.CheckpointRow,
        tables.Outbox: rows.OutboxRow,
        tables.DeadLetter: rows.DeadLetterRow,
        tables.Alarm: rows.AlarmRow,
        tables.Method: rows.MethodRow,
        training_tables.TrainingJob: training_rows.TrainingJobRow,
    }
    for table, row in pairs.items():
        columns = [column.name for column in Base.metadata.tables[table.__tablename__].c]

        assert [field.name for field in dataclasses.fields(row)] == columns


@pytest.mark.threat("A24")
def test_an_artifact_stays_as_first_recorded_and_knows_its_children(engine: Engine) -> None:
    with transaction(engine) as s:
        parent = an_artifact(s)
        child = an_artifact(s, ArtifactKind.PURIFIED, parent)
        again = artifacts.put(s, digest=parent, size=1, kind=ArtifactKind.UPLOAD, now=NOW)

        assert (again.kind, again.size) == (ArtifactKind.CANONICAL, 5 << 30)
        assert [row.digest for row in artifacts.children(s, parent)] == [child]
        assert artifacts.find(s, a_digest()) is None
        assert (
            s.execute(text("SELECT count(*) FROM artifacts WHERE manifest IS NULL")).scalar_one()
            == 2
        )
        with pytest.raises(InputError, match="knows no artifact"):
            artifacts.get(s, a_digest())


def test_an_upload_that_is_canonical_itself_gets_its_manifest_from_inspection(
    engine: Engine,
) -> None:
    digest, manifest = a_digest(), {"architecture": "resnet18"}
    with transaction(engine) as s:
        artifacts.put(s, digest=digest, size=1, kind=ArtifactKind.UPLOAD, now=NOW)
        inspected = artifacts.put(
            s, digest=digest, size=1, kind=ArtifactKind.CANONICAL, now=NOW, manifest=manifest
        )
        later = artifacts.put(
            s, digest=digest, size=1, kind=ArtifactKind.CANONICAL, now=NOW, manifest={"a": 1}
        )

    assert (inspected.kind, inspected.manifest) == (ArtifactKind.UPLOAD, manifest)
    assert later == inspected


def test_evidence_under_one_key_is_kept_once_and_comes_back_whole(engine: Engine) -> None:
    with transaction(engine) as s:
        digest = an_artifact(s)
        first, other = an_evidence(digest), an_evidence(digest, cleanset="d" * 64)

        assert [
            evidence.add(s, first, NOW),
            evidence.add(s, first, NOW),
            evidence.add(s, other, NOW),
        ] == [True, False, True]
        assert evidence.for_artifact(s, digest, "c" * 64) == [first]
        assert len(evidence.for_artifact(s, digest)) == 2
        assert evidence.find(s, first.key) == first
        assert evidence.find(s, "0" * 64) is None


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_evidence_that_is_not_finite_is_not_kept(engine: Engine, number: float) -> None:
    with transaction(engine) as s:
        digest = an_artifact(s)
        with pytest.raises(MethodFailed) as refusal:
            evidence.add(s, an_evidence(digest, seconds=number), NOW)

        assert refusal.value.code == "non_finite"
        assert evidence.for_artifact(s, digest) == []


def test_an_artifact_with_evidence_cannot_be_deleted(engine: Engine) -> None:
    with transaction(engine) as s:
        evidence.add(s, an_evidence(an_artifact(s)), NOW)

    with pytest.raises(StoreConflict), transaction(engine) as s:
        s.execute(text("DELETE FROM artifacts"))


@pytest.mark.threat("A13")
def test_the_uploader_cannot_approve_their_own_model(engine: Engine) -> None:
    with transaction(engine) as s:
        held = a_verdict(s, a_scan(s, submitted_by="ann"), an_artifact(s), Verdict.HELD)
        word: dict[str, Any] = {"verdict_id": held.id, "reason": "seen", "now": NOW}
        with pytest.raises(reviews.OwnUpload):
            reviews.add(s, review_id="1", reviewer="ann", decision=Decided.APPROVE, **word)
        reviews.add(s, review_id="2", reviewer="ann", decision=Decided.REJECT, **word)
        reviews.add(s, review_id="3", reviewer="bob", decision=Decided.APPROVE, **word)

        assert [row.id for row in reviews.for_verdict(s, held.id)] == ["2", "3"]
        assert len(reviews.list_recent(s)) == 2


@pytest.mark.row(34)
@pytest.mark.threat("A13")
def test_the_database_refuses_the_uploaders_approval_past_the_service(engine: Engine) -> None:
    with transaction(engine) as s:
        held = a_verdict(s, a_scan(s, submitted_by="ann"), an_artifact(s), Verdict.HELD)

    with pytest.raises(StoreConflict, match="uploader may not approve"), transaction(engine) as s:
        s.execute(
            text(
                "INSERT INTO reviews (id, verdict_id, reviewer, decision, reason, at) "
                "VALUES ('x', :verdict, 'ann', 'approve', 'r', '2026-11-21 00:00:00')"
            ),
            {"verdict": held.id},
        )


def test_a_review_needs_a_reason_and_a_verdict(engine: Engine) -> None:
    with transaction(engine) as s:
        word: dict[str, Any] = {
            "reviewer": "bob",
            "decision": Decided.APPROVE,
            "now": NOW,
            "review_id": "1",
        }
        with pytest.raises(InputError, match="reason"):
            reviews.add(s, verdict_id="v", reason=" ", **word)
        with pytest.raises(InputError, match="holds no verdict"):
            reviews.add(s, verdict_id="v", reason="r", **word)


def test_held_verdicts_wait_until_somebody_reviews_them(engine: Engine) -> None:
    with transaction(engine) as s:
        scan = a_scan(s)
        held = a_verdict(s, scan, an_artifact(s), Verdict.HELD)
        a_verdict(s, a_scan(s), an_artifact(s), Verdict.HELD)  # no scan's verdict in force
        scans.move(s, scan.id, ScanState.DONE, NOW, verdict_id=held.id)

        assert reviews.waiting(s) == [held]
        reviews.add(
            s,
            review_id="1",
            verdict_id=held.id,
            reviewer="b",
            decision=Decided.REJECT,
            reason="r",
            now=NOW,
        )
        assert reviews.waiting(s) == []


@pytest.mark.threat("A20")
def test_versions_of_a_name_only_grow(engine: Engine) -> None:
    with transaction(engine) as s:
        first, second = publish(s, "m"), publish(s, "m")
        for row in (first, second):
            publications.withdraw(s, row.id, reason="bad", now=NOW)

        assert [first.version, second.version] == ["1.0", "2.0"]
        assert publications.next_version(s, "m") == "3.0"
        assert publications.next_version(s, "other") == "1.0"
        publish(s, "m", version="10.0")
        assert publications.next_version(s, "m") == "11.0"


def test_a_version_cannot_be_used_twice(engine: Engine) -> None:
    with transaction(engine) as s:
        publish(s, "m", "1.0")

    with pytest.raises(StoreConflict), transaction(engine) as s:
        publish(s, "m", "1.0")


def test_a_withdrawn_publication_is_inactive_and_keeps_its_first_reason(engine: Engine) -> None:
    with transaction(engine) as s:
        row = publish(s, "m")
        assert publications.active(s) == publications.active(s, "m") == [row]
        assert publications.version_for(s, "m", row.digest) == row.version
        publications.withdraw(s, row.id, reason="bad", now=NOW)
        again = publications.withdraw(s, row.id, reason="worse", now=NOW + timedelta(days=1))

        assert (again.state, again.reason, again.withdrawn_at) == (
            PublicationState.WITHDRAWN,
            "bad",
            NOW,
        )
        assert publications.active(s) == []
        assert publications.find(s, "m", row.version) == again
        assert publications.list_all(s) == [again]
        assert publications.version_for(s, "m", row.digest) == "2.0"
        with pytest.raises(InputError):
            publications.get(s, "nobody")


def test_a_revoked_digest_stays_revoked(engine: Engine) -> None:
    with transaction(engine) as s:
        digest = a_digest()
        assert revocations.digests(s) == set()
        revocations.add(s, revocation_id="1", digest=digest, reason="r", by="bob", now=NOW)

        assert revocations.digests(s) == {digest}
        assert [row.by for row in revocations.list_all(s)] == ["bob"]


def test_the_latest_clean_set_of_a_name_is_in_use(engine: Engine) -> None:
    newer = dataclasses.replace(FACTS, digest="b" * 64)
    with transaction(engine) as s:
        cleansets.put(s, FACTS, NOW)
        cleansets.put(s, newer, NOW + timedelta(seconds=1))
        assert cleansets.get_by_name(s, "cifar") == newer
        cleansets.put(s, FACTS, NOW + timedelta(seconds=2))

        assert cleansets.get_by_name(s, "cifar") == FACTS
        assert cleansets.list_all(s) == [FACTS, newer]
        assert cleansets.get(s, newer.digest) == newer
        assert cleansets.get_by_name(s, "other") is None
        with pytest.raises(CleanSetError):
            cleansets.get(s, "0" * 64)


def test_a_training_set_is_kept_under_its_name(engine: Engine) -> None:
    facts = TrainingSetFacts(
        uri="s3://sets/digits/",
        digest="a" * 64,
        images=3,
        total=4,
        channels=1,
        height=28,
        width=28,
        class_names=("0", "1"),
        per_class=(1, 2),
        skipped=1,
        faults=("row 3 has no image bytes.",),
        origin="b" * 64,
    )
    row = TrainingSetRow(
        name="digits", uri="s3://sets/digits/", class_names=("a", "b"), facts=facts, added_at=NOW
    )
    other = dataclasses.replace(row, name="cifar", class_names=())
    newer = dataclasses.replace(row, uri="s3://sets/more/", added_at=NOW + timedelta(days=1))
    with transaction(engine) as s:
        for one in (row, other):
            trainsets.put(s, one)

        assert trainsets.get_by_name(s, "digits") == row
        trainsets.put(s, newer)
        assert trainsets.list_all(s) == [other, newer]
        assert trainsets.get_by_name(s, "none") is None
