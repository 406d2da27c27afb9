"""Nearly the same weights as a blocked upload pass only through a person."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import safetensors.torch
import torch

from guard.core.notes import Rescan, ScanNotes
from guard.core.roles import Role
from guard.core.states import ScanState, Verdict
from guard.flow import projects, run_stage
from guard.flow._near_uploads import hold_if_near
from guard.flow.decide import case_of
from guard.flow.report import report_for
from guard.ml.networks import architectures
from guard.ml.seeds import seeded
from guard.vetting.case import judge
from tests import people
from tests.flow.place import MANIFEST, Place, finding


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def noisy(scale: float) -> bytes:
    """The place's default network with noise of this share of each weight."""
    with seeded(0):
        tensors = architectures.export(architectures.build(MANIFEST))
    random = torch.Generator().manual_seed(1)
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.mul_(1 + scale * torch.randn(tensor.shape, generator=random))
    return safetensors.torch.save(tensors)


def decided(place: Place, data: bytes, *, suspicious: bool, name: str) -> str:
    place.clock += timedelta(minutes=1)
    scan_id = place.upload(data, name=name)
    assert run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, finding(suspicious=suspicious))
    assert run_stage.work(place.guard, "decide", scan_id)
    return scan_id


def verdict(place: Place, scan_id: str) -> Verdict:
    return place.verdicts(scan_id)[-1].verdict


@pytest.mark.threat("B07")
def test_the_worst_verdict_sticks_to_uploads_with_a_little_noise(place: Place) -> None:
    first = decided(place, noisy(0), suspicious=True, name="first")

    again = decided(place, noisy(1e-6), suspicious=False, name="again")
    more = decided(place, noisy(1e-3), suspicious=False, name="more")

    assert [verdict(place, one) for one in (first, again, more)] == [
        Verdict.REJECTED,
        Verdict.HELD,
        Verdict.HELD,
    ]
    assert place.scan(again).state is ScanState.DONE
    assert place.scan(again).canonical_digest != place.scan(first).canonical_digest


def test_what_another_project_uploaded_is_not_named(place: Place) -> None:
    root = people.who(place.guard, "root", Role.OPERATOR)
    for project in ("ours", "theirs"):
        projects.create(place.guard, root, project, f"models/models/{project}", {})
    first = decided(place, noisy(0), suspicious=True, name="theirs/first")

    ours = decided(place, noisy(1e-6), suspicious=False, name="ours/again")
    own = decided(place, noisy(2e-6), suspicious=False, name="theirs/again")

    foreign, named = (report_for(place.guard, one).reasons[0] for one in (ours, own))
    assert "of an upload to another project" in foreign
    assert first[:12] not in foreign
    assert first[:12] in named


def test_another_network_of_the_same_architecture_is_judged_by_itself(place: Place) -> None:
    decided(place, noisy(0), suspicious=True, name="first")

    other = decided(place, noisy(0.1), suspicious=False, name="other")

    assert verdict(place, other) is Verdict.CLEARED


def test_a_later_rejection_of_nearly_the_same_takes_nothing_out_of_service(place: Place) -> None:
    served = decided(place, noisy(0), suspicious=False, name="served")
    decided(place, noisy(1e-6), suspicious=True, name="hostile")
    scan = place.scan(served)
    decision = judge(place.guard.policy, case_of(place.guard, scan))
    rescan = replace(scan, detail=ScanNotes(rescan=Rescan(of=served, why="renewal")))

    assert hold_if_near(place.guard, scan, decision) == decision
    assert hold_if_near(place.guard, rescan, decision) == decision


def test_a_scan_from_before_sketches_were_made_is_judged_by_itself(place: Place) -> None:
    decided(place, noisy(0), suspicious=True, name="first")
    near = place.scan(decided(place, noisy(1e-6), suspicious=False, name="near"))
    decision = judge(place.guard.policy, case_of(place.guard, near))
    older = replace(near, detail=replace(near.detail, sketch=None))

    assert hold_if_near(place.guard, near, decision).verdict is Verdict.HELD
    assert hold_if_near(place.guard, older, decision) == decision
