"""What a report on a purified artifact shows of its parent's triggers and of its rivals."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from guard.core.errors import InputError
from guard.core.evidence import AsrEstimate, Evidence, Finding, Outcome, Target
from guard.core.notes import Attempt, ScanNotes
from guard.core.states import ScanState, Verdict
from guard.flow import run_stage
from guard.flow.report import report_for
from guard.ml import measure
from guard.ml.networks.architectures import ImageModel
from guard.ml.triggers import MappedTrigger, PatchTrigger
from guard.ml.triggers.files import serialise
from guard.reports import Report
from guard.reports.html import render_html
from guard.store import scans
from guard.store.session import reading, transaction
from guard.vetting.report import MOST_IMAGES, MOST_SHOWN, demonstrated
from tests import toys
from tests.flow.place import NOW, Place, finding
from tests.policy.making import a_purification
from tests.reports.samples import bare
from tests.vetting.test_repair_probes import corner, healed


def an_asr(estimate: float, target: Target = toys.TARGET, family: str = "patch") -> AsrEstimate:
    return AsrEstimate(
        target=target,
        family=family,
        successes=round(100 * estimate),
        trials=100,
        estimate=estimate,
        low=estimate,
        high=estimate,
    )


def found(
    digest: str | None,
    *,
    target: Target = toys.TARGET,
    family: str = "patch",
    asr: float = 0.9,
    suspicious: bool = True,
) -> Finding:
    return Finding(
        family=family,
        target=target,
        suspicious=suspicious,
        score=0.9,
        statement="It works.",
        asr=an_asr(asr, target, family),
        trigger_digest=digest,
    )


def evidence(*findings: Finding) -> list[Evidence]:
    return [
        Evidence(
            artifact="a",
            method="patch_inversion",
            version=1,
            parameters={},
            cleanset="c",
            seed=0,
            outcome=Outcome.FINDINGS,
            families=("patch",),
            findings=findings,
        )
    ]


def replayed(*after: AsrEstimate) -> Report:
    return bare(Verdict.PURIFIED, purification=a_purification(parent="a" * 64, replayed=after))


@pytest.fixture(scope="module")
def parent() -> ImageModel:
    return toys.network().eval()


@pytest.fixture(scope="module")
def child(parent: ImageModel) -> ImageModel:
    return healed(parent)


@pytest.mark.row(25)
def test_the_parent_obeys_its_trigger_on_the_images_and_the_child_does_not(
    parent: ImageModel, child: ImageModel
) -> None:
    holdout = toys.curated().holdout
    report = demonstrated(
        replayed(an_asr(0.02)),
        parent,
        child,
        evidence(found("x")),
        {"x": serialise(corner())},
        holdout,
    )

    (shown,) = report.demonstrations
    assert (shown.before, shown.after) == (an_asr(0.9), an_asr(0.02))
    assert [one.label for one in shown.images] == [
        label for label in range(toys.CLASSES) if label != toys.TARGET
    ]
    assert {one.wanted for one in shown.images} == {toys.TARGET}
    assert sum(one.before == toys.TARGET for one in shown.images) >= 4  # of five
    assert sum(one.after == one.label for one in shown.images) >= 4
    first = holdout.images[holdout.labels == shown.images[0].label][:1]
    assert torch.equal(
        torch.from_numpy(shown.images[0].image), corner().apply(first.float() / 255)[0]
    )
    assert shown.images[0].before == int(measure.predict(parent, first, trigger=corner()))


def test_every_class_is_shown_before_a_second_trigger_and_no_more_than_fit(
    parent: ImageModel,
) -> None:
    data = {name: serialise(corner(side)) for name, side in (("two", 2), ("three", 3))}
    findings = [
        found("three", asr=0.9),
        found("two", asr=0.8),
        found("two", target=4),
        found(None, target=5),
        found("three", target=1, suspicious=False),
        found("gone", target=0),
        *[found("two", asr=0.7)] * 3,
    ]
    after = (an_asr(0.1), an_asr(0.2), an_asr(0.3, 4), an_asr(0.4, 0))

    shown = demonstrated(
        replayed(*after), parent, parent, evidence(*findings), data, toys.curated().holdout
    )

    told = [
        (one.target, one.before and one.before.estimate, one.after and one.after.estimate)
        for one in shown.demonstrations
    ]
    assert told == [(2, 0.9, 0.1), (4, 0.9, 0.3), (2, 0.8, 0.2), (2, 0.7, None)]
    assert len(told) == MOST_SHOWN
    assert max(len(one.images) for one in shown.demonstrations) <= MOST_IMAGES


def test_a_trigger_with_a_mapping_leads_each_class_to_its_own(parent: ImageModel) -> None:
    mapping = torch.arange(toys.CLASSES).roll(-1)
    trigger = MappedTrigger(corner(), mapping)
    finding_ = found("x", target="all-to-all", family="all-to-all")

    report = demonstrated(
        replayed(),
        parent,
        parent,
        evidence(finding_),
        {"x": serialise(trigger)},
        toys.curated().holdout,
    )

    (shown,) = report.demonstrations
    assert [one.wanted for one in shown.images] == [int(mapping[one.label]) for one in shown.images]
    assert len(shown.images) == min(MOST_IMAGES, toys.CLASSES)


def test_the_pages_of_a_hold_out_without_other_classes_show_no_image(parent: ImageModel) -> None:
    holdout = toys.curated().holdout
    same = holdout.pick(holdout.labels == toys.TARGET)

    report = demonstrated(
        replayed(), parent, parent, evidence(found("x")), {"x": serialise(corner())}, same
    )

    assert report.demonstrations == []


def patch() -> bytes:
    mask = torch.zeros(1, 8, 8)
    mask[:, -2:, -2:] = 1
    return serialise(PatchTrigger(mask, torch.ones(1, 8, 8)))


def purified(place: Place, findings: Sequence[Finding]) -> tuple[str, str]:
    """A rejected scan and that of a candidate which was purified from it; returns both ids."""
    scan_id = place.upload()
    assert run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, *findings)
    assert run_stage.work(place.guard, "decide", scan_id)
    child, facts = (
        place.upload(seed=1),
        a_purification(
            parent=place.scan(scan_id).canonical_digest or "",
            replayed=(an_asr(0.01, 2),),
            seconds=12.5,
        ),
    )
    # As `purify` inserts it: with its parent.
    made = place.scan(child)
    child = uuid.uuid4().hex
    with transaction(place.guard.engine) as session:
        scans.insert(
            session,
            scan_id=child,
            bucket=made.bucket,
            key=made.key,
            version_id=child,
            name=made.name,
            now=NOW,
            upload_digest=made.upload_digest,
            manifest=made.manifest,
            submitted_by="alice",
            parent_scan_id=scan_id,
            detail=ScanNotes(purification=facts),
        )
    assert run_stage.work(place.guard, "inspect", child)
    scan = place.with_evidence(child)
    with transaction(place.guard.engine) as session:
        scans.move(
            session, child, ScanState.DECIDING, NOW, detail=replace(scan.detail, purification=facts)
        )
        scans.move(
            session,
            scan_id,
            ScanState.PURIFYING,
            NOW,
            detail=ScanNotes(
                candidates=(
                    Attempt(defense="fine_tune", failed="It ran out of its time budget."),
                    Attempt(defense="sau", child=child, facts=facts),
                )
            ),
        )
    return scan_id, child


def test_a_purified_artifact_of_the_service_shows_images_and_its_rivals(tmp_path: Path) -> None:
    place = Place(tmp_path)
    digest = place.guard.blobs.put_bytes(patch())
    scan_id, child = purified(place, [replace(finding(suspicious=True), trigger_digest=digest)])
    waiting = report_for(place.guard, scan_id).candidates
    assert run_stage.work(place.guard, "decide", child)

    report = report_for(place.guard, child)

    (shown,) = report.demonstrations
    assert (shown.target, shown.before and shown.before.estimate) == (2, 0.95)
    assert (shown.after, len(shown.images)) == (an_asr(0.01, 2), 4)
    assert [(one["defense"], one.get("verdict")) for one in waiting] == [
        ("fine_tune", None),
        ("sau", None),
    ]
    failed, other = report.candidates
    assert failed == {"defense": "fine_tune", "failed": "It ran out of its time budget."}
    assert (other["verdict"], other["seconds"]) == (str(report.verdict), 12.5)
    assert other["reasons"] == list(report.reasons)
    assert "facts" not in other
    assert report_for(place.guard, scan_id).candidates == report.candidates
    assert "before and after the repair" in render_html(report)


def test_a_model_that_is_gone_hides_the_images_and_not_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    digest = place.guard.blobs.put_bytes(patch())
    _, child = purified(place, [replace(finding(suspicious=True), trigger_digest=digest)])
    assert run_stage.work(place.guard, "decide", child)

    def gone(*_args: object, **_fields: object) -> None:
        raise InputError("It is gone.")

    monkeypatch.setattr("guard.flow.report.open_model", gone)
    report = report_for(place.guard, child)

    assert (list(report.demonstrations), report.chain) == ([], "sau")
    with reading(place.guard.engine) as session:
        assert scans.get(session, child).verdict_id == report.verdict_id
