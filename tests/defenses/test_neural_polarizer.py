"""The layer that is put in: where, what it leaves alone, and that it travels inside the model's file."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import guard
from guard.core.errors import ArtifactRejected, MethodFailed
from guard.core.manifest import Manifest, PolarizerPlace
from guard.defenses._polarizing import inserted, place_for
from guard.defenses.fine_tune import FineTune
from guard.defenses.neural_polarizer import NeuralPolarizer, not_that
from guard.flow import repair, vet
from guard.formats._canonical import write_canonical
from guard.ml import architectures
from guard.ml.architectures import ImageModel
from guard.ml.measure import accuracy
from guard.ml.polarizer import Conditioned, polarizer_of
from tests import toys

QUICK = NeuralPolarizer(rounds=5, batch=60)
VIT = Manifest(architecture="test_vit", num_classes=toys.CLASSES, input_size=(3, 32, 32), mean=(0.5,) * 3,
               std=(0.5,) * 3)


@cache
def repaired(*, conditional: bool = False) -> ImageModel:
    model = replace(QUICK, conditional=conditional)(toys.network(), toys.clean_set(), seed=0)
    assert isinstance(model, ImageModel)
    return model


def fresh(facts: Manifest) -> ImageModel:
    torch.manual_seed(0)
    return architectures.wrap(facts, architectures.build(facts)).eval()


def images() -> torch.Tensor:
    return toys.labelled(24, 7).floats()


@pytest.mark.parametrize("conditional", [False, True])
def test_the_trunk_is_left_to_the_bit_and_the_polarizer_has_moved(conditional: bool) -> None:
    before, after = toys.network().inner.state_dict(), repaired(conditional=conditional).inner.state_dict()
    trunk = {name.removeprefix("network.").replace(".layer.", "."): value for name, value in after.items()
             if ".polarizer." not in name}

    assert before.keys() == trunk.keys()
    assert all(torch.equal(before[name], trunk[name]) for name in before)
    assert not torch.equal(polarizer_of(repaired(conditional=conditional)).weight, torch.eye(8))


@pytest.mark.parametrize("facts", [toys.manifest(), VIT], ids=["convolution", "transformer"])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_fresh_polarizer_changes_no_answer(facts: Manifest, conditional: bool) -> None:
    model, pictures = fresh(facts), torch.rand(4, *facts.input_size)
    before = model(pictures)
    found = place_for(model, _set_of(facts), conditional=conditional)

    after = inserted(model, found, facts.num_classes)

    assert torch.allclose(after(pictures), before, atol=1e-5)


def _set_of(facts: Manifest) -> toys.CleanSet:
    data = toys.Labelled(torch.randint(0, 256, (12, *facts.input_size), dtype=torch.uint8), torch.arange(12) % 6)
    return toys.CleanSet("random", "0" * 64, toys.CLASSES, data, data)


@pytest.mark.parametrize(("facts", "before", "channels"), [
    (toys.manifest(), "layer2", 8),
    (toys.manifest(architecture="preact_resnet18", model_args={"width": 4}), "layer4.1", 32),
    (VIT, "blocks.5", 64),
])
def test_each_architecture_has_its_own_place_with_two_layers_and_the_head_behind_it(
        facts: Manifest, before: str, channels: int) -> None:
    place = place_for(fresh(facts), _set_of(facts))

    assert (place.before.removesuffix(".0"), place.channels) == (before, channels)


def test_it_learns_what_the_paper_asks_and_keeps_accuracy() -> None:
    data, start = toys.labelled(60, 4), NeuralPolarizer(rho=0.2)
    model = toys.network()
    fresh_one = inserted(toys.network(), place_for(model, toys.clean_set()), toys.CLASSES)

    after = NeuralPolarizer(rho=0.2, rounds=12, batch=60)(model, toys.clean_set(), seed=0)

    torch.manual_seed(0)
    assert start.loss(after, data.floats(), data.labels) < 0.8 * start.loss(fresh_one, data.floats(), data.labels)
    assert accuracy(after, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


def test_perturbations_stay_in_the_ball_and_lead_to_their_targets() -> None:
    model, data = toys.network(), toys.labelled(60, 4)
    targets = (data.labels + 1) % toys.CLASSES
    defense = NeuralPolarizer(rho=0.2, steps=4)

    shift = defense.perturb(model, data.floats(), targets)

    assert float(shift.square().flatten(1).mean(1).sqrt().max()) <= 0.2 + 1e-6
    assert float((model(data.floats() + shift).argmax(1) == targets).float().mean()) > 0.5


def test_the_bounded_logarithm_falls_with_the_wrong_class() -> None:
    values = not_that(torch.tensor([[0.0, 40.0], [0.0, 0.0], [40.0, 0.0]]), torch.tensor([1, 1, 1])).tolist()

    assert values == pytest.approx([9.21, 0.693, 0.0], abs=0.01)


@pytest.mark.parametrize("conditional", [False, True])
def test_the_file_that_is_written_loads_through_the_public_loader_with_equal_answers(
        tmp_path: Path, conditional: bool) -> None:
    parameters = {"rounds": 1, "batch": 60, "conditional": conditional}
    model, path = toys.network(), tmp_path / "model.safetensors"
    repair.repair(model, "0" * 64, toys.curated(), "neural_polarizer", parameters, [], path, seed=0)
    same = NeuralPolarizer(**parameters)(model, toys.clean_set(), seed=0)

    loaded = guard.load_model(path)

    assert loaded.manifest.polarizer == PolarizerPlace(before="layer2.0", channels=8, conditional=conditional)
    assert loaded.manifest == vet.manifest_of(path)
    assert torch.equal(loaded(images()), same(images()))
    assert not torch.equal(loaded(images()), model(images()))


def test_a_folder_with_config_json_beside_the_weights_loads_too(tmp_path: Path) -> None:
    model = repaired()
    write_canonical(architectures.export(model), model.manifest, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(model.manifest.to_dict()))

    assert torch.equal(guard.load_model(tmp_path)(images()), model(images()))


@pytest.mark.parametrize(("place", "code", "word"), [
    (None, "architecture_mismatch", "layer2.0.layer"),
    (PolarizerPlace(before="layer9", channels=8), "manifest_bad_polarizer", "layer9"),
    (PolarizerPlace(before="layer2.0", channels=9), "architecture_mismatch", "polarizer.weight"),
    (PolarizerPlace(before="layer2.0", channels=8, conditional=True), "architecture_mismatch", "network."),
    (PolarizerPlace(before="layer1.0", channels=8), "architecture_mismatch", "layer1.0.layer"),
])
def test_a_manifest_with_a_wrong_polarizer_is_refused_with_a_sentence(
        place: PolarizerPlace | None, code: str, word: str) -> None:
    model = repaired()

    with pytest.raises(ArtifactRejected) as caught:
        architectures.load(replace(model.manifest, polarizer=place), architectures.export(model))

    assert caught.value.code == code
    assert word in caught.value.sentence


def test_a_polarizer_that_cannot_run_is_refused_with_a_sentence() -> None:
    facts = toys.manifest(polarizer=PolarizerPlace(before="linear", channels=3))
    tensors = architectures.export(architectures.build(facts))

    with pytest.raises(ArtifactRejected, match=r"polarizer before linear.*correct.*guard\.polarizer"):
        architectures.load(facts, tensors)


def test_a_conditional_polarizer_listens_to_the_bare_network() -> None:
    model = repaired(conditional=True)
    network = model.inner
    assert isinstance(network, Conditioned)
    inputs = (images() - model.mean) / model.std
    bare = network.network(inputs)

    assert torch.equal(bare, toys.network().inner(inputs))
    assert torch.equal(model(images()), network.told(inputs, bare.argmax(1)))
    assert not torch.equal(model(images()), network.told(inputs, (bare.argmax(1) + 1) % toys.CLASSES))


def test_other_defenses_work_on_a_model_with_a_polarizer() -> None:
    for conditional in (False, True):
        again = FineTune(rounds=1, rate=1e-3)(repaired(conditional=conditional), toys.clean_set(), seed=0)

        assert accuracy(again, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


def test_a_second_polarizer_is_refused() -> None:
    with pytest.raises(MethodFailed) as caught:
        QUICK(repaired(), toys.clean_set(), seed=0)

    assert caught.value.code == "polarized"


def test_a_network_without_a_place_is_named() -> None:
    with pytest.raises(MethodFailed) as caught:
        QUICK(toys.planted(), toys.clean_set(), seed=0)

    assert caught.value.code == "no_place"
    with pytest.raises(MethodFailed, match="no layer"):
        QUICK(nn.Sequential(nn.Flatten(), nn.Linear(144, toys.CLASSES)), toys.clean_set(), seed=0)
