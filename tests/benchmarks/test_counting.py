"""The simulation's checks of which verdict and which keys count see the faults they are for."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.simulation import counting
from guard.flow import _newest, keys
from guard.flow.reconcile import reconcile_guard
from guard.store import ledger
from guard.store.session import reading
from tests.flow.registry import Registry
from tests.flow.test_killed import Killed, Rotated, killed
from tests.flow.test_newest_verdict import blind


def taken_down(registry: Registry, work: Callable[[], object]) -> list[tuple[int, str]]:
    """What `counting` says of the publications that ended while something was done."""
    guard, before = registry.place.guard, {row.id for row in registry.active()}
    work()
    with reading(guard.engine) as session:
        rows = ledger.rows(session)
    with closing(sqlite3.connect(registry.folder / "data" / "guard.db")) as db:
        return list(
            counting.taken_down(
                db,
                before,
                rows,
                guard.trusted,
                now=registry.place.clock,
                since={row.id: 0 for row in rows},
                born=1,
            )
        )


@pytest.mark.parametrize("fault", [True, False])
def test_a_model_that_goes_though_its_clearing_holds_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: bool
) -> None:
    registry = Registry(tmp_path)
    registry.upload("model")
    blind(registry)
    if fault:
        monkeypatch.setattr(_newest, "UNDECIDED", frozenset())

    found = taken_down(registry, lambda: reconcile_guard(registry.place.guard))

    assert [number for number, _ in found] == ([14] if fault else [])


def test_a_model_that_goes_with_its_clearing_is_no_fault(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.upload("model")
    registry.pass_time(days=31)

    assert taken_down(registry, lambda: reconcile_guard(registry.place.guard)) == []
    assert registry.served() == {}


def test_a_key_that_counts_though_an_act_distrusts_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotated = Rotated(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(keys, "complete", killed)
        with pytest.raises(Killed):
            rotated.distrust()

    with closing(sqlite3.connect(tmp_path / "data" / "guard.db")) as db:
        (seen,) = counting.keys(db, rotated.file)
        assert list(counting.keys(db, rotated.guard.trusted)) == []
    assert seen == (15, f"key {rotated.old[:8]} counts, though an act distrusts it")
