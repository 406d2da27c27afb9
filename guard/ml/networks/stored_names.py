"""From the tensors of an upload to those of its architecture: other names, types, counters.

Trainers put a network into wrappers (`module.`, `_orig_mod.`, `model.`), save it in another
precision, without counters, or several times in one file. The weights are read where there is
exactly one way to read them, and then have the names and types of the architecture: float32,
counters int64. That form is vetted, signed and served. Everything else is refused.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from guard.core.contracts import TensorInfo
from guard.core.errors import ArtifactRejected, ManifestRejected

if TYPE_CHECKING:
    from torch import Tensor

#: Path components that torch puts between a module and its parameters; no module is called so.
TRANSPARENT = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
COUNTER = "num_batches_tracked"
#: What trainers and averaging wrappers count, in one number beside the network.
COUNTERS = frozenset(
    {COUNTER, "n_averaged", "num_updates", "global_step", "step", "epoch", "iteration", "decay"}
)
_SHOWN = 4
_LARGEST = float(torch.finfo(torch.float32).max)
_EXACT = 2.0**53  # below it, a float64 holds every integer


def conform(
    needed: Mapping[str, TensorInfo], held: "Mapping[str, Tensor]", wanted: str | None = None
) -> "dict[str, Tensor]":
    """The tensors of `held` under the names and with the types of `needed`.

    Shapes are not looked at, except that a counter of one element becomes a scalar. What does not
    fit is kept, so that the caller refuses it by name.

    Args:
        needed: the architecture's tensors by name.
        held: what the file holds, on the CPU, any shape and dtype.
        wanted: the state dict that the manifest names, such as `state_dict_ema`.

    Raises:
        ManifestRejected: `manifest_bad_state_dict`; the file holds no state dict of that name.
        ArtifactRejected: `ambiguous_checkpoint`, `beside_the_network`, `weights_not_floats`,
            `counter_not_whole` or `not_finite`.
    """
    names = _transparent(held)
    prefix, whole = _prefix(needed, names, wanted)
    inside = {
        name.removeprefix(prefix): held[full]
        for name, full in names.items()
        if name.startswith(prefix)
    }
    outside = {full: held[full] for name, full in names.items() if not name.startswith(prefix)}
    found = {
        name: _as(needed[name], name, tensor) for name, tensor in inside.items() if name in needed
    }
    found |= {
        name: tensor
        for name, tensor in inside.items()
        if name not in needed and not _is_counter(name, tensor)
    }
    others = {full: tensor for full, tensor in outside.items() if not _is_counter(full, tensor)}
    if not whole:
        return others | found
    if others and wanted is None:
        raise ArtifactRejected(
            f"The file holds other tensors beside the network: {_listed(sorted(others))}; save "
            "the network's state_dict() alone, or name it as guard.state_dict in config.json.",
            code="beside_the_network",
        )
    for name in needed:
        if name.rpartition(".")[2] == COUNTER and name not in found:
            found[name] = torch.zeros((), dtype=torch.int64)
    return found


def _is_counter(name: str, tensor: "Tensor") -> bool:
    known = name.rpartition(".")[2] in COUNTERS
    return tensor.numel() == 1 and (known or not tensor.is_floating_point())


def _transparent(held: "Mapping[str, Tensor]") -> dict[str, str]:
    """The names without components that torch inserts, each with its full name.

    Raises:
        ArtifactRejected: two names become one.
    """
    names: dict[str, str] = {}
    for full in held:
        name = ".".join(part for part in full.split(".") if part not in TRANSPARENT)
        if name in names:
            raise ArtifactRejected(
                f"The file holds {names[name]} and {full}, which are the same tensor of the "
                "network; save one model.state_dict().",
                code="ambiguous_checkpoint",
            )
        names[name] = full
    return names


def _prefix(
    needed: Mapping[str, TensorInfo], names: Iterable[str], wanted: str | None
) -> tuple[str, bool]:
    """What stands before the names of the network, and whether all of them are there.

    Raises:
        ManifestRejected, ArtifactRejected: as `conform`.
    """
    core = {name for name in needed if name.rpartition(".")[2] != COUNTER}
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for place in range(len(parts)):
            if ".".join(parts[place:]) in core:
                counts["".join(f"{part}." for part in parts[:place])] += 1
    whole = sorted(prefix for prefix, count in counts.items() if count == len(core))
    if wanted is not None:
        chosen = [prefix for prefix in whole if prefix.startswith(f"{wanted}.")]
        if len(chosen) != 1:
            there = _listed([_label(prefix) for prefix in whole])
            raise ManifestRejected(
                f"config.json: guard.state_dict is {wanted!r}, but of this network the file holds "
                f"{there or 'no state dict'}; name one that is there, or leave it out.",
                code="manifest_bad_state_dict",
            )
        return chosen[0], True
    if len(whole) > 1:
        raise ArtifactRejected(
            "The file holds several state dicts of this network: "
            f"{_listed([_label(prefix) for prefix in whole])}; name the one that is meant as "
            "guard.state_dict in config.json, or save it alone.",
            code="ambiguous_checkpoint",
        )
    if whole:
        return whole[0], True
    return max(sorted(counts), key=counts.__getitem__, default=""), False


def _label(prefix: str) -> str:
    return prefix.rstrip(".") or "one without a prefix"


def _as(info: TensorInfo, name: str, tensor: "Tensor") -> "Tensor":
    """A tensor as the architecture's type: floats as float32, counters as int64.

    Raises:
        ArtifactRejected: it would become another number.
    """
    if info.dtype == "F32":
        if not tensor.is_floating_point():
            raise ArtifactRejected(
                f"The file holds {name} as {str(tensor.dtype).removeprefix('torch.')}; quantised "
                "weights are not vetted, so save the model as float32, float16 or bfloat16.",
                code="weights_not_floats",
            )
        if tensor.dtype is torch.float64 and bool((tensor.abs() > _LARGEST).any()):
            raise ArtifactRejected(
                f"The file holds {name} as float64 with a value that float32 cannot hold; train "
                "the model again.",
                code="not_finite",
            )
        return tensor.to(torch.float32)
    if info.dtype == "I64" and tensor.dtype is not torch.bool:
        if tensor.is_floating_point() and not bool(
            ((tensor == tensor.round()) & (tensor.double().abs() <= _EXACT)).all()
        ):
            raise ArtifactRejected(
                f"The file holds the counter {name} as a fraction; save the model again.",
                code="counter_not_whole",
            )
        whole = tensor.to(torch.int64)
        return whole.reshape(()) if info.shape == () and whole.numel() == 1 else whole
    return tensor


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
