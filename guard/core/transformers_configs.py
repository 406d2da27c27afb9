"""From the `config.json` of a transformers image classifier to that of the same network in timm.

Only what decides the logits is read, and only models are taken whose every part timm's network has.
Defaults are those of the configuration classes of transformers 5.24. The weights are renamed by
`guard.ml.networks.transformers_names`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from guard.core._transformers_reader import Reader
from guard.core.errors import ManifestRejected
from guard.core.preprocessor import PREPROCESSOR_KEY, Preprocessor, readable

_TIMM_WRAPPER = "timm_wrapper"
_RESNETS: dict[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}
_RESNET_CHANNELS = [64, 128, 256, 512]
_VITS: dict[tuple[int, ...], str] = {
    (192, 12, 3, 16): "vit_tiny_patch16_224",
    (384, 12, 6, 16): "vit_small_patch16_224",
    (384, 12, 6, 32): "vit_small_patch32_224",
    (768, 12, 12, 8): "vit_base_patch8_224",
    (768, 12, 12, 16): "vit_base_patch16_224",
    (768, 12, 12, 32): "vit_base_patch32_224",
    (1024, 24, 16, 16): "vit_large_patch16_224",
    (1024, 24, 16, 32): "vit_large_patch32_224",
}
_DEITS: dict[tuple[int, ...], str] = {
    (192, 12, 3, 16): "deit_tiny_distilled_patch16_224",
    (384, 12, 6, 16): "deit_small_distilled_patch16_224",
    (768, 12, 12, 16): "deit_base_distilled_patch16_224",
}
_DEITS_OF_ONE_TOKEN = {sizes: name.replace("_distilled", "") for sizes, name in _DEITS.items()}
#: By `depth_multiplier`.
_MOBILENETS = {
    0.35: "mobilenetv2_035",
    0.5: "mobilenetv2_050",
    0.75: "mobilenetv2_075",
    1.0: "mobilenetv2_100",
    1.4: "mobilenetv2_140",
}
_Network = tuple[str, dict[str, Any]]


def is_transformers(data: Any) -> bool:
    """Whether a decoded `config.json` is that of a transformers model without timm's inside."""
    if not isinstance(data, dict) or "architecture" in data:
        return False
    kind = data.get("model_type")
    return isinstance(kind, str) and kind != _TIMM_WRAPPER


def lacks_preprocessor(config: bytes) -> bool:
    """Whether the bytes of a `config.json` are of a model to which a preprocessor's file belongs.

    It does not where the uploader's own `pretrained_cfg` says how images are made.
    """
    data: Any = readable(config) if b"model_type" in config else None
    if not is_transformers(data) or PREPROCESSOR_KEY in data:
        return False
    return data["model_type"] in _KINDS and "pretrained_cfg" not in data


def naming_of(value: Any) -> str | None:
    """The key of `FAMILIES` that `guard.naming` names; None where it names none.

    Raises:
        ManifestRejected: `manifest_bad_guard`.
    """
    if value is None or (isinstance(value, str) and value in FAMILIES):
        return value
    raise ManifestRejected(
        f"config.json: guard.naming must be one of {', '.join(FAMILIES)}; leave it out.",
        code="manifest_bad_guard",
    )


def translated(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config.json` as timm writes it, for the network that has the same logits.

    Any other `config.json` is given back as it is. What the uploader adds as `pretrained_cfg` or
    `guard` is kept.

    Raises:
        ManifestRejected: `manifest_transformers`; timm has no such network, or a value is missing.
    """
    if not is_transformers(data):
        return data
    read = Reader(data)
    naming, family = _family(read)
    _same_task(read)
    architecture, arguments = family.network(read)
    classes, names = _classes(read)
    given = data.get("pretrained_cfg", {})
    own = data.get("guard", {})
    pretrained: Any = given
    if isinstance(given, dict):
        pretrained = {**_images(read, family, given), **given}
    return {
        "architecture": architecture,
        "num_classes": classes,
        "model_args": arguments,
        "pretrained_cfg": pretrained,
        "label_names": names,
        "guard": {**own, "naming": naming} if isinstance(own, dict) else own,
    }


@dataclass(frozen=True)
class Family:
    """A model of transformers that timm has too.

    `kind` is its `model_type`, `head` the class that is a classifier, `network` gives timm's name
    and arguments, `sized` says whether `image_size` decides the network. For the documents, `like`
    is a network of timm's and `refused` what it cannot hold.
    """

    kind: str
    head: str
    network: Callable[[Reader], _Network]
    sized: bool
    like: str
    refused: str


def _family(read: Reader) -> tuple[str, Family]:
    """The family of a configuration by `model_type` and class, and its key.

    Where no class is given, the first one of the `model_type` is meant.
    """
    of_kind = [(key, one) for key, one in FAMILIES.items() if one.kind == read.kind]
    if not of_kind:
        raise read.refusal(
            "its weights cannot be put into a network of timm's (only those of "
            f"{', '.join(_KINDS)} can); copy them into the timm model yourself, and upload its "
            "state_dict() with timm's config.json."
        )
    classes = read.data.get("architectures")
    for key, one in of_kind:
        if classes is None or classes == [one.head]:
            return key, one
    raise read.refusal(
        f"architectures is {ascii(classes)[:100]}, and only "
        f"{' and '.join(one.head for _, one in of_kind)} is read; save the model as that class."
    )


def _same_task(read: Reader) -> None:
    kind = read.data.get("problem_type")
    if kind not in (None, "single_label_classification"):
        raise read.refusal(
            f"problem_type is {ascii(kind)[:60]}, and only classifiers of one label are vetted."
        )
    for key in ("quantization_config", "pruned_heads"):
        if read.data.get(key):
            raise read.refusal(f"it has {key}; save the whole model as float32.")


def _classes(read: Reader) -> tuple[int, list[str] | None]:
    """The number of classes, and their names unless transformers made them up.

    A configuration without labels has two, as in transformers.
    """
    labels = read.data.get("id2label")
    if labels is None:
        return read.whole("num_labels", 2), None
    if not isinstance(labels, dict) or set(labels) != {str(place) for place in range(len(labels))}:
        raise read.refusal("id2label must give each of the classes 0, 1, 2, ... one name.")
    if "num_labels" in read.data and read.data["num_labels"] != len(labels):
        raise read.refusal(
            f"num_labels is {ascii(read.data['num_labels'])[:20]}, but id2label has {len(labels)} "
            "names; make them agree."
        )
    names = [labels[str(place)] for place in range(len(labels))]
    if names == [f"LABEL_{place}" for place in range(len(names))]:
        return len(names), None
    if not all(isinstance(name, str) and len(name) <= 200 and name.isprintable() for name in names):
        raise read.refusal("id2label must hold printable strings of at most 200 characters.")
    return len(names), names


def _images(read: Reader, family: Family, given: Mapping[str, Any]) -> dict[str, Any]:
    """Size, mean and standard deviation of the images, as far as they are known."""
    channels = read.whole("num_channels", 3)
    processor = read.data.get(PREPROCESSOR_KEY)
    steps = None if processor is None else Preprocessor.read(processor, read.refusal)
    found: dict[str, Any] = dict(steps.normalisation()) if steps else {}
    if "input_size" in given:
        return found
    size = None
    if family.sized:
        size = (read.square("image_size", 224),) * 2
    elif steps is not None and steps.size is not None:
        size = steps.size
    elif "image_size" in read.data:
        size = (read.square("image_size", 224),) * 2
    if size is None:
        raise read.refusal(
            "it does not give the size of images; upload preprocessor_config.json beside it, "
            "before the weights."
        )
    return {**found, "input_size": [channels, *size]}


def _resnet(read: Reader) -> _Network:
    read.only("hidden_act", "relu")
    read.only("embedding_size", 64)
    read.only("downsample_in_first_stage", wanted=False)
    read.only("downsample_in_bottleneck", wanted=False)
    kind = read.data.get("layer_type", "bottleneck")
    if kind not in ("basic", "bottleneck"):
        raise read.refusal("layer_type must be basic or bottleneck.")
    depths = read.wholes("depths", [3, 4, 6, 3])
    sizes = read.wholes("hidden_sizes", [256, 512, 1024, 2048])
    if len(depths) != 4 or len(sizes) != 4:
        raise read.refusal("depths and hidden_sizes must have four stages.")
    shrink = 4 if kind == "bottleneck" else 1
    if any(size % shrink for size in sizes):
        raise read.refusal("hidden_sizes must be multiples of 4, as bottlenecks need.")
    channels = [size // shrink for size in sizes]
    name = _RESNETS.get((kind, tuple(depths)))
    if name is not None and channels == _RESNET_CHANNELS:
        return name, {}
    base = "resnet50" if kind == "bottleneck" else "resnet18"
    return base, {"layers": depths, "channels": channels}


def _transformer(read: Reader, known: Mapping[tuple[int, ...], str], base: str) -> _Network:
    width, heads = read.whole("hidden_size", 768), read.whole("num_attention_heads", 12)
    depth, patch = read.whole("num_hidden_layers", 12), read.square("patch_size", 16)
    hidden = read.whole("intermediate_size", 3072)
    if width % heads or read.data.get("head_dim", width // heads) != width // heads:
        raise read.refusal("hidden_size must be num_attention_heads heads of equal size.")
    ratio: float = hidden / width
    if int(width * ratio) != hidden:
        ratio = math.nextafter(ratio, math.inf)
    arguments = {"layer_norm_eps": read.number("layer_norm_eps", 1e-12, 0.01), **read.activation()}
    if not read.truth("qkv_bias"):
        arguments["qkv_bias"] = False
    if hidden != 4 * width:
        arguments["mlp_ratio"] = ratio
    name = known.get((width, depth, heads, patch))
    if name is None:
        own = {"embed_dim": width, "depth": depth, "num_heads": heads, "patch_size": patch}
        return base, {**own, **arguments}
    return name, arguments


def _vit(read: Reader) -> _Network:
    return _transformer(read, _VITS, "vit_base_patch16_224")


def _deit(read: Reader) -> _Network:
    return _transformer(read, _DEITS, "deit_base_distilled_patch16_224")


def _deit_of_one_token(read: Reader) -> _Network:
    """The answer is read from the class token; the other one takes part as a register does."""
    name, arguments = _transformer(read, _DEITS_OF_ONE_TOKEN, "deit_base_patch16_224")
    return name, {**arguments, "reg_tokens": 1}


def _mobilenet(read: Reader) -> _Network:
    read.only("hidden_act", "relu6")
    for key, wanted in (("depth_divisible_by", 8), ("min_depth", 8), ("output_stride", 32)):
        read.only(key, wanted)
    read.only("first_layer_is_expansion", wanted=True)
    if read.number("expand_ratio", 6.0, 64) != 6:
        raise read.refusal("expand_ratio must be 6, as in timm's network.")
    width = read.number("depth_multiplier", 1.0, 64)
    name = _MOBILENETS.get(width)
    if name is None:
        known = ", ".join(f"{one:g}" for one in _MOBILENETS)
        raise read.refusal(f"depth_multiplier must be one of timm's widths, {known}.")
    if not read.truth("finegrained_output") and width < 1:
        raise read.refusal("finegrained_output must be true, as timm's last layer stays wide.")
    eps = read.number("layer_norm_eps", 1e-3, 0.01)
    same = {"pad_type": "same"} if read.truth("tf_padding") else {}
    return name, {"batch_norm_eps": eps, **same}


def _convnext(read: Reader) -> _Network:
    if read.number("layer_scale_init_value", 1e-6, 1e3):
        return _stages(read, "convnext_tiny", {})
    # Without the scale: timm drops arguments that are None, and its second version has none.
    return _stages(read, "convnextv2_tiny", {"use_grn": False})


def _convnextv2(read: Reader) -> _Network:
    return _stages(read, "convnextv2_tiny", {})


def _stages(read: Reader, base: str, arguments: dict[str, Any]) -> _Network:
    read.only("num_stages", 4)
    depths = read.wholes("depths", [3, 3, 9, 3])
    widths = read.wholes("hidden_sizes", [96, 192, 384, 768])
    if len(depths) != 4 or len(widths) != 4:
        raise read.refusal("depths and hidden_sizes must have four stages.")
    patch = read.square("patch_size", 4)
    if patch != 4:
        raise read.refusal("patch_size must be 4, since timm's stages have other strides else.")
    return base, {
        "depths": depths,
        "dims": widths,
        "head_norm_eps": read.number("layer_norm_eps", 1e-12, 0.01),
        **arguments,
        **read.activation(),
    }


def _swin(read: Reader) -> _Network:
    read.only("use_absolute_embeddings", wanted=False)
    read.only("hidden_act", "gelu")
    read.only("layer_norm_eps", 1e-5)
    depths, heads = read.wholes("depths", [2, 2, 6, 2]), read.wholes("num_heads", [3, 6, 12, 24])
    window, patch = read.whole("window_size", 7), read.square("patch_size", 4)
    side = read.square("image_size", 224)
    if len(depths) != len(heads) or len(depths) > 16:
        raise read.refusal("depths and num_heads must be equally long, of at most 16 stages.")
    if side % (patch * window << (len(depths) - 1)):
        raise read.refusal(
            "image_size must be a multiple of patch_size x window_size x 2^(stages - 1), since "
            "timm's network pads maps in another way."
        )
    arguments: dict[str, Any] = {
        "patch_size": patch,
        "window_size": window,
        "embed_dim": read.whole("embed_dim", 96),
        "depths": depths,
        "num_heads": heads,
        "mlp_ratio": read.number("mlp_ratio", 4.0, 64),
    }
    if not read.truth("qkv_bias"):
        arguments["qkv_bias"] = False
    return "swin_tiny_patch4_window7_224", arguments


_HEADS = "other activations than gelu, relu, silu, quick_gelu and gelu's tanh form"
_STAGES = f"other than four stages or patches of 4; {_HEADS}"
#: By the naming of their tensors (`guard.ml.networks.transformers_names`).
FAMILIES = {
    "resnet": Family(
        kind="resnet",
        head="ResNetForImageClassification",
        network=_resnet,
        sized=False,
        like="resnet18 ... resnet152",
        refused="other than four stages, 64 channels in the stem or relu; strides elsewhere",
    ),
    "vit": Family(
        kind="vit",
        head="ViTForImageClassification",
        network=_vit,
        sized=True,
        like="vit_base_patch16_224 and its kin",
        refused=_HEADS,
    ),
    "deit": Family(
        kind="deit",
        head="DeiTForImageClassificationWithTeacher",
        network=_deit,
        sized=True,
        like="deit_base_distilled_patch16_224 and its kin",
        refused=_HEADS,
    ),
    "deit_one_token": Family(
        kind="deit",
        head="DeiTForImageClassification",
        network=_deit_of_one_token,
        sized=True,
        like="deit_base_patch16_224 and its kin, with one register",
        refused=_HEADS,
    ),
    "convnext": Family(
        kind="convnext",
        head="ConvNextForImageClassification",
        network=_convnext,
        sized=False,
        like="convnext_tiny",
        refused=_STAGES,
    ),
    "convnextv2": Family(
        kind="convnextv2",
        head="ConvNextV2ForImageClassification",
        network=_convnextv2,
        sized=False,
        like="convnextv2_tiny",
        refused=_STAGES,
    ),
    "swin": Family(
        kind="swin",
        head="SwinForImageClassification",
        network=_swin,
        sized=True,
        like="swin_tiny_patch4_window7_224",
        refused="absolute positions, other than gelu, maps that windows do not tile",
    ),
    "mobilenet_v2": Family(
        kind="mobilenet_v2",
        head="MobileNetV2ForImageClassification",
        network=_mobilenet,
        sized=False,
        like="mobilenetv2_035 ... mobilenetv2_140",
        refused="other widths than timm's, other strides, expansion or activation",
    ),
}
_KINDS = tuple(dict.fromkeys(one.kind for one in FAMILIES.values()))
