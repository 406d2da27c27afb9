"""The forms in which `config.json` is written by tools other than the guard.

Each function turns one of them into what `guard.core.manifest` reads, without losing anything that
decides which network is built.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from guard.core.errors import ManifestRejected

TORCHVISION = "torchvision."
_HUB = re.compile(r"(?:hf[-_]hub:)?timm/")
_STATE_DICT = re.compile(r"[A-Za-z0-9_]{1,64}(\.[A-Za-z0-9_]{1,64}){0,19}")
_ASSUMABLE = ("mean", "std")
_BYTE = 255.0


def bare_architecture(name: str) -> str:
    """A timm name without the hub's prefix and without its tag.

    `timm/resnet18.a1_in1k` names an architecture and the weights that somebody else trained, and
    the upload brings its own weights.
    """
    name = _HUB.sub("", name, count=1)
    return name if name.startswith(TORCHVISION) else name.partition(".")[0]


def in_unit_range(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation for images in [0, 1], where they were given for 0..255.

    Both are divided by 255 where no image in [0, 1] could have such a mean; this changes no
    network's answer.

    Raises:
        ManifestRejected: `manifest_mixed_scale`; one fits [0, 1] only, the other 0..255 only.
    """
    if max(mean) <= 1 and not (set(mean) == {0.0} and set(std) == {_BYTE}):
        return tuple(mean), tuple(std)
    if not all(0 <= part <= _BYTE for part in mean) or not all(1 <= part <= _BYTE for part in std):
        raise ManifestRejected(
            "config.json: pretrained_cfg.mean and std are neither both for images in 0..1 nor "
            "both for 0..255; write both for 0..1, as timm does.",
            code="manifest_mixed_scale",
        )
    return tuple(part / _BYTE for part in mean), tuple(part / _BYTE for part in std)


def state_dict_name(value: Any) -> str | None:
    """The state dict that `guard.state_dict` names; None where it names none.

    Raises:
        ManifestRejected: `manifest_bad_state_dict`.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not _STATE_DICT.fullmatch(value):
        raise ManifestRejected(
            "config.json: guard.state_dict must name a state dict of the file, such as "
            "'state_dict_ema'.",
            code="manifest_bad_state_dict",
        )
    return value


def assumed_remark(names: Sequence[str]) -> str:
    """What a verdict and an error say of a `config.json` without `names`; empty without names."""
    if not names:
        return ""
    values = {"mean": "mean 0", "std": "std 1"}
    used = " and ".join(values[name] for name in names)
    return (
        f"config.json gives no {' and no '.join(names)}: images were fed with {used}, which is "
        "right only for a network that was trained so."
    )


def assumed(value: Any, cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of mean and std `pretrained_cfg` leaves out, or an earlier reading did (`value`).

    Raises:
        ManifestRejected: `manifest_bad_guard`; `value` is no list of these names.
    """
    if not isinstance(value, list) or not all(name in _ASSUMABLE for name in value):
        raise ManifestRejected(
            "config.json: guard.assumed may only hold mean and std; leave it out.",
            code="manifest_bad_guard",
        )
    return tuple(name for name in _ASSUMABLE if name in value or name not in cfg)
