"""For all tests: services once a run, nothing beyond this machine, a plan for several processes."""

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

# Before torch is loaded, and for all that tests start. The tests' tensors are so small that further
# threads mostly wait for one another: on a busy machine thirty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import coverage
import hypothesis
import pytest

from tests import network, postgres, services
from tests.keeper import Keeper

hypothesis.settings.register_profile("guard", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("guard")

#: What takes half a minute or more is begun first, the longest of all before the rest, so that no
#: process ends up alone with it.
FIRST = (
    "tests/e2e/",
    "tests/docker/test_start.py",
    "tests/house/test_how_to.py",
    "tests/metamorphic/test_detectors.py",
    "tests/benchmarks/test_make_canary.py",
    "tests/contract/test_detectors.py",
    "tests/flow/test_sift.py",
    "tests/contract/test_retrainers.py",
    "tests/flow/test_invariants.py",
    "tests/publishers/test_torchserve.py",
    "tests/cli/test_scan.py",
    "tests/cli/test_methods.py",
    "tests/cli/test_purify.py",
    "tests/workers/test_shutdown.py",
    "tests/flow/test_training_jobs.py",
    "tests/cli/test_up.py",
    "tests/jobs/test_run.py",
    "tests/workers/test_training.py",
    "tests/cli/test_generate.py",
    "tests/vetting/test_graphs.py",
    "tests/flow/test_lifetime.py",
)
#: Tests of these files share what is dear to start, so one process does them all.
TOGETHER = {
    "tests/docker/test_start.py": "compose",
    "tests/e2e/": "e2e",
    "tests/publishers/test_torchserve.py": "torchserve",
    "tests/contract/test_publishers.py": "torchserve",
    "tests/api/test_every_route.py": "routes",
    "tests/api/test_openapi.py": "routes",
}
#: Here the same lines run again and again: random schedules, services with all their processes,
#: benchmarks. Other tests run them too, and to measure coverage costs half the time once more.
UNMEASURED = (
    "tests/benchmarks/",
    # Of a method, tests/detectors, defenses, retrainers and sifters run the same lines.
    "tests/contract/test_defenses.py",
    "tests/contract/test_detectors.py",
    "tests/contract/test_retrainers.py",
    "tests/contract/test_sifters.py",
    # Every route has tests of its own.
    "tests/api/test_openapi.py",
    # The commands run in the other tests of the same files, the methods and proofs in their own.
    "tests/cli/test_generate.py::test_a_pair_set_is_added",
    "tests/cli/test_methods.py::test_the_canary_is_run_by_hand",
    "tests/cli/test_methods.py::test_the_canary_of_text_to_graph",
    "tests/cli/test_purify.py::test_set_changes_the_defense",
    "tests/cli/test_purify.py::test_without_a_place",
    "tests/cli/test_retrain.py::test_killed_it_goes_on",
    "tests/cli/test_scan.py::test_a_model_is_looked_at_by_every",
    "tests/cli/test_scan.py::test_a_policy_that_stops_early",
    "tests/cli/test_sift.py::test_a_repair_is_taught",
    "tests/cli/test_up.py",
    # Here others' validators work, and processes that are not measured; tests/console/test_pages.py
    # and test_orders.py ask for the pages that the browser shows.
    "tests/console/test_browser.py",
    "tests/docker/",
    "tests/packaging/",
    "tests/e2e/",
    "tests/flow/test_invariants.py",
    "tests/flow/test_ledger_attacks.py",
    "tests/flow/test_lifetime.py",
    "tests/flow/test_names.py",
    "tests/flow/test_receive_orders.py",
    "tests/house/",
    "tests/metamorphic/",
)
#: Only here are processes that a test starts measured too: elsewhere most of what they do is to
#: import torch, which takes a third longer so.
CHILDREN_MEASURED = ("tests/formats/", "tests/jobs/", "tests/local/", "tests/workers/")
KEEPER = pytest.StashKey[Keeper]()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that the person started
        config.stash[KEEPER] = Keeper({**services.SHARED, **postgres.SHARED})
    network.refuse_strangers()


def pytest_unconfigure(config: pytest.Config) -> None:
    if KEEPER in config.stash:
        config.stash[KEEPER].end()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Do what several processes have to do each for itself once only, where that is possible.

    What is imported and collected stays to the end: no garbage is looked for in it, neither now nor
    whenever a test makes some, where each look would take a quarter of a second. What tests leave
    is mostly kept too, so that old objects are looked at ten times as seldom as Python would.
    """
    measured, gone = coverage.Coverage.current(), contextlib.ExitStack()
    if measured is not None and _is_not_the_first(session.config):
        measured.stop()  # the first one imports the same, and measures it
        gone.callback(measured.start)
    gc.disable()
    gone.callback(gc.enable)
    gone.callback(gc.freeze)
    gc.set_threshold(*gc.get_threshold()[:2], 100)
    with gone:
        _import_share(session)
        return (yield)


def _is_not_the_first(config: pytest.Config) -> bool:
    own = getattr(config, "workerinput", None)
    return own is not None and own["workerid"] != "gw0"


def _import_share(session: pytest.Session) -> None:
    """Of several processes each rewrites the assertions of its own share of the files first.

    Each reads what the others wrote then: in a new clone this is half of a collection.
    """
    own = getattr(session.config, "workerinput", None)
    here = Path(__file__).parent
    if (
        own is None
        or sys.dont_write_bytecode
        or session.config.args not in (["tests"], [str(here)])
    ):
        return
    share = int(own["workerid"].removeprefix("gw"))
    for file in sorted(here.rglob("test_*.py"))[share :: own["workercount"]]:
        with contextlib.suppress(Exception):  # the collection reports it
            importlib.import_module(".".join(file.relative_to(here.parent).with_suffix("").parts))


@pytest.hookimpl(trylast=True)  # after the random order
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((at for at, start in enumerate(FIRST) if item.nodeid.startswith(start)), 99)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files, so that a module's fixture is made once; in the order of the collection."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next(
                (name for start, name in TOGETHER.items() if nodeid.startswith(start)),
                nodeid.split("::", 1)[0],
            )

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    measured = coverage.Coverage.current()
    if measured is None or item.nodeid.startswith(CHILDREN_MEASURED):
        return (yield)
    pause = item.nodeid.startswith(UNMEASURED)
    children = os.environ.pop("COVERAGE_PROCESS_START", None)
    if pause:
        measured.stop()
    try:
        return (yield)
    finally:
        if pause:
            measured.start()
        if children is not None:
            os.environ["COVERAGE_PROCESS_START"] = children


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Save what this process measured: xdist kills a worker that takes long to end."""
    measured = coverage.Coverage.current()
    if measured is not None:
        measured.save()
