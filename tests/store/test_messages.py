"""Messages, alarms, notices of uploads, and the methods an installation knows."""

import contextlib
from collections.abc import Iterable
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from guard.core.errors import InputError, UnknownMethod
from guard.store import alarms, dead_letters, intake, methods, nominations, outbox
from guard.store.rows import MethodRow, MethodState, NominationState
from guard.store.session import make_engine, transaction
from tests import postgres
from tests.store.rows import NOW, a_scan


def test_a_message_is_due_after_its_delay_until_it_is_sent(engine: Engine) -> None:
    with transaction(engine) as s:
        outbox.add(s, "inspect", {"scan_id": "1"}, NOW)
        outbox.add(s, "rescan", {"scan_id": "2"}, NOW, delay_seconds=60)
        due = outbox.due(s, NOW)

        assert [(row.task, row.payload) for row in due] == [("inspect", {"scan_id": "1"})]
        assert outbox.unsent_ids(s) == {"1", "2"}
        outbox.mark_sent(s, [row.id for row in due], NOW)
        assert outbox.due(s, NOW) == []
        assert [row.task for row in outbox.due(s, NOW + timedelta(seconds=60))] == ["rescan"]
        assert outbox.waiting(s) == 1
        assert outbox.unsent_ids(s) == {"2"}


def test_what_one_relay_took_is_due_for_no_other_until_it_is_given_back(engine: Engine) -> None:
    with transaction(engine) as s:
        for number in range(5):
            outbox.add(s, "inspect", {"scan_id": str(number)}, NOW + timedelta(seconds=-number))
    with transaction(engine) as s:
        one = outbox.take(s, NOW, 20, limit=2)
        other = outbox.take(s, NOW, 20, limit=2)

        assert [row.payload["scan_id"] for row in (*one, *other)] == ["4", "3", "2", "1"]
        outbox.mark_sent(s, [row.id for row in one], NOW)
        outbox.give_back(s, [other[0].id])
        assert [row.payload["scan_id"] for row in outbox.due(s, NOW)] == ["2", "0"]
        assert outbox.unsent_ids(s) == {"0", "1", "2"}


def test_what_a_relay_that_died_had_taken_is_due_again_after_a_while(engine: Engine) -> None:
    with transaction(engine) as s:
        outbox.add(s, "inspect", {"scan_id": "1"}, NOW)
        taken = outbox.take(s, NOW, 20)

        assert outbox.take(s, NOW + timedelta(seconds=19), 20) == []
        assert outbox.due(s, NOW + timedelta(seconds=20)) != []
        assert [row.id for row in outbox.take(s, NOW + timedelta(seconds=20), 20)] == [taken[0].id]


def test_on_postgresql_two_at_once_take_different_messages_and_none_waits() -> None:
    engine = make_engine(postgres.migrated())
    with transaction(engine) as s:
        for number in range(4):
            outbox.add(s, "inspect", {"scan_id": str(number)}, NOW)
    with transaction(engine) as one, transaction(engine) as other:
        first = {row.id for row in outbox.take(one, NOW, 20, limit=3)}
        second = {row.id for row in outbox.take(other, NOW, 20, limit=3)}

    assert (len(first), len(second), first & second) == (3, 1, set())
    engine.dispose()


def test_a_message_of_a_transaction_that_failed_is_never_sent(engine: Engine) -> None:
    with contextlib.suppress(LookupError), transaction(engine) as s:
        outbox.add(s, "inspect", {"scan_id": "1"}, NOW)
        raise LookupError
    with transaction(engine) as s:
        assert outbox.due(s, NOW) == []


def test_an_alarm_is_open_once_a_kind_and_subject(engine: Engine) -> None:
    with transaction(engine) as s:
        opened = [
            alarms.raise_(s, kind, "m", f"detail {i}", NOW)
            for i, kind in enumerate(("a", "a", "b"))
        ]

        assert opened == [True, False, True]
        assert [alarm.detail for alarm in alarms.open_alarms(s, "a")] == ["detail 0"]
        alarms.clear(s, "a", "m", NOW)
        assert [alarm.kind for alarm in alarms.open_alarms(s)] == ["b"]
        assert alarms.raise_(s, "a", "m", "again", NOW)
        assert len(alarms.list_recent(s)) == 3


def test_dead_letters_are_kept(engine: Engine) -> None:
    with transaction(engine) as s:
        made = dead_letters.add(s, "inspect", {"scan_id": "1"}, "boom", NOW)

        assert dead_letters.list_all(s) == [made]


def test_a_nomination_is_pending_until_it_is_settled(engine: Engine) -> None:
    with transaction(engine) as s:
        made = nominations.add(
            s,
            nomination_id="1",
            bucket="b",
            key="k",
            version_id=None,
            source="sweep",
            now=NOW,
        )
        assert nominations.pending(s) == [made] == [intake.open_nomination(s, "b", "k", None)]
        scan = a_scan(s)
        nominations.settle(s, "1", NominationState.ACCEPTED, scan_id=scan.id)

        assert nominations.pending(s) == []
        assert nominations.get(s, "1").scan_id == scan.id
        assert len(nominations.list_recent(s, state=NominationState.ACCEPTED)) == 1
        with pytest.raises(InputError):
            nominations.get(s, "2")


def test_a_new_or_newer_method_is_evaluated_before_it_decides(engine: Engine) -> None:
    def states(found: Iterable[MethodRow]) -> dict[str, str]:
        return {row.name: str(row.state) for row in found}

    with transaction(engine) as s:
        known = [("detector", "a", 1), ("detector", "b", 1), ("defense", "c", 1)]
        assert states(methods.sync(s, known, enabled={"a"})) == {
            "a": "enabled",
            "b": "evaluation",
            "c": "evaluation",
        }
        methods.set_state(s, "detector", "b", MethodState.ENABLED)
        methods.set_state(s, "defense", "c", MethodState.RETIRED)
        raised = [("detector", "a", 2), ("detector", "b", 2), ("defense", "c", 2)]

        assert states(methods.sync(s, known, enabled={"a"})) == {
            "a": "enabled",
            "b": "enabled",
            "c": "retired",
        }
        assert states(methods.sync(s, raised, enabled={"a"})) == {
            "a": "enabled",
            "b": "evaluation",
            "c": "retired",
        }
        assert states(methods.sync(s, raised[:1], enabled={"a"})) == {
            "a": "enabled",
            "b": "retired",
            "c": "retired",
        }
        assert [row.name for row in methods.enabled(s, "detector")] == ["a"]
        with pytest.raises(UnknownMethod):
            methods.set_state(s, "detector", "z", MethodState.ENABLED)
