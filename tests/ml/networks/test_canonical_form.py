"""The canonical form: the same function, and the same weights however an upload was rewritten."""

import copy

import pytest
import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.core.manifest import Manifest
from guard.ml.cleanset import Labelled
from guard.ml.networks import architectures
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.canonical_form import MARGINS, Rescaled, canonical_form
from guard.ml.seeds import seeded
from tests import toys
from tests.rewrites import REWRITES, Rewrite, head_scaled, permuted, rewritten

ARCHITECTURES = {
    "preact_resnet18": {"width": 4},
    "cifar_vgg19_bn": {"width": 4},
    "torchvision.resnet18": {},
    "mobilenetv2_050": {},  # depthwise convolutions
    "resnext50_32x4d": {},  # grouped convolutions
    "convnext_atto": {},  # layer norms and GELU: nothing is free
    "vit_tiny_patch16_224": {"img_size": 16, "patch_size": 8},
}


def images(channels: int = 3, size: int = 16) -> Labelled:
    generator = torch.Generator().manual_seed(1)
    data = torch.rand(32, channels, size, size, generator=generator) * 255
    return Labelled(data.to(torch.uint8), torch.arange(32) % 10)


def network(name: str, channels: int = 3, size: int = 16, **args: object) -> ImageModel:
    """Random weights, and norms whose statistics are no longer those of a fresh one."""
    manifest = Manifest.from_dict(
        {
            "architecture": name,
            "num_classes": 10,
            "model_args": args,
            "pretrained_cfg": {"input_size": [channels, size, size], "mean": 0.5, "std": 0.25},
        }
    )
    with seeded(0):
        model = architectures.wrap(manifest, architectures.build(manifest)).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2)
                module.running_mean.normal_(0, 0.1)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
        return model


def small() -> ImageModel:
    return network("cifar_resnet", depths=[1, 1], width=8)


def margin(logits: torch.Tensor) -> float:
    top = logits.detach().topk(2, dim=1).values
    return float((top[:, 0] - top[:, 1]).mean())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_computes_the_same_up_to_the_scale_of_its_logits(name: str) -> None:
    size = ARCHITECTURES[name].get("img_size", 32)
    model, data = network(name, size=size, **ARCHITECTURES[name]), images(size=size)

    found = canonical_form(model, data)

    with torch.no_grad():
        before, after = model(data.floats()), found.model(data.floats())
    wanted = min(max(margin(before), MARGINS[0]), MARGINS[1])
    assert margin(after) == pytest.approx(wanted, rel=1e-3)
    centred = before - before.mean(1, keepdim=True)
    assert torch.allclose(after, centred * wanted / margin(before), atol=2e-3 * wanted)
    assert found.moved <= 1e-3
    assert (found.balanced > 0) == (name not in {"convnext_atto", "vit_tiny_patch16_224"})


@pytest.mark.parametrize("name", REWRITES)
def test_a_rewritten_network_has_the_same_canonical_form(name: str) -> None:
    data = images()
    # Its margin is the largest that is left alone, so that every factor on the logits is undone.
    model = small()
    model = rewritten(model, head_scaled(MARGINS[1] / margin(model(data.floats()))))
    other = rewritten(model, REWRITES[name])
    if name == "head x 1e-6":
        model = rewritten(model, head_scaled(MARGINS[0] / MARGINS[1]))

    one, two = (canonical_form(each, data).model.state_dict() for each in (model, other))

    for key, tensor in one.items():
        if key.endswith("num_batches_tracked"):
            continue
        scale = tensor.abs().max().clamp(min=1e-6)
        assert torch.allclose(two[key], tensor, atol=2e-3 * float(scale)), key


def test_channels_in_another_order_keep_their_order_and_nothing_else_changes() -> None:
    model, data = small(), images()
    other = rewritten(model, permuted())

    one, two = (canonical_form(each, data).model.inner for each in (model, other))

    for before, after in zip(
        one.get_submodule("layer1").children(), two.get_submodule("layer1").children(), strict=True
    ):
        lengths = [
            block.conv1.weight.flatten(1).norm(dim=1).sort().values for block in (before, after)
        ]
        assert torch.allclose(lengths[0], lengths[1], rtol=1e-3)


def test_the_callers_model_is_left_as_it_was() -> None:
    model = small()
    before = copy.deepcopy(model.state_dict())

    canonical_form(model, images())

    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


class Squashed(nn.Module):
    """Something follows the last layer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * self.inner(x).log_softmax(1)


def test_where_something_follows_the_head_the_logits_are_scaled_instead() -> None:
    found = canonical_form(Squashed(small()).eval(), images())

    assert isinstance(found.model, Rescaled)
    with torch.no_grad():
        assert margin(found.model(images().floats())) == pytest.approx(MARGINS[0], rel=1e-3)


class Twice(nn.Module):
    """One convolution used twice: its channels' scale is not free."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.stem(x).relu()).relu()
        return self.head(self.conv(x).relu().mean((2, 3)))


def test_a_layer_that_is_used_twice_is_not_rescaled() -> None:
    with seeded(3):
        model = Twice().eval()
    found = canonical_form(model, images())

    own = found.model
    assert isinstance(own, Twice)
    assert torch.equal(own.conv.weight, model.conv.weight)
    assert found.moved <= 1e-3


class Crossed(nn.Module):
    """Rows of a map stand where channels stood: their scales are not the channels' own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.row, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.conv(x).relu().mean(1)
        return self.head(self.row(rows).relu().mean(1))


@pytest.mark.parametrize(("factor", "refused"), [(1.0, False), (1e4, True)])
def test_scales_that_cannot_be_undone_are_left_alone_or_refused_if_they_are_a_rewritings(
    factor: float, refused: bool
) -> None:
    with seeded(3):
        model = Crossed().eval()
    with torch.no_grad():
        model.conv.weight[0] *= factor
    data = images(size=10)

    if refused:
        with pytest.raises(MethodFailed, match="cannot be undone"):
            canonical_form(model, data)
    else:
        found = canonical_form(model, data)
        assert (found.balanced, found.farthest) == (0, 1.0)
        assert found.moved <= 1e-3


@pytest.mark.parametrize(
    "break_it",
    [
        lambda net: [one.zero_() for one in net.linear.parameters()],
        lambda net: net.linear.weight.fill_(float("nan")),
    ],
)
def test_logits_that_tell_no_class_from_another_are_refused(break_it: Rewrite) -> None:
    with pytest.raises(MethodFailed, match=r"not finite|the same for all classes"):
        canonical_form(rewritten(small(), break_it), images())


def test_a_network_of_unknown_making_is_only_scaled() -> None:
    found = canonical_form(toys.planted(), toys.clean_set().search)

    assert found.balanced == 0
    with torch.no_grad():
        answers = [
            m(toys.clean_set().search.floats()).argmax(1) for m in (toys.planted(), found.model)
        ]
    assert torch.equal(*answers)
