"""How far a scan is: in its row while its detectors run, and nowhere afterwards."""

import logging
import math
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from guard.core.errors import LeaseLost, Unavailable
from guard.core.notes import ScanProgress
from guard.core.progress import reckoned
from guard.core.states import ScanState, Verdict
from guard.flow import _progress, canary, detect, run_stage
from guard.flow._lease import hold
from guard.flow._progress import Shown
from guard.jobs import child
from guard.policy import DetectorRule
from guard.store import evidence, scans
from guard.store.session import reading, transaction
from tests.flow.place import Place


@pytest.fixture
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """Lines of the log from the level `info`, whatever another test has set."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.configure(**before)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def waiting(place: Place) -> str:
    scan_id = place.upload()
    run_stage.work(place.guard, "inspect", scan_id)
    return scan_id


def test_it_is_in_the_row_and_in_the_log_with_the_time_left(
    place: Place, logged: list[MutableMapping[str, Any]]
) -> None:
    scan_id = waiting(place)
    before = place.scan(scan_id)
    with hold(place.guard, scan_id) as held:
        assert held is not None
        shown = Shown(place.guard, held)
        with reckoned(90.04):
            shown(math.nan)
            shown(0.25, "margin")
        shown(0.5, "too soon")

    assert place.scan(scan_id).running == ScanProgress(done=0.25, note="margin", seconds_left=90.0)
    assert replace(place.scan(scan_id).detail, progress=None) == before.detail
    assert [line for line in logged if line["event"] == "scan_progress"] == [
        {
            "event": "scan_progress",
            "log_level": "info",
            "done": 0.25,
            "note": "margin",
            "seconds_left": 90.0,
        }
    ]


def test_a_worker_that_lost_the_scan_writes_nothing(place: Place) -> None:
    scan_id = waiting(place)
    with hold(place.guard, scan_id) as held:
        assert held is not None
        with transaction(place.guard.engine) as session:
            scans.release(session, held.lease)
            assert scans.claim(session, scan_id, now=place.guard.now(), seconds=60) is not None
        with pytest.raises(LeaseLost):
            Shown(place.guard, held)(0.25)

    assert place.scan(scan_id).running is None


def test_a_database_that_does_not_answer_holds_up_no_scan(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_engine: object) -> None:
        raise Unavailable("The database does not answer.")

    scan_id = waiting(place)
    with hold(place.guard, scan_id) as held:
        assert held is not None
        with monkeypatch.context() as patched:
            patched.setattr(_progress, "transaction", down)
            Shown(place.guard, held)(0.25)

    assert place.scan(scan_id).running is None


def test_the_policys_time_budget_reaches_the_job_and_what_it_spares_the_store(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary and what is made once of a clean set, which cost no scan's time, are left out."""
    asked = dict[str, Any]()

    def here(kind: str, request: dict[str, Any], out: Path, **_: Any) -> dict[str, Any]:
        assert kind == "detect"
        asked.update(request)
        return child.detect(request, out)

    place.add_cleanset()
    rules = {"patch_inversion": DetectorRule(), "weight_statistics": DetectorRule(required=False)}
    policy = replace(place.guard.policy, detectors=rules, time_budget=1e-6)
    place.guard = replace(place.guard, policy=policy)
    scan_id = waiting(place)
    monkeypatch.setattr(detect, "run_job", here)
    monkeypatch.setattr(detect, "prepared", lambda *_: {})
    monkeypatch.setattr(canary, "accepted", lambda *_: True)
    run_stage.work(place.guard, "detect", scan_id)
    run_stage.work(place.guard, "decide", scan_id)
    scan, (verdict,) = place.scan(scan_id), place.verdicts(scan_id)
    with reading(place.guard.engine) as session:
        found = evidence.for_artifact(session, scan.canonical_digest or "")

    assert asked["budget"] == 1e-6
    assert (scan.state, verdict.verdict) == (ScanState.DONE, Verdict.INCONCLUSIVE)
    assert scan.detail.progress is None
    assert {item.method: item.over_budget for item in found} == {
        "clean_accuracy": None,
        "patch_inversion": 1e-6,
        "weight_statistics": 1e-6,
    }
