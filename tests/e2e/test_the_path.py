"""Upload to vetted serving: what the demo shows, as tests."""

from benchmarks.demo.story import Endpoint
from guard.core.states import Verdict
from guard.flow.report import report_for
from guard.flow.served import served
from guard.flow.verify import verify
from tests.e2e.site import Site


def test_an_honest_model_is_cleared_and_its_vetted_bytes_are_served(site: Site) -> None:
    scan = site.finished(site.upload(site.models["honest"].folder, "honest"))

    report = report_for(site.guard, scan.id)
    assert report.verdict is Verdict.CLEARED, report.reasons
    some = site.data.test.images[:20]
    classes, digests = Endpoint(site.guard).ask_all("honest", some)
    assert digests == {report.digest}
    assert float((classes == site.data.test.labels[:20]).double().mean()) >= 0.8


def test_a_backdoored_model_is_rejected_purified_and_served_repaired(site: Site) -> None:
    truth = site.models["backdoored"]
    assert truth.attack is not None
    assert truth.asr is not None
    assert truth.asr > 0.9
    scan = site.finished(site.upload(truth.folder, "backdoored"))

    report = report_for(site.guard, scan.id)
    assert report.verdict is Verdict.REJECTED
    assert report.target == truth.target
    children = [report_for(site.guard, row.id) for row in site.children(scan.id)]
    winner = next(child for child in children if child.verdict is Verdict.PURIFIED)
    assert winner.purification.parent == report.digest
    site.until(lambda: site.active("backdoored"), why="publication of the purified model")
    others = site.data.test.pick(site.data.test.labels != truth.target)
    stamped = truth.attack.stamp(others.images[:200])
    classes, digests = Endpoint(site.guard).ask_all("backdoored", stamped)
    assert digests == {winner.digest}
    # The policy bounds the recovered trigger; the true one is only known here, and may do a little
    # better.
    assert float((classes == truth.target).double().mean()) <= 0.20


def test_a_pickle_is_unvettable_and_its_payload_never_runs(site: Site) -> None:
    scan = site.finished(site.upload(site.models["pickled"].folder, "pickled"))

    report = report_for(site.guard, scan.id)
    assert report.verdict is Verdict.UNVETTABLE
    assert "safetensors" in " ".join(report.reasons)
    assert not site.canary.exists()
    assert not site.active("pickled")


def test_the_same_bytes_again_are_decided_from_the_evidence_at_hand(site: Site) -> None:
    scan = site.finished(site.upload(site.models["honest"].folder, "honest-again"))

    assert report_for(site.guard, scan.id).verdict is Verdict.CLEARED
    assert (scan.updated_at - scan.created_at).total_seconds() < 30


def test_everything_that_is_served_is_vetted_and_the_ledger_holds(site: Site) -> None:
    assert verify(site.guard) == []
    assert all(row.vetted for row in served(site.guard))
