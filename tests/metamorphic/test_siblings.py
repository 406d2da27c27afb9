"""Further ways to keep a network's answers and stop a search: where each is stopped.

Each either changes nothing that a detector says, or no detector that searches counts as having
looked. What is refused before (other dtypes, a `std` of nearly zero) is in tests/formats and
tests/core.
"""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.modality import Modality
from guard.detectors import DETECTORS
from guard.ml.cleanset import CleanSet
from guard.ml.networks import architectures
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.canonical_form import canonical_form
from guard.ml.search.mobility import mobility
from guard.ml.seeds import seeded
from guard.vetting import canary_trial
from tests.metamorphic.test_detectors import (
    QUICK,
    SAME_SCORE,
    backdoored_for,
    model,
    plainly,
    suspects,
    worst,
)
from tests.rewrites import (
    Rewrite,
    head_scaled,
    in_half_precision,
    last_block_scaled,
    logits_moved,
    rewritten,
    stream_scaled,
)

#: It moves the network's neurons, and looks at clean images alone.
AT_CLEAN_IMAGES = "neuron_noise"
SEARCHES = sorted(name for name in DETECTORS.of(Modality.IMAGES) if DETECTORS.get(name).searches)


@pytest.fixture(scope="module")
def clean() -> CleanSet:
    return canary_trial.clean_set().visible()


def variance_zero(net: Any) -> None:
    """A norm that divides by the square root of its epsilon alone."""
    for norm, conv in ((net.layer2[0].bn1, net.layer2[0].conv1), (net.bn1, net.conv1)):
        factor = (norm.eps / (norm.running_var + norm.eps)).sqrt()
        conv.weight *= factor.view(-1, 1, 1, 1)
        norm.running_mean *= factor
        norm.running_var.zero_()


def unread_channel(net: Any) -> None:
    """A channel whose weights are enormous, and which nothing reads."""
    net.layer2[0].conv2.weight[:, 0] = 0
    net.layer2[0].bn1.weight[0] = 1e30


#: Another set of weights for the same answers; the detectors must say the same.
SAME_ANSWERS: dict[str, Rewrite] = {
    "a norm's variance is 0": variance_zero,
    "weights and activations near the smallest numbers": last_block_scaled(1e-36),
    "weights and activations near the largest numbers": last_block_scaled(1e30),
    "denormal head": head_scaled(1e-39),
    "a million on every logit": logits_moved(1e6),
    "a denormal stream, read by an enormous head": stream_scaled(1e-36),
}


@pytest.mark.threat("B08")
@pytest.mark.parametrize("name", SAME_ANSWERS)
@pytest.mark.parametrize("detector", QUICK)
def test_the_same_answers_from_stranger_weights_change_nothing(
    detector: str, name: str, clean: CleanSet
) -> None:
    method = DETECTORS.get(detector)()
    for file in (backdoored_for(detector), canary_trial.GOOD):
        before = plainly(detector, file)
        after = method(rewritten(model(file), SAME_ANSWERS[name]), clean, seed=0)

        assert worst(after).score == pytest.approx(worst(before).score, abs=SAME_SCORE)
        assert suspects(after) == suspects(before)


def lost_in_float16(net: Any) -> None:
    """A small head, rounded to float16, is nothing."""
    head_scaled(1e-9)(net)
    in_half_precision(net)


def one_class_only(net: Any) -> None:
    net.linear.bias[0] += 1e6


def dead_by_bias(net: Any) -> None:
    """No channel of the last stream is ever above zero."""
    net.layer2[0].bn2.bias -= 1e6
    net.layer2[0].shortcut[1].bias -= 1e6


def negative_variance(net: Any) -> None:
    net.bn1.running_var.fill_(-1.0)


#: What takes the answers away as well: no detector may pass it.
NO_ANSWERS: dict[str, tuple[Rewrite, set[str]]] = {
    "a head lost in float16": (lost_in_float16, {"near_chance"}),
    "a million on one class": (one_class_only, {"near_chance", "cannot_move"}),
    "every channel dead": (dead_by_bias, {"near_chance", "cannot_move"}),
    "a negative variance": (negative_variance, {"non_finite"}),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
@pytest.mark.parametrize("detector", DETECTORS.of(Modality.IMAGES))
def test_a_network_that_lost_its_answers_is_never_looked_at(
    detector: str, name: str, clean: CleanSet
) -> None:
    rewrite, codes = NO_ANSWERS[name]

    with pytest.raises(MethodFailed) as caught:
        DETECTORS.get(detector)()(rewritten(model(canary_trial.GOOD), rewrite), clean, seed=0)

    assert caught.value.code in codes


def looks(images: Tensor) -> Tensor:
    """How bright and how rough float images N,C,H,W are: N,2."""
    rough = images.diff(dim=3).abs().mean((1, 2, 3))
    return torch.stack([images.mean((1, 2, 3)), rough], 1)


class Trap(nn.Module):
    """The answers of `network` on images as bright and rough as clean ones, NaN on all others."""

    def __init__(self, network: nn.Module, clean: CleanSet) -> None:
        super().__init__()
        self.network = network
        own = looks(clean.together().floats())
        self.low, self.high = own.amin(0) - 1e-6, own.amax(0) + 1e-6

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        own = looks(images.detach())
        usual = ((own >= self.low) & (own <= self.high)).all(1)
        return logits.where(usual[:, None], torch.nan)


@pytest.mark.parametrize("detector", sorted({*SEARCHES} - {AT_CLEAN_IMAGES}))
def test_a_search_that_meets_images_without_an_answer_has_not_looked(
    detector: str, clean: CleanSet
) -> None:
    method = DETECTORS.get(detector)
    trap = Trap(model(backdoored_for(detector)), clean).eval()

    with pytest.raises(MethodFailed) as caught:
        method(**method.quick())(trap, clean, seed=0)

    assert caught.value.code in {"non_finite", "cannot_move"}


def test_a_search_at_clean_images_alone_finds_what_it_finds_without_the_trap(
    clean: CleanSet,
) -> None:
    method = DETECTORS.get(AT_CLEAN_IMAGES)
    plain = model(backdoored_for(AT_CLEAN_IMAGES))

    before, after = (
        method(**method.quick())(network, clean, seed=0)
        for network in (plain, Trap(plain, clean).eval())
    )

    assert [(one.target, one.score) for one in after] == [(one.target, one.score) for one in before]


def chosen(**arguments: object) -> ImageModel:
    """A timm network of the canaries' image size, with constructor arguments of an uploader."""
    manifest = dataclasses.replace(
        model(canary_trial.GOOD).manifest,
        architecture="resnet10t",
        model_args={"channels": [8, 8, 8, 8], "stem_width": 8, "base_width": 64, **arguments},
    )
    with seeded(0):
        return architectures.wrap(manifest, architectures.build(manifest)).eval()


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "hard_sigmoid"])
def test_a_saturating_activation_that_an_uploader_may_choose_gives_a_search_no_slope(
    activation: str, clean: CleanSet
) -> None:
    network = chosen(act_layer=activation)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1e6)

    form = canonical_form(network, clean.search).model.requires_grad_(False)

    assert not mobility(form, clean.search, 10).enough


@pytest.mark.threat("B09")
def test_dropout_is_off_while_a_detector_looks(clean: CleanSet) -> None:
    plain, dropping = chosen(), chosen(drop_rate=0.9)
    dropping.train()
    dropping.inner.load_state_dict(plain.inner.state_dict())

    form = canonical_form(dropping, clean.search).model
    with torch.no_grad():
        answers = [form(clean.search.floats()) for _ in range(2)]

    assert torch.equal(*answers)
    assert dropping.training
