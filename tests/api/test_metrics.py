"""The metrics beside plain counts: what waits, what ends, what workers counted."""

import uuid
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

from guard.core import tallies
from guard.core.states import ScanState
from guard.flow.context import Guard
from guard.store import alarms, canaries, nominations, scans, watched
from guard.store import tallies as rows
from guard.store.session import reading, transaction
from tests.api.conftest import Clock
from tests.api.test_health import samples
from tests.api.test_scans import make_scan

#: With one more for each of the token and the gate's list, whatever the database holds.
MOST_QUERIES = 40


def page(client: TestClient) -> dict[str, float]:
    return samples(client.get("/metrics").text)


def test_an_empty_installation_has_zeros_where_an_alarm_must_see_the_first_one(
    client: TestClient,
) -> None:
    found = page(client)

    assert found['guard_queue_depth{queue="scan",stage="detect"}'] == 0
    assert found['guard_detector_error_total{detector="patch_inversion",kind="crash"}'] == 0
    assert found["guard_served_unvetted"] == 0
    assert found["guard_drift_total"] == 0
    assert found["guard_scan_running_oldest_seconds"] == 0
    assert found["guard_canary_timestamp_seconds"] == 0
    assert found['guard_verdicts_ending{days="7"}'] == 0


def test_what_waits_and_what_a_worker_holds_are_apart(
    client: TestClient, guard: Guard, clock: Clock
) -> None:
    first, second = make_scan(guard, 1), make_scan(guard, 2)
    with transaction(guard.engine) as session:
        scans.move(session, second, ScanState.INSPECTING, clock.time)
        scans.claim(session, first, now=clock.time, seconds=500)
        nominations.add(
            session,
            nomination_id=uuid.uuid4().hex,
            bucket="b",
            key="k",
            version_id=None,
            source="s3",
            now=clock.time,
        )
    clock.pass_time(100)

    found = page(client)

    assert found['guard_queue_depth{queue="inspect",stage="inspect"}'] == 1
    assert found['guard_stage_running{queue="inspect",stage="inspect"}'] == 1
    assert found['guard_queue_oldest_seconds{queue="inspect",stage="inspect"}'] == 100
    assert found['guard_queue_depth{queue="inspect",stage="receive"}'] == 1
    assert found['guard_queue_oldest_seconds{queue="inspect",stage="receive"}'] == 100
    assert found["guard_scan_running_oldest_seconds"] == 99


def test_a_canary_is_well_only_where_the_newest_of_every_worker_is(
    client: TestClient, guard: Guard, clock: Clock
) -> None:
    def ran(worker: str, *, passed: bool) -> None:
        trials = [{"method": "patch_inversion", "passed": passed}, {"method": "x", "passed": True}]
        with transaction(guard.engine) as session:
            canaries.add(
                session, worker=worker, methods="m", passed=passed, trials=trials, now=clock.time
            )

    name = 'guard_canary_ok{detector="patch_inversion"}'
    ran("one", passed=False)
    clock.pass_time(10)
    ran("one", passed=True)
    found = page(client)
    assert (found[name], found["guard_canary_workers"]) == (1, 1)
    assert found["guard_canary_timestamp_seconds"] == clock.time.timestamp()
    assert 'guard_canary_ok{detector="x"}' not in found  # no detector of the policy

    ran("two", passed=False)
    assert page(client)[name] == 0

    clock.pass_time(timedelta(days=3).total_seconds())
    assert name not in page(client)


def test_alarms_of_serving_show_what_was_served_unvetted_and_all_deviations_ever(
    client: TestClient, guard: Guard, clock: Clock
) -> None:
    with transaction(guard.engine) as session:
        alarms.raise_(session, "serving_republished", "a 1", "was lost", clock.time)
        alarms.raise_(session, "serving_foreign", "b 1", "who put it there?", clock.time)
        alarms.raise_(session, "serving_digest", "c 1", "other bytes", clock.time)
        alarms.clear(session, "serving_digest", "c 1", clock.time)

    found = page(client)

    assert found["guard_served_unvetted"] == 1
    assert found["guard_drift_total"] == 3


def test_counters_of_workers_become_counters_and_histograms(
    client: TestClient, guard: Guard
) -> None:
    with tallies.collecting() as counted:
        for seconds in (0.3, 2.0, 10_000.0):
            tallies.observe(tallies.STAGES, "detect", "done", value=seconds)
        tallies.count(tallies.REFUSALS, "inspect", "zip_bomb")
    with transaction(guard.engine) as session:
        rows.add(session, counted)

    found = page(client)

    buckets = {
        name.split('le="')[1].split('"')[0]: value
        for name, value in found.items()
        if name.startswith("guard_scan_seconds_bucket")
    }
    assert (buckets["0.1"], buckets["0.5"], buckets["5.0"], buckets["+Inf"]) == (0, 1, 2, 3)
    count = next(v for name, v in found.items() if name.startswith("guard_scan_seconds_count"))
    assert count == 3
    assert found['guard_refusal_total{code="zip_bomb",stage="inspect"}'] == 1


def test_the_page_asks_a_bounded_number_of_queries(client: TestClient, guard: Guard) -> None:
    def queries() -> int:
        seen: list[str] = []
        listener = lambda *args: seen.append(args[2])  # noqa: E731 - what SQLAlchemy calls
        event.listen(Engine, "before_cursor_execute", listener)
        try:
            assert client.get("/metrics").status_code == 200
        finally:
            event.remove(Engine, "before_cursor_execute", listener)
        return len(seen)

    few = queries()
    for number in range(20):
        make_scan(guard, number)

    assert queries() == few <= MOST_QUERIES


@pytest.mark.parametrize("kind", ["inspect", "detect"])
def test_each_stage_has_a_queue(kind: str) -> None:
    from guard.core.queues import QUEUE_OF, QUEUES

    assert set(QUEUE_OF) == set(watched.STAGES)
    assert set(QUEUE_OF.values()) <= set(QUEUES)
    assert kind in QUEUE_OF


def test_what_is_watched_is_read_alike_from_any_database(guard: Guard, clock: Clock) -> None:
    with reading(guard.engine) as session:
        seen = watched.take(session, clock.time, policies=())

    assert (seen.served, seen.behind, seen.deviations) == (0, 0, 0)
