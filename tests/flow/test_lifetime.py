"""Verdicts that live: what is served is renewed before its verdict ends, and nothing goes dark."""

from datetime import timedelta
from pathlib import Path

import pytest

from guard.attest.chain import verify_chain
from guard.core.errors import InputError, NotServable
from guard.core.notes import Rescan
from guard.core.roles import Role
from guard.core.states import ScanState, Verdict
from guard.detectors import DETECTORS
from guard.flow import _aging, _renewal, _reuse, rescan, review, run_stage
from guard.flow._handover import hand_over
from guard.flow._lease import hold
from guard.flow.reconcile import reconcile_guard
from guard.flow.report import report_for
from guard.flow.signed import signed
from guard.flow.withdraw import withdraw
from guard.policy import DetectorRule
from guard.policy.rules import LifetimeRule
from guard.store import alarms, counts, ledger
from guard.store.session import reading
from guard.vetting import canary_trial
from tests import people
from tests.flow.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def names(count: int) -> list[str]:
    return [f"model{index}" for index in range(count)]


def alarms_of(registry: Registry, kind: str) -> list[str]:
    with reading(registry.place.guard.engine) as session:
        return [alarm.subject for alarm in alarms.open_alarms(session, kind)]


@pytest.mark.row(45)
@pytest.mark.threat("C20")
def test_in_ninety_days_nothing_goes_dark_and_no_verdict_outlives_its_lifetime(
    registry: Registry,
) -> None:
    for seed, name in enumerate(names(6)):
        registry.upload(name, seed=seed)
        registry.pass_time(hours=7)
    served, detected = registry.served(), len(registry.detected)
    assert set(served) == set(names(6))

    for _ in range(90):
        registry.pass_time(days=1)
        registry.tick()

        assert registry.served() == served
        with reading(registry.place.guard.engine) as session:
            for row in registry.active():
                verdict = ledger.latest_for(session, row.digest)
                assert verdict is not None
                assert verdict.issued_at <= registry.place.clock < verdict.expires_at
                assert verdict.expires_at - verdict.issued_at == timedelta(days=30)
        assert alarms_of(registry, _aging.EXPIRING) == []

    assert len(registry.detected) == detected, "evidence that is there was made again"
    with reading(registry.place.guard.engine) as session:
        assert verify_chain(ledger.rows(session), registry.place.guard.trusted) == []
        assert {row.version for row in registry.active()} == {"1.0"}


@pytest.mark.row(45)
@pytest.mark.threat("C20")
def test_no_more_re_scans_are_open_than_the_setting_allows_and_the_oldest_goes_first(
    registry: Registry,
) -> None:
    registry.settle(rescan_limit=2)
    first = []
    for seed, name in enumerate(names(5)):
        first.append(registry.upload(name, seed=seed))
        registry.pass_time(hours=1)
    registry.pass_time(days=24)

    opened = rescan.renew(registry.place.guard)
    again = rescan.renew(registry.place.guard)

    of = [registry.scan(scan_id).detail.rescan for scan_id in opened]
    assert [one.of for one in of if one is not None] == first[:2]
    assert again == []


@pytest.mark.row(46)
def test_a_new_policy_decides_all_again_and_detects_only_what_it_lacks(registry: Registry) -> None:
    for seed, name in enumerate(names(3)):
        registry.upload(name, seed=seed)
    served, detected = registry.served(), len(registry.detected)
    registry.pass_time(hours=7)
    registry.obey(asr_limit=0.05)

    assert len(registry.tick()) == 3
    assert len(registry.detected) == detected
    registry.pass_time(hours=7)
    assert registry.tick() == []

    before = dict(registry.place.guard.policy.detectors)
    registry.obey(detectors={**before, "mesa": DetectorRule(required=False)})
    assert len(registry.tick()) == 3
    assert len(registry.detected) == detected + 3
    assert registry.served() == served


@pytest.mark.row(46)
def test_a_new_version_of_a_detector_has_its_evidence_made(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.upload("model")
    registry.pass_time(hours=7)
    assert registry.tick() == []

    kind = DETECTORS.get("weight_statistics")
    monkeypatch.setattr(kind, "version", kind.version + 1)
    (opened,) = registry.tick()

    assert registry.scan(opened).detail.rescan == Rescan(
        of=registry.scan(opened).parent_scan_id or "", why="a detector changed"
    )
    assert registry.detected[-1] == opened


def test_a_new_canary_makes_the_detectors_prove_themselves_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.upload("model")
    registry.pass_time(hours=7)
    monkeypatch.setattr(canary_trial, "kit_digest", lambda: "f" * 64)

    (opened,) = registry.tick()

    assert registry.detected[-1] == opened
    registry.pass_time(hours=7)
    assert registry.tick() == []


@pytest.mark.row(46)
@pytest.mark.threat("B04")
def test_a_newer_clean_set_of_the_name_is_looked_at_with(registry: Registry) -> None:
    registry.upload("model")
    registry.pass_time(hours=7)
    registry.cleanset = registry.place.add_cleanset(seed=1)

    (opened,) = registry.tick()

    assert registry.scan(opened).cleanset_digest == registry.cleanset
    registry.pass_time(hours=7)
    assert registry.tick() == []


def inconclusive(registry: Registry, scan_id: str) -> None:
    """As where the worker's detectors fail."""
    with hold(registry.place.guard, scan_id) as held:
        assert held is not None
        hand_over(registry.place.guard, held, Verdict.INCONCLUSIVE, ("The GPU is broken.",))
    run_stage.work(registry.place.guard, "decide", scan_id)


@pytest.mark.row(47)
def test_a_re_scan_that_could_not_look_leaves_the_verdict_in_force_and_raises_an_alarm(
    registry: Registry,
) -> None:
    first = registry.upload("model")
    registry.pass_time(days=25)
    served, verdict = registry.served(), registry.scan(first).verdict_id
    (opened,) = rescan.renew(registry.place.guard)

    inconclusive(registry, opened)

    assert registry.scan(opened).state is ScanState.FAILED
    assert registry.scan(first).verdict_id == verdict
    assert registry.served() == served
    assert alarms_of(registry, _renewal.FAILED) == [first]
    registry.pass_time(hours=7)
    registry.tick()
    assert alarms_of(registry, _renewal.FAILED) == []
    assert registry.scan(first).verdict_id != verdict


def at_the_end(registry: Registry, on_expiry: str) -> str:
    """A served model whose re-scans all fail, until its verdict is almost over."""
    registry.obey(lifetime=LifetimeRule(on_expiry=on_expiry))
    first = registry.upload("model")
    registry.pass_time(days=29)
    for opened in rescan.renew(registry.place.guard):
        inconclusive(registry, opened)
    assert alarms_of(registry, _aging.EXPIRING) == ["model 1.0"]
    registry.pass_time(hours=23, minutes=55)
    for opened in rescan.renew(registry.place.guard):
        inconclusive(registry, opened)
    registry.work()
    registry.pass_time(minutes=10)
    return first


def test_what_no_re_scan_renewed_goes_by_default_and_comes_back_by_itself(
    registry: Registry,
) -> None:
    first = at_the_end(registry, "unpublish")
    reconcile_guard(registry.place.guard)
    assert registry.served() == {}
    assert report_for(registry.place.guard, first).expired
    assert report_for(registry.place.guard, first).exit_code == 2

    registry.pass_time(hours=7)
    registry.tick()

    assert registry.served() == {"model": registry.scan(first).canonical_digest}
    assert report_for(registry.place.guard, first).exit_code == 0
    assert report_for(registry.place.guard, first).scan_id != first


def test_on_expiry_warn_extends_by_a_signed_statement_that_says_so(registry: Registry) -> None:
    first = at_the_end(registry, "warn")
    old = registry.place.verdicts(first)[0]

    reconcile_guard(registry.place.guard)

    assert registry.served() == {"model": registry.scan(first).canonical_digest}
    assert alarms_of(registry, _aging.EXTENDED) == ["model 1.0"]
    with reading(registry.place.guard.engine) as session:
        row = ledger.get(session, registry.scan(first).verdict_id or "")
    assert signed(row.envelope).basis == {"kind": "extension", "verdict": old.id}
    assert row.expires_at == old.expires_at + timedelta(days=1)
    registry.pass_time(hours=7)
    registry.tick()
    registry.tick()
    assert alarms_of(registry, _aging.EXTENDED) == []


def test_on_expiry_review_puts_the_model_before_a_person(registry: Registry) -> None:
    first = at_the_end(registry, "review")
    reconcile_guard(registry.place.guard)
    assert registry.served() == {}
    (waiting,) = {scan.id for scan in review.waiting(registry.place.guard)} - {first}

    review.approve(registry.place.guard, waiting, "bob", "looked at it")
    registry.work()

    assert registry.served() == {"model": registry.scan(first).canonical_digest}


def test_an_approval_is_renewed_only_while_policy_and_evidence_are_as_the_reviewer_saw(
    registry: Registry,
) -> None:
    registry.obey(review_always=True)
    first = registry.upload("model")
    review.approve(registry.place.guard, first, "bob", "fine by me")
    registry.work()
    registry.pass_time(days=25)
    registry.tick()
    with reading(registry.place.guard.engine) as session:
        row = ledger.get(session, registry.scan(first).verdict_id or "")
    assert row.verdict is Verdict.CLEARED
    assert signed(row.envelope).basis["reviewer"] == "bob"
    assert "renews" in signed(row.envelope).basis
    assert len(registry.served()) == 1

    registry.pass_time(hours=7)
    registry.obey(asr_limit=0.05)
    registry.tick()

    assert registry.served() == {}
    assert [scan.name for scan in review.waiting(registry.place.guard)] == ["model"]


def test_a_renewed_verdict_never_brings_back_what_a_newer_model_replaced(
    registry: Registry,
) -> None:
    registry.upload("model")
    registry.pass_time(days=25)
    (opened,) = rescan.renew(registry.place.guard)
    run_stage.work(registry.place.guard, "decide", opened)
    newer = registry.place.upload(name="model", seed=1)
    run_stage.work(registry.place.guard, "inspect", newer)
    registry.detect(newer)
    run_stage.work(registry.place.guard, "decide", newer)
    run_stage.work(registry.place.guard, "publish", newer)

    run_stage.work(registry.place.guard, "publish", opened)

    assert registry.scan(opened).state is ScanState.DONE
    assert registry.served() == {"model": registry.scan(newer).canonical_digest}


def test_a_held_model_that_its_re_scan_lets_pass_replaces_an_older_one(registry: Registry) -> None:
    registry.obey(review_always=True)
    older = registry.upload("model")
    registry.pass_time(hours=1)
    newer = registry.upload("model", seed=1)
    (opened,) = rescan.request(registry.place.guard, newer, "bob")
    registry.work()
    review.approve(registry.place.guard, older, "bob", "fine by me")
    registry.work()
    assert registry.served() == {"model": registry.scan(older).canonical_digest}

    review.approve(registry.place.guard, opened, "bob", "fine by me")
    registry.work()

    assert registry.served() == {"model": registry.scan(newer).canonical_digest}


@pytest.mark.parametrize("by", ["name", "digest", "prefix", "scan"])
def test_a_person_may_ask_for_a_re_scan_and_gets_one_only(registry: Registry, by: str) -> None:
    first = registry.upload("model")
    digest = registry.scan(first).canonical_digest or ""
    wanted = {"name": "model", "digest": digest, "prefix": digest[:9], "scan": first[:8]}[by]

    opened = rescan.request(registry.place.guard, wanted, "bob")

    assert rescan.request(registry.place.guard, wanted, "bob") == opened
    assert [registry.scan(scan_id).parent_scan_id for scan_id in opened] == [first]


def test_nothing_that_was_withdrawn_or_never_inspected_is_scanned_again(
    registry: Registry,
) -> None:
    registry.upload("model")
    withdraw(registry.place.guard, "model", "stolen", "bob")
    fresh = registry.place.upload(name="fresh", seed=3)

    with pytest.raises(InputError, match="withdrawn"):
        rescan.request(registry.place.guard, "model", "bob")
    with pytest.raises(InputError, match="nothing to scan"):
        rescan.request(registry.place.guard, fresh, "bob")
    registry.pass_time(days=40)
    assert registry.tick() == []


def test_the_same_bytes_are_answered_at_once_by_the_verdict_in_force(registry: Registry) -> None:
    first = registry.upload("model")
    (old,) = registry.place.verdicts(first)
    detected = len(registry.detected)
    registry.pass_time(days=3)

    second = registry.upload("other", by="carol")

    (row,) = registry.place.verdicts(second)
    assert len(registry.detected) == detected
    assert signed(row.envelope).basis == {"kind": "reuse", "verdict": old.id}
    assert (row.verdict, row.expires_at) == (Verdict.CLEARED, old.expires_at)
    assert set(registry.served()) == {"model", "other"}


@pytest.mark.parametrize("changed", ["policy", "age", "clean set", "canary", "signature"])
def test_a_verdict_is_not_reused_where_anything_is_not_as_it_was(
    registry: Registry, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = registry.upload("model")
    registry.pass_time(hours=1)
    if changed == "policy":
        registry.obey(asr_limit=0.05)
    elif changed == "age":
        registry.pass_time(days=31)
    elif changed == "clean set":
        registry.cleanset = registry.place.add_cleanset(seed=1)
    elif changed == "canary":
        monkeypatch.setattr(canary_trial, "kit_digest", lambda: "f" * 64)
    else:
        monkeypatch.setattr(_reuse, "differences", lambda *_: ("verdict",))

    second = registry.upload("other")

    assert registry.detected == [first, second]
    assert [signed(row.envelope).basis for row in registry.place.verdicts(second)] == [
        {"kind": "policy"}
    ]


def test_nobodys_own_approval_clears_what_they_upload(registry: Registry) -> None:
    registry.obey(review_always=True)
    first = registry.upload("model", by="alice")
    review.approve(registry.place.guard, first, "bob", "fine by me")
    registry.work()

    carols, bobs = registry.upload("carols", by="carol"), registry.upload("bobs", by="bob")

    assert [row.verdict for row in registry.place.verdicts(carols)] == [Verdict.CLEARED]
    assert [row.verdict for row in registry.place.verdicts(bobs)] == [Verdict.HELD]


def test_an_approval_by_one_of_several_owners_does_not_clear_what_comes_under_their_prefix(
    registry: Registry,
) -> None:
    registry.obey(review_always=True)
    first = registry.upload("model", by=None)
    bob = people.who(registry.place.guard, "bob", Role.REVIEWER)
    review.approve(registry.place.guard, first, bob, "fine by me")
    registry.work()
    for name, role in (("alice", Role.UPLOADER), ("bob", Role.REVIEWER)):
        people.who(registry.place.guard, name, role, prefixes=("models/models/shared",))

    shared = registry.upload("shared", by="alice, bob")  # as `receive` writes several owners

    assert [row.verdict for row in registry.place.verdicts(shared)] == [Verdict.HELD]
    assert [scan.id for scan in review.waiting(registry.place.guard)] == [shared]
    with pytest.raises(NotServable, match="cannot approve"):
        review.approve(registry.place.guard, shared, bob, "fine by me")


def test_an_approval_is_not_renewed_once_the_reviewer_is_known_to_have_uploaded_the_same_bytes(
    registry: Registry,
) -> None:
    registry.obey(review_always=True)
    first = registry.upload("model", by="alice")
    review.approve(registry.place.guard, first, "bob", "fine by me")
    registry.work()
    assert len(registry.served()) == 1
    registry.place.upload(name="bobs", by="bob")  # its notice was on its way; not decided yet

    registry.pass_time(days=25)
    rescan.renew(registry.place.guard)
    registry.work()

    with reading(registry.place.guard.engine) as session:
        row = ledger.get(session, registry.scan(first).verdict_id or "")
    assert row.verdict is Verdict.HELD
    reconcile_guard(registry.place.guard)
    assert registry.served() == {}


def test_what_ends_soon_and_what_has_ended_is_counted(registry: Registry) -> None:
    registry.upload("model")

    def count() -> tuple[int, int]:
        with reading(registry.place.guard.engine) as session:
            found = counts.take(session, registry.place.clock, window=timedelta(days=7))
        return found.expiring, found.expired

    assert count() == (0, 0)
    registry.pass_time(days=25)
    assert count() == (1, 0)
    registry.pass_time(days=10)
    assert count() == (0, 1)
