"""One embedded stack for all end-to-end tests.

SeaweedFS, Valkey, TorchServe, API, relay, beat and workers.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.data import mnist
from benchmarks.demo.__main__ import add_cleanset
from benchmarks.demo.models import three_models
from guard.bootstrap import open_guard
from guard.local.supervisor import Stack
from guard.settings import load_settings
from tests.e2e.site import Site

#: Short leases and rounds, so that what takes minutes in production takes seconds here.
FAST = {
    "GUARD_LEASE_SECONDS": "6",
    "GUARD_SWEEP_SECONDS": "5",
    "GUARD_RECONCILE_SECONDS": "2",
    "GUARD_MANIFEST_GRACE_SECONDS": "3",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("e2e")
    data, canary = mnist(), folder / "payload-ran"
    models = {
        model.name: model
        for model in three_models(data, folder / "uploads", canary, lambda _words: None)
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUARD_")}
    with Stack(folder / "stack", {**kept, **FAST}) as stack:
        stack.start()
        guard = open_guard(load_settings(stack.environment()))
        add_cleanset(guard, data)
        yield Site(stack, guard, data, models, folder, canary)
