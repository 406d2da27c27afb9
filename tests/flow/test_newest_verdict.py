"""The newest verdict on an artifact that decided counts, whichever of its uploads it was given on.

One that says that nobody could look takes no other's place.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from guard.attest import dsse
from guard.attest.keys import Signer
from guard.core.states import ScanState, Verdict
from guard.flow import _newest, publish, rescan, review, run_stage
from guard.flow._handover import hand_over
from guard.flow._lease import hold
from guard.flow.reconcile import reconcile_guard
from guard.flow.served import served
from guard.flow.signed import signed
from guard.flow.simulate import simulate
from guard.policy.rules import LifetimeRule
from guard.store import alarms, counts, ledger, outbox
from guard.store.rows import LedgerRow
from guard.store.session import reading, transaction
from tests.flow.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def blind(registry: Registry, name: str = "other", *, then: str = "failed") -> str:
    """An upload of the same bytes whose detectors fail, or (`then` is "") that has no clean set."""
    scan_id = registry.place.upload(name=name, by="carol")
    run_stage.work(registry.place.guard, "inspect", scan_id)
    could_not_look(registry, scan_id, then=then)
    return scan_id


def could_not_look(registry: Registry, scan_id: str, *, then: str = "") -> None:
    guard = registry.place.guard
    with transaction(guard.engine) as session:  # the worker that takes the message fails
        due = outbox.due(session, registry.place.clock, 100)
        outbox.mark_sent(session, [row.id for row in due], registry.place.clock)
    with hold(guard, scan_id) as held:
        assert held is not None
        hand_over(guard, held, Verdict.INCONCLUSIVE, ("The GPU is broken.",), then=then)
    run_stage.work(guard, "decide", scan_id)
    registry.work()


def counting(registry: Registry, scan_id: str) -> LedgerRow:
    """The verdict that counts on the artifact of a scan."""
    guard, digest = registry.place.guard, registry.scan(scan_id).canonical_digest or ""
    with reading(guard.engine) as session:
        found = _newest.verdict(session, digest, guard.trusted)
    assert found is not None
    return found


def tampered(registry: Registry, statement: str, *values: str) -> None:
    """Change the database as somebody with all rights on it."""
    with closing(sqlite3.connect(registry.folder / "data" / "guard.db")) as db:
        db.execute("DROP TRIGGER IF EXISTS verdicts_no_update")
        db.execute(statement, values)
        db.commit()


def test_nothing_is_published_by_a_clearing_that_is_older_than_a_rejection_of_the_same_bytes(
    tmp_path: Path,
) -> None:
    registry = Registry(tmp_path)
    registry.obey(review_always=True)
    first, second = registry.upload("model"), registry.upload("other", by="carol")
    review.approve(registry.place.guard, first, "bob", "fine by me")

    review.reject(registry.place.guard, second, "bob", "on second thought")
    registry.work()

    assert registry.served() == {}
    assert registry.active() == []
    assert registry.scan(first).state is ScanState.FAILED
    assert "rejected" in (registry.scan(first).error or "")


@pytest.mark.row(47)
@pytest.mark.parametrize("changed", ["nothing", "the policy", "the clean set"])
@pytest.mark.parametrize("then", ["failed", ""])
def test_an_upload_that_nobody_could_look_at_takes_nothing_out_of_service(
    registry: Registry, changed: str, then: str
) -> None:
    first = registry.upload("model")
    answers, (old,) = registry.served(), registry.place.verdicts(first)
    if changed == "the policy":
        registry.obey(asr_limit=0.05)
    elif changed == "the clean set":
        registry.cleanset = registry.place.add_cleanset("others", seed=1)
        registry.settle(cleanset_map=("other=others", "model=squares"))

    second = blind(registry, then=then)

    assert [row.verdict for row in registry.place.verdicts(second)] == [Verdict.INCONCLUSIVE]
    assert reconcile_guard(registry.place.guard) == []
    assert registry.served() == answers
    assert [row.vetted for row in served(registry.place.guard)] == [True]
    assert counting(registry, first) == old, "it holds as long as before, and no longer"
    with reading(registry.place.guard.engine) as session:
        kinds = {row.kind for row in alarms.open_alarms(session)}
        assert counts.take(session, registry.place.clock).expired == 0
    assert not {kind for kind in kinds if kind.startswith("serving_")}
    assert simulate(registry.place.guard, registry.place.guard.policy).changes == ()


def test_a_clearing_that_nobody_could_renew_ends_when_it_says(registry: Registry) -> None:
    first = registry.upload("model")
    end = counting(registry, first).expires_at
    for days in (25, 4):
        registry.pass_time(days=days)
        blind(registry)
        for opened in rescan.renew(registry.place.guard):
            could_not_look(registry, opened)
    registry.pass_time(hours=23, minutes=59)
    assert reconcile_guard(registry.place.guard) == []

    registry.pass_time(minutes=2)
    reconcile_guard(registry.place.guard)

    assert registry.served() == {}
    assert counting(registry, first).expires_at == end < registry.place.clock


def test_what_expired_is_not_replaced_by_a_re_scan_that_could_not_look_and_comes_back(
    registry: Registry,
) -> None:
    first = registry.upload("model")
    old = counting(registry, first)
    registry.pass_time(days=31)
    reconcile_guard(registry.place.guard)
    for opened in rescan.renew(registry.place.guard):
        could_not_look(registry, opened)
    assert counting(registry, first) == old
    assert registry.scan(first).verdict_id == old.id
    assert registry.served() == {}

    registry.pass_time(hours=7)
    registry.tick()

    assert set(registry.served()) == {"model"}


def test_the_same_bytes_under_the_same_name_do_not_keep_the_verdict_from_being_renewed(
    registry: Registry,
) -> None:
    first = registry.upload("model")
    blind(registry, "model")
    registry.pass_time(days=25)

    (opened,) = registry.tick()

    assert registry.scan(opened).parent_scan_id == first
    registry.pass_time(days=6)
    assert reconcile_guard(registry.place.guard) == []
    assert set(registry.served()) == {"model"}


def test_a_verdict_that_waits_for_publication_is_published_all_the_same(
    registry: Registry,
) -> None:
    registry.settle(auto_publish=False)
    first = registry.upload("model")
    blind(registry)

    publish.request(registry.place.guard, first, "root")
    registry.work()

    assert set(registry.served()) == {"model"}


def test_the_next_upload_of_the_bytes_rests_on_the_clearing_in_force(registry: Registry) -> None:
    first = registry.upload("model")
    blind(registry)
    looked = len(registry.detected)

    third = registry.upload("third")

    (row,), (old,) = registry.place.verdicts(third), registry.place.verdicts(first)
    assert signed(row.envelope).basis == {"kind": "reuse", "verdict": old.id}
    assert row.expires_at == old.expires_at
    assert len(registry.detected) == looked
    assert set(registry.served()) == {"model", "third"}


@pytest.mark.parametrize("last", ["rejected", "held"])
def test_a_verdict_that_decides_counts_before_and_behind_one_that_does_not(
    registry: Registry, last: str
) -> None:
    first = registry.upload("model")
    registry.obey(review_always=True)
    blind(registry)
    second = registry.upload("second", by="dave")
    if last == "rejected":
        review.reject(registry.place.guard, second, "bob", "on second thought")
    reconcile_guard(registry.place.guard)
    assert registry.served() == {}

    blind(registry, "third")

    assert counting(registry, first).verdict is Verdict(last)
    registry.pass_time(hours=7)
    reconcile_guard(registry.place.guard)
    assert registry.served() == {}
    assert registry.scan(first).state is ScanState.DONE


def test_where_nobody_ever_could_look_that_is_the_verdict(registry: Registry) -> None:
    first = blind(registry)
    second = blind(registry, "again")

    assert counting(registry, first).scan_id == second
    assert registry.served() == {}


def test_on_expiry_warn_extends_the_clearing_and_not_what_could_not_look(
    registry: Registry,
) -> None:
    registry.obey(lifetime=LifetimeRule(on_expiry="warn"))
    first = registry.upload("model")
    registry.pass_time(days=29, hours=23, minutes=55)
    blind(registry)
    for opened in rescan.renew(registry.place.guard):
        could_not_look(registry, opened)
    registry.pass_time(minutes=10)
    reconcile_guard(registry.place.guard)

    assert set(registry.served()) == {"model"}
    assert signed(counting(registry, first).envelope).basis["kind"] == "extension"


@pytest.mark.parametrize("how", ["the column", "column and statement"])
def test_a_rejection_that_somebody_renames_brings_no_clearing_back(
    registry: Registry, how: str
) -> None:
    first = registry.upload("model")
    registry.obey(review_always=True)
    second = registry.upload("second", by="dave")
    review.reject(registry.place.guard, second, "bob", "on second thought")
    rejected = counting(registry, first)
    others = blind(registry, "third")
    reconcile_guard(registry.place.guard)
    (genuine,) = registry.place.verdicts(others)

    tampered(registry, "UPDATE verdicts SET verdict = 'inconclusive' WHERE id = ?", rejected.id)
    if how != "the column":
        body = dsse.payload(genuine.envelope)
        forged = dsse.sign(body, Signer.load_or_create(registry.folder / "mallory.pem"))
        text = json.dumps(forged)
        tampered(registry, "UPDATE verdicts SET envelope = ? WHERE id = ?", text, rejected.id)
    reconcile_guard(registry.place.guard)

    assert counting(registry, first).id == rejected.id
    assert registry.served() == {}
    with reading(registry.place.guard.engine) as session:
        assert ledger.get(session, rejected.id).verdict is Verdict.INCONCLUSIVE
