"""A layer that only a repair makes is taken from the guard's own repairs, and from nobody else."""

import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch

from guard.core.contracts import Budget
from guard.core.manifest import Manifest, PolarizerPlace
from guard.core.states import ScanState, Verdict
from guard.flow import run_stage
from guard.flow.foreign_layers import FOREIGN_POLARIZER
from guard.flow.signed import signed
from guard.ml.networks import architectures
from guard.ml.seeds import seeded
from guard.store import artifacts
from guard.store.rows import ArtifactKind
from guard.store.session import transaction
from guard.vetting import examine
from tests.flow.place import MANIFEST, Place

PLACE = PolarizerPlace(before="linear", channels=4, conditional=True)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A guard with nothing in it."""
    return Place(tmp_path)


def polarized() -> tuple[bytes, Manifest]:
    """A network with a polarizer whose gradient is zero, as an attacker would declare it."""
    manifest = dataclasses.replace(MANIFEST, polarizer=PLACE)
    with seeded(0):
        tensors = architectures.export(architectures.build(manifest))
    for name, tensor in tensors.items():
        if name.endswith("polarizer.scale"):
            tensor.zero_()
    return safetensors.torch.save(tensors), manifest


def test_an_upload_with_a_repairs_layer_is_refused_with_the_reason(place: Place) -> None:
    data, manifest = polarized()
    scan_id = place.upload(data, manifest=json.dumps(manifest.to_dict()))

    run_stage.work(place.guard, "inspect", scan_id)
    run_stage.work(place.guard, "decide", scan_id)

    (row,) = place.verdicts(scan_id)
    assert row.verdict is Verdict.UNVETTABLE
    assert signed(row.envelope).facts.reasons == (FOREIGN_POLARIZER,)


def test_the_guards_own_repair_comes_back_as_an_upload(place: Place, tmp_path: Path) -> None:
    data, manifest = polarized()
    (tmp_path / "upload").write_bytes(data)
    digest = examine.inspect_upload(
        tmp_path / "upload",
        "model.safetensors",
        json.dumps(manifest.to_dict()).encode(),
        tmp_path,
        budget=Budget(),
    ).digest
    with transaction(place.guard.engine) as session:  # as the purify stage records a candidate
        artifacts.put(
            session,
            digest=digest,
            size=len(data),
            kind=ArtifactKind.PURIFIED,
            now=place.clock,
            manifest=manifest.to_dict(),
        )
    scan_id = place.upload(data, manifest=json.dumps(manifest.to_dict()))

    run_stage.work(place.guard, "inspect", scan_id)

    assert place.scan(scan_id).state is ScanState.DETECTING
