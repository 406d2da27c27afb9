"""timm's network for each family of transformers, from the values of a configuration.

Each function gives timm's name and its arguments, or raises ManifestRejected with the value that
timm's network has no place for.
"""

import math
from collections.abc import Mapping
from typing import Any

from guard.core._transformers_reader import Reader

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
Network = tuple[str, dict[str, Any]]


def resnet(read: Reader) -> Network:
    """ResNet: basic blocks or bottlenecks in four stages."""
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


def _transformer(read: Reader, known: Mapping[tuple[int, ...], str], base: str) -> Network:
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


def vit(read: Reader) -> Network:
    """ViT of any size."""
    return _transformer(read, _VITS, "vit_base_patch16_224")


def deit(read: Reader) -> Network:
    """DeiT with a head on each of two tokens."""
    return _transformer(read, _DEITS, "deit_base_distilled_patch16_224")


def deit_of_one_token(read: Reader) -> Network:
    """The answer is read from the class token; the other one takes part as a register does."""
    name, arguments = _transformer(read, _DEITS_OF_ONE_TOKEN, "deit_base_patch16_224")
    return name, {**arguments, "reg_tokens": 1}


def mobilenet(read: Reader) -> Network:
    """MobileNet V2 of timm's widths."""
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


def convnext(read: Reader) -> Network:
    """ConvNeXt, with or without the scale of its layers."""
    if read.number("layer_scale_init_value", 1e-6, 1e3):
        return _stages(read, "convnext_tiny", {})
    # Without the scale: timm drops arguments that are None, and its second version has none.
    return _stages(read, "convnextv2_tiny", {"use_grn": False})


def convnextv2(read: Reader) -> Network:
    """ConvNeXt V2."""
    return _stages(read, "convnextv2_tiny", {})


def _stages(read: Reader, base: str, arguments: dict[str, Any]) -> Network:
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


def swin(read: Reader) -> Network:
    """Swin whose windows tile its maps."""
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
