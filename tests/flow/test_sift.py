"""An upload that names its training set is sifted by itself, and repaired with what is found."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import Markup

from guard.cleansets import curate, read_source
from guard.core.evidence import CleanSetFacts, Evidence, Outcome
from guard.core.manifest import Manifest
from guard.core.sift import METHOD, SiftVerdict
from guard.core.states import ScanState, Verdict
from guard.events.bucket import Bucket
from guard.flow import decide, detect, run_stage, sift, trainsets
from guard.flow._lease import hold
from guard.flow.context import Guard
from guard.flow.report import report_for
from guard.policy import DefenseRule, Policy, load_policy
from guard.reports.exhibited import restored, stored
from guard.reports.html import render_html
from guard.store import cleansets, evidence
from guard.store.rows import ScanRow
from guard.store.session import reading, transaction
from guard.vetting.accused import unpacked
from tests.cli import models, sets
from tests.flow.place import Place
from tests.services import shared_weed

#: Clean images: enough to tell 200 poisoned ones from 900 honest ones, and the fewer they are, the
#: sooner a sift with its default parameters ends.
CLEAN = 200


@pytest.fixture(scope="module")
def bucket() -> Bucket:
    return shared_weed().new_bucket()


@pytest.fixture
def place(tmp_path: Path, bucket: Bucket) -> Place:
    """A guard with a cheap detector, a repair that learns from suspects, and a bucket of sets."""
    weed = shared_weed()
    made = Place(tmp_path)
    made.guard = replace(
        made.guard,
        settings=replace(made.guard.settings, trainset_buckets=(bucket.name,), device="cpu"),
        policy=policy(),
        make_bucket=lambda name: Bucket(weed.client(), name),
    )
    blob, facts = curate(read_source(models.clean_set(tmp_path / "clean.npz", CLEAN)), "stripes")
    with transaction(made.guard.engine) as session:
        cleansets.put(session, facts, made.clock)
    made.guard.blobs.put_bytes(blob)
    return made


def policy() -> Policy:
    rules = load_policy()
    weak = {"weight_statistics": replace(rules.detectors["weight_statistics"], required=True)}
    relabel = DefenseRule(name="relabelling", informed=True)
    few = replace(rules.cleanset, min_holdout=50)
    return replace(rules, detectors=weak, defenses=(relabel,), cleanset=few)


def taught(bucket: Bucket, folder: Path, *, poisoned: bool) -> str:
    """Where the training set of a model lies in the bucket."""
    key = f"{folder.name}/taught.npz"
    bucket.upload(sets.training_set(folder / "taught.npz", poisoned=poisoned), key)
    return f"s3://{bucket.name}/{key}"


def upload(place: Place, uri: str, *, backdoored: bool, name: str = "stripes", **more: str) -> str:
    folder = place.folder / name
    if not folder.exists():
        models.saved(folder, backdoored=backdoored)
    manifest = json.loads((folder / "config.json").read_text())
    manifest.setdefault("guard", {})["training_set"] = {"uri": uri, **more}
    return place.upload(
        (folder / "model.safetensors").read_bytes(), name=name, manifest=json.dumps(manifest)
    )


def stages(place: Place, scan_id: str, *names: str) -> ScanRow:
    for name in names:
        assert run_stage.work(place.guard, name, scan_id)
    return place.scan(scan_id)


def evidence_of(guard: Guard, scan: ScanRow) -> list[Evidence]:
    with reading(guard.engine) as session:
        found = evidence.for_artifact(session, scan.canonical_digest or "")
    return [item for item in found if item.method == METHOD]


def sifts(guard: Guard, scan: ScanRow) -> list[Outcome]:
    return [item.outcome for item in evidence_of(guard, scan)]


def manifest_of(place: Place, scan: ScanRow) -> Manifest:
    return Manifest.from_dict(detect.held_manifest(place.guard, scan))


def clean(place: Place) -> CleanSetFacts:
    with reading(place.guard.engine) as session:
        (facts,) = cleansets.list_all(session)
    assert isinstance(facts, CleanSetFacts)
    return facts


def test_poison_that_detectors_miss_is_rejected_and_repaired_with_the_suspects(
    place: Place, bucket: Bucket, tmp_path: Path
) -> None:
    uri = taught(bucket, tmp_path, poisoned=True)
    scan_id = upload(place, uri, backdoored=True)
    scan = stages(place, scan_id, "inspect", "detect", "decide")
    report = report_for(place.guard, scan_id)

    assert report.verdict is Verdict.REJECTED, report.reasons
    assert f"In the training set {uri}," in report.reasons[0]
    assert report.target == models.TARGET
    facts = report.facts.training_set
    assert facts is not None
    assert (facts.uri, facts.result) == (uri, SiftVerdict.POISONED)
    assert report.sift is not None
    assert facts.suspects > 100
    assert "training-set" not in report.facts.coverage
    assert scan.state is ScanState.PURIFYING
    assert scan.detail.accused is not None
    kept = unpacked(place.guard.blobs.path(scan.detail.accused).read_bytes())
    assert len(kept.moments) == 1
    page = restored(json.loads(json.dumps(stored(report))))["sift"]
    assert (len(page["shots"]), 0 < len(page["clean"]) <= 8) == (24, True)
    assert all(isinstance(one["image"], Markup) for one in page["shots"] + page["clean"])
    assert render_html(report).count(page["shots"][0]["image"]) >= 1
    blob = place.guard.blobs.path(scan.detail.accused)
    aside = blob.rename(tmp_path / "aside")
    assert report_for(place.guard, scan_id).training_images == []
    aside.rename(blob)

    stages(place, scan_id, "purify")
    (attempt,) = place.scan(scan_id).detail.candidates
    assert attempt.failed is None
    child = attempt.child or ""
    stages(place, child, "inspect", "detect", "decide")
    repaired = report_for(place.guard, child)
    assert repaired.verdict is Verdict.PURIFIED, repaired.reasons
    assert repaired.purification is not None
    assert repaired.purification.suspects[0].after.high <= 0.10
    assert sifts(place.guard, place.scan(child)) == []  # its parent's set did not teach it
    assert decide.case_of(place.guard, place.scan(child)).sifted


def test_an_honest_model_is_cleared_as_before_and_its_sift_is_not_made_twice(
    place: Place, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = taught(bucket, tmp_path, poisoned=False)
    first = upload(place, uri, backdoored=False)
    scan = stages(place, first, "inspect", "detect", "decide")
    report = report_for(place.guard, first)

    assert report.verdict is Verdict.CLEARED, report.reasons
    assert report.facts.training_set is not None
    assert report.facts.training_set.result is SiftVerdict.NOTHING
    assert sifts(place.guard, scan) == [Outcome.NOTHING]
    (stored,) = evidence_of(place.guard, scan)
    with hold(place.guard, first) as held:
        assert held is not None
        again = sift.sift(place.guard, held, scan, manifest_of(place, scan), clean(place), 0)
    assert again == stored  # to the second that it took


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("s3://elsewhere/digits/", "may not read training sets from the bucket 'elsewhere'"),
        ("s3://{bucket}/nothing/", "Nothing lies under"),
        ("digits", "No training set is called 'digits'"),
    ],
)
def test_a_set_that_cannot_be_read_is_evidence_and_the_scan_goes_on(
    uri: str, sentence: str, place: Place, bucket: Bucket
) -> None:
    scan_id = upload(place, uri.format(bucket=bucket.name), backdoored=False)
    stages(place, scan_id, "inspect", "detect", "decide")
    report = report_for(place.guard, scan_id)

    assert report.verdict is Verdict.CLEARED
    assert sentence in report.reasons[-1]
    assert report.facts.training_set is not None
    assert report.facts.training_set.result is SiftVerdict.COULD_NOT_LOOK
    assert report.sift is None


def test_a_policy_that_requires_a_sift_holds_what_it_could_not_look_at(place: Place) -> None:
    rule = replace(place.guard.policy.training_set, required=True)
    place.guard = replace(place.guard, policy=replace(place.guard.policy, training_set=rule))
    scan_id = upload(place, "digits", backdoored=False)
    stages(place, scan_id, "inspect", "detect", "decide")

    assert report_for(place.guard, scan_id).verdict is Verdict.HELD


def test_a_set_with_another_digest_than_was_named_is_not_looked_at(
    place: Place, bucket: Bucket, tmp_path: Path
) -> None:
    uri = taught(bucket, tmp_path, poisoned=False)
    scan_id = upload(place, uri, backdoored=False, digest="0" * 64)
    stages(place, scan_id, "inspect", "detect", "decide")
    report = report_for(place.guard, scan_id)

    assert "is not the set that was named" in report.reasons[-1]
    assert report.sift is not None
    assert report.sift.verdict is SiftVerdict.COULD_NOT_LOOK


def test_a_set_that_could_not_be_read_is_tried_anew_when_the_same_bytes_come_again(
    place: Place, bucket: Bucket, tmp_path: Path
) -> None:
    uri = f"s3://{bucket.name}/{tmp_path.name}/taught.npz"
    first = upload(place, uri, backdoored=True)
    stages(place, first, "inspect", "detect", "decide")
    assert report_for(place.guard, first).verdict is Verdict.CLEARED
    taught(bucket, tmp_path, poisoned=True)

    again = upload(place, uri, backdoored=True)
    stages(place, again, "inspect", "decide", "detect", "decide")

    assert report_for(place.guard, again).verdict is Verdict.REJECTED


def test_a_stored_set_is_named_by_its_name_and_shows_no_path(place: Place, tmp_path: Path) -> None:
    local = sets.training_set(tmp_path / "taught.npz", poisoned=False)
    trainsets.add(place.guard, "bob", "stripes", str(local))
    scan_id = upload(place, "stripes", backdoored=False)
    stages(place, scan_id, "inspect", "detect", "decide")
    report = report_for(place.guard, scan_id)

    assert report.facts.training_set is not None
    assert (report.facts.training_set.uri, report.facts.training_set.result) == (
        "stripes",
        SiftVerdict.NOTHING,
    )
    assert str(tmp_path) not in json.dumps(report.to_dict())
    assert report.sift is not None
    assert report.sift.training_set.uri == "stripes"
