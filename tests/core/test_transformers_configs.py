"""Configurations of transformers: what becomes a network of timm, and why others are refused."""

import json
from typing import Any

import pytest

from guard.core.errors import ManifestRejected
from guard.core.manifest import Manifest
from guard.core.preprocessor import joined
from guard.core.transformers_configs import FAMILIES, lacks_preprocessor

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}


def read(kind: str = "vit", processor: Any = None, **values: Any) -> Manifest:
    own = {"preprocessor_config": processor} if processor is not None else {}
    return Manifest.from_dict({"model_type": kind, **values, **own})


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (
            "beit",
            {},
            "only those of resnet, vit, deit, convnext, convnextv2, swin, mobilenet_v2 can",
        ),
        ("vit", {"architectures": ["ViTModel"]}, "only ViTForImageClassification is read"),
        ("deit", {"architectures": ["DeiTModel"]}, "Teacher and DeiTForImageClassification is"),
        ("mobilenet_v2", {"depth_multiplier": 0.9}, "timm's widths, 0.35, 0.5, 0.75, 1, 1.4"),
        ("mobilenet_v2", {"expand_ratio": 4}, "expand_ratio must be 6"),
        ("mobilenet_v2", {"output_stride": 16}, "output_stride is 16"),
        ("mobilenet_v2", {"first_layer_is_expansion": False}, "first_layer_is_expansion is False"),
        (
            "mobilenet_v2",
            {"depth_multiplier": 0.5, "finegrained_output": False},
            "finegrained_output must be true",
        ),
        ("vit", {"problem_type": "multi_label_classification"}, "classifiers of one label"),
        ("vit", {"quantization_config": {"bits": 4}}, "has quantization_config"),
        ("vit", {"pruned_heads": {"0": [1]}}, "has pruned_heads"),
        ("vit", {"hidden_act": "mish"}, "hidden_act is 'mish', which timm's"),
        ("vit", {"hidden_act": 3}, "hidden_act is 3"),
        ("vit", {"hidden_size": "x"}, "hidden_size must be a positive integer"),
        ("vit", {"num_attention_heads": 5}, "heads of equal size"),
        ("vit", {"head_dim": 32}, "heads of equal size"),
        ("vit", {"layer_norm_eps": 1}, r"layer_norm_eps must be a number in 0\.\.0\.01"),
        ("vit", {"qkv_bias": 1}, "qkv_bias must be true or false"),
        ("vit", {"patch_size": [16, 8]}, "patch_size must be one positive integer"),
        ("vit", {"image_size": [32, 64]}, "image_size must be one positive integer"),
        ("vit", {"id2label": {"0": "a", "2": "b"}}, "id2label must give each"),
        ("vit", {"id2label": {"0": "a", "1": "b\n"}}, "id2label must hold printable"),
        ("vit", {"id2label": {"0": "a", "1": "b"}, "num_labels": 3}, "make them agree"),
        ("resnet", {"hidden_act": "gelu"}, "timm's network has only 'relu'"),
        ("resnet", {"embedding_size": 32}, "embedding_size is 32"),
        ("resnet", {"downsample_in_bottleneck": True}, "downsample_in_bottleneck is True"),
        ("resnet", {"layer_type": "wide"}, "layer_type must be basic or bottleneck"),
        ("resnet", {"depths": [1]}, "must have four stages"),
        ("resnet", {"depths": [1, 0]}, "depths must be a list of positive integers"),
        ("resnet", {"hidden_sizes": [6, 8, 8, 8]}, "multiples of 4"),
        ("resnet", {}, "does not give the size of images; upload preprocessor_config"),
        ("convnext", {"depths": [1]}, "must have four stages"),
        ("convnext", {"num_stages": 3}, "num_stages is 3"),
        ("convnextv2", {"patch_size": 2}, "patch_size must be 4"),
        ("swin", {"use_absolute_embeddings": True}, "use_absolute_embeddings is True"),
        ("swin", {"num_heads": [2]}, "must be equally long"),
        ("swin", {"image_size": 232}, "pads maps in another way"),
        ("swin", {"qkv_bias": None}, "qkv_bias must be true or false"),
        ("swin", {"layer_norm_eps": 1e-6}, "timm's network has only 1e-05"),
    ],
)
def test_what_timm_has_not_is_refused_with_the_cause(
    kind: str, values: dict[str, Any], says: str
) -> None:
    with pytest.raises(ManifestRejected, match=says) as caught:
        read(kind, **values)

    assert caught.value.code == "manifest_transformers"
    assert f"the transformers model '{kind}'" in caught.value.sentence


def test_a_vit_becomes_timms_with_its_own_sizes() -> None:
    found = read(**TINY, hidden_act="gelu_new", qkv_bias=False, id2label={"0": "cat", "1": "dog"})

    assert found.architecture == "vit_base_patch16_224"
    assert found.model_args == {
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
        "patch_size": 8,
        "layer_norm_eps": 1e-12,
        "act_layer": "gelu_tanh",
        "qkv_bias": False,
    }
    assert (found.num_classes, found.label_names) == (2, ("cat", "dog"))
    assert found.input_size == (3, 32, 32)
    assert (found.naming, found.assumed) == ("vit", ("mean", "std"))


def test_the_usual_sizes_have_timms_own_names() -> None:
    assert read().architecture == "vit_base_patch16_224"
    assert read().model_args == {"layer_norm_eps": 1e-12}
    assert read("deit").architecture == "deit_base_distilled_patch16_224"
    assert read("resnet", image_size=224).architecture == "resnet50"
    assert read(patch_size=[16, 16]) == read()


def test_a_deit_is_read_as_the_class_that_it_was_saved_as() -> None:
    one = read("deit", architectures=["DeiTForImageClassification"])

    assert (one.architecture, one.naming) == ("deit_base_patch16_224", "deit_one_token")
    assert one.model_args == {"layer_norm_eps": 1e-12, "reg_tokens": 1}
    assert read("deit", architectures=None).naming == "deit"


def test_a_mobilenet_keeps_its_width_and_its_padding() -> None:
    wide = read("mobilenet_v2", image_size=96, depth_multiplier=1.4, finegrained_output=False)
    plain = read("mobilenet_v2", image_size=96, tf_padding=False)

    assert (wide.architecture, plain.architecture) == ("mobilenetv2_140", "mobilenetv2_100")
    assert wide.model_args == {"batch_norm_eps": 0.001, "pad_type": "same"}
    assert plain.model_args == {"batch_norm_eps": 0.001}
    assert plain.input_size == (3, 96, 96)


def test_the_ratio_of_a_hidden_layer_gives_exactly_its_size() -> None:
    for width, hidden in ((24, 50), (49, 1), (10, 107), (12, 4095)):
        values = {**TINY, "hidden_size": width, "num_attention_heads": 1}
        found = read(**{**values, "intermediate_size": hidden})
        assert int(width * found.model_args["mlp_ratio"]) == hidden


def test_a_swin_keeps_its_windows_and_may_lack_biases() -> None:
    found = read("swin", qkv_bias=False)

    assert (found.model_args["window_size"], found.model_args["qkv_bias"]) == (7, False)


def test_made_up_labels_are_no_names() -> None:
    assert read(id2label={"0": "LABEL_0", "1": "LABEL_1"}).label_names == ()


def test_what_the_uploader_adds_is_kept() -> None:
    cfg = {"mean": [0.1] * 3, "std": [0.2] * 3, "input_size": [3, 64, 64]}
    found = read("resnet", pretrained_cfg=cfg, guard={"cleanset": "digits"})

    assert (found.mean, found.input_size) == ((0.1, 0.1, 0.1), (3, 64, 64))
    assert (found.cleanset, found.naming) == ("digits", "resnet")
    assert Manifest.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("extra", [{"guard": 3}, {"pretrained_cfg": 3}, {"guard": {"naming": 3}}])
def test_a_bad_addition_is_refused_as_in_any_config(extra: dict[str, Any]) -> None:
    with pytest.raises(ManifestRejected, match=r"guard|pretrained_cfg"):
        Manifest.from_dict(
            {"model_type": "vit", **extra}
            if "naming" not in str(extra)
            else {"architecture": "resnet18", "num_classes": 2, "input_size": [3, 8, 8], **extra}
        )


def images(**processor: Any) -> tuple[Any, ...]:
    found = read("resnet", processor={"size": 8, **processor})
    return found.input_size[1:], found.mean[0], found.std[0], found.assumed


def test_the_preprocessors_steps_become_mean_and_std_for_images_in_0_to_1() -> None:
    values = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}

    assert images(**values) == ((8, 8), 0.5, 0.25, ())
    assert images(**values, rescale_factor=1 / 255) == ((8, 8), 0.5, 0.25, ())
    assert images(**values, rescale_factor=2 / 255) == ((8, 8), 0.25, 0.125, ())
    assert images(**values, do_normalize=False) == ((8, 8), 0.0, 1.0, ())
    assert images(image_mean=127.5, image_std=51, do_rescale=False) == ((8, 8), 0.5, 0.2, ())
    assert images() == ((8, 8), 0.0, 1.0, ("mean", "std"))


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        ({"size": {"height": 8, "width": 12}}, (8, 12)),
        ({"size": {"shortest_edge": 8}, "image_processor_type": "ConvNextImageProcessor"}, (8, 8)),
        ({"size": 9, "crop_size": {"height": 8, "width": 8}, "do_center_crop": True}, (8, 8)),
        ({"size": {"shortest_edge": 8}}, (64, 64)),
        ({"size": 8, "do_resize": False}, (64, 64)),
        ({"size": [8]}, (64, 64)),
    ],
)
def test_the_size_of_images_is_that_which_the_preprocessor_fixes(
    processor: dict[str, Any], size: tuple[int, int]
) -> None:
    assert read("resnet", processor=processor, image_size=64).input_size[1:] == size


@pytest.mark.parametrize(
    ("processor", "says"),
    [
        ("unreadable", "is no JSON object"),
        ({"rescale_offset": True}, "has rescale_offset"),
        ({"rescale_factor": 0}, "rescale_factor must be a positive number"),
        ({"image_mean": ["x"]}, "image_mean must hold finite numbers"),
        ({"image_std": []}, "image_std must hold finite numbers"),
    ],
)
def test_a_preprocessor_that_cannot_be_followed_is_refused(processor: Any, says: str) -> None:
    with pytest.raises(ManifestRejected, match=rf"preprocessor_config\.json.*{says}"):
        read(processor=processor)


def test_the_preprocessors_file_joins_the_configuration_it_belongs_to() -> None:
    config = b'{"model_type": "vit", "image_size": 32}'

    assert json.loads(joined(config, b'{"size": 8}'))["preprocessor_config"] == {"size": 8}
    for unreadable in (b"\xff", b'{"size": 8, "size": 9}', b"null"):
        assert json.loads(joined(config, unreadable))["preprocessor_config"] == "unreadable"
    assert joined(config, None) == config


@pytest.mark.parametrize(
    ("config", "lacks"),
    [
        ({"model_type": "vit"}, True),
        ({"model_type": "beit"}, False),
        ({"model_type": "vit", "preprocessor_config": {}}, False),
        ({"model_type": "vit", "pretrained_cfg": {}}, False),
        ({"model_type": "vit", "architecture": "resnet18"}, False),
        ({"model_type": "timm_wrapper"}, False),
        ({"architecture": "resnet18"}, False),
        (["model_type"], False),
    ],
)
def test_only_models_that_are_read_have_a_preprocessor(config: Any, lacks: bool) -> None:
    assert lacks_preprocessor(json.dumps(config).encode()) is lacks


def test_every_model_that_is_read_can_be_read_from_its_type_alone() -> None:
    for naming, family in FAMILIES.items():
        found = read(family.kind, architectures=[family.head], image_size=224)
        assert found.naming == naming
