"""From the `config.json` of a transformers image classifier to that of the same network in timm.

Only what decides the logits is read, and only models are taken whose every part timm's network has.
Defaults are those of the configuration classes of transformers 5.24. The weights are renamed by
`guard.ml.networks.transformers_names`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from guard.core import _transformers_networks as networks
from guard.core._transformers_reader import Reader
from guard.core.errors import ManifestRejected
from guard.core.preprocessor import PREPROCESSOR_KEY, Preprocessor, readable

_TIMM_WRAPPER = "timm_wrapper"


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
    network: Callable[[Reader], networks.Network]
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


_HEADS = "other activations than gelu, relu, silu, quick_gelu and gelu's tanh form"
_STAGES = f"other than four stages or patches of 4; {_HEADS}"
#: By the naming of their tensors (`guard.ml.networks.transformers_names`).
FAMILIES = {
    "resnet": Family(
        kind="resnet",
        head="ResNetForImageClassification",
        network=networks.resnet,
        sized=False,
        like="resnet18 ... resnet152",
        refused="other than four stages, 64 channels in the stem or relu; strides elsewhere",
    ),
    "vit": Family(
        kind="vit",
        head="ViTForImageClassification",
        network=networks.vit,
        sized=True,
        like="vit_base_patch16_224 and its kin",
        refused=_HEADS,
    ),
    "deit": Family(
        kind="deit",
        head="DeiTForImageClassificationWithTeacher",
        network=networks.deit,
        sized=True,
        like="deit_base_distilled_patch16_224 and its kin",
        refused=_HEADS,
    ),
    "deit_one_token": Family(
        kind="deit",
        head="DeiTForImageClassification",
        network=networks.deit_of_one_token,
        sized=True,
        like="deit_base_patch16_224 and its kin, with one register",
        refused=_HEADS,
    ),
    "convnext": Family(
        kind="convnext",
        head="ConvNextForImageClassification",
        network=networks.convnext,
        sized=False,
        like="convnext_tiny",
        refused=_STAGES,
    ),
    "convnextv2": Family(
        kind="convnextv2",
        head="ConvNextV2ForImageClassification",
        network=networks.convnextv2,
        sized=False,
        like="convnextv2_tiny",
        refused=_STAGES,
    ),
    "swin": Family(
        kind="swin",
        head="SwinForImageClassification",
        network=networks.swin,
        sized=True,
        like="swin_tiny_patch4_window7_224",
        refused="absolute positions, other than gelu, maps that windows do not tile",
    ),
    "mobilenet_v2": Family(
        kind="mobilenet_v2",
        head="MobileNetV2ForImageClassification",
        network=networks.mobilenet,
        sized=False,
        like="mobilenetv2_035 ... mobilenetv2_140",
        refused="other widths than timm's, other strides, expansion or activation",
    ),
}
_KINDS = tuple(dict.fromkeys(one.kind for one in FAMILIES.values()))
