"""Manifests become models only by name, within a budget.

And only with exactly the right tensors.
"""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from guard.core.contracts import Budget, Header, TensorInfo
from guard.core.errors import ArtifactRejected, ManifestRejected, MethodFailed
from guard.core.manifest import Manifest
from guard.ml.networks import architectures, torchvision_shim
from guard.ml.networks.nets import NETS
from guard.ml.seeds import seeded


def manifest(
    architecture: str = "cifar_resnet",
    size: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    **args: Any,
) -> Manifest:
    if architecture == "cifar_resnet" and not args:
        args = {"depths": [1, 1, 1], "width": 4}
    return Manifest(
        architecture=architecture,
        num_classes=classes,
        input_size=size,
        mean=(0.5,) * size[0],
        std=(0.25,) * size[0],
        model_args=args,
    )


def weights(facts: Manifest) -> dict[str, torch.Tensor]:
    with seeded(1):
        return architectures.export(architectures.build(facts))


def header(tensors: dict[str, torch.Tensor], **changes: TensorInfo | None) -> Header:
    infos = {
        name: TensorInfo(
            name=name, dtype=architectures.DTYPES[tensor.dtype], shape=tuple(tensor.shape)
        )
        for name, tensor in tensors.items()
    }
    kept = {**infos, **changes}
    return Header(format="test", tensors=tuple(info for info in kept.values() if info is not None))


FAMILIES = [
    manifest(),
    manifest("cifar_resnet", (1, 28, 28), 7, depths=[1], width=4),
    manifest("preact_resnet18", width=4),
    manifest("cifar_vgg19_bn", (1, 32, 32), width=4),
    manifest("test_vit"),
    manifest("test_vit", (1, 64, 32), img_size=[64, 32]),
    manifest("test_resnet", (1, 28, 28)),
    manifest("resnet18", channels=[8, 8, 16, 16], stem_width=4, base_width=64),
    manifest("torchvision.resnet18", width_per_group=64),
    manifest("vit_tiny_patch16_224", patch_size=8, embed_dim=24, depth=2, num_heads=2),
]


@pytest.mark.parametrize("facts", FAMILIES, ids=lambda facts: facts.architecture)
def test_each_family_gives_logits_for_its_own_images(facts: Manifest) -> None:
    tensors = weights(facts)

    model = architectures.load(facts, tensors)

    assert not model.training
    assert (3, facts.num_classes) == model(torch.rand(3, *facts.input_size)).shape
    found = architectures.export(model)
    assert tensors.keys() == found.keys()
    assert all(torch.equal(tensors[name], found[name]) for name in tensors)


@pytest.mark.parametrize("facts", FAMILIES, ids=lambda facts: facts.architecture)
def test_what_is_expected_is_what_is_built(facts: Manifest) -> None:
    infos = architectures.expected(facts)

    built = weights(facts)
    assert {name: tuple(tensor.shape) for name, tensor in built.items()} == {
        n: info.shape for n, info in infos.items()
    }
    assert all(
        architectures.DTYPES[built[name].dtype] == info.dtype for name, info in infos.items()
    )


def test_names_are_those_of_the_papers_code() -> None:
    preact = architectures.expected(manifest("preact_resnet18"))
    resnet = architectures.expected(manifest("cifar_resnet", width=64))
    vgg = architectures.expected(manifest("cifar_vgg19_bn"))

    assert preact["conv1.weight"].shape == (64, 3, 3, 3)
    assert preact["layer2.0.shortcut.0.weight"].shape == (128, 64, 1, 1)
    assert preact["linear.weight"].shape == (10, 512)
    assert resnet["layer4.0.shortcut.1.running_var"].shape == (512,)
    assert vgg["features.49.weight"].shape == (512, 512, 3, 3)
    assert (
        parameters(manifest("preact_resnet18")) == 11_171_146
    )  # as printed for this network everywhere
    assert parameters(manifest("cifar_resnet", width=64)) == 11_173_962


def parameters(facts: Manifest) -> int:
    return sum(tensor.numel() for tensor in architectures.build(facts).parameters())


def test_our_nets_are_on_their_shelf() -> None:
    assert NETS.names() == ["cifar_resnet", "cifar_vgg19_bn", "preact_resnet18"]


def test_normalisation_is_inside_and_not_in_the_weights() -> None:
    facts = manifest()
    model = architectures.load(facts, weights(facts))
    images = torch.rand(2, 3, 32, 32)

    assert torch.equal(model.inner((images - 0.5) / 0.25), model(images))
    assert not [
        name
        for name in model.state_dict()
        if "mean" in name.split(".")[:1] or name.startswith("std")
    ]


def test_a_model_survives_a_deep_copy() -> None:
    facts = manifest()
    model = architectures.load(facts, weights(facts))
    images = torch.rand(2, 3, 32, 32)

    assert torch.equal(model(images), copy.deepcopy(model)(images))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 33, 32)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    model = architectures.wrap(manifest(), architectures.build(manifest()))

    with pytest.raises(MethodFailed) as caught:
        model(torch.rand(shape))

    assert caught.value.code == "wrong_shape"


def test_loading_leaves_the_random_state_alone() -> None:
    facts = manifest("test_vit")
    tensors = weights(facts)
    before = torch.get_rng_state()

    architectures.load(facts, tensors)

    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.row(8)
@pytest.mark.threat("A22", "A23", "B01", "B09")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"linear.bias": None}, "lacks linear.bias"),
        (
            {"backdoor.weight": TensorInfo(name="backdoor.weight", dtype="F32", shape=(1,))},
            "backdoor.weight",
        ),
        (
            {"linear.bias": TensorInfo(name="linear.bias", dtype="F32", shape=(11,))},
            r"F32\[11\], not F32\[10\]",
        ),
        (
            {"linear.bias": TensorInfo(name="linear.bias", dtype="F16", shape=(10,))},
            r"F16\[10\], not F32\[10\]",
        ),
        (
            {
                "bn1.num_batches_tracked": TensorInfo(
                    name="bn1.num_batches_tracked", dtype="F32", shape=()
                )
            },
            r"not I64\[\]",
        ),
    ],
)
def test_anything_but_the_exact_tensors_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ArtifactRejected, match=words) as caught:
        architectures.check(manifest(), header(weights(manifest()), **changes))

    assert caught.value.code == "architecture_mismatch"


def test_a_sentence_lists_five_names_at_most() -> None:
    with pytest.raises(ArtifactRejected, match=r"and \d+ more") as caught:
        architectures.check(manifest(), Header(format="test", tensors=()))

    assert (
        caught.value.sentence.count("layer")
        + caught.value.sentence.count("bn1.")
        + (
            caught.value.sentence.count("conv1.weight")
            - caught.value.sentence.count(".conv1.weight")
        )
        == 5
    )


@pytest.mark.threat("B11")
def test_another_number_of_classes_than_the_head_is_refused() -> None:
    with pytest.raises(ArtifactRejected, match="with 7 classes"):
        architectures.check(
            manifest(classes=7, depths=[1, 1, 1], width=4), header(weights(manifest()))
        )


@pytest.mark.threat("B01")
@pytest.mark.parametrize(
    ("code", "facts"),
    [
        ("unknown_architecture", manifest("no_such_model")),
        ("unknown_architecture", manifest("torchvision.googlenet")),
        ("unknown_architecture", manifest("torchvision.resnet19")),
        ("unknown_architecture", manifest("resnet18.a1_in1k")),
        ("unknown_architecture", manifest("os.system")),
        ("manifest_unknown_argument", manifest("resnet18", pretrained=True)),
        ("manifest_unknown_argument", manifest("resnet18", checkpoint_path="w.pt")),
        ("manifest_unknown_argument", manifest("resnet18", pretrained_cfg_overlay="x")),
        ("manifest_unknown_argument", manifest("resnet18", scriptable=True)),
        ("manifest_unknown_argument", manifest("resnet18", features_only=True)),
        ("manifest_unknown_argument", manifest("resnet18", device="cuda")),
        ("manifest_unknown_argument", manifest("resnet18", block="x")),
        ("manifest_unknown_argument", manifest("torchvision.resnet18", weights="DEFAULT")),
        ("manifest_unknown_argument", manifest("preact_resnet18", depths=[1])),
        ("manifest_bad_model_args", manifest("resnet18", act_layer="http://x")),
        ("manifest_bad_model_args", manifest("resnet18", norm_layer="no_such_layer")),
        ("manifest_bad_model_args", manifest("cifar_resnet", width="four")),
        ("manifest_bad_model_args", manifest("cifar_resnet", width=-4)),
        ("manifest_bad_model_args", manifest("vit_tiny_patch16_224", depth=10**9)),
        ("manifest_conflict", manifest("resnet18", in_chans=1)),
        ("manifest_conflict", manifest("resnet18", num_classes=3)),
        ("manifest_conflict", manifest("test_vit", img_size=64)),
        ("manifest_conflict", manifest("torchvision.resnet18", (1, 32, 32))),
    ],
)
def test_a_manifest_that_reaches_out_or_contradicts_itself_is_refused(
    code: str, facts: Manifest
) -> None:
    with pytest.raises(ManifestRejected) as caught:
        architectures.expected(facts)

    assert code == caught.value.code


@pytest.mark.threat("C08")
@pytest.mark.parametrize(
    "facts",
    [
        manifest("cifar_resnet", width=16_000),
        manifest("cifar_resnet", classes=100_000, depths=[1], width=8_000),
        manifest("cifar_resnet", depths=[16_000] * 60, width=1),
        manifest("vit_tiny_patch16_224", depth=16_000),
        manifest("vit_tiny_patch16_224", embed_dim=15_000, depth=1, num_heads=1),
    ],
    ids=lambda facts: str(facts.model_args),
)
def test_a_network_over_budget_is_refused_while_it_grows(facts: Manifest) -> None:
    with pytest.raises(ManifestRejected) as caught:
        architectures.build(facts, budget=Budget(parameters=100_000_000, network_tensors=2_000))

    assert caught.value.code == "over_budget"


def test_the_budget_does_not_outlast_the_check() -> None:
    with pytest.raises(ManifestRejected):
        architectures.expected(manifest(), budget=Budget(parameters=10))

    assert nn.Linear(10, 10).weight.numel() > 10


def test_weights_that_give_no_finite_logits_are_refused() -> None:
    tensors = weights(manifest())
    tensors["linear.weight"].fill_(3e38)

    with pytest.raises(ArtifactRejected) as caught:
        architectures.load(manifest(), tensors)

    assert caught.value.code == "bad_logits"


def test_a_network_that_does_not_run_on_its_image_size_is_refused() -> None:
    facts = manifest("cifar_vgg19_bn", (3, 16, 16), width=4)

    with pytest.raises(ManifestRejected) as caught:
        architectures.load(facts, weights(facts))

    assert caught.value.code == "manifest_does_not_run"


def test_torchvision_imports_after_the_shim() -> None:
    torchvision_shim.install()

    import torchvision

    assert not torchvision_shim.install()
    assert "resnet18" in torchvision.models.list_models()
