"""Workers that receive the same object at the same time make one scan, on either database."""

import threading
from pathlib import Path

import pytest

from guard.store.rows import NominationState
from tests import postgres
from tests.flow.intake import CONFIG, new_world

WEIGHTS = b"weights of a model" * 10_000


@pytest.mark.row(3)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_workers_that_race_make_one_scan(tmp_path: Path, database: str) -> None:
    world = new_world(tmp_path, url=postgres.migrated() if database == "postgresql" else "")
    world.put("in/a/config.json", CONFIG)
    version = world.put("in/a/m.pt", WEIGHTS)
    world.nominate("in/a/m.pt", version)
    world.nominate("in/a/m.pt")
    threads = [
        threading.Thread(target=world.receive, args=(row.id,))
        for row in world.nominations()
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.work()

    assert len(world.scans()) == len(world.messages("inspect")) == 1
    (scan,) = world.scans()
    assert {(row.state, row.scan_id) for row in world.nominations()} == {
        (NominationState.ACCEPTED, scan.id)
    }

    world.engine.dispose()
