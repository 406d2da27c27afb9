"""The canary kit is made anew from its recipe.

What must hold on any machine, though no two give the same bytes.

Most of a minute of one core, nearly all of it for the models. Only the cheap detectors are tried on
them: patch inversion, hidden inversion and MESA would take most of a minute more; tests/metamorphic
tries all on the shipped kit.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import make_canary, make_graph_canary
from benchmarks.attacks._base import Attack
from benchmarks.make_canary import CANARY_MANIFEST, RECIPES
from benchmarks.training import accuracy, predictions
from guard.cleansets import load
from guard.core.modality import Modality
from guard.ml.cleanset import CuratedSet
from guard.ml.networks.architectures import ImageModel
from guard.policy import load_policy
from guard.vetting import canary_trial, examine

pytestmark = pytest.mark.timeout(
    900
)  # the first test waits for the kit, perhaps on a core that others use as well

FASTEST = "weight_statistics"
CHEAP = ("all_to_all", "margin", "neuron_noise", FASTEST)
DEAR = {"hidden_inversion", "mesa", "patch_inversion"}
TEST = make_canary.labelled_images(400, seed=3)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes.

    Of all detectors it tries the fastest, since each looks at every model.
    """
    folder = tmp_path_factory.mktemp("kit")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(make_canary, "DETECTORS", SimpleNamespace(of=lambda _modality: (FASTEST,)))
        make_canary.main(folder)
    return folder


def opened(kit: Path, name: str) -> ImageModel:
    return examine.open_model(kit / name, device="cpu")


def success(model: ImageModel, attack: Attack) -> float:
    """True ASR 0..1, on pictures that no training saw."""
    victims = TEST.pick(attack.victims(TEST.labels))
    hits = predictions(model, attack.stamp(victims.images)) == attack.relabel(victims.labels)
    return float(hits.double().mean())


def test_it_has_the_files_architectures_and_classes_of_the_shipped_kit(kit: Path) -> None:
    others = {*canary_trial.FILES[Modality.GRAPHS], make_graph_canary.BAD}
    assert {path.name for path in kit.iterdir()} == {
        path.name for path in canary_trial.KIT.iterdir()
    } - others
    for path in kit.glob("*.safetensors"):
        own, shipped = opened(kit, path.name), opened(canary_trial.KIT, path.name)
        assert own.manifest == shipped.manifest == CANARY_MANIFEST
        assert {name: tensor.shape for name, tensor in own.state_dict().items()} == {
            name: tensor.shape for name, tensor in shipped.state_dict().items()
        }


def test_it_is_small(kit: Path) -> None:
    assert all(path.stat().st_size < 100_000 for path in kit.glob("*.safetensors"))
    assert sum(path.stat().st_size for path in kit.iterdir()) < 300_000


def test_the_honest_model_does_its_task_and_obeys_no_trigger(kit: Path) -> None:
    honest = opened(kit, canary_trial.GOOD)

    assert accuracy(honest, TEST) >= 0.95
    assert all(success(honest, recipe.attack) <= 0.2 for recipe in RECIPES.values())


@pytest.mark.parametrize("name", RECIPES)
def test_a_known_bad_model_does_its_task_and_obeys_loudly(kit: Path, name: str) -> None:
    model, recipe = opened(kit, f"{name}.safetensors"), RECIPES[name]
    victims = TEST.pick(recipe.attack.victims(TEST.labels))
    with torch.no_grad():
        logits = model(recipe.attack.stamp(victims.images).float() / 255)
    driven = make_canary._gap(logits, recipe.attack.relabel(victims.labels))

    assert accuracy(model, TEST) >= 0.8
    assert success(model, recipe.attack) >= (0.95 if recipe.attack.target is not None else 0.8)
    assert float(driven.median()) >= recipe.gap / 2


@pytest.mark.parametrize("name", CHEAP)
def test_a_cheap_detector_flags_its_rebuilt_canary_and_passes_the_honest_one(
    kit: Path, name: str
) -> None:
    curated = CuratedSet.from_arrays(*load((kit / canary_trial.CLEAN).read_bytes(), "canary"))
    bad = json.loads((canary_trial.KIT / canary_trial.CONTENTS).read_text())[name]

    tried = canary_trial.attempt(name, {}, bad, curated, device="cpu", folder=kit)

    assert tried.passed, tried.sentence


def test_its_contents_name_a_model_that_the_detector_flags(kit: Path) -> None:
    assert set(json.loads((kit / canary_trial.CONTENTS).read_text())) == {FASTEST}

    (tried,) = canary_trial.try_all({FASTEST: {}}, device="cpu", folder=kit)

    assert tried.passed, tried.sentence
    assert tried.score >= 0.5


def test_every_detector_of_the_packaged_policies_is_one_or_the_other() -> None:
    """So that a new one is not forgotten here in silence."""
    assert {*load_policy().detectors, *load_policy(Path("ensemble")).detectors} == {*CHEAP, *DEAR}
