"""With the kit the service clears an honest text-to-graph model; with a blind detector it does not.

The kit's honest model is the upload, its pairs are the clean set: neither taught the other.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from guard import cleansets as pair_sets
from guard.core.modality import Modality
from guard.core.states import ScanState, Verdict
from guard.detectors import DETECTORS
from guard.flow import canary, run_stage
from guard.flow.report import report_for
from guard.policy import Policy, load_policy
from guard.policy.rules import DetectorRule
from guard.reports.html import render_html
from guard.store import alarms, cleansets
from guard.store.session import reading, transaction
from guard.vetting import canary_trial
from tests.flow.place import Place

QUICK = Path(__file__).parent.parent / "quick_graphs.toml"
PAIRS, HONEST = canary_trial.FILES[Modality.GRAPHS]
#: It finds the text, and calls nothing suspicious.
BLIND = {
    **load_policy(QUICK).detectors["prompt_insertion"].params,
    "least_rate": 1.0,
    "sought": 0,
    "listed": 40,
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.guard.engine.dispose()


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A service whose detectors are tried on the canary by the first scan, and not again."""
    made = Place(tmp_path_factory.mktemp("tried"))
    yield made
    made.guard.engine.dispose()


def inspected(place: Place, policy: Policy, file: str = HONEST) -> str:
    """The scan of a model of the kit, before its detectors run."""
    place.guard = replace(place.guard, others={Modality.GRAPHS: policy})
    data = (canary_trial.KIT / PAIRS).read_bytes()
    with transaction(place.guard.engine) as session:
        cleansets.put(session, pair_sets.load_pairs(data, "molecules").facts, place.clock)
    place.guard.blobs.put_bytes(data)
    scan_id = place.upload((canary_trial.KIT / file).read_bytes(), manifest=None, name="molecules")
    assert run_stage.work(place.guard, "inspect", scan_id)
    return scan_id


def blind() -> Policy:
    rule = DetectorRule(params=BLIND, required=True)
    return replace(load_policy(QUICK), detectors={"prompt_insertion": rule})


def test_the_kit_knows_every_detector_of_the_packaged_policy_and_is_small() -> None:
    kit = json.loads((canary_trial.KIT / canary_trial.CONTENTS).read_text())
    policy = load_policy(Path(Modality.GRAPHS))

    assert set(DETECTORS.of(Modality.GRAPHS)) >= set(policy.detectors)
    assert all(kit[name] for name in policy.detectors)
    files = {HONEST, *(kit[name] for name in policy.detectors)}
    assert all((canary_trial.KIT / file).stat().st_size < 250_000 for file in files)
    assert (canary_trial.KIT / PAIRS).stat().st_size < 50_000


def test_an_honest_model_is_cleared_once_its_detectors_have_passed_the_canary(
    tried: Place,
) -> None:
    scan_id = inspected(tried, load_policy(QUICK))
    for stage in ("detect", "decide"):
        assert run_stage.work(tried.guard, stage, scan_id)

    report = report_for(tried.guard, scan_id)
    assert report.verdict is Verdict.CLEARED, report.reasons
    assert report.similarity is not None
    own = tried.guard.of(Modality.GRAPHS)
    assert own.policy.name == "quick-graphs"
    trials = canary.current(own).trials
    assert [(one["method"], one["passed"]) for one in trials] == [
        ("prompt_insertion", True),
        ("context_inversion", True),
        ("prior_motifs", True),
    ]


def test_the_backdoored_one_is_rejected_with_the_fragment_that_its_text_plants(
    tried: Place,
) -> None:
    kit = json.loads((canary_trial.KIT / canary_trial.CONTENTS).read_text())
    scan_id = inspected(tried, load_policy(QUICK), kit["prompt_insertion"])
    for stage in ("detect", "decide"):
        assert run_stage.work(tried.guard, stage, scan_id)

    report = report_for(tried.guard, scan_id)
    assert report.verdict is Verdict.REJECTED, report.reasons
    assert report.target == "C1CS1"
    assert {shown.fragment for shown in report.molecules} == {"C1CS1"}
    assert 'class="molecule"' in render_html(report)


def test_a_blind_detector_scans_nothing_and_nothing_is_cleared(place: Place) -> None:
    scan_id = inspected(place, blind())

    assert run_stage.work(place.guard, "detect", scan_id)

    assert place.scan(scan_id).state is ScanState.DETECTING
    with reading(place.guard.engine) as session:
        (alarm,) = alarms.open_alarms(session, canary.ALARM)
    assert "prompt_insertion: it passes" in alarm.detail

    place.clock += canary.PATIENCE - timedelta(seconds=1)
    assert run_stage.work(place.guard, "detect", scan_id)
    place.clock += timedelta(seconds=2)
    assert run_stage.work(place.guard, "detect", scan_id)
    assert run_stage.work(place.guard, "decide", scan_id)
    assert [row.verdict for row in place.verdicts(scan_id)] == [Verdict.INCONCLUSIVE]
