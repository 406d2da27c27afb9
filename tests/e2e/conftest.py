"""One embedded stack for all end-to-end tests, which ends with them and not with the run.

SeaweedFS, Valkey, TorchServe, API, relay, beat and workers.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.bootstrap import open_guard
from guard.cleansets import curate, read_source
from guard.flow.context import Guard
from guard.local.supervisor import Stack
from guard.settings import load_settings
from guard.store import cleansets
from guard.store.session import transaction
from tests.cli import models
from tests.e2e.site import SETS, Site, hostile

#: Short rounds, so that what takes minutes in production takes seconds here; leases as `guard up`
#: has them, which a busy machine can renew in time.
FAST = {
    "GUARD_LEASE_SECONDS": "15",
    "GUARD_SWEEP_SECONDS": "5",
    "GUARD_RECONCILE_SECONDS": "3",
    "GUARD_MANIFEST_GRACE_SECONDS": "3",
    "GUARD_POLICY_FILE": str(models.QUICK),
    "GUARD_GRAPH_POLICY_FILE": str(Path(__file__).parent.parent / "quick_graphs.toml"),
    "GUARD_TRAINSET_BUCKETS": SETS,
}
#: Of one test, which may wait for a repair and its vetting on a machine with much else to do. On an
#: idle one the longest takes half a minute.
SECONDS = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("e2e")
    uploads, canary = folder / "uploads", folder / "payload-ran"
    uploads.mkdir()
    found = {
        "honest": models.saved(uploads / "honest"),
        "backdoored": models.saved(uploads / "backdoored", backdoored=True),
    }
    found["pickled"] = hostile(found["backdoored"], uploads / "pickled", canary)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUARD_")}
    with Stack(folder / "stack", {**kept, **FAST}) as stack:
        stack.start()
        guard = open_guard(load_settings(stack.environment()))
        add_cleanset(guard, folder)
        site = Site(stack, guard, found, folder, canary)
        site.client().create_bucket(Bucket=SETS)
        yield site


def add_cleanset(guard: Guard, folder: Path) -> None:
    """Give the guard its clean set, as `guard cleanset add` does."""
    blob, facts = curate(read_source(models.clean_set(folder / "clean.npz", 1200)), "stripes")
    guard.blobs.put_bytes(blob)
    with transaction(guard.engine) as session:
        cleansets.put(session, facts, guard.now())
