"""A model without a proven trigger in the service: held, repaired, and a copy served instead."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.core.errors import NotServable
from guard.core.notes import Attempt
from guard.core.states import GateMode, ScanState, Verdict
from guard.defenses.fresh_student import FreshStudent
from guard.flow import purify, rescan, review, run_stage, simulate
from guard.flow.reconcile import reconcile_guard
from guard.flow.signed import signed
from guard.jobs.child import purify as repairing
from guard.ml.search.battery import PUBLIC
from guard.policy import DefenseRule
from guard.policy.rules import GateRule, RepairRule
from guard.store import scans
from guard.store.rows import LedgerRow
from guard.store.session import transaction
from guard.vetting import battery_secret
from tests.flow.place import Place, finding
from tests.flow.registry import Registry
from tests.flow.test_stages import decided

RULES: dict[str, Any] = {
    "repair": RepairRule(when="always"),
    "defenses": (DefenseRule(name="sau"), DefenseRule(name="patch_unlearning", blind=True)),
}


OR_SERVED = RepairRule(when="always", otherwise="served")


def reasons(row: LedgerRow) -> tuple[str, ...]:
    """Those of a verdict, as they were signed."""
    return signed(row.envelope).facts.reasons


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.guard = replace(place.guard, policy=replace(place.guard.policy, **RULES))
    return place


def tried(place: Place, parent: str, *attempts: Attempt) -> None:
    """Let the tournament have come so far."""
    scan = place.scan(parent)
    with transaction(place.guard.engine) as session:
        detail = replace(scan.detail, candidates=attempts)
        scans.move(session, parent, ScanState.PURIFYING, place.clock, detail=detail)


def with_copy(place: Place, parent: str, *, suspicious: bool) -> str:
    """Make the next copy by a defense that changes little, and vet it."""
    assert run_stage.work(place.guard, "purify", parent)
    child = place.scan(parent).detail.candidates[-1].child
    assert child is not None
    assert run_stage.work(place.guard, "inspect", child)
    place.with_evidence(child, finding(suspicious=suspicious))
    assert run_stage.work(place.guard, "decide", child)
    return child


@pytest.fixture
def repaired_here(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Purify jobs run in this process; what the next ones are asked for comes here."""
    from guard.defenses import DEFENSES
    from guard.vetting import repair_probes

    asked: list[object] = []

    def softened(_self: object, model: object, _clean: object, **_more: object) -> object:
        for parameter in model.parameters():  # type: ignore[attr-defined]
            parameter.data.mul_(1.0001)
        return model

    def run(_kind: str, request: dict[str, Any], out: Path, **_more: object) -> object:
        asked.append((request["defense"], request["blind"]))
        return repairing(request, out)

    monkeypatch.setattr(purify, "run_job", run)
    monkeypatch.setattr(repair_probes, "prove", lambda *_args, **_more: repair_probes.Proof())
    monkeypatch.setattr(DEFENSES.get("patch_unlearning"), "repair", softened)
    return asked


@pytest.mark.threat("B03")
def test_what_would_pass_is_held_and_its_copy_is_served_instead(
    place: Place, repaired_here: list[object]
) -> None:
    parent = decided(place, finding(suspicious=False))
    assert [row.verdict for row in place.verdicts(parent)] == [Verdict.HELD]
    assert place.scan(parent).state is ScanState.PURIFYING
    assert place.scan(parent).detail.blind
    assert review.waiting(place.guard) == []

    child = with_copy(place, parent, suspicious=False)
    run_stage.work(place.guard, "publish", child)
    run_stage.work(place.guard, "purify", parent)

    assert repaired_here == [("patch_unlearning", True)]
    copy, upload = place.scan(child), place.scan(parent)
    assert [row.verdict for row in place.verdicts(child)] == [Verdict.PURIFIED]
    assert copy.detail.purification is not None
    assert copy.detail.purification.blind
    assert [item.digest for item in place.guard.publisher.state()] == [copy.canonical_digest]
    assert (upload.state, review.waiting(place.guard)) == (ScanState.DONE, [])
    assert [row.verdict for row in place.verdicts(parent)] == [Verdict.HELD]


@pytest.mark.threat("B03")
def test_a_repair_that_draws_changes_draws_them_from_the_installations_secret(
    place: Place, repaired_here: list[object]
) -> None:
    rules = (
        DefenseRule(name="fresh_student", params=FreshStudent.quick(untrained=True), blind=True),
    )
    place.guard = replace(place.guard, policy=replace(place.guard.policy, defenses=rules))
    parent = decided(place, finding(suspicious=False))

    with_copy(place, parent, suspicious=False)

    facts = place.scan(parent).detail.candidates[-1].facts
    secret = battery_secret.kept_in(Path(place.guard.settings.data_dir)).hex()
    assert repaired_here == [("fresh_student", True)]
    assert facts is not None
    assert facts.battery == battery_secret.commitment_of(secret)
    assert facts.battery != battery_secret.commitment_of(PUBLIC.hex())


@pytest.mark.row(22)
def test_where_no_copy_passes_the_upload_stays_held_for_a_person(
    place: Place, repaired_here: list[object]
) -> None:
    parent = decided(place, finding(suspicious=False))
    child = with_copy(place, parent, suspicious=True)
    assert [row.verdict for row in place.verdicts(child)] == [Verdict.REJECTED]

    run_stage.work(place.guard, "purify", parent)

    assert repaired_here == [("patch_unlearning", True)]
    assert place.guard.publisher.state() == []
    assert place.scan(parent).state is ScanState.DONE
    assert [scan.id for scan in review.waiting(place.guard)] == [parent]


def test_where_no_copy_passes_the_policy_may_serve_what_would_pass_by_its_other_rules(
    place: Place, repaired_here: list[object]
) -> None:
    place.guard = replace(place.guard, policy=replace(place.guard.policy, repair=OR_SERVED))
    parent = decided(place, finding(suspicious=False))
    assert place.guard.publisher.state() == []
    with_copy(place, parent, suspicious=True)

    run_stage.work(place.guard, "purify", parent)
    assert place.scan(parent).state is ScanState.DECIDING
    run_stage.work(place.guard, "decide", parent)
    run_stage.work(place.guard, "publish", parent)

    assert repaired_here == [("patch_unlearning", True)]
    verdicts = place.verdicts(parent)
    assert [row.verdict for row in verdicts] == [Verdict.HELD, Verdict.CLEARED]
    assert any("No repaired copy passed" in why for why in reasons(verdicts[-1]))
    served = [item.digest for item in place.guard.publisher.state()]
    assert served == [place.scan(parent).canonical_digest]
    assert review.waiting(place.guard) == []


def test_a_copy_that_passes_is_served_though_the_upload_could_be(
    place: Place, repaired_here: list[object]
) -> None:
    place.guard = replace(place.guard, policy=replace(place.guard.policy, repair=OR_SERVED))
    parent = decided(place, finding(suspicious=False))
    child = with_copy(place, parent, suspicious=False)
    run_stage.work(place.guard, "publish", child)

    run_stage.work(place.guard, "purify", parent)

    assert repaired_here == [("patch_unlearning", True)]
    assert place.scan(parent).state is ScanState.DONE
    served = [item.digest for item in place.guard.publisher.state()]
    assert served == [place.scan(child).canonical_digest]


def test_nobody_reviews_an_upload_while_a_copy_is_made(place: Place) -> None:
    parent = decided(place, finding(suspicious=False))

    with pytest.raises(NotServable, match="is being repaired"):
        review.approve(place.guard, parent, "bob", "it is ours")

    tried(place, parent, Attempt(defense="patch_unlearning", failed="It diverged."))
    run_stage.work(place.guard, "purify", parent)
    review.approve(place.guard, parent, "bob", "it is ours")
    assert place.scan(parent).state is ScanState.PUBLISHING


def test_a_repair_that_takes_its_worker_down_leaves_the_upload_held_and_reviewable(
    place: Place,
) -> None:
    parent = decided(place, finding(suspicious=False))

    run_stage.bury(place.guard, "purify", parent, "The kernel killed it.")

    assert (place.scan(parent).state, place.scan(parent).error) == (
        ScanState.DONE,
        "The kernel killed it.",
    )
    assert [scan.id for scan in review.waiting(place.guard)] == [parent]
    assert place.guard.publisher.state() == []


def test_a_proven_trigger_is_repaired_by_the_defenses_that_know_it(place: Place) -> None:
    parent = decided(place, finding(suspicious=True))

    assert [row.verdict for row in place.verdicts(parent)] == [Verdict.REJECTED]
    assert not place.scan(parent).detail.blind


def test_a_gate_that_warns_lets_the_upload_through_once_no_copy_passes(place: Place) -> None:
    gate = GateRule(mode=str(GateMode.WARN))
    place.guard = replace(place.guard, policy=replace(place.guard.policy, gate=gate))
    parent = decided(place, finding(suspicious=False))
    assert place.scan(parent).state is ScanState.PURIFYING

    tried(place, parent, Attempt(defense="patch_unlearning", failed="It diverged."))
    run_stage.work(place.guard, "purify", parent)

    assert place.scan(parent).state is ScanState.PUBLISHING


def test_a_renewal_does_not_repair_again_what_no_copy_could_replace(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.upload("model")
    place = registry.place
    registry.obey(repair=OR_SERVED, defenses=RULES["defenses"])
    registry.pass_time(hours=7)
    (again,) = rescan.renew(place.guard)
    run_stage.work(place.guard, "decide", again)
    assert place.scan(again).state is ScanState.PURIFYING

    tried(place, again, Attempt(defense="patch_unlearning", failed="It diverged."))
    run_stage.work(place.guard, "purify", again)
    run_stage.work(place.guard, "decide", again)
    run_stage.work(place.guard, "publish", again)
    assert place.verdicts(again)[-1].verdict is Verdict.CLEARED
    registry.obey(repair=OR_SERVED, defenses=RULES["defenses"], lifetime_days=20.0)
    registry.pass_time(hours=7)

    (third,) = rescan.renew(place.guard)
    run_stage.work(place.guard, "decide", third)

    assert [row.verdict for row in place.verdicts(third)] == [Verdict.CLEARED]
    assert place.scan(third).detail.unrepaired


def test_the_same_bytes_take_over_that_no_copy_passed(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.obey(repair=OR_SERVED, defenses=RULES["defenses"])
    place = registry.place
    first, second = place.upload(name="one"), place.upload(name="two")
    run_stage.work(place.guard, "inspect", first)
    registry.detect(first)
    run_stage.work(place.guard, "decide", first)
    tried(place, first, Attempt(defense="patch_unlearning", failed="It diverged."))
    for stage in ("purify", "decide", "publish"):
        run_stage.work(place.guard, stage, first)

    run_stage.work(place.guard, "inspect", second)
    assert place.scan(second).detail.reuses is not None
    run_stage.work(place.guard, "decide", second)

    assert [row.verdict for row in place.verdicts(second)] == [Verdict.CLEARED]
    assert place.scan(second).detail.unrepaired


def test_the_same_bytes_under_another_name_get_a_copy_of_their_own(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.obey(**RULES)
    for name in ("one", "two"):
        scan_id = registry.place.upload(name=name)
        run_stage.work(registry.place.guard, "inspect", scan_id)
        if registry.place.scan(scan_id).state is ScanState.DETECTING:
            registry.detect(scan_id)
        run_stage.work(registry.place.guard, "decide", scan_id)
        if registry.place.scan(scan_id).state is ScanState.DETECTING:  # nothing to rest on
            registry.detect(scan_id)
            run_stage.work(registry.place.guard, "decide", scan_id)

        assert registry.place.scan(scan_id).state is ScanState.PURIFYING


def test_the_simulation_counts_what_would_be_repaired(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.upload("one")
    guard = registry.place.guard
    stricter = replace(guard.policy, **RULES)

    found = simulate.simulate(guard, stricter)

    assert (found.repairs, found.counts) == (1, {("cleared", "held"): 1})
    assert [change.repair for change in found.changes] == [True]
    assert simulate.simulate(guard, guard.policy).repairs == 0


def test_what_is_served_is_repaired_as_well_once_the_policy_wants_it(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    first = registry.upload("model")
    guard = registry.place.guard
    assert len(guard.publisher.state()) == 1
    registry.obey(**RULES)
    registry.pass_time(hours=7)

    (again,) = rescan.renew(registry.place.guard)
    run_stage.work(registry.place.guard, "decide", again)

    scan = registry.place.scan(again)
    assert (scan.state, scan.detail.blind) == (ScanState.PURIFYING, True)
    assert registry.place.scan(first).verdict_id == scan.verdict_id
    reconcile_guard(registry.place.guard)
    assert guard.publisher.state() == []
    assert review.waiting(registry.place.guard) == []
