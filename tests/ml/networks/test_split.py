"""A network of any architecture is cut where all information passes, and a decoder fits there."""

from typing import Any

import pytest
import torch

from guard.core.errors import MethodFailed
from guard.core.manifest import Manifest
from guard.ml.networks.architectures import ImageModel, build, wrap
from guard.ml.networks.cut_points import Waypoint
from guard.ml.networks.split import Decoder, Split, psnr, split, total_variation
from guard.ml.seeds import seeded

SMALL_VIT: dict[str, Any] = {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2}
CASES = [
    ("cifar_resnet", 28, {"depths": [1, 1, 1], "width": 8}, "layer3.0"),
    ("preact_resnet18", 32, {"width": 4}, "layer4.1"),
    ("cifar_vgg19_bn", 32, {"width": 8}, None),
    ("vit_tiny_patch16_224", 16, SMALL_VIT, "blocks.2"),
    ("resnet18", 128, {}, "layer4.1"),
    ("torchvision.resnet18", 128, {}, "layer4.1"),
    ("torchvision.vgg11_bn", 128, {}, None),
    ("test_convnext", 96, {}, None),
]


def model_of(architecture: str, side: int, arguments: dict[str, Any]) -> ImageModel:
    facts = Manifest(
        architecture=architecture,
        num_classes=5,
        input_size=(3, side, side),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        model_args=arguments,
    )
    with seeded(0):
        return wrap(facts, build(facts))


@pytest.mark.parametrize(("architecture", "side", "arguments", "before"), CASES)
def test_the_parts_do_not_share_weights_and_a_decoder_gives_the_image_back(
    architecture: str, side: int, arguments: dict[str, Any], before: str | None
) -> None:
    model = model_of(architecture, side, arguments)
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))

    where = split(model, images, method="Test")
    decoder = Decoder(where.channels, where.grid, (3, side, side))
    model.eval()
    with where.features(model) as seen:
        model(images)
    made = decoder(where.maps(seen[0])).detach()

    assert before in {None, where.before}
    assert min(where.grid) >= 4
    assert 0.1 <= where.share(model) < 1
    assert made.shape == images.shape
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1


@pytest.mark.parametrize(("architecture", "side", "arguments", "before"), CASES[:4])
def test_the_head_alone_decides_once_the_features_are_fixed(
    architecture: str, side: int, arguments: dict[str, Any], before: str | None
) -> None:
    model = model_of(architecture, side, arguments)
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    where = split(model, images, method="Test")
    model.eval()
    with where.features(model) as seen:
        logits = model(images)
        features = seen[0].clone()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name in where.head_weights:
                    weight.mul_(1.5)
        changed = model(images)

        assert torch.equal(seen[0], features)
    assert not torch.equal(changed, logits)


def test_finding_the_cut_leaves_the_network_as_it_was() -> None:
    model = model_of("cifar_resnet", 28, {"depths": [1, 1, 1], "width": 8})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    split(model, torch.rand(2, 3, 28, 28), method="Test")

    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_a_network_whose_features_hold_no_image_is_refused() -> None:
    model = model_of("vit_tiny_patch16_224", 16, {**SMALL_VIT, "patch_size": 8})

    with pytest.raises(MethodFailed, match="Test cannot cut") as refused:
        split(model, torch.rand(2, 3, 16, 16), method="Test")

    assert refused.value.code == "no_cut"


def tokens(count: int, *, shape: tuple[int, ...] | None = None) -> Split:
    point = Waypoint(name="x", shape=shape or (2, count, 8), layers_after=3)
    return Split(before="x", point=point, head_weights=frozenset(), head_modules=())


def test_class_tokens_are_no_part_of_the_image() -> None:
    features = torch.arange(2 * 17 * 8).float().view(2, 17, 8)

    maps = tokens(17).maps(features)

    assert maps.shape == (2, 8, 4, 4)
    assert torch.equal(maps[:, :, 0, 0], features[:, 1])
    assert torch.equal(maps[:, :, 3, 3], features[:, 16])


def test_features_with_the_channels_last_are_turned() -> None:
    features = torch.rand(2, 4, 4, 8)
    where = tokens(0, shape=(2, 4, 4, 8))

    assert torch.equal(where.maps(features), features.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("grid", "layers"), [((28, 28), 1), ((14, 14), 1), ((7, 7), 2), ((4, 4), 3)]
)
def test_a_decoder_doubles_the_sides_as_often_as_the_stem_halved_them(
    grid: tuple[int, int], layers: int
) -> None:
    decoder = Decoder(16, grid, (1, 28, 28))
    convolutions = [one for one in decoder.layers if hasattr(one, "kernel_size")]

    assert len(convolutions) == layers
    assert decoder(torch.randn(2, 16, *grid)).shape == (2, 1, 28, 28)


def test_a_constant_image_has_no_variation_and_a_step_has_its_square() -> None:
    image = torch.full((1, 1, 4, 4), 0.3)
    assert float(total_variation(image)) == 0

    image[..., 2:] = 0.8
    assert float(total_variation(image)) == pytest.approx(4 * 0.25 / 16)


def test_psnr_is_in_decibels_and_bounded() -> None:
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(0.0) == pytest.approx(100)
