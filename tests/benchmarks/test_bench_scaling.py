"""The simulation of the service: against theory, against conservation, and what leases do."""

import math
import random
from dataclasses import replace
from statistics import fmean, median
from typing import Any

import pytest

from benchmarks.record import RECORDS, load
from benchmarks.scaling import HONEST, STAGES, costs, sizing
from benchmarks.scaling.costs import Size
from benchmarks.scaling.model import DAY, HOUR, Load, Plant, Seen, erlang_wait, simulate

ONE = {"any": (1.0, ("stage",))}


def plant(workers: int, seconds: float, **more: float) -> Plant:
    def draw(rng: random.Random) -> float:
        return rng.expovariate(1 / seconds)

    return Plant(
        queue_of={"stage": "queue"}, workers={"queue": workers}, seconds={"stage": draw}, **more
    )


@pytest.mark.parametrize(("workers", "use"), [(1, 0.5), (3, 0.8), (10, 0.8)])
def test_waiting_times_are_those_of_the_theory_of_queues(workers: int, use: float) -> None:
    per_day, days = 8000.0, 3.0
    seconds = use * workers * DAY / per_day
    found = [
        fmean(
            scan.waited
            for scan in simulate(load, plant(workers, seconds), seed=seed, days=days).done
        )
        for load in [Load(per_day=per_day, kinds=ONE)]
        for seed in range(2)
    ]

    assert fmean(found) == pytest.approx(erlang_wait(per_day / DAY, seconds, workers), rel=0.2)


def test_the_waiting_time_of_one_worker_has_a_closed_form_and_an_overloaded_queue_none() -> None:
    assert erlang_wait(0.5, 1.0, 1) == pytest.approx(1.0)  # rho / (mu - lambda)
    assert math.isinf(erlang_wait(3.0, 1.0, 3))


BUSY = Load(
    per_day=2000.0,
    swing=0.5,
    bursts=0.2,
    burst=20,
    kinds={"short": (0.5, ("a", "b")), "long": (0.5, ("a", "b", "a", "b"))},
)
FRAIL = Plant(
    queue_of={"a": "one", "b": "two"},
    workers={"one": 3, "two": 2},
    seconds={"a": lambda rng: rng.uniform(20, 60), "b": lambda rng: rng.uniform(10, 30)},
    duplicate=0.01,
    lease=120.0,
    life=2 * HOUR,
    restart=30.0,
)


@pytest.mark.parametrize("after", [0.0, 6 * HOUR])
def test_what_arrives_is_done_or_waits_or_was_given_up(after: float) -> None:
    seen = simulate(BUSY, FRAIL, seed=1, after=after)

    assert len(seen.scans) == len(seen.done) + len(seen.open) + len(seen.failed)
    assert len(seen.scans) == pytest.approx(BUSY.per_day, rel=0.15)
    assert seen.deaths > 0
    assert bool(seen.open) is not bool(after)
    if after:
        assert all(scan.place == len(scan.stages) for scan in seen.done)


def test_a_scan_whose_worker_died_waits_for_its_lease_and_is_done_once() -> None:
    quiet = replace(BUSY, per_day=50.0, bursts=0.0)
    calm = simulate(quiet, replace(FRAIL, life=math.inf), seed=2, after=HOUR)
    frail = simulate(quiet, replace(FRAIL, life=0.2 * HOUR), seed=2, after=HOUR)

    assert calm.deaths == 0
    assert frail.deaths > 0
    assert longest(calm) < FRAIL.lease < longest(frail)
    assert not frail.open


def longest(seen: Seen) -> float:
    return max(scan.waited for scan in seen.done)


def test_a_worker_that_always_dies_fails_a_scan_as_the_guard_gives_it_up() -> None:
    seen = simulate(replace(BUSY, per_day=50.0), replace(FRAIL, life=0.1), seed=3, after=2 * HOUR)

    assert len(seen.failed) == len(seen.scans) > 0


def test_what_waits_for_longer_than_a_lease_is_announced_again_and_again() -> None:
    few = replace(FRAIL, workers={"one": 1, "two": 1}, life=math.inf)
    late = simulate(BUSY, few, seed=4, days=0.4)
    forgetful = simulate(BUSY, replace(few, lease=math.inf), seed=4, days=0.4)

    assert late.duplicates["one"] > len(late.scans)
    assert sum(forgetful.duplicates.values()) == 0


COUNTED: dict[str, Any] = {
    HONEST: {
        stage: {"seconds": 0.2, "rows_written": 10.0, "commits": 6.0, "messages": 1.0}
        for stage in ("nominate", *STAGES)
    },
    "row_bytes_a_scan": 1000.0,
    "parts": dict.fromkeys(
        (
            *("reconcile", "duplicate", "rescue_a_scan", "relay_a_message"),
            *("sweep_an_object", "commit", "commands_a_message"),
        ),
        0.002,
    ),
}
TOY = Size(
    name="toy",
    machine="a process",
    weights=1000,
    detection=(30.0, 60.0),
    repair=90.0,
    measured=True,
    source="made up",
)


def test_workers_grow_with_the_uploads_and_the_aim_is_kept() -> None:
    few, many = (
        sizing.sized(sizing.Case(size=TOY, per_day=per_day, measured=COUNTED))
        for per_day in (500, 50_000)
    )

    assert few["workers"]["scan"] >= 1
    assert many["workers"]["scan"] > 5 * few["workers"]["scan"]
    for row in (few, many):
        assert row["wait_p95"] <= sizing.MOST_WAITING
        assert row["uploads_simulated"] == row["done"] + row["open"] + row["given_up"]
    assert many["rows_written_a_second"] > 50 * 50_000 / DAY
    assert many["storage"]["rows"] == pytest.approx(50_000 * 1000.0, rel=0.02)
    assert many["breaks"][0]["use"] > few["breaks"][0]["use"]


def test_a_smaller_service_gives_each_worker_as_much_to_do() -> None:
    case = sizing.Case(size=TOY, per_day=10_000, measured=COUNTED)
    workers = {"inspect": 1, "scan": 7, "control": 1, "publish": 1}
    load, small = sizing.shrunk(case.load, case.plant(workers), by=5)

    assert load.per_day == 2000
    assert small.workers == {"inspect": 1, "scan": 1, "control": 1, "publish": 1}
    drawn = {small.seconds["detect"](random.Random(number)) for number in range(9)}
    assert sorted(drawn) == pytest.approx([30 * 5 / 7, 60 * 5 / 7])


def test_the_times_of_scans_are_those_of_records() -> None:
    found = costs.detections(costs.SMALL_RECORD)
    record = load(RECORDS / costs.SMALL_RECORD)["result"]["detectors"]

    assert median(found) == pytest.approx(
        sum(item["median_seconds"] for item in record.values()), rel=0.1
    )
    assert costs.repair_seconds(costs.SMALL_REPAIRS) > median(found)
    assert min(costs.short_stages().values()) > 0
