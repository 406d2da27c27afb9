"""The JSON that travels with a model: the `config.json` that timm and the Hugging Face Hub write.

The keys that are read: `architecture`, `num_classes`, `model_args`, `label_names`, `pretrained_cfg`
(`input_size`, `mean`, `std`, `num_classes`) and our own optional object `guard` (`cleanset`,
`polarizer`, `training_set`, `state_dict`, `naming`, `assumed`). Other keys are ignored.
"""

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from guard.core.config_forms import (
    assumed,
    bare_architecture,
    in_unit_range,
    state_dict_name,
)
from guard.core.digests import canonical_json, is_digest, json_digest
from guard.core.errors import ManifestRejected
from guard.core.modality import Modality, modality_of
from guard.core.trainset import TrainingSetSource
from guard.core.transformers_configs import naming_of, translated

MANIFEST_FILE = "config.json"  # beside the weights
MAX_MANIFEST_BYTES = 1 << 20
MAX_CLASSES = 100_000
MAX_SIDE = 4096
MAX_CHANNELS = 16_384
SMALLEST_STD = 1e-6  # a smaller one is 0, or overflows, in float32
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.]{0,99}")
_ARGUMENT = re.compile(r"[a-z_][a-z0-9_]{0,63}")
_BUCKET_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,62}/[^\\]{1,1000}")
_STORED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LAYER = re.compile(r"[A-Za-z0-9_]{1,64}(\.[A-Za-z0-9_]{1,64}){0,19}")


def _refuse(code: str, sentence: str) -> ManifestRejected:
    return ManifestRejected(sentence, code=f"manifest_{code}")


@dataclass(frozen=True, kw_only=True)
class PolarizerPlace:
    """Where a neural polarizer sits in a network (decision 0009).

    It stands in front of the layer `before`, whose input has `channels` channels. A `conditional`
    one has a row for each class, chosen by the network's prediction without it.
    """

    before: str
    channels: int
    conditional: bool = False


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """How to build a model and feed it.

    It takes float images N,C,H,W in [0, 1] and normalises them itself by `mean` and `std`.
    `model_args` holds plain numbers, strings, booleans and lists of them; whether the constructor
    accepts them is checked by `guard.ml.networks.architectures`. `state_dict` names which of
    several an upload's weights are, `naming` the transformers model whose names they have (neither
    is set in a canonical file). `assumed` lists what `config.json` left out: `mean`, `std`.
    """

    modality: ClassVar[Modality] = Modality.IMAGES
    architecture: str
    num_classes: int
    input_size: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]
    std: tuple[float, ...]
    model_args: Mapping[str, Any] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()
    cleanset: str | None = None
    polarizer: PolarizerPlace | None = None
    training_set: TrainingSetSource | None = None
    state_dict: str | None = None
    naming: str | None = None
    assumed: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> "Manifest":
        """Read `config.json`.

        Raises:
            ManifestRejected: it is no JSON object, a key is repeated, or a value breaks a rule.
        """
        return cls.from_dict(decoded(data))

    @classmethod
    def from_dict(cls, data: Any) -> "Manifest":
        """Read a decoded `config.json`; raises as `parse`."""
        if not isinstance(data, dict):
            raise _refuse("no_object", "config.json must hold a JSON object.")
        if modality_of(data) is not cls.modality:
            raise _refuse("other_task", f"config.json: this is no {cls.modality} model.")
        data = translated(data)
        cfg = data.get("pretrained_cfg", {})
        if not isinstance(cfg, dict):
            raise _refuse("bad_pretrained_cfg", "config.json: pretrained_cfg must be an object.")
        architecture = data.get("architecture", cfg.get("architecture"))
        if isinstance(architecture, str):
            architecture = bare_architecture(architecture)
        if not isinstance(architecture, str) or not _ARCHITECTURE.fullmatch(architecture):
            raise _refuse(
                "bad_architecture",
                "config.json: architecture must name a model, such as 'resnet18'.",
            )
        args = model_args(data.get("model_args", {}))
        size = _input_size(cfg.get("input_size", data.get("input_size")))
        guard = data.get("guard", {})
        if (
            not isinstance(guard, dict)
            or not _plain(guard.get("cleanset", ""))
            or not isinstance(guard.get("cleanset", ""), str)
        ):
            raise _refuse("bad_guard", "config.json: guard must be an object, its cleanset a name.")
        classes = data.get("num_classes", cfg.get("num_classes", args.get("num_classes")))
        if type(classes) is not int or not 2 <= classes <= MAX_CLASSES:
            raise _refuse(
                "bad_num_classes",
                f"config.json: num_classes must be an integer in 2..{MAX_CLASSES}.",
            )
        mean, std = in_unit_range(
            _per_channel(cfg.get("mean", 0.0), size[0], "mean"),
            _per_channel(cfg.get("std", 1.0), size[0], "std"),
        )
        return cls(
            architecture=architecture,
            num_classes=classes,
            input_size=size,
            mean=mean,
            std=std,
            model_args=args,
            label_names=_labels(data.get("label_names"), classes),
            cleanset=guard.get("cleanset") or None,
            polarizer=_polarizer(guard.get("polarizer")),
            training_set=_training_set(guard.get("training_set"), classes),
            state_dict=state_dict_name(guard.get("state_dict")),
            naming=naming_of(guard.get("naming")),
            assumed=assumed(guard.get("assumed", []), cfg),
        )

    def to_dict(self) -> dict[str, Any]:
        """This manifest in the form of `config.json`, which `from_dict` reads back."""
        data: dict[str, Any] = {
            "architecture": self.architecture,
            "num_classes": self.num_classes,
            "model_args": dict(self.model_args),
            "pretrained_cfg": {
                "input_size": list(self.input_size),
                "mean": list(self.mean),
                "std": list(self.std),
                "num_classes": self.num_classes,
            },
        }
        if self.label_names:
            data["label_names"] = list(self.label_names)
        own: dict[str, Any] = {}
        if self.cleanset:
            own["cleanset"] = self.cleanset
        if self.polarizer:
            own["polarizer"] = asdict(self.polarizer)
        if self.training_set:
            own["training_set"] = _without_empty(self.training_set)
        if self.state_dict:
            own["state_dict"] = self.state_dict
        if self.naming:
            own["naming"] = self.naming
        if self.assumed:
            own["assumed"] = list(self.assumed)
        return {**data, "guard": own} if own else data

    def canonical(self) -> bytes:
        """The manifest as one byte string.

        It is written into the canonical weights, so that their digest covers it.
        """
        return canonical_json(self.to_dict())

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form."""
        return json_digest(self.to_dict())


def decoded(data: bytes) -> Any:
    """The JSON value of a `config.json`; no key is repeated, and every number is one.

    Raises:
        ManifestRejected: it is too large, or no such JSON.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise _refuse("too_large", f"config.json is larger than {MAX_MANIFEST_BYTES} bytes.")
    try:
        return json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_no_repeats, parse_constant=_no_constants
        )
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _refuse("no_json", f"config.json is not valid JSON: {error}.") from error


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is repeated")
        found[key] = value
    return found


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def model_args(value: Any) -> dict[str, Any]:
    """The `model_args` of a `config.json`: plain values by argument name.

    Raises:
        ManifestRejected: it is something else.
    """
    if not isinstance(value, dict):
        raise _refuse("bad_model_args", "config.json: model_args must be an object.")
    for key, item in value.items():
        if not _ARGUMENT.fullmatch(key):
            raise _refuse(
                "bad_model_args",
                f"config.json: model_args has the key {key!r}, which names no argument.",
            )
        parts = item if isinstance(item, list) else [item]
        if len(parts) > 64 or not all(_plain(part) for part in parts):
            raise _refuse(
                "bad_model_args",
                f"config.json: model_args.{key} must be plain numbers, strings or booleans.",
            )
    return dict(value)


def _plain(part: Any) -> bool:
    if isinstance(part, str):
        return len(part) <= 200 and part.isprintable()
    return (
        part is None
        or isinstance(part, (bool, int))
        or (isinstance(part, float) and math.isfinite(part))
    )


def _input_size(value: Any) -> tuple[int, int, int]:
    good = (
        isinstance(value, list)
        and len(value) == 3
        and all(type(side) is int and side > 0 for side in value)
    )
    if not good or value[0] > 16 or max(value[1:]) > MAX_SIDE:
        raise _refuse(
            "bad_input_size",
            "config.json: pretrained_cfg.input_size must be [channels, height, width].",
        )
    return (value[0], value[1], value[2])


def _per_channel(value: Any, channels: int, name: str) -> tuple[float, ...]:
    parts = value if isinstance(value, list) else [value]
    if len(parts) == 1:
        parts = parts * channels
    numbers = all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in parts)
    # Not math.isfinite: it raises OverflowError for an integer that no float can hold.
    if (
        not numbers
        or len(parts) != channels
        or not all(abs(part) <= sys.float_info.max for part in parts)
    ):
        raise _refuse(
            f"bad_{name}",
            f"config.json: pretrained_cfg.{name} must hold {channels} finite number(s).",
        )
    if name == "std" and not all(SMALLEST_STD <= part <= 1 / SMALLEST_STD for part in parts):
        raise _refuse(
            "bad_std",
            f"config.json: pretrained_cfg.std must lie in {SMALLEST_STD:g}..{1 / SMALLEST_STD:g}.",
        )
    return tuple(float(part) for part in parts)


def _polarizer(value: Any) -> PolarizerPlace | None:
    """Read strictly, key by key, since it changes which network the weights are loaded into."""
    if value is None:
        return None
    needed, known = {"before", "channels"}, {"before", "channels", "conditional"}
    if not isinstance(value, dict) or not needed <= value.keys() <= known:
        raise _refuse(
            "bad_polarizer",
            "config.json: guard.polarizer must hold before and channels, may hold conditional, "
            "and nothing else.",
        )
    before, channels, conditional = (
        value["before"],
        value["channels"],
        value.get("conditional", False),
    )
    if not isinstance(before, str) or not _LAYER.fullmatch(before):
        raise _refuse(
            "bad_polarizer",
            "config.json: guard.polarizer.before must name a layer, such as 'layer4.1'.",
        )
    if (
        type(channels) is not int
        or not 1 <= channels <= MAX_CHANNELS
        or type(conditional) is not bool
    ):
        raise _refuse(
            "bad_polarizer",
            "config.json: guard.polarizer.channels must be an integer in "
            f"1..{MAX_CHANNELS}, conditional true or false.",
        )
    return PolarizerPlace(before=before, channels=channels, conditional=conditional)


def is_bucket_uri(uri: str) -> bool:
    """Whether a training set's name is `s3://bucket/prefix/` (or the key of one file)."""
    return _BUCKET_URI.fullmatch(uri) is not None and uri.isprintable()


def is_stored_name(name: str) -> bool:
    """Whether a training set may be stored under this name."""
    return _STORED_NAME.fullmatch(name) is not None


def _training_set(value: Any, classes: int) -> TrainingSetSource | None:
    """Read strictly; never a path, since the uploader would choose what the guard's host reads."""
    if value is None:
        return None
    if not isinstance(value, dict) or not {"uri"} <= value.keys() <= {
        "uri",
        "digest",
        "class_names",
    }:
        raise _refuse(
            "bad_training_set",
            "config.json: guard.training_set must hold uri, may hold digest and class_names, and "
            "nothing else.",
        )
    uri, digest = value["uri"], value.get("digest")
    if not isinstance(uri, str) or not (is_bucket_uri(uri) or is_stored_name(uri)):
        raise _refuse(
            "bad_training_set",
            "config.json: guard.training_set.uri must be s3://bucket/prefix/ or the name of a "
            "stored training set.",
        )
    if digest is not None and not is_digest(digest):
        raise _refuse(
            "bad_training_set",
            "config.json: guard.training_set.digest must be 64 hexadecimal digits, as `guard "
            "trainset check` prints it.",
        )
    names = value.get("class_names")
    if names is not None and not _printable(names, classes):
        raise _refuse(
            "bad_training_set",
            f"config.json: guard.training_set.class_names must be {classes} printable strings of "
            "at most 200 characters.",
        )
    return TrainingSetSource(uri=uri, digest=digest, class_names=tuple(names or ()))


def _without_empty(source: TrainingSetSource) -> dict[str, Any]:
    data: dict[str, Any] = {"uri": source.uri}
    if source.digest is not None:
        data["digest"] = source.digest
    if source.class_names:
        data["class_names"] = list(source.class_names)
    return data


def _labels(value: Any, classes: int) -> tuple[str, ...]:
    if value is None:
        return ()
    if not _printable(value, classes):
        raise _refuse(
            "bad_label_names",
            f"config.json: label_names must be {classes} printable strings of at most 200 "
            "characters.",
        )
    return tuple(value)


def _printable(value: Any, count: int) -> bool:
    # No control characters for a terminal, no lone surrogates, which UTF-8 cannot hold.
    return (
        isinstance(value, list)
        and len(value) == count
        and all(
            isinstance(label, str) and len(label) <= 200 and label.isprintable() for label in value
        )
    )
