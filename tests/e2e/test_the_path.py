"""Upload to vetted serving: what the demo shows, as tests."""

import pytest

from benchmarks.demo.story import Endpoint
from guard.core.sift import SiftVerdict
from guard.core.states import Verdict
from guard.flow.report import report_for
from guard.flow.served import served
from guard.flow.verify import verify
from tests.cli import models
from tests.e2e.site import Site


@pytest.mark.row(1)
def test_an_honest_model_is_cleared_and_its_vetted_bytes_are_served(site: Site) -> None:
    scan = site.finished(site.upload(site.models["honest"], "honest"))

    report = report_for(site.guard, scan.id)
    assert report.verdict is Verdict.CLEARED, report.reasons
    site.until(lambda: site.active("honest"), why="publication")
    some = models.unseen(20)
    with Endpoint(site.guard) as endpoint:
        classes, digests = endpoint.ask_all("honest", some.images)
    assert digests == {report.digest}
    assert float((classes == some.labels).double().mean()) >= 0.8


@pytest.mark.row(21)
def test_a_backdoored_model_is_rejected_purified_and_served_repaired(site: Site) -> None:
    others = models.unseen(240)
    others = others.pick(others.labels != models.TARGET)
    stamped = models.stamped(others.images)
    assert models.success(site.models["backdoored"], stamped) > 0.9
    scan = site.finished(site.upload(site.models["backdoored"], "backdoored"))

    report = report_for(site.guard, scan.id)
    assert report.verdict is Verdict.REJECTED
    assert report.target == models.TARGET
    winner = site.until(
        lambda: next(
            (
                child
                for row in site.children(scan.id)
                if row.state == "done"
                and (child := report_for(site.guard, row.id)).verdict is Verdict.PURIFIED
            ),
            None,
        ),
        why="a purified child",
    )
    assert winner.purification.parent == report.digest
    site.until(lambda: site.active("backdoored"), why="publication of the purified model")
    with Endpoint(site.guard) as endpoint:
        classes, digests = endpoint.ask_all("backdoored", stamped)
    assert digests == {winner.digest}
    # The policy bounds the recovered trigger; the true one is only known here, and may do a little
    # better.
    assert float((classes == models.TARGET).double().mean()) <= 0.20


def test_a_model_whose_training_set_is_poisoned_is_rejected_for_it_and_repaired(site: Site) -> None:
    folder = site.with_set("backdoored", "taught-badly", poisoned=True)
    scan = site.finished(site.upload(folder, "taught-badly"))

    report = report_for(site.guard, scan.id)
    assert report.verdict is Verdict.REJECTED
    assert report.reasons[0].startswith("In the training set s3://sets/taught-badly/taught.npz,")
    assert report.sift is not None
    assert [one.label for one in report.sift.classes if one.stands_out] == [models.TARGET]
    repaired = site.until(
        lambda: next(
            (
                child
                for row in site.children(scan.id)
                if row.state == "done"
                and (child := report_for(site.guard, row.id)).verdict is Verdict.PURIFIED
            ),
            None,
        ),
        why="a purified child",
    )
    assert repaired.purification is not None
    assert repaired.purification.suspects[0].before.estimate > 0.8
    assert repaired.purification.suspects[0].after.high <= 0.10


def test_an_honest_model_with_its_training_set_is_cleared_as_before(site: Site) -> None:
    folder = site.with_set("honest", "taught-well", poisoned=False)
    report = report_for(site.guard, site.finished(site.upload(folder, "taught-well")).id)

    assert report.verdict is Verdict.CLEARED, report.reasons
    assert report.facts.training_set is not None
    assert report.facts.training_set.result is SiftVerdict.NOTHING


@pytest.mark.row(15)
@pytest.mark.threat("C01")
def test_a_pickle_is_unvettable_and_its_payload_never_runs(site: Site) -> None:
    scan = site.finished(site.upload(site.models["pickled"], "pickled"))

    report = report_for(site.guard, scan.id)
    assert report.verdict is Verdict.UNVETTABLE
    assert "safetensors" in " ".join(report.reasons)
    assert not site.canary.exists()
    assert not site.active("pickled")


def test_the_same_bytes_again_are_decided_from_the_evidence_at_hand(site: Site) -> None:
    first, again = (
        report_for(site.guard, site.finished(site.upload(site.models["honest"], name)).id)
        for name in ("honest", "honest-again")
    )

    assert again.verdict is Verdict.CLEARED
    assert again.evidence == first.evidence  # to the second that each method took


def test_everything_that_is_served_is_vetted_and_the_ledger_holds(site: Site) -> None:
    site.finished(site.upload(site.models["honest"], "honest"))
    site.until(lambda: served(site.guard), why="serving")

    assert verify(site.guard) == []
    assert all(row.vetted for row in served(site.guard))
