"""Build networks by name and load uploads into them: the only way from a manifest to a model.

Names are looked up in this order: our own CIFAR-style nets (`guard.ml.networks.nets`),
`torchvision.NAME` for torchvision's classifiers, timm's models. Code is always ours or an
installed library's; an upload brings numbers only. A manifest may put a neural polarizer into the
network (`guard.ml.networks.polarizer`).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from guard.core.config_forms import assumed_remark
from guard.core.contracts import Budget, Header, TensorInfo
from guard.core.errors import ArtifactRejected, ManifestRejected, MethodFailed
from guard.core.manifest import Manifest
from guard.ml.networks import cost as costs
from guard.ml.networks import torchvision_shim
from guard.ml.networks._growth import Unfilled, bounded
from guard.ml.networks._recipes import arguments, recipe
from guard.ml.networks.nets import NETS
from guard.ml.networks.polarizer import attach
from guard.ml.networks.stored_names import conform
from guard.ml.networks.transformers_names import renamed
from guard.ml.seeds import seeded

#: How safetensors writes a type.
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
SHOWN = 5  # names that an error sentence lists
_PROBES = 2


class ImageModel(nn.Module):
    """A classifier that takes float images N,C,H,W in [0, 1] and returns logits N,K.

    It normalises the images itself. `inner` is the network, `manifest` what it was built from; the
    normalisation is not in the state dict.

    Raises:
        MethodFailed: from `forward`, when the images have another shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, inner: nn.Module, manifest: Manifest) -> None:
        super().__init__()
        self.inner = inner
        self.manifest = manifest
        shape = (1, manifest.input_size[0], 1, 1)
        self.register_buffer("mean", torch.tensor(manifest.mean).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(manifest.std).reshape(shape), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if images.dim() != 4 or tuple(images.shape[1:]) != self.manifest.input_size:
            raise MethodFailed(
                "The model takes images of shape "
                f"N,{','.join(map(str, self.manifest.input_size))}, not "
                f"{','.join(map(str, images.shape))}; resize them.",
                code="wrong_shape",
            )
        logits: Tensor = self.inner((images - self.mean) / self.std)
        return logits


def expected(manifest: Manifest, *, budget: Budget | None = None) -> dict[str, TensorInfo]:
    """The tensors of this architecture's state dict, by name, without allocating them.

    Raises:
        ManifestRejected: the architecture or an argument is unknown, they contradict each other, or
            `over_budget`.
    """
    return {info.name: info for info in _infos(_outline(manifest, budget).state_dict())}


def afford(manifest: Manifest, *, budget: Budget) -> None:
    """Refuse a network that costs more than the budget, from its shapes; nothing is allocated.

    Raises:
        ManifestRejected: `over_budget` or `cost_unknown`; or as `expected`.
    """
    found = costs.cost_of(lambda: _outline(manifest, budget), manifest, budget)
    size = "x".join(map(str, manifest.input_size))
    costs.refuse(found, f"{manifest.architecture} at {size}", budget)


def check(manifest: Manifest, header: Header, *, budget: Budget | None = None) -> None:
    """Refuse a file unless it holds exactly the tensors of the architecture.

    Names, shapes and types must all be the architecture's (float32, counters int64): a
    half-precision copy is another model.

    Raises:
        ArtifactRejected: `architecture_mismatch`; or as `expected`.
    """
    needed = expected(manifest, budget=budget)
    held = {info.name: info for info in header.tensors}
    problems = _problems(needed, held)
    if problems:
        raise ArtifactRejected(
            f"The weights do not fit {manifest.architecture} with {manifest.num_classes} classes: "
            "the file "
            f"{'; it '.join(problems)}. {_mend(manifest, needed, held)}",
            code="architecture_mismatch",
        )


def _problems(needed: Mapping[str, TensorInfo], held: Mapping[str, TensorInfo]) -> list[str]:
    """What is missing, what nobody needs, and what has another shape or type."""
    wrong = [name for name in sorted(needed.keys() & held.keys()) if needed[name] != held[name]]
    return [
        *_listed("lacks", needed.keys() - held.keys()),
        *_listed("has, but the architecture does not,", held.keys() - needed.keys()),
        *(
            f"holds {name} as {_shown(held[name])}, not {_shown(needed[name])}"
            for name in wrong[:SHOWN]
        ),
    ]


def _mend(
    manifest: Manifest, needed: Mapping[str, TensorInfo], held: Mapping[str, TensorInfo]
) -> str:
    """What is to be corrected: one key where it can only be that one."""
    if needed.keys() != held.keys():
        return "Check architecture, num_classes and model_args in config.json."
    wrong = [(needed[name], held[name]) for name in needed if needed[name] != held[name]]
    if all(want.shape == have.shape for want, have in wrong):
        return "Save these tensors in the types that are named."
    heads = {have.shape[:1] for want, have in wrong if want.shape[1:] == have.shape[1:]}
    same = all(want.shape[1:] == have.shape[1:] for want, have in wrong)
    if same and len(heads) == 1 and {want.shape[0] for want, _ in wrong} == {manifest.num_classes}:
        return f"The weights have {heads.pop()[0]} classes: correct num_classes in config.json."
    channels = {
        have.shape[1]
        for want, have in wrong
        if len(want.shape) == 4
        and have.shape == (want.shape[0], have.shape[1], *want.shape[2:])
        and want.shape[1] == manifest.input_size[0]
    }
    if len(wrong) == len(channels) == 1:
        return (
            f"The weights are for images of {channels.pop()} channel(s): correct "
            "pretrained_cfg.input_size in config.json."
        )
    return "The names fit and the sizes do not: check model_args and num_classes in config.json."


def conformed(
    manifest: Manifest, tensors: Mapping[str, Tensor], *, budget: Budget | None = None
) -> dict[str, Tensor]:
    """The tensors of an upload under the names and in the types of the architecture.

    What does not fit is kept, for `check` to refuse it, except in an upload that has the names of
    transformers: there the sentence is about that model.

    Args:
        manifest: names the architecture, and which state dict of several is meant.
        tensors: the upload's, under any prefix, in any floating-point type, of any shape.
        budget: limits of the architecture's size.

    Raises:
        ManifestRejected: as `expected`.
        ArtifactRejected: as `guard.ml.networks.stored_names.conform`, or `architecture_mismatch`.
    """
    needed = expected(manifest, budget=budget)
    if manifest.naming is None:
        return conform(needed, tensors, manifest.state_dict)
    found = conform(needed, renamed(manifest.naming, tensors), manifest.state_dict)
    problems = _problems(needed, {info.name: info for info in _infos(found)})
    if problems:
        raise ArtifactRejected(
            f"The weights are not those of the transformers model {manifest.naming!r} that "
            f"config.json describes; by timm's names, the file {'; it '.join(problems)}. Save "
            "model and config.json together with save_pretrained().",
            code="architecture_mismatch",
        )
    return found


def build(manifest: Manifest, *, budget: Budget | None = None) -> nn.Module:
    """Build the network without its wrapper, on the CPU, in training mode.

    Its weights are drawn from torch's global generator.

    Raises:
        ManifestRejected: as `expected`, before any memory is allocated.
    """
    _outline(manifest, budget)
    return _make(manifest)


def wrap(manifest: Manifest, inner: nn.Module) -> ImageModel:
    """Wrap a network so that it takes float images N,C,H,W in [0, 1], as methods expect."""
    return ImageModel(inner, manifest)


def load(
    manifest: Manifest, tensors: Mapping[str, Tensor], *, budget: Budget | None = None
) -> ImageModel:
    """Load tensors into the architecture and try it on random images; eval mode, on the CPU.

    The model may share memory with `tensors`. The global random state is left alone.

    Args:
        manifest: names the architecture.
        tensors: the state dict; names, shapes and dtypes as `expected` gives them.
        budget: limits of the architecture's size; None grants what `tensors` need.

    Raises:
        ManifestRejected: as `expected`, or the network does not run on images of the manifest's
            size.
        ArtifactRejected: as `check`, or `bad_logits`: not N,K, not finite, or different on a second
            pass.
    """
    budget = budget or _as_large_as(tensors)
    check(manifest, Header(format="tensors", tensors=_infos(tensors)), budget=budget)
    inner = _outline(manifest, budget)
    if _is_whole(inner, tensors):
        inner.load_state_dict(dict(tensors), strict=True, assign=True)
    else:  # some tensor is computed, not stored: compute it for real
        with seeded(0):
            inner = _make(manifest)
        inner.load_state_dict(dict(tensors), strict=True)
    model = wrap(manifest, inner.requires_grad_()).eval()
    _probe(model)
    return model


def export(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the network inside `model`; shapes and dtypes are the network's.

    The tensors are contiguous copies on the CPU, each with its own memory.
    """
    inner = model.inner if isinstance(model, ImageModel) else model
    return {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in inner.state_dict().items()
    }


def preload() -> None:
    """Import everything that networks are built with, before the first one is built."""
    NETS.all()
    torchvision_shim.install()
    import timm  # noqa: F401 - a second or two, paid here


def _outline(manifest: Manifest, budget: Budget | None) -> nn.Module:
    """The network on the meta device, which has shapes but no memory, within the budget."""
    recipe(manifest.architecture)  # which may build an example, that is no part of this network
    with torch.device("meta"), Unfilled(), bounded(budget or Budget()):
        return _make(manifest)


def _make(manifest: Manifest) -> nn.Module:
    known = recipe(manifest.architecture)
    wanted = arguments(manifest, known)
    try:
        network = known.make(**wanted)
    except ManifestRejected:
        raise
    except Exception as error:  # any constructor, any complaint: the arguments are the uploader's
        raise ManifestRejected(
            f"{manifest.architecture} cannot be built with these model_args: "
            f"{type(error).__name__}: "
            f"{ascii(str(error))[:200]}; correct them.",
            code="manifest_bad_model_args",
        ) from error
    return (
        network
        if manifest.polarizer is None
        else attach(network, manifest.polarizer, manifest.num_classes)
    )


def _as_large_as(tensors: Mapping[str, Tensor]) -> Budget:
    """A budget for weights that lie in memory already, whatever was granted for that."""
    usual, numbers = Budget(), sum(tensor.numel() for tensor in tensors.values())
    return replace(  # twice, since a network may hold computed buffers beside what is stored
        usual,
        parameters=max(usual.parameters, 2 * numbers),
        network_tensors=max(usual.network_tensors, 2 * len(tensors)),
    )


def _is_whole(inner: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the network holds no other tensors, neither computed buffers nor attributes."""
    if any(name not in tensors for name, _ in inner.named_buffers()):
        return False
    return not any(
        isinstance(value, Tensor) for module in inner.modules() for value in vars(module).values()
    )


def _probe(model: ImageModel) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((_PROBES, *model.manifest.input_size), generator=generator)
    try:
        with torch.no_grad():
            logits, again = model(images), model(images)
    except (
        RuntimeError,
        ValueError,
        AssertionError,
        TypeError,
        IndexError,
        AttributeError,
    ) as error:
        place = model.manifest.polarizer
        raise ManifestRejected(
            f"{model.manifest.architecture} does not run on images of size "
            f"{model.manifest.input_size}"
            f"{f' with a polarizer before {place.before}' if place else ''}: "
            f"{ascii(str(error))[:200]}; correct "
            f"pretrained_cfg.input_size{' or guard.polarizer' if place else ''}.",
            code="manifest_does_not_run",
        ) from error
    shape = (_PROBES, model.manifest.num_classes)
    if (
        not isinstance(logits, Tensor)
        or logits.shape != shape
        or not bool(torch.isfinite(logits).all())
    ):
        raise ArtifactRejected(
            f"On random images the model does not give {model.manifest.num_classes} finite logits "
            "each; check num_classes, and train it again if its weights have run away. "
            f"{assumed_remark(model.manifest.assumed)}".rstrip(),
            code="bad_logits",
        )
    if not torch.allclose(logits, again, rtol=1e-3, atol=1e-4):
        raise ArtifactRejected(
            "The model gives different logits for the same image; use an architecture that keeps "
            "no state.",
            code="bad_logits",
        )


def _infos(tensors: Mapping[str, Any]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            name=name, dtype=DTYPES.get(tensor.dtype, str(tensor.dtype)), shape=tuple(tensor.shape)
        )
        for name, tensor in tensors.items()
    )


def _listed(verb: str, names: set[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(sorted(names)[:SHOWN])
    return [f"{verb} {shown}" + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")]


def _shown(info: TensorInfo) -> str:
    return f"{info.dtype}{list(info.shape)}"
