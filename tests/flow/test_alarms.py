"""Alarms are listed, shown and acknowledged; dead letters are tried again."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from guard.api.app import create_app
from guard.core.errors import InputError
from guard.core.roles import Act, Role
from guard.core.states import ScanState, Verdict
from guard.flow import alarms, canary, dead_letter, retry, run_stage
from guard.flow._handover import give_up
from guard.flow._lease import hold
from guard.flow.principals import Forbidden
from guard.store import acts, dead_letters, ledger
from guard.store import alarms as store
from guard.store.session import reading, transaction
from tests import people
from tests.flow.place import Place, finding


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def raised(place: Place, kind: str, subject: str = "m") -> str:
    with transaction(place.guard.engine) as session:
        store.raise_(session, kind, subject, "Something is wrong.", place.clock)
        return store.open_alarms(session, kind)[0].id


def letter_of(place: Place, scan_id: str, task: str) -> str:
    """The dead letter of a scan whose stage was given up."""
    with hold(place.guard, scan_id) as held:
        assert held is not None
        give_up(place.guard, held, task, "The disk was full.")
    with reading(place.guard.engine) as session:
        return dead_letters.list_all(session)[0].id


def test_an_acknowledged_event_is_closed_and_says_by_whom_and_why(place: Place) -> None:
    wanted = raised(place, "name_taken")
    assert [one.row.id for one in alarms.listed(place.guard)] == [wanted]

    done = alarms.acknowledge(place.guard, "olga", wanted[:8], " asked them to move ")

    assert (done.acknowledged_by, done.reason) == ("olga", "asked them to move")
    assert done.row.cleared_at is not None
    assert alarms.listed(place.guard) == []
    assert alarms.listed(place.guard, closed=True) == [done] == [alarms.show(place.guard, wanted)]
    assert raised(place, "name_taken") != wanted, "the next one is an alarm of its own"
    with pytest.raises(InputError, match="closed already"):
        alarms.acknowledge(place.guard, "olga", wanted, "again")


@pytest.mark.parametrize(
    ("kind", "subject"), [(canary.ALARM, "worker"), ("ledger_differs", "ledger")]
)
def test_what_lasts_stays_open_until_it_is_over(place: Place, kind: str, subject: str) -> None:
    wanted = raised(place, kind, subject)

    alarms.acknowledge(place.guard, "olga", wanted, "looking into it")

    (one,) = alarms.listed(place.guard)
    assert (one.acknowledged_by, one.row.cleared_at) == ("olga", None)
    with transaction(place.guard.engine) as session:
        store.clear(session, kind, subject, place.clock)
    assert alarms.listed(place.guard) == []


def test_an_acknowledgement_needs_a_reason_a_role_and_an_alarm(place: Place) -> None:
    wanted = raised(place, "name_taken")

    with pytest.raises(InputError, match="reason"):
        alarms.acknowledge(place.guard, "olga", wanted, "  ")
    with pytest.raises(InputError, match="not exactly one alarm 'ffff'"):
        alarms.show(place.guard, "ffff")
    with pytest.raises(Forbidden):
        alarms.acknowledge(
            place.guard, people.who(place.guard, "vera", Role.VIEWER), wanted, "seen"
        )
    with reading(place.guard.engine) as session:
        assert acts.of_kind(session, Act.ACKNOWLEDGE) == []


def test_two_ids_with_one_start_are_asked_apart(place: Place) -> None:
    with transaction(place.guard.engine) as session:
        for number in range(40):
            store.raise_(session, "k", str(number), "d", place.clock)
        ids = [row.id for row in store.open_alarms(session)]
    assert {alarms.show(place.guard, one).row.id for one in ids} == set(ids)
    with pytest.raises(InputError, match="not exactly one"):
        alarms.show(place.guard, ids[0][:3])


@pytest.mark.row(55)
def test_a_scan_without_a_decision_is_tried_again_from_the_start(place: Place) -> None:
    scan_id = place.upload()
    wanted = letter_of(place, scan_id, "inspect")
    assert place.scan(scan_id).state is ScanState.FAILED

    done = retry.retry(place.guard, "olga", wanted[:8])

    assert (done.retried_by, done.row.payload) == ("olga", {"scan_id": scan_id})
    assert retry.listed(place.guard) == [done] == [retry.show(place.guard, wanted)]
    assert alarms.listed(place.guard) == []
    assert (place.scan(scan_id).state, place.scan(scan_id).error) == (ScanState.QUEUED, None)
    assert place.messages() == ["inspect"]
    assert run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, finding(suspicious=False))
    assert run_stage.work(place.guard, "decide", scan_id)
    assert [row.verdict for row in place.verdicts(scan_id)] == [Verdict.CLEARED]
    with pytest.raises(InputError, match="nothing to try again"):
        retry.retry(place.guard, "olga", wanted)


def test_an_undecided_verdict_is_followed_by_a_decision(place: Place) -> None:
    scan_id = place.upload()
    assert run_stage.work(place.guard, "inspect", scan_id)
    wanted = letter_of(place, scan_id, "detect")
    assert run_stage.work(place.guard, "decide", scan_id)
    assert place.scan(scan_id).state is ScanState.FAILED

    retry.retry(place.guard, "olga", wanted)

    assert run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, finding(suspicious=False))
    assert run_stage.work(place.guard, "decide", scan_id)
    with reading(place.guard.engine) as session:
        verdicts = [row.verdict for row in ledger.for_scan(session, scan_id)]
    assert sorted(verdicts) == [Verdict.CLEARED, Verdict.INCONCLUSIVE]
    assert place.scan(scan_id).error is None


def test_a_stage_behind_the_decision_is_taken_up_where_it_was(place: Place) -> None:
    scan_id = place.upload()
    assert run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, finding(suspicious=False))
    assert run_stage.work(place.guard, "decide", scan_id)
    wanted = letter_of(place, scan_id, "publish")

    retry.retry(place.guard, "olga", wanted)

    assert run_stage.work(place.guard, "publish", scan_id)
    assert place.scan(scan_id).state is ScanState.DONE
    assert [one.name for one in place.guard.publisher.state()] == ["model"]
    assert len(place.verdicts(scan_id)) == 1


def test_what_cannot_be_tried_again_says_what_to_do(place: Place) -> None:
    scan_id = place.upload()
    assert run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, finding(suspicious=False))
    assert run_stage.work(place.guard, "decide", scan_id)
    letter_of(place, scan_id, "decide")
    dead_letter.record(place.guard, "guard.detect", {"args": "()", "kwargs": "{}"}, "TypeError")

    for one in retry.listed(place.guard):
        with pytest.raises(InputError, match=r"guard rescan|by itself"):
            retry.retry(place.guard, "olga", one.row.id)


def test_the_api_shows_both_and_refuses_who_may_not(place: Place) -> None:
    wanted, token = raised(place, "name_taken"), people.give(place.guard, "vera", Role.VIEWER)
    letter = letter_of(place, place.upload(), "inspect")
    with TestClient(create_app(place.guard)) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        listed = client.get("/alarms").json()["alarms"]
        (one,) = client.get("/dead-letters").json()["dead_letters"]
        refused = [
            client.post(f"/alarms/{wanted}/acknowledge", json={"reason": "seen"}),
            client.post(f"/dead-letters/{letter}/retry"),
        ]
        missing = client.get("/alarms/ffffffff")

    assert {row["kind"] for row in listed} == {"name_taken", "dead_letter"}
    assert (one["id"], one["error"], one["retried_by"]) == (letter, "The disk was full.", None)
    assert [answer.status_code for answer in refused] == [403, 403]
    assert missing.status_code == 404
