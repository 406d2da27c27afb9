"""Scans: one an object version, one worker at a time, legal moves only."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from guard.core.errors import InputError, LeaseLost
from guard.core.notes import ScanNotes
from guard.core.states import ScanState
from guard.store import scans
from guard.store.rows import Lease
from guard.store.session import transaction
from tests.store.rows import NOW, a_scan


def test_what_was_recorded_comes_back_with_its_time_to_the_microsecond(engine: Engine) -> None:
    with transaction(engine) as s:
        made = a_scan(s, manifest='{"a": "é"}', detail=ScanNotes(smoke="é"), submitted_by="ann")
    with transaction(engine) as s:
        read = scans.get(s, made.id)

    assert made == read
    assert (read.state, read.created_at, read.manifest) == (ScanState.QUEUED, NOW, '{"a": "é"}')
    assert read.detail == ScanNotes(smoke="é")


@pytest.mark.row(3)
def test_one_object_version_is_one_scan_however_often_its_event_arrives(engine: Engine) -> None:
    ids = []
    for _ in range(3):
        with transaction(engine) as s:
            ids.append(a_scan(s, key="same", version_id="v9").id)

    assert len(set(ids)) == 1


def test_a_rescan_of_the_same_object_is_a_new_row_and_the_latest(engine: Engine) -> None:
    with transaction(engine) as s:
        first = a_scan(s, key="k")
        again = a_scan(s, key="k", parent_scan_id=first.id, now=NOW + timedelta(seconds=1))

        assert again.id != first.id
        assert scans.find_by_object(s, "intake", "k", "v1") == again
        assert scans.find_by_object(s, "intake", "k", None) is None


def test_two_uploads_without_version_ids_are_two_scans(engine: Engine) -> None:
    with transaction(engine) as s:
        first, second = (
            a_scan(s, key="k", version_id=None, now=NOW + timedelta(seconds=i)) for i in range(2)
        )

        assert first.id != second.id
        assert scans.find_by_object(s, "intake", "k", None) == second


def test_a_prefix_finds_a_scan_only_when_it_is_long_and_unique(engine: Engine) -> None:
    one, two = "abcd1" + "0" * 27, "abcd2" + "0" * 27
    with transaction(engine) as s:
        a_scan(s, scan_id=one)
        a_scan(s, scan_id=two)

        assert scans.get(s, "abcd1").id == one
        for prefix, code in (
            ("abcd", "ambiguous_scan"),
            ("abc", "unknown_scan"),
            ("ffff", "unknown_scan"),
            ("____", "unknown_scan"),
            ("%%%%", "unknown_scan"),
        ):
            with pytest.raises(InputError) as refusal:
                scans.get(s, prefix)
            assert refusal.value.code == code


def test_of_many_claimers_one_wins(engine: Engine) -> None:
    with transaction(engine) as s:
        scan = a_scan(s)
    start, won = threading.Barrier(8), []

    def claim() -> None:
        start.wait()
        with transaction(engine) as s:
            won.append(scans.claim(s, scan.id, now=NOW, seconds=60))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 8
    assert [lease for lease in won if lease is not None] == [
        Lease(scan_id=scan.id, token=1, attempts=1)
    ]


@pytest.mark.threat("C10")
def test_a_lease_that_ran_out_can_be_taken_and_the_old_holder_is_fenced_off(engine: Engine) -> None:
    with transaction(engine) as s:
        scan = a_scan(s)
        old = scans.claim(s, scan.id, now=NOW, seconds=60)
        assert old is not None
        assert scans.claim(s, scan.id, now=NOW + timedelta(seconds=60), seconds=60) is None
        new = scans.claim(s, scan.id, now=NOW + timedelta(seconds=61), seconds=60)
        assert new is not None
        assert new.token > old.token

        scans.check(s, new)
        for write in (
            lambda: scans.check(s, old),
            lambda: scans.renew(s, old, NOW, 60),
            lambda: scans.move(s, scan.id, ScanState.FETCHING, NOW, lease=old),
        ):
            with pytest.raises(LeaseLost):
                write()
        scans.release(s, old)
        assert scans.get(s, scan.id).lease_until == NOW + timedelta(seconds=121)


def test_a_renewed_lease_holds_longer_and_a_released_one_not_at_all(engine: Engine) -> None:
    with transaction(engine) as s:
        scan = a_scan(s)
        lease = scans.claim(s, scan.id, now=NOW, seconds=10)
        assert lease is not None
        scans.renew(s, lease, NOW + timedelta(seconds=5), 60)
        later = NOW + timedelta(seconds=30)
        assert scans.claim(s, scan.id, now=later, seconds=10) is None
        scans.release(s, lease)

        assert scans.claim(s, scan.id, now=later, seconds=10) is not None


def test_a_claim_waits_for_a_holder_that_is_just_writing(engine: Engine) -> None:
    """`check` holds the row: nobody takes the scan over between the check and the commit."""
    with transaction(engine) as s:
        scan = a_scan(s)
        old = scans.claim(s, scan.id, now=NOW, seconds=1)
    assert old is not None
    checked, order = threading.Event(), []

    def take_over() -> None:
        checked.wait()
        with transaction(engine) as s:
            scans.claim(s, scan.id, now=NOW + timedelta(seconds=60), seconds=60)
            order.append("taken")

    thread = threading.Thread(target=take_over)
    thread.start()
    with transaction(engine) as s:
        scans.check(s, old)
        checked.set()
        thread.join(0.3)
        scans.move(s, scan.id, ScanState.FETCHING, NOW)
        order.append("written")
    thread.join()

    assert order == ["written", "taken"]


def test_an_illegal_move_is_refused_and_changes_nothing(engine: Engine) -> None:
    with transaction(engine) as s:
        scan = a_scan(s)
        with pytest.raises(InputError) as refusal:
            scans.move(s, scan.id, ScanState.PUBLISHING, NOW, error="x")

        assert refusal.value.code == "illegal_move"
        assert scans.get(s, scan.id) == scan


def test_a_move_sets_fields_in_the_same_step_but_never_the_lease(engine: Engine) -> None:
    with transaction(engine) as s:
        scan = a_scan(s)
        moved = scans.move(
            s, scan.id, ScanState.FETCHING, NOW + timedelta(seconds=1), upload_digest="d" * 64
        )

        assert (moved.state, moved.upload_digest) == (ScanState.FETCHING, "d" * 64)
        assert moved.updated_at == NOW + timedelta(seconds=1)
        with pytest.raises(InputError, match="lease_token"):
            scans.move(s, scan.id, ScanState.FETCHING, NOW, lease_token=99)
        with pytest.raises(InputError, match="no scan"):
            scans.move(s, "nobody", ScanState.FETCHING, NOW)


def test_stuck_are_the_unfinished_that_nobody_holds(engine: Engine) -> None:
    with transaction(engine) as s:
        idle, held, done = a_scan(s), a_scan(s), a_scan(s)
        scans.claim(s, held.id, now=NOW, seconds=100)
        scans.move(s, done.id, ScanState.FAILED, NOW)

        assert [scan.id for scan in scans.stuck(s, NOW)] == [idle.id]
        assert scans.stuck(s, NOW, quiet_seconds=5) == []
        assert [
            scan.id for scan in scans.stuck(s, NOW + timedelta(seconds=5), quiet_seconds=5)
        ] == [idle.id]
        assert {scan.id for scan in scans.stuck(s, NOW + timedelta(seconds=101))} == {
            idle.id,
            held.id,
        }
        scans.touch(s, idle.id, NOW + timedelta(seconds=4))
        assert scans.stuck(s, NOW + timedelta(seconds=5), quiet_seconds=5) == []


def test_scans_are_listed_by_digest_and_state(engine: Engine) -> None:
    with transaction(engine) as s:
        one = a_scan(s, name="a", submitted_by="ann", upload_digest="1" * 64)
        two = a_scan(s, name="b", submitted_by="ann", now=NOW + timedelta(seconds=1))
        scans.move(s, two.id, ScanState.FAILED, NOW, canonical_digest="1" * 64)

        assert [scan.id for scan in scans.list_recent(s)] == [two.id, one.id]
        assert [scan.id for scan in scans.list_recent(s, state=ScanState.FAILED)] == [two.id]
        assert [scan.id for scan in scans.for_digest(s, "1" * 64)] == [two.id, one.id]
