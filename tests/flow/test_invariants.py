"""The whole service under a few random schedules; `benchmarks.bench_states` runs ten thousand."""

from collections.abc import Iterator

import pytest

from benchmarks.bench_states import caught
from benchmarks.simulation import redecide, runs
from benchmarks.simulation.mutants import MUTANTS
from benchmarks.simulation.world import World, opened


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(tmp_path_factory.mktemp("states")) as world:
        yield world


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_every_invariant_holds_in_random_schedules(world: World, first: int) -> None:
    totals = runs.many(world, range(first, first + 10))

    assert totals.violations == [], "python -m benchmarks.bench_states --show SEED shows its steps"
    assert totals.served
    assert totals.schedules == 10


@pytest.mark.parametrize("name", [name for name in MUTANTS if MUTANTS[name].shown is not None])
def test_a_fault_in_the_service_is_found(world: World, name: str) -> None:
    mutant = MUTANTS[name]

    assert caught(world, mutant, mutant.shown or 0, tries=20)["found"]


def test_another_policy_runs_only_the_detectors_that_it_lacks(world: World) -> None:
    found = redecide.measure(world, verdicts=12, renewed=4)

    assert found["simulated"] == {"cleared to cleared": 12}
    assert found["other_rule"]["renewed"] == found["one_more_detector"]["renewed"] == 4
    assert found["other_rule"]["detector_jobs"] == 0
    assert found["one_more_detector"]["detector_jobs"] == 4
