"""Counters in rows: they add up across processes, and their number is bounded."""

import threading

import pytest
from sqlalchemy import Engine

from guard.core import tallies as core
from guard.core.tallies import REFUSALS, STAGES
from guard.store import tallies
from guard.store.session import reading, transaction


def counted(engine: Engine) -> dict[core.Key, float]:
    with reading(engine) as session:
        return tallies.every(session)


def add(engine: Engine, *codes: str) -> None:
    with core.collecting() as found:
        for code in codes:
            core.count(REFUSALS, "inspect", code)
    with transaction(engine) as session:
        tallies.add(session, found)


def test_what_two_workers_count_adds_up(engine: Engine) -> None:
    workers = [threading.Thread(target=add, args=(engine, "a", "b", "a")) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    name = "guard_refusal_total"
    assert counted(engine) == {
        (name, (("stage", "inspect"), ("code", "a"))): 8.0,
        (name, (("stage", "inspect"), ("code", "b"))): 4.0,
    }


def test_a_value_falls_into_the_bucket_whose_end_it_does_not_pass(engine: Engine) -> None:
    with core.collecting() as found:
        for value in (0.05, 0.1, 0.2, 9999.0):
            core.observe(STAGES, "detect", "done", value=value)
    with transaction(engine) as session:
        tallies.add(session, found)

    labels = (("stage", "detect"), ("outcome", "done"))
    ends = {
        dict(pairs)["le"]: value
        for (name, pairs), value in counted(engine).items()
        if name == "guard_scan_seconds_bucket"
    }
    assert ends == {"0.1": 2.0, "0.5": 1.0, "+Inf": 1.0}
    assert counted(engine)["guard_scan_seconds_sum", labels] == pytest.approx(9999.35)


def test_more_labels_than_a_family_may_have_count_as_other(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tallies, "MOST_ROWS", 2)

    add(engine, *"abcd")
    add(engine, "a", "x" * 300)

    codes = {dict(pairs)["code"]: value for (_, pairs), value in counted(engine).items()}
    assert codes == {"a": 2.0, "b": 1.0, "other": 3.0}


def test_a_label_that_is_too_long_counts_as_other_from_the_start(engine: Engine) -> None:
    add(engine, "x" * 300)

    assert [dict(pairs)["code"] for _, pairs in counted(engine)] == ["other"]


def test_what_nobody_collects_is_not_kept() -> None:
    core.count(REFUSALS, "inspect", "a")
    with core.collecting() as found:
        pass

    assert found == {}
