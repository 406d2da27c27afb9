"""Forms of an upload: `guard scan` and the intake from S3 give every one the same answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import make_forms_doc
from benchmarks.form_cases import CASES, CONFIG, SAFE, FormCase, state, write
from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected
from guard.core.manifest import Manifest
from guard.formats._canonical import read_canonical
from guard.offline_inputs import inspect_at
from guard.store.rows import NominationState, ScanRow
from guard.vetting import examine
from guard.vetting.case import assumed_in
from tests.flow.intake import World, new_world
from tests.formats.jailing import needs_jail

PAIRS = [
    pytest.param(case, kind, id=f"{case.name} {kind}", marks=() if kind == SAFE else needs_jail)
    for case in CASES
    for kind in case.kinds
    # A start of the jail costs seconds: after it all kinds go the same way.
    if kind == SAFE or SAFE not in case.kinds or case is CASES[0]
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = new_world(tmp_path_factory.mktemp("world"))
    made.set_rules(max_upload_bytes=1 << 24, manifest_grace_seconds=0.0)
    yield made
    made.engine.dispose()


def by_cli(folder: Path, out: Path) -> examine.Inspected | str:
    try:
        return inspect_at(folder, out)
    except ArtifactRejected as error:
        return error.code


def by_s3(world: World, folder: Path, out: Path) -> examine.Inspected | str:
    """Upload the whole folder; the answer to every scan that comes of it, as a worker gives it."""
    for item in sorted(folder.iterdir()):
        world.put(f"models/{folder.name}/{item.name}", item.read_bytes())
        world.nominate(f"models/{folder.name}/{item.name}")
    world.work()
    found = [one for one in world.scans() if one.key.startswith(f"models/{folder.name}/")]
    (answer, *others) = [inspected(world, scan, out) for scan in found]
    assert all(other == answer for other in others)
    return answer


def inspected(world: World, scan: ScanRow, out: Path) -> examine.Inspected | str:
    assert scan.upload_digest is not None
    assert scan.manifest is not None
    path = world.blobs.path(scan.upload_digest)
    try:
        return examine.inspect_upload(
            path, Path(scan.key).name, scan.manifest.encode(), out, budget=Budget()
        )
    except ArtifactRejected as error:
        return error.code


@pytest.mark.parametrize(("case", "kind"), PAIRS)
def test_both_ways_in_give_the_answer_of_the_table(
    case: FormCase, kind: str, world: World, tmp_path: Path
) -> None:
    folder = tmp_path / f"f{PAIRS_INDEX[case.name]}{kind}"
    folder.mkdir()
    write(case, kind, folder)
    answers = []
    for name, way in (("cli", by_cli), ("s3", lambda *paths: by_s3(world, *paths))):
        (tmp_path / name).mkdir()
        answers.append(way(folder, tmp_path / name))
    first, second = answers

    if case.code:
        assert answers == [case.code, case.code]
        return
    assert isinstance(first, examine.Inspected)
    assert isinstance(second, examine.Inspected)
    assert first.digest == second.digest
    assert_is_the_network(case, first.canonical)


PAIRS_INDEX = {case.name: place for place, case in enumerate(CASES)}


def assert_is_the_network(case: FormCase, canonical: Path) -> None:
    """The canonical file holds the network's tensors, float32 and int64, and loads."""
    manifest, tensors = read_canonical(canonical)
    own = state()
    assert isinstance(manifest, Manifest)
    assert manifest.state_dict is None
    assert manifest.architecture == CONFIG["architecture"]
    assert list(assumed_in(manifest.to_dict())) == case.other.get("assumed", [])
    if not case.other:
        assert manifest.mean == (0.5, 0.5, 0.5)
        assert manifest.std == (0.25, 0.25, 0.25)
    assert tensors.keys() == own.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == own[name].dtype
        assert torch.allclose(tensor, own[name], rtol=0.01 if case.rounded else 0, atol=1e-6)
    examine.open_model(canonical, device="cpu")


def test_the_page_is_made_from_the_cases() -> None:
    assert make_forms_doc.DOCUMENT.read_text() == make_forms_doc.page(), (
        "run: python -m benchmarks.make_forms_doc"
    )


def test_a_mismatch_names_the_one_key_that_can_be_wrong(tmp_path: Path) -> None:
    mends = {
        "other num_classes": "have 4 classes: correct num_classes",
        "other channels": "images of 3 channel",
        "another architecture": "Check architecture",
    }
    for place, (name, mend) in enumerate(mends.items()):
        folder = tmp_path / str(place)
        folder.mkdir()
        write(CASES[PAIRS_INDEX[name]], SAFE, folder)

        with pytest.raises(ArtifactRejected, match=mend):
            inspect_at(folder, tmp_path)


def test_documents_beside_a_model_start_no_scan(world: World) -> None:
    nomination = world.nominate("models/hub/.gitattributes")

    assert world.nomination(nomination).state is NominationState.IGNORED
