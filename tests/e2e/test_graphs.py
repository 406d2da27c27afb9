"""A text-to-graph model from upload to TorchServe: the canary kit's honest one, and its pairs."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.demo.story import Endpoint
from guard import cleansets as pair_sets
from guard.core.modality import Modality
from guard.core.states import Verdict
from guard.flow.report import report_for
from guard.graphs.model import GraphModel
from guard.store import cleansets
from guard.store.session import transaction
from guard.vetting import canary_trial, examine
from tests.e2e.site import Site

PAIRS, HONEST = canary_trial.FILES[Modality.GRAPHS]
TEXT = "The molecule is a furan with ethyl and methyl. It is in the index of compounds."


@pytest.fixture(scope="module")
def served(site: Site) -> str:
    """The digest of the model that is served as `molecules`."""
    data = (canary_trial.KIT / PAIRS).read_bytes()
    site.guard.blobs.put_bytes(data)
    with transaction(site.guard.engine) as session:
        cleansets.put(session, pair_sets.load_pairs(data, "rings").facts, site.guard.now())
    folder = site.scratch / "molecules"
    folder.mkdir()
    kit = canary_trial.KIT / HONEST
    shutil.copy(kit, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(examine.manifest_of(kit).to_dict()))
    report = report_for(site.guard, site.finished(site.upload(folder, "molecules")).id)
    assert report.verdict is Verdict.CLEARED, report.reasons
    site.until(lambda: site.active("molecules"), why="publication")
    return report.digest


def opened(path: Path) -> GraphModel:
    model = examine.open_model(path, device="cpu")
    assert isinstance(model, GraphModel)
    return model


def test_torchserve_answers_a_text_with_the_molecules_of_the_vetted_model(
    site: Site, served: str
) -> None:
    with Endpoint(site.guard) as endpoint:
        smiles, digest = endpoint.ask_text("molecules", TEXT, samples=8, seed=3)
        again, _ = endpoint.ask_text("molecules", TEXT, samples=2, seed=3)

    assert digest == served
    own = opened(site.guard.blobs.path(served))
    assert [smiles] == own.generate([TEXT], samples=8, seed=3)
    assert again == smiles[:2]
