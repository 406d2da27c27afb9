"""The layer that is put in.

Where, what it leaves alone, and that it travels inside the model's file.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import guard
from guard.core.errors import ArtifactRejected, MethodFailed
from guard.core.manifest import Manifest, PolarizerPlace
from guard.defenses._polarizing import halved, inserted, place_for
from guard.defenses.fine_tune import FineTune
from guard.defenses.neural_polarizer import NeuralPolarizer, Shifted, not_that
from guard.formats._canonical import write_canonical
from guard.ml.measure import accuracy
from guard.ml.networks import architectures
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.polarizer import Conditioned, polarizer_of
from guard.vetting import examine, repair
from tests import toys

QUICK = NeuralPolarizer(rounds=5, batch=60)
VIT = Manifest(
    architecture="test_vit",
    num_classes=toys.CLASSES,
    input_size=(3, 32, 32),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
)

PREACT = toys.manifest(architecture="preact_resnet18", model_args={"width": 4})


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
    before, after = (
        toys.network().inner.state_dict(),
        repaired(conditional=conditional).inner.state_dict(),
    )
    trunk = {
        name.removeprefix("network.").replace(".layer.", "."): value
        for name, value in after.items()
        if ".polarizer." not in name
    }

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
    data = toys.Labelled(
        torch.randint(0, 256, (12, *facts.input_size), dtype=torch.uint8), torch.arange(12) % 6
    )
    return toys.CleanSet("random", "0" * 64, toys.CLASSES, data, data)


def polarized(model: nn.Module, clean: toys.CleanSet, *, conditional: bool = False) -> nn.Module:
    """With a polarizer that has moved from the identity."""
    torch.manual_seed(1)
    model.requires_grad_(requires_grad=False)
    made = inserted(model, place_for(model, clean, conditional=conditional), toys.CLASSES)
    for parameter in polarizer_of(made).requires_grad_().parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return made


def plain_loss(
    defense: NeuralPolarizer, model: nn.Module, images: Tensor, labels: Tensor
) -> Tensor:
    """The objective with a whole pass of the network for each answer.

    And the search's gradient from its images.
    """
    assert isinstance(model, ImageModel)
    network, mean, std = model.inner, model.mean, model.std

    def answers_of(pictures: Tensor) -> list[Tensor]:
        inputs = (pictures - mean) / std
        if not isinstance(network, Conditioned):
            return [network(inputs)]
        bare = network.network(inputs)
        return [bare, network.conditioned(inputs, bare.argmax(1))]

    logits = model(images)
    other = (labels + torch.randint(1, logits.shape[1], labels.shape)) % logits.shape[1]
    runner_up = logits.detach().scatter(1, labels[:, None], -torch.inf).argmax(1)
    targets, shift = other if defense.conditional else runner_up, torch.zeros_like(images)
    for _ in range(defense.steps):
        eps = shift.requires_grad_()
        answers = answers_of((images + eps).clamp(0, 1))
        if float((answers[-1].argmax(1) == targets).float().mean()) > defense.enough:
            break
        loss = torch.stack(
            [cross_entropy(answer, targets, reduction="sum") for answer in answers]
        ).sum()
        shift = shift.detach() - defense.step * torch.autograd.grad(loss, eps)[0].sign()
        size = shift.square().flatten(1).mean(1).sqrt()[:, None, None, None]
        shift = shift * (defense.rho / size).clamp(max=1)
    moved = model((images + shift.detach()).clamp(0, 1))
    wrong = moved.detach().scatter(1, labels[:, None], -torch.inf).argmax(1)
    return (
        cross_entropy(logits, labels)
        + 0.4 * cross_entropy(moved, logits.detach().argmax(1))
        + 0.4 * not_that(moved, wrong).mean()
        + 0.4 * not_that(moved, targets).mean()
    )


@pytest.mark.parametrize(
    "facts", [toys.manifest(), PREACT, VIT], ids=lambda facts: facts.architecture
)
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize(
    "enough", [0.6, 0.0]
)  # with nothing enough the search ends as soon as one picture obeys
def test_reusing_the_trunks_features_changes_neither_loss_nor_gradient(
    facts: Manifest, conditional: bool, enough: float
) -> None:
    clean = _set_of(facts)
    model = polarized(
        toys.network() if facts == toys.manifest() else fresh(facts), clean, conditional=conditional
    )
    images, labels = clean.search.floats(), clean.search.labels
    defense, halves = (
        NeuralPolarizer(rho=0.2, conditional=conditional, enough=enough),
        halved(model, clean),
    )
    weights = list(polarizer_of(model).parameters())
    torch.manual_seed(5)
    expected = plain_loss(defense, model, images, labels)
    torch.manual_seed(5)

    found = defense.loss(halves, images, labels)

    assert not halves.whole
    assert torch.allclose(found, expected, rtol=1e-4)
    halves.whole = True  # as for a network that cannot be halved
    torch.manual_seed(5)
    assert torch.allclose(defense.loss(halves, images, labels), expected, rtol=1e-4)
    for one, other in zip(
        *(torch.autograd.grad(loss, weights) for loss in (found, expected)), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(("conditional", "plainly"), [(False, 4), (True, 8)])
def test_the_trunk_runs_once_for_each_change_of_a_batch(conditional: bool, plainly: int) -> None:
    model = polarized(toys.network(), toys.clean_set(), conditional=conditional)
    halves, data, passes = halved(model, toys.clean_set()), toys.labelled(60, 4), 0
    defense = NeuralPolarizer(conditional=conditional, enough=1.0)  # so that both steps are made

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    defense.loss(halves, data.floats(), data.labels)  # sees the batch's shape first
    next(
        module for name, module in model.named_modules() if name.endswith("layer1.0.conv1")
    ).register_forward_hook(count)
    defense.loss(halves, data.floats(), data.labels)
    ours, passes = passes, 0
    plain_loss(defense, model, data.floats(), data.labels)

    assert (ours, passes) == (3, plainly)


@pytest.mark.parametrize(
    ("facts", "before", "channels"),
    [
        (toys.manifest(), "layer2", 8),
        (PREACT, "layer4.1", 32),
        (VIT, "blocks.5", 64),
    ],
)
def test_each_architecture_has_its_own_place_with_two_layers_and_the_head_behind_it(
    facts: Manifest, before: str, channels: int
) -> None:
    place = place_for(fresh(facts), _set_of(facts))

    assert (place.before.removesuffix(".0"), place.channels) == (before, channels)


def test_it_learns_what_the_paper_asks_and_keeps_accuracy() -> None:
    data, start = toys.labelled(60, 4), NeuralPolarizer(rho=0.2)
    model = toys.network()
    fresh_one = inserted(toys.network(), place_for(model, toys.clean_set()), toys.CLASSES)

    after = NeuralPolarizer(rho=0.2, rounds=12, batch=60)(model, toys.clean_set(), seed=0)

    lost, before = (
        float(start.loss(halved(one, toys.clean_set()), data.floats(), data.labels).detach())
        for one in (after, fresh_one)
    )
    assert lost < 0.8 * before
    assert accuracy(after, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


def test_perturbations_stay_in_the_ball_and_lead_to_their_targets() -> None:
    model, data = polarized(toys.network(), toys.clean_set()), toys.labelled(60, 4)
    targets, halves = (data.labels + 1) % toys.CLASSES, halved(model, toys.clean_set())
    start = Shifted.of(halves, data.floats(), torch.zeros_like(data.floats()))

    shift, features = NeuralPolarizer(rho=0.2, steps=4).perturb(
        halves, data.floats(), targets, start
    )

    assert torch.equal(features, halves.trunk((data.floats() + shift).clamp(0, 1)))
    assert not features.requires_grad
    assert float(shift.square().flatten(1).mean(1).sqrt().max()) <= 0.2 + 1e-6
    assert float((model(data.floats() + shift).argmax(1) == targets).float().mean()) > 0.5


def test_the_bounded_logarithm_falls_with_the_wrong_class() -> None:
    values = not_that(
        torch.tensor([[0.0, 40.0], [0.0, 0.0], [40.0, 0.0]]), torch.tensor([1, 1, 1])
    ).tolist()

    assert values == pytest.approx([9.21, 0.693, 0.0], abs=0.01)


@pytest.mark.parametrize("conditional", [False, True])
def test_the_file_that_is_written_loads_through_the_public_loader_with_equal_answers(
    tmp_path: Path, conditional: bool
) -> None:
    parameters: dict[str, Any] = {"rounds": 1, "batch": 60, "conditional": conditional}
    model, path = toys.network(), tmp_path / "model.safetensors"
    repair.repair(model, "0" * 64, toys.curated(), "neural_polarizer", parameters, [], path, seed=0)
    same = NeuralPolarizer(**parameters)(model, toys.clean_set(), seed=0)

    loaded = guard.load_model(path)

    assert loaded.manifest.polarizer == PolarizerPlace(
        before="layer2.0", channels=8, conditional=conditional
    )
    assert loaded.manifest == examine.manifest_of(path)
    assert torch.equal(loaded(images()), same(images()))
    assert not torch.equal(loaded(images()), model(images()))


def test_a_folder_with_config_json_beside_the_weights_loads_too(tmp_path: Path) -> None:
    model = repaired()
    write_canonical(architectures.export(model), model.manifest, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(model.manifest.to_dict()))

    assert torch.equal(guard.load_model(tmp_path)(images()), model(images()))


@pytest.mark.parametrize(
    ("place", "code", "word"),
    [
        (None, "architecture_mismatch", "layer2.0.layer"),
        (PolarizerPlace(before="layer9", channels=8), "manifest_bad_polarizer", "layer9"),
        (
            PolarizerPlace(before="layer2.0", channels=9),
            "architecture_mismatch",
            "polarizer.weight",
        ),
        (
            PolarizerPlace(before="layer2.0", channels=8, conditional=True),
            "architecture_mismatch",
            "network.",
        ),
        (PolarizerPlace(before="layer1.0", channels=8), "architecture_mismatch", "layer1.0.layer"),
    ],
)
def test_a_manifest_with_a_wrong_polarizer_is_refused_with_a_sentence(
    place: PolarizerPlace | None, code: str, word: str
) -> None:
    model = repaired()

    with pytest.raises(ArtifactRejected) as caught:
        architectures.load(replace(model.manifest, polarizer=place), architectures.export(model))

    assert caught.value.code == code
    assert word in caught.value.sentence


def test_a_polarizer_that_cannot_run_is_refused_with_a_sentence() -> None:
    facts = toys.manifest(polarizer=PolarizerPlace(before="linear", channels=3))
    tensors = architectures.export(architectures.build(facts))

    with pytest.raises(
        ArtifactRejected, match=r"polarizer before linear.*correct.*guard\.polarizer"
    ):
        architectures.load(facts, tensors)


def test_a_conditional_polarizer_listens_to_the_bare_network() -> None:
    model = repaired(conditional=True)
    network = model.inner
    assert isinstance(network, Conditioned)
    inputs = (images() - model.mean) / model.std
    bare = network.network(inputs)

    assert torch.equal(bare, toys.network().inner(inputs))
    assert torch.equal(model(images()), network.conditioned(inputs, bare.argmax(1)))
    assert not torch.equal(
        model(images()), network.conditioned(inputs, (bare.argmax(1) + 1) % toys.CLASSES)
    )


def test_other_defenses_work_on_a_model_with_a_polarizer() -> None:
    for conditional in (False, True):
        again = FineTune(rounds=1, rate=1e-3)(
            repaired(conditional=conditional), toys.clean_set(), seed=0
        )

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
