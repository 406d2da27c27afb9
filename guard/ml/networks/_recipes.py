"""Turn a manifest's architecture and arguments into a constructor call without side effects.

No argument can name a file, an address or code.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from guard.core import plugins
from guard.core.errors import ManifestRejected
from guard.core.manifest import Manifest
from guard.ml.networks import torchvision_shim
from guard.ml.networks._growth import Unfilled
from guard.ml.networks.nets import NETS

TORCHVISION = "torchvision."
_AUXILIARY = frozenset({"googlenet", "inception_v3"})
#: What torchvision's constructors may be given; all else is decided by the name, or is code.
_TORCHVISION_ARGUMENTS = frozenset(
    {
        "attention_dropout",
        "dropout",
        "groups",
        "replace_stride_with_dilation",
        "stochastic_depth_prob",
        "width_per_group",
        "zero_init_residual",
        "init_weights",
    }
)
#: How torchvision's constructors call the image's size: one side, or height and width.
_SIZES = ("image_size", "input_size")
MAX_NUMBER = (
    16_384  # no architecture we know needs a larger integer; constructors may size lists by it
)
#: Arguments that an upload may not give: they name the source of weights, code or memory, or
#: contradict what the architecture's name decides.
FORBIDDEN = frozenset(
    {
        "pretrained",
        "checkpoint_path",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_strict",
        "cache_dir",
        "scriptable",
        "exportable",
        "no_jit",
        "weights",
        "progress",
        "features_only",
        "out_indices",
        "device",
        "dtype",
        "block",
        "block_fn",
        "block_args",
        "cfg",
        "features",
        "model_cfg",
        "self",
        "args",
        "kwargs",
    }
)
#: Arguments of ours for timm's networks: transformers has other numbers there than timm.
LAYER_NORM_EPS, HEAD_NORM_EPS = "layer_norm_eps", "head_norm_eps"
BATCH_NORM_EPS = "batch_norm_eps"
_LARGEST_EPS = 0.01
_CHANNELS = 3  # where a constructor takes no other number


@dataclass(frozen=True)
class Recipe:
    """A constructor, the names of its permitted arguments, and its image size H,W if it has one."""

    make: Callable[..., nn.Module]
    names: frozenset[str]
    size: tuple[int, int] | None = None


def recipe(name: str) -> Recipe:
    """Look `name` up in our own nets, then `torchvision.NAME`, then timm.

    Imports only what is needed.

    Raises:
        ManifestRejected: `unknown_architecture`.
    """
    if name in NETS:
        made = NETS.get(name)
        if plugins.origin(made):
            _refuse_taken(name)
        return Recipe(made, _parameters(made) - FORBIDDEN)
    if name.startswith(TORCHVISION):
        return _torchvision(name.removeprefix(TORCHVISION))
    return _timm(name)


def arguments(manifest: Manifest, known: Recipe) -> dict[str, Any]:
    """The arguments for `known.make`, checked against its signature and the rest of the manifest.

    Raises:
        ManifestRejected: `manifest_unknown_argument`, `manifest_bad_model_args` or
            `manifest_conflict`.
    """
    given = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in manifest.model_args.items()
    }
    channels, side = manifest.input_size[0], manifest.input_size[1:]
    _no_conflict(given, "num_classes", manifest.num_classes)
    _no_conflict(given, "in_chans", channels)
    given = {key: value for key, value in given.items() if key not in ("num_classes", "in_chans")}
    for key, value in given.items():
        if key not in known.names:
            raise ManifestRejected(
                f"{manifest.architecture} takes no argument {key!r} from config.json; remove it "
                "from model_args.",
                code="manifest_unknown_argument",
            )
        _check_value(key, value)
    if isinstance(given.get("img_size"), int):
        given["img_size"] = (given["img_size"], given["img_size"])
    if "img_size" in given:
        _no_conflict(given, "img_size", side)
    elif "img_size" in known.names and known.size != side:
        given["img_size"] = side
    if "in_chans" in known.names:
        given["in_chans"] = channels
    elif channels != _CHANNELS:
        raise ManifestRejected(
            f"{manifest.architecture} takes {_CHANNELS} channels, config.json says {channels}; "
            "correct input_size.",
            code="manifest_conflict",
        )
    return {**given, "num_classes": manifest.num_classes}


def _no_conflict(given: dict[str, Any], key: str, value: Any) -> None:
    if key in given and given[key] != value:
        raise ManifestRejected(
            f"model_args.{key} is {given[key]}, but the rest of config.json says {value}; make "
            "them agree.",
            code="manifest_conflict",
        )


def _check_value(key: str, value: Any) -> None:
    for part in value if isinstance(value, tuple) else (value,):
        large = isinstance(part, (int, float)) and not abs(part) <= MAX_NUMBER
        reaching = isinstance(part, str) and any(char in part for char in "/\\:~")
        if large or reaching:
            raise ManifestRejected(
                f"model_args.{key} is {'too large' if large else 'a path or an address'}; remove "
                "it.",
                code="manifest_bad_model_args",
            )


@cache
def _torchvision(name: str) -> Recipe:
    torchvision_shim.install()
    from torchvision import models

    if name in _AUXILIARY:
        raise ManifestRejected(
            f"{TORCHVISION}{name} has auxiliary heads, which answer in training only; use timm's "
            "network of that kind, or another one.",
            code="unknown_architecture",
        )
    if name not in models.list_models(module=models):
        raise _unknown(TORCHVISION + name)

    def make(**kwargs: Any) -> nn.Module:
        return models.get_model(name, weights=None, **kwargs)

    try:
        with torch.device("meta"), Unfilled():
            example = make()
    except NotImplementedError as error:  # RegNet computes its widths with tensors
        raise ManifestRejected(
            f"{TORCHVISION}{name} cannot be measured before it is built; use timm's network of "
            "that kind, or another one.",
            code="unknown_architecture",
        ) from error
    known = _parameters(type(example))
    sized = next((key for key in _SIZES if key in known), None)
    names = known & _TORCHVISION_ARGUMENTS
    if sized is None:
        return Recipe(make, names)
    return Recipe(partial(_make_sized, make, sized), names | {"img_size"})


def _make_sized(make: Callable[..., nn.Module], key: str, **kwargs: Any) -> nn.Module:
    """Build a network for images of one size, which timm's argument `img_size` (H,W) gives."""
    height, width = kwargs.pop("img_size")
    if key == "image_size" and height != width:
        raise ValueError("it takes square images")
    return make(**kwargs, **{key: height if key == "image_size" else (height, width)})


@cache
def _timm(name: str) -> Recipe:
    torchvision_shim.install()
    import timm

    if name not in timm.list_models():
        raise _unknown(name)

    def make(**kwargs: Any) -> nn.Module:
        return timm.create_model(name, pretrained=False, **kwargs)

    # timm's entry points take **kwargs: build it once without memory to see which class it is.
    with torch.device("meta"), Unfilled():
        example = make()
    known: Any = example.pretrained_cfg
    _, height, width = known["input_size"]
    names = (_parameters(type(example)) - FORBIDDEN) | {
        LAYER_NORM_EPS,
        HEAD_NORM_EPS,
        BATCH_NORM_EPS,
    }
    return Recipe(partial(_with_eps, make), names, (height, width))


def _with_eps(make: Callable[..., nn.Module], **kwargs: Any) -> nn.Module:
    """Build a network whose norms add another number to the variance than timm's."""
    given = [
        (key, kwargs.pop(key, None), kind, place)
        for key, kind, place in (
            (LAYER_NORM_EPS, nn.LayerNorm, ""),
            (HEAD_NORM_EPS, nn.LayerNorm, "head."),
            (BATCH_NORM_EPS, nn.BatchNorm2d, ""),
        )
    ]
    network = make(**kwargs)
    for key, eps, kind, place in given:
        if eps is None:
            continue
        found = [
            part
            for name, part in network.named_modules()
            if name.startswith(place) and isinstance(part, kind)
        ]
        if not found or isinstance(eps, bool) or not 0 <= eps <= _LARGEST_EPS:
            raise ValueError(
                f"{key} must lie in 0..{_LARGEST_EPS}, and the network must have such a norm"
            )
        for part in found:
            part.eps = float(eps)
    return network


def _refuse_taken(name: str) -> None:
    """Refuse a network from outside that would take a name of timm's.

    Raises:
        ManifestRejected: `architecture_clash`; nobody could say which of the two a manifest means.
    """
    torchvision_shim.install()
    import timm

    if name in timm.list_models():
        raise ManifestRejected(
            f"{name} is a network of timm and of a plug-in from outside; give the plug-in another "
            "name.",
            code="architecture_clash",
        )


def _unknown(name: str) -> ManifestRejected:
    return ManifestRejected(
        f"The architecture {name!r} is unknown; name one of timm's, torchvision.NAME for a "
        "classifier of torchvision's, or one of "
        f"{', '.join(NETS.names())}.",
        code="unknown_architecture",
    )


def _parameters(made: type[nn.Module]) -> frozenset[str]:
    """The named parameters of a constructor, and of its bases' if it passes `**kwargs` on."""
    names: set[str] = set()
    for cls in made.__mro__:
        if "__init__" not in vars(cls) or cls is nn.Module:
            continue
        parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
        names |= {
            part.name
            for part in parameters
            if part.kind in (part.POSITIONAL_OR_KEYWORD, part.KEYWORD_ONLY)
        }
        if not any(part.kind is part.VAR_KEYWORD for part in parameters):
            break
    return frozenset(names)
