"""A gate that only warns: nothing is blocked, everything says so, and only signatures permit it."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from guard.attest import dsse, gate
from guard.attest.statement import release_statement
from guard.core.errors import NotServable
from guard.core.evidence import Outcome
from guard.core.notes import Attempt, HandedOver, ScanNotes
from guard.core.states import GateMode, ScanState, Verdict, WouldBe
from guard.core.verdict import Gated
from guard.flow import _warning, publish, rescan, review, run_stage
from guard.flow.reconcile import Kind, reconcile_guard
from guard.flow.report import report_for
from guard.flow.served import served
from guard.flow.signed import signed
from guard.flow.verify import verify
from guard.flow.withdraw import withdraw
from guard.policy import DefenseRule
from guard.policy.rules import GateRule
from guard.store import alarms, ledger, publications, scans, tables
from guard.store._read import table
from guard.store.rows import LedgerRow, PublicationRow
from guard.store.session import reading, transaction
from tests.flow.place import finding
from tests.flow.shop import BACKDOORED, Shop

KEY = "models/fraud/m.pt"
NAME = "fraud"
REJECTED = Gated(mode=GateMode.WARN, would_be=WouldBe.REJECTED)


def obey(shop: Shop, mode: str = "warn", **changes: Any) -> None:
    policy = replace(shop.guard.policy, gate=GateRule(mode=mode), **changes)
    shop.guard = replace(shop.guard, policy=policy)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop whose policy only warns and repairs nothing."""
    made = Shop(tmp_path)
    obey(made, defenses=())
    return made


def verdict_of(shop: Shop, scan_id: str) -> LedgerRow:
    with reading(shop.guard.engine) as session:
        return ledger.get(session, shop.scan(scan_id).verdict_id or "")


def said(shop: Shop, scan_id: str) -> Gated | None:
    return signed(verdict_of(shop, scan_id).envelope).gate


def active(shop: Shop) -> list[PublicationRow]:
    with reading(shop.guard.engine) as session:
        return publications.active(session)


def alarmed(shop: Shop) -> list[str]:
    with reading(shop.guard.engine) as session:
        return [row.subject for row in alarms.open_alarms(session, _warning.ALARM)]


def hold(shop: Shop, key: str = KEY, model: int = 0) -> str:
    """An upload that the policy holds: it has only a trigger that is natural to its class."""
    scan_id = shop.put(key, model)
    shop.with_evidence(scan_id, finding(suspicious=True, natural=0.9))
    for stage in ("decide", "publish"):
        run_stage.work(shop.guard, stage, scan_id)
    return scan_id


def work(shop: Shop, *stages: str) -> None:
    """Every stage of every scan that waits for it."""
    for stage in stages:
        with reading(shop.guard.engine) as session:
            waiting = scans.list_recent(session, 50)
        for scan in waiting:
            run_stage.work(shop.guard, stage, scan.id)


@pytest.mark.row(28)
def test_what_would_be_rejected_is_served_and_the_verdict_keeps_its_value(shop: Shop) -> None:
    scan_id = shop.serve(KEY, BACKDOORED)

    assert shop.answers == {NAME: BACKDOORED}
    assert verdict_of(shop, scan_id).verdict is Verdict.REJECTED
    assert shop.scan(scan_id).state is ScanState.DONE


def test_an_enforcing_gate_serves_the_same_upload_nowhere(shop: Shop) -> None:
    obey(shop, "enforce")

    scan_id = shop.serve(KEY, BACKDOORED)

    assert shop.answers == {}
    assert said(shop, scan_id) is None


def test_every_answer_names_the_mode_and_what_an_enforcing_gate_would_have_done(
    shop: Shop,
) -> None:
    scan_id = shop.serve(KEY, BACKDOORED)

    assert said(shop, scan_id) == REJECTED
    (row,) = active(shop)
    assert _warning.released(row) == REJECTED
    (shown,) = served(shop.guard)
    assert (shown.vetted, shown.gate, shown.verdict) == (False, REJECTED, Verdict.REJECTED)
    assert "an enforcing gate refuses this model (rejected)" in shown.why
    report = report_for(shop.guard, scan_id)
    assert report.to_dict()["gate"] == {"mode": "warn", "would_be": "rejected"}
    assert report.exit_code == 1
    assert not [one for one in verify(shop.guard) if "is served, but" in one]


def test_a_model_that_passes_is_signed_as_published_in_any_mode(shop: Shop) -> None:
    scan_id = shop.serve(KEY, 0)

    passed = Gated(mode=GateMode.WARN, would_be=WouldBe.PUBLISHED)
    (row,) = active(shop)
    assert (said(shop, scan_id), _warning.released(row)) == (passed, passed)
    assert "passes an enforcing gate" in passed.sentence
    assert alarmed(shop) == []
    assert served(shop.guard)[0].vetted


def test_there_is_one_alarm_for_each_model_until_it_is_not_served_any_more(shop: Shop) -> None:
    shop.serve(KEY, BACKDOORED, at=1)
    shop.serve(KEY, BACKDOORED, at=2)
    with reading(shop.guard.engine) as session:
        raised = [row.subject for row in alarms.list_recent(session) if row.kind == _warning.ALARM]

    assert raised == alarmed(shop) == ["fraud 1.0"]

    shop.serve(KEY, 0, at=3)
    assert alarmed(shop) == []


def test_reconcile_leaves_alone_what_a_signed_release_lets_through(shop: Shop) -> None:
    shop.serve(KEY, BACKDOORED)

    assert reconcile_guard(shop.guard) == []
    assert shop.answers == {NAME: BACKDOORED}


def test_back_to_enforcing_takes_down_what_was_let_through_and_nothing_else(shop: Shop) -> None:
    shop.serve(KEY, BACKDOORED)
    shop.serve("models/digits/m.pt", 0)
    obey(shop, "enforce")

    done = reconcile_guard(shop.guard)

    assert [one.kind for one in done] == [Kind.CLOSED, Kind.WITHDRAWN]
    assert shop.answers == {"digits": 0}
    rescan.renew(shop.guard)
    assert alarmed(shop) == []


def test_a_release_that_lacks_the_field_means_enforce(shop: Shop) -> None:
    scan_id = shop.serve(KEY, BACKDOORED)
    (row,) = active(shop)
    verdict = verdict_of(shop, scan_id)
    silent = release_statement(
        digest=row.digest,
        name=row.name,
        version=row.version,
        verdict_id=verdict.id,
        verdict=verdict.verdict,
        policy_digest=verdict.policy_digest,
        issued_at=verdict.issued_at,
        expires_at=verdict.expires_at,
    )
    rows = table(tables.Publication)
    with transaction(shop.guard.engine) as session:
        envelope = dsse.sign(silent, shop.guard.signer)
        session.execute(update(rows).where(rows.c.id == row.id).values(envelope=envelope))

    reconcile_guard(shop.guard)

    assert shop.answers == {}


@pytest.mark.parametrize(("then", "now"), [("enforce", "warn"), ("warn", "enforce")])
def test_a_verdict_of_either_mode_lets_nothing_through_in_the_other(
    shop: Shop, then: str, now: str
) -> None:
    shop.guard = replace(shop.guard, settings=replace(shop.guard.settings, auto_publish=False))
    obey(shop, then)
    scan_id = shop.serve(KEY, BACKDOORED)
    obey(shop, now)

    with pytest.raises(NotServable, match="only cleared or purified"):
        publish.request(shop.guard, scan_id, "olga")


def test_an_operator_publishes_by_hand_what_a_warning_gate_lets_through(shop: Shop) -> None:
    shop.guard = replace(shop.guard, settings=replace(shop.guard.settings, auto_publish=False))
    scan_id = shop.serve(KEY, BACKDOORED)
    assert shop.answers == {}

    publish.request(shop.guard, scan_id, "olga")
    run_stage.work(shop.guard, "publish", scan_id)

    assert shop.answers == {NAME: BACKDOORED}


def test_what_the_methods_could_not_look_at_is_let_through(shop: Shop) -> None:
    scan_id = shop.put(KEY)
    shop.with_evidence(scan_id, outcome=Outcome.COULD_NOT_LOOK)

    work(shop, "decide", "publish")

    assert verdict_of(shop, scan_id).verdict is Verdict.INCONCLUSIVE
    assert said(shop, scan_id) == Gated(mode=GateMode.WARN, would_be=WouldBe.INCONCLUSIVE)
    assert shop.answers == {NAME: 0}


def test_without_smoke_samples_nothing_is_let_through(shop: Shop) -> None:
    scan_id = shop.put(KEY)
    outcome = HandedOver(verdict=Verdict.INCONCLUSIVE, reasons=("There is no clean set.",))
    with transaction(shop.guard.engine) as session:
        notes = ScanNotes(outcome=outcome)
        scans.move(session, scan_id, ScanState.DECIDING, shop.clock, detail=notes)

    work(shop, "decide", "publish")

    assert shop.scan(scan_id).state is ScanState.DONE
    assert shop.answers == {}


def test_what_a_reviewer_rejects_while_it_waits_for_its_turn_is_not_published(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_id = shop.put(KEY)
    shop.with_evidence(scan_id, finding(suspicious=True, natural=0.9))
    run_stage.work(shop.guard, "decide", scan_id)
    monkeypatch.setattr(publish, "_begin", reviewed_before(shop, scan_id, publish._begin))
    run_stage.work(shop.guard, "publish", scan_id)

    assert verdict_of(shop, scan_id).verdict is Verdict.REJECTED
    assert (shop.scan(scan_id).state, shop.answers) == (ScanState.DONE, {})


def reviewed_before(shop: Shop, scan_id: str, begin: Any) -> Any:
    def waiting(*args: Any) -> str:
        review.reject(shop.guard, scan_id, "rita", "It answers to a sticker.")
        return begin(*args)

    return waiting


def test_what_was_revoked_stays_blocked(shop: Shop) -> None:
    shop.serve(KEY, BACKDOORED)
    withdraw(shop.guard, NAME, "it is in the news", "olga")
    assert shop.answers == {}

    shop.serve(KEY, BACKDOORED, at=5)

    assert shop.answers == {}


def test_a_file_that_no_format_reads_stays_blocked(shop: Shop) -> None:
    scan_id = shop.upload(b"\x80\x04no model", file="model.bin")

    for stage in ("inspect", "decide", "publish"):
        run_stage.work(shop.guard, stage, scan_id)

    assert verdict_of(shop, scan_id).verdict is Verdict.UNVETTABLE
    assert said(shop, scan_id) is None
    assert shop.answers == {}


def test_what_a_reviewer_rejected_is_taken_down_and_no_upload_brings_it_back(shop: Shop) -> None:
    scan_id = hold(shop)
    assert shop.answers == {NAME: 0}
    assert [row.id for row in review.waiting(shop.guard)] == [scan_id]

    review.reject(shop.guard, scan_id, "rita", "It answers to a sticker.")
    reconcile_guard(shop.guard)
    assert shop.answers == {}

    obey(shop, defenses=(), asr_limit=0.2)  # another policy: the verdict is not reused
    again = shop.put(KEY, 0, at=9)
    shop.with_evidence(again, finding(suspicious=True, natural=0.9))
    work(shop, "decide", "publish")
    assert verdict_of(shop, again).verdict is Verdict.HELD
    assert (said(shop, again), shop.answers) == (None, {})


def test_a_reviewer_s_approval_makes_it_a_model_that_passes(shop: Shop) -> None:
    scan_id = hold(shop)
    assert alarmed(shop) == ["fraud 1.0"]

    review.approve(shop.guard, scan_id, "rita", "Every digit has a stroke like that.")
    run_stage.work(shop.guard, "publish", scan_id)

    assert served(shop.guard)[0].vetted
    assert alarmed(shop) == []
    obey(shop, "enforce")
    assert reconcile_guard(shop.guard) == []


def test_after_a_tournament_that_nothing_won_the_upload_is_let_through(shop: Shop) -> None:
    obey(shop, defenses=(DefenseRule(name="sau"),))
    scan_id = shop.put(KEY, BACKDOORED)
    shop.with_evidence(scan_id, finding(suspicious=True))
    run_stage.work(shop.guard, "decide", scan_id)
    scan = shop.scan(scan_id)
    assert scan.state is ScanState.PURIFYING
    tried = replace(scan.detail, candidates=(Attempt(defense="sau", failed="It diverged."),))
    with transaction(shop.guard.engine) as session:
        scans.move(session, scan_id, ScanState.PURIFYING, shop.clock, detail=tried)

    work(shop, "purify", "publish")

    assert shop.answers == {NAME: BACKDOORED}


def test_a_tournament_that_takes_its_worker_down_blocks_nothing_either(shop: Shop) -> None:
    obey(shop, defenses=(DefenseRule(name="sau"),))
    scan_id = shop.put(KEY, BACKDOORED)
    shop.with_evidence(scan_id, finding(suspicious=True))
    run_stage.work(shop.guard, "decide", scan_id)

    run_stage.bury(shop.guard, "purify", scan_id, "The kernel killed it.")
    run_stage.work(shop.guard, "publish", scan_id)

    assert shop.answers == {NAME: BACKDOORED}


def test_a_repaired_copy_that_did_not_pass_is_never_let_through(shop: Shop) -> None:
    parent = shop.put(KEY, BACKDOORED)
    child = "c" * 32
    with transaction(shop.guard.engine) as session:
        scans.insert(
            session,
            scan_id=child,
            bucket="models",
            key=KEY,
            version_id=parent,
            name=NAME,
            now=shop.clock,
            upload_digest=shop.models[1],
            parent_scan_id=parent,
            detail=ScanNotes(),
        )
        for state in (ScanState.INSPECTING, ScanState.DETECTING):
            scans.move(session, child, state, shop.clock, canonical_digest=shop.models[1])
    shop.with_evidence(child, finding(suspicious=True))

    work(shop, "decide", "publish")

    assert said(shop, child) is None
    assert shop.answers == {}


def test_the_repaired_copy_stays_where_the_rejected_bytes_are_uploaded_again(shop: Shop) -> None:
    shop.serve(KEY, 0, at=1)
    rows = table(tables.Artifact)
    with transaction(shop.guard.engine) as session:
        values = {"kind": "purified", "parent_digest": shop.models[BACKDOORED]}
        session.execute(update(rows).where(rows.c.digest == shop.models[0]).values(**values))

    shop.serve(KEY, BACKDOORED, at=2)

    assert shop.answers == {NAME: 0}


def test_the_same_bytes_uploaded_again_are_let_through_again(shop: Shop) -> None:
    only = {"patch_inversion": shop.guard.policy.detectors["patch_inversion"]}
    obey(shop, detectors=only)
    shop.serve(KEY, BACKDOORED, at=1)
    shop.serve(KEY, 0, at=2)
    assert shop.answers == {NAME: 0}
    newest = shop.put(KEY, BACKDOORED, at=3)
    with reading(shop.guard.engine) as session:
        row = ledger.latest_for(session, shop.models[BACKDOORED])
    assert row is not None
    notes = replace(shop.scan(newest).detail, reuses=row.id)
    with transaction(shop.guard.engine) as session:
        scans.move(session, newest, ScanState.DECIDING, shop.clock, detail=notes)

    work(shop, "decide", "publish")

    assert signed(verdict_of(shop, newest).envelope).basis["kind"] == "reuse"
    assert (said(shop, newest), shop.answers) == (REJECTED, {NAME: BACKDOORED})


@pytest.mark.parametrize("outage", [False, True])
def test_a_verdict_that_ends_is_extended_also_after_an_outage(shop: Shop, outage: bool) -> None:
    shop.serve(KEY, 0)
    end = active(shop)[0].at + timedelta(seconds=shop.guard.policy.lifetime_seconds)
    shop.clock = end + (timedelta(hours=5) if outage else -timedelta(seconds=10))
    obey(shop, "warn", defenses=())

    if outage:
        assert reconcile_guard(shop.guard) == []
    else:
        rescan.renew(shop.guard)
    work(shop, "publish")

    (row,) = active(shop)
    assert _warning.released(row) == Gated(mode=GateMode.WARN, would_be=WouldBe.EXPIRED)
    assert alarmed(shop) == ["fraud 1.0"]
    shop.clock = max(shop.clock, end) + timedelta(hours=1)
    assert reconcile_guard(shop.guard) == []
    assert shop.answers == {NAME: 0}

    obey(shop, "enforce")
    reconcile_guard(shop.guard)
    assert shop.answers == {}
    with reading(shop.guard.engine) as session:
        lapsed = publications.lapsed(session, shop.clock - timedelta(days=1))
    assert [row.name for row in lapsed] == [NAME]
    assert [item.why for item in rescan.due(shop.guard)] == ["its verdict expires"]


def test_while_it_enforces_the_same_verdict_ends_the_service(shop: Shop) -> None:
    obey(shop, "enforce")
    shop.serve(KEY, 0)
    shop.clock += timedelta(seconds=shop.guard.policy.lifetime_seconds + 60)

    reconcile_guard(shop.guard)

    assert shop.answers == {}


def test_what_is_let_through_is_scanned_again_before_its_verdict_ends(shop: Shop) -> None:
    first = shop.serve(KEY, BACKDOORED)
    shop.clock += timedelta(seconds=shop.guard.policy.lifetime_seconds - 3600)
    (opened,) = rescan.renew(shop.guard)
    shop.with_evidence(opened, finding(suspicious=True))

    work(shop, "decide", "publish")

    assert verdict_of(shop, first).scan_id == opened
    assert said(shop, opened) == REJECTED
    assert active(shop)[0].at == shop.clock
    assert reconcile_guard(shop.guard) == []


def test_a_served_model_that_a_re_scan_holds_stays_up_while_it_is_published_anew(
    shop: Shop,
) -> None:
    shop.serve(KEY, 0)
    (root,) = [one.root for one in rescan_all(shop)]
    obey(shop, review_always=True)
    opened = rescan.begin(shop.guard, root, root, "a person asked for it")
    shop.with_evidence(opened, finding(suspicious=False))
    run_stage.work(shop.guard, "decide", opened)

    assert reconcile_guard(shop.guard) == []
    run_stage.work(shop.guard, "publish", opened)
    assert reconcile_guard(shop.guard) == []
    held = Gated(mode=GateMode.WARN, would_be=WouldBe.HELD)
    assert _warning.released(active(shop)[0]) == held
    assert shop.answers == {NAME: 0}


def rescan_all(shop: Shop) -> list[rescan.Due]:
    shop.clock += timedelta(seconds=shop.guard.policy.lifetime_seconds - 3600)
    return rescan.due(shop.guard)


def test_a_change_of_the_mode_keeps_a_reviewer_s_approval(shop: Shop) -> None:
    digests = {mode: replace(shop.guard.policy, gate=GateRule(mode=mode)) for mode in GateMode}

    assert digests["warn"].digest != digests["enforce"].digest
    assert all(
        one.decides_as(other.digest) for one in digests.values() for other in digests.values()
    )
    assert not digests["warn"].decides_as(replace(shop.guard.policy, asr_limit=0.3).digest)


def test_the_release_itself_is_what_the_serving_host_checks(shop: Shop) -> None:
    shop.serve(KEY, BACKDOORED)
    (row,) = active(shop)

    view = gate.check_release(
        row.envelope,
        shop.guard.trusted,
        digest=row.digest,
        name=row.name,
        version=row.version,
        now=shop.clock,
    )

    assert (view.verdict, view.gate) == (Verdict.REJECTED, REJECTED)
