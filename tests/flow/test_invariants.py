"""The whole service under a few random schedules; `benchmarks.bench_states` runs ten thousand."""

from collections.abc import Iterator

import pytest

from benchmarks.bench_states import caught
from benchmarks.simulation import runs
from benchmarks.simulation.mutants import MUTANTS
from benchmarks.simulation.world import World, opened


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(tmp_path_factory.mktemp("states")) as world:
        yield world


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_every_invariant_holds_in_random_schedules(world: World, first: int) -> None:
    totals = runs.many(world, range(first, first + 10))

    assert totals.violations == [], "python -m benchmarks.bench_states --show SEED shows its steps"
    assert totals.served
    assert totals.schedules == 10


@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_in_the_service_is_found(world: World, name: str) -> None:
    assert caught(world, MUTANTS[name])["found"]
