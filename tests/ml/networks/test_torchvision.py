"""torchvision's classifiers by their names: built as torchvision builds them, or refused."""

import pytest
import torch

from guard.core.errors import ManifestRejected
from guard.core.manifest import Manifest
from guard.ml.networks import architectures, torchvision_shim
from guard.ml.seeds import seeded


def manifest(name: str, size: tuple[int, int] = (224, 224), **args: object) -> Manifest:
    return Manifest(
        architecture=f"torchvision.{name}",
        num_classes=7,
        input_size=(3, *size),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        model_args=args,
    )


@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "convnext_tiny",
        "densenet121",
        "efficientnet_b0",
        "maxvit_t",
        "mnasnet0_5",
        "mobilenet_v3_small",
        "resnext50_32x4d",
        "squeezenet1_1",
        "swin_v2_t",
        "vgg11",
        "vit_b_32",
        "wide_resnet50_2",
    ],
)
def test_the_tensors_of_a_classifier_are_those_of_torchvisions_own(name: str) -> None:
    torchvision_shim.install()
    from torchvision import models

    with torch.device("meta"):
        own = models.get_model(name, weights=None, num_classes=7).state_dict()

    found = architectures.expected(manifest(name))
    assert {key: info.shape for key, info in found.items()} == {
        key: tuple(tensor.shape) for key, tensor in own.items()
    }


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1"])
def test_an_upload_of_a_classifier_answers_as_torchvisions_own(name: str) -> None:
    torchvision_shim.install()
    from torchvision import models

    with seeded(0):
        own = models.get_model(name, weights=None, num_classes=7).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    model = architectures.load(manifest(name, (64, 64)), architectures.export(own))

    with torch.no_grad():
        assert torch.allclose(model(images), own(images), atol=1e-6)


def test_a_transformer_is_built_for_the_images_of_the_manifest() -> None:
    small = architectures.expected(manifest("vit_b_16", (64, 64)))

    assert small["encoder.pos_embedding"].shape == (1, 17, 768)


@pytest.mark.parametrize(
    ("facts", "code", "says"),
    [
        (manifest("vit_b_16", (64, 32)), "manifest_bad_model_args", "square images"),
        (manifest("googlenet"), "unknown_architecture", "auxiliary heads"),
        (manifest("inception_v3"), "unknown_architecture", "use timm's"),
        (manifest("regnet_y_400mf"), "unknown_architecture", "cannot be measured before"),
        (manifest("fcn_resnet50"), "unknown_architecture", "a classifier of torchvision's"),
        (manifest("fasterrcnn_resnet50_fpn"), "unknown_architecture", "a classifier"),
        (manifest("densenet121", memory_efficient=True), "manifest_unknown_argument", "remove it"),
    ],
    ids=lambda value: value.architecture if isinstance(value, Manifest) else "",
)
def test_what_is_no_classifier_of_that_kind_is_refused_by_its_cause(
    facts: Manifest, code: str, says: str
) -> None:
    with pytest.raises(ManifestRejected, match=says) as caught:
        architectures.expected(facts)

    assert caught.value.code == code
