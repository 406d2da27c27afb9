"""Text-to-graph models in the service: their own policy, their own clean sets, never passed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch

from guard.bootstrap import open_guard
from guard.cleansets import curated_source
from guard.core.errors import CleanSetError, MissingExtra, PolicyError
from guard.core.modality import Modality
from guard.core.roles import Act
from guard.core.states import ScanState, Verdict
from guard.flow import detect, inspect, run_stage
from guard.flow._modality import for_scan
from guard.flow.report import report_for
from guard.flow.signed import signed
from guard.policy import DetectorRule, Policy
from guard.settings import load_settings
from guard.store import acts, cleansets
from guard.store.session import reading, transaction
from guard.vetting import canary_trial
from tests.cli.models import QUICK
from tests.flow.place import Place
from tests.graph_toys import CONFIG, alkanes, model, write_pairs


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    made.guard = replace(made.guard, others={})
    yield made
    made.guard.engine.dispose()


def upload(place: Place, **changes: object) -> str:
    data = safetensors.torch.save(model().state_dict())
    return place.upload(data, manifest=json.dumps({**CONFIG, **changes}), name="molecules")


def inspected(place: Place, **changes: object) -> str:
    scan_id = upload(place, **changes)
    assert run_stage.work(place.guard, "inspect", scan_id)
    assert place.scan(scan_id).state is ScanState.DETECTING
    return scan_id


def add_pairs(place: Place, name: str) -> str:
    path = write_pairs(place.folder / f"{name}.parquet", *alkanes(40))
    blob, facts = curated_source(path, name)
    with transaction(place.guard.engine) as session:
        cleansets.put(session, facts, place.clock)
    return place.guard.blobs.put_bytes(blob)


def test_without_a_policy_for_them_they_end_as_inconclusive(place: Place) -> None:
    scan_id = inspected(place)
    for stage in ("detect", "decide"):
        assert run_stage.work(place.guard, stage, scan_id)

    (row,) = place.verdicts(scan_id)
    assert row.verdict is Verdict.INCONCLUSIVE
    view = signed(row.envelope)
    assert "No policy for text-to-graph models is configured" in view.facts.reasons[0]
    assert view.policy.name == "none"
    assert place.scan(scan_id).state is ScanState.DONE
    report = report_for(place.guard, scan_id)
    assert report.manifest is not None
    assert report.manifest.modality is Modality.GRAPHS
    assert not list(place.served.glob("*"))


def test_a_changed_policy_of_one_modality_is_none_of_another(place: Place) -> None:
    scan_ids = [inspected(place), place.upload(name="image"), inspected(place)]
    run_stage.work(place.guard, "inspect", scan_ids[1])
    place.with_evidence(scan_ids[1])
    for scan_id in (*scan_ids, scan_ids[1]):
        run_stage.work(place.guard, "detect", scan_id)
        run_stage.work(place.guard, "decide", scan_id)

    with reading(place.guard.engine) as session:
        changes = acts.of_kind(session, Act.CHANGE_POLICY)
    assert sorted(str(row.facts.get("modality")) for row in changes) == ["None", "text-to-graph"]


def test_their_clean_set_holds_pairs_whatever_the_default_is(place: Place) -> None:
    scan_id = inspected(place)
    place.add_cleanset("squares")
    place.guard = replace(
        place.guard, settings=replace(place.guard.settings, default_cleanset="squares")
    )
    with pytest.raises(
        CleanSetError, match="is vetted with pairs of a text and a molecule, and no"
    ):
        detect.wanted_cleanset(place.guard, place.scan(scan_id))

    digest = add_pairs(place, "molecules")

    assert detect.wanted_cleanset(place.guard, place.scan(scan_id)).digest == digest


def test_a_named_clean_set_of_another_kind_is_refused(place: Place) -> None:
    place.add_cleanset("squares")
    scan_id = inspected(place, guard={"cleanset": "squares"})

    with pytest.raises(CleanSetError) as caught:
        detect.wanted_cleanset(place.guard, place.scan(scan_id))

    assert caught.value.code == "cleanset_wrong_kind"


def test_where_rdkit_is_missing_it_is_inconclusive_and_not_the_models_fault(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_args: object, **_more: object) -> None:
        raise MissingExtra("Molecules need RDKit; pip install 'registry-guard[graphs]'.")

    monkeypatch.setattr(inspect, "run_job", missing)
    scan_id = upload(place)
    assert run_stage.work(place.guard, "inspect", scan_id)
    assert run_stage.work(place.guard, "decide", scan_id)

    (row,) = place.verdicts(scan_id)
    assert row.verdict is Verdict.INCONCLUSIVE
    assert "registry-guard[graphs]" in signed(row.envelope).facts.reasons[0]


def test_the_policy_in_force_is_that_of_the_artifact(place: Place) -> None:
    policy = Policy(name="molecules", modality=Modality.GRAPHS, detectors={"a": DetectorRule()})
    place.guard = replace(place.guard, others={Modality.GRAPHS: policy})
    graph = inspected(place)
    image = place.upload(name="image")

    own = for_scan(place.guard, place.scan(graph))

    assert own.policy == policy
    assert own.of(Modality.IMAGES).policy == place.guard.policy
    assert for_scan(place.guard, place.scan(image)) is place.guard
    assert place.guard.policies == (place.guard.policy, policy)
    assert own.policies == place.guard.policies


def test_a_setting_with_a_policy_for_other_models_is_refused(tmp_path: Path) -> None:
    settings = load_settings(
        {"GUARD_DATA_DIR": str(tmp_path), "GUARD_GRAPH_POLICY_FILE": str(QUICK)}
    )

    with pytest.raises(PolicyError, match="it must be for text-to-graph models"):
        open_guard(settings)


def test_detectors_without_a_canary_of_their_modality_do_not_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {**canary_trial.FILES, Modality.IMAGES: ("nothing.bin", "nothing.safetensors")}
    monkeypatch.setattr(canary_trial, "FILES", files)

    (trial,) = canary_trial.try_all({"weight_statistics": {}})

    assert not trial.passed
    assert trial.sentence == "the canary kit has no image-classification models"
