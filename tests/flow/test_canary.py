"""No verdict without a canary.

Detectors prove themselves on models whose truth is known, or the scan waits.
"""

import json
import platform
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from guard.core.errors import GuardError
from guard.core.modality import Modality
from guard.core.states import ScanState, Verdict
from guard.detectors import DETECTORS
from guard.flow import canary, run_stage
from guard.policy import Policy, load_policy
from guard.policy.rules import DetectorRule
from guard.store import alarms, canaries, outbox
from guard.store.session import reading, transaction
from guard.vetting import canary_trial
from tests.flow.place import Place

#: It never finds anything, and fast: no patch is that much smaller than its siblings.
BROKEN = {"steps": 60, "natural_steps": 5, "fold": 1e6, "again": 0, "reference_rounds": 0}
BLIND = (
    "it passes "
    f"{json.loads((canary_trial.KIT / canary_trial.CONTENTS).read_text())['patch_inversion']}"
)


def with_policy(place: Place, **params: float) -> Place:
    policy = replace(place.guard.policy, detectors={"patch_inversion": DetectorRule(params=params)})
    place.guard = replace(place.guard, policy=policy)
    return place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def waiting_for_detection(place: Place) -> str:
    place.add_cleanset()
    scan_id = place.upload()
    run_stage.work(place.guard, "inspect", scan_id)
    with transaction(place.guard.engine) as session:
        outbox.mark_sent(
            session, [row.id for row in outbox.due(session, place.clock, 10)], place.clock
        )
    return scan_id


def stored(place: Place, *, passed: bool) -> None:
    with transaction(place.guard.engine) as session:
        canaries.add(
            session,
            worker=canary.worker(),
            methods=canary.methods_digest(place.guard),
            passed=passed,
            trials=[{"method": "patch_inversion", "passed": passed, "sentence": "as stored"}],
            now=place.clock,
        )


def open_alarms(place: Place) -> list[str]:
    with reading(place.guard.engine) as session:
        return [row.detail for row in alarms.open_alarms(session, canary.ALARM)]


def test_every_detector_of_the_packaged_policies_is_in_the_kit() -> None:
    kit = json.loads((canary_trial.KIT / canary_trial.CONTENTS).read_text())

    assert set(load_policy(Path("ensemble")).detectors) <= set(kit)
    needed = [name for name, rule in load_policy().detectors.items() if rule.required]
    assert needed
    # All are proven, not only seen to pass.
    assert all(kit[name] for name in load_policy(Path("ensemble")).detectors)
    assert all(
        (canary_trial.KIT / file).stat().st_size < 100_000
        for file in {
            *(kit[name] for name in DETECTORS.of(Modality.IMAGES) if kit.get(name)),
            canary_trial.GOOD,
        }
    )
    assert (canary_trial.KIT / canary_trial.CLEAN).stat().st_size < 300_000


def test_a_detector_as_it_is_flags_the_bad_model_and_passes_the_good_one() -> None:
    """The cheapest one; patch inversion does in tests/metamorphic."""
    (one,) = canary_trial.try_all({"margin": {}}, device="cpu")

    assert one.passed, one.sentence
    assert one.parameters == DETECTORS.get("margin")().parameters() != {}


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("patch_inversion", BROKEN, BLIND),
        ("patch_inversion", {"steps": 0}, "could not look"),
    ],
)
def test_a_broken_detector_does_not_pass(name: str, params: dict[str, float], words: str) -> None:
    (one,) = canary_trial.try_all({name: params}, device="cpu")

    assert not one.passed
    assert words in one.sentence


def kit_that_says(folder: Path, contents: bytes) -> Path:
    for path in canary_trial.KIT.iterdir():
        (folder / path.name).write_bytes(
            path.read_bytes() if path.name != canary_trial.CONTENTS else contents
        )
    return folder


def test_a_detector_that_the_kit_does_not_know_does_not_pass(tmp_path: Path) -> None:
    (one,) = canary_trial.try_all(
        {"margin": {}}, device="cpu", folder=kit_that_says(tmp_path, b"{}")
    )

    assert not one.passed
    assert "made without it" in one.sentence


def test_without_a_model_that_it_flags_a_detector_must_still_look_and_pass_the_good_one(
    tmp_path: Path,
) -> None:
    kit = kit_that_says(tmp_path, b'{"margin": null}')

    (able,) = canary_trial.try_all({"margin": {}}, device="cpu", folder=kit)
    (kit / canary_trial.GOOD).write_bytes((kit / "clean.bin").read_bytes()[:100])

    assert able.passed
    assert "no model" in able.sentence
    with pytest.raises(GuardError):
        canary_trial.try_all({"margin": {}}, device="cpu", folder=kit)


def test_a_worker_with_a_broken_detector_leaves_the_scan_waiting_and_rings(place: Place) -> None:
    with_policy(place, **BROKEN)
    scan_id = waiting_for_detection(place)

    run_stage.work(place.guard, "detect", scan_id)

    assert place.scan(scan_id).state is ScanState.DETECTING
    place.clock += timedelta(minutes=1)
    assert place.messages() == ["detect"]
    assert BLIND in " ".join(open_alarms(place))


def test_a_scan_that_no_worker_may_take_ends_inconclusive(place: Place) -> None:
    with_policy(place, **BROKEN)
    scan_id = waiting_for_detection(place)
    stored(place, passed=False)
    run_stage.work(place.guard, "detect", scan_id)

    place.clock += canary.PATIENCE + timedelta(seconds=1)
    run_stage.work(place.guard, "detect", scan_id)
    run_stage.work(place.guard, "decide", scan_id)

    verdict = place.verdicts(scan_id)
    assert [row.verdict for row in verdict] == [Verdict.INCONCLUSIVE]
    assert place.scan(scan_id).state is ScanState.DONE


def test_a_passed_canary_lets_scans_through_for_a_day_and_no_longer(place: Place) -> None:
    with_policy(place, **BROKEN)
    scan_id = waiting_for_detection(place)
    stored(place, passed=True)
    run_stage.work(place.guard, "detect", scan_id)
    assert place.scan(scan_id).state is ScanState.DECIDING

    place.clock += canary.HOLDS + timedelta(seconds=1)

    assert not canary.current(place.guard).passed


def test_a_canary_counts_for_its_own_worker_methods_and_parameters_only(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_policy(place, **BROKEN)
    stored(place, passed=True)
    assert canary.current(place.guard).passed
    before = canary.methods_digest(place.guard)

    other = with_policy(place, **{**BROKEN, "alpha": 0.001})
    assert canary.methods_digest(other.guard) != before
    assert not canary.current(other.guard).passed

    with_policy(place, **BROKEN)
    monkeypatch.setattr(platform, "node", lambda: "another-host")
    assert not canary.current(place.guard).passed


def test_a_passing_run_is_stored_with_worker_versions_and_time_and_clears_the_alarm(
    place: Place,
) -> None:
    cheap = {name: DetectorRule() for name in ("margin", "weight_statistics")}
    place.guard = replace(place.guard, policy=replace(place.guard.policy, detectors=cheap))
    with transaction(place.guard.engine) as session:
        alarms.raise_(session, canary.ALARM, canary.worker(), "it failed", place.clock)

    row = canary.current(place.guard)
    again = canary.current(place.guard)

    assert row.passed
    assert again == row
    assert (row.worker, row.at) == (canary.worker(), place.clock)
    assert [(one["method"], one["version"]) for one in row.trials] == [
        (name, DETECTORS.get(name).version) for name in place.guard.policy.detectors
    ]
    assert open_alarms(place) == []


def test_a_policy_without_detectors_has_no_canary(place: Place) -> None:
    place.guard = replace(place.guard, policy=Policy(name="empty"))

    assert not canary.current(place.guard).passed
