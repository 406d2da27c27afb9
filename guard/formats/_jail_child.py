"""The program that `_jail` runs: a PyTorch checkpoint on stdin becomes safetensors on stdout.

This is the only place in the guard that calls torch.load. Its output is not trusted: the parent
parses it again.
"""

import codecs
import io
import json
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from math import prod
from pickle import UnpicklingError
from typing import Any, BinaryIO, Self

from guard.core.errors import ArtifactRejected, Unavailable
from guard.formats import _locks
from guard.formats._jail import LOCKED, REFUSED, SENT
from guard.formats._pickle_scan import IGNORED
from guard.formats._write import describe, write_tensors

#: Parts of a trainer's file that hold no network, though they may hold tensors.
_NO_NETWORK = (
    "optimizer",
    "optimizer_state_dict",
    "optimizer_states",
    "optim",
    "scheduler",
    "lr_scheduler",
    "lr_schedulers",
    "scaler",
    "amp_scaler",
    "callbacks",
    "hyper_parameters",
    "loops",
    "rng_state",
)
_DEPTH = 2  # `model.ema`
_PREFIX = "module."  # what DataParallel and DistributedDataParallel put before every name


class _Refused(Exception):
    """The checkpoint breaks the rule named by the first argument."""


class _Skipped:
    """Stands for an object of a trainer that is not read; takes everything and keeps nothing."""

    def __new__(cls, *_args: Any) -> Self:
        """Make one, whatever the object was made from."""
        return super().__new__(cls)

    def __init__(self, *_args: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...


def _load(file: BinaryIO) -> Any:
    import torch

    try:
        # There is no second attempt without weights_only.
        return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise _Refused("unsafe_pickle") from error
    except MemoryError as error:
        raise _Refused("over_memory_budget") from error
    except (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        EOFError,
        OSError,
    ) as error:
        raise _Refused("checkpoint_unreadable") from error


def _networks(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Every mapping from names to weights in a checkpoint, with the keys that lead there.

    A mapping that holds no tensor with several elements, such as a counter, is none.
    """
    import torch

    if not isinstance(value, Mapping):
        return
    own = {key: part for key, part in value.items() if isinstance(part, torch.Tensor)}
    plain = bool(own) and len(own) == len(value) and not path
    if plain or any(tensor.numel() > 1 for tensor in own.values()):
        yield ".".join(path), own
    for key, part in value.items():
        if isinstance(key, str) and key not in _NO_NETWORK and len(path) < _DEPTH:
            yield from _networks(part, (*path, key))


def _state_dict(value: Any) -> dict[str, Any]:
    """The tensors of a checkpoint by name, without the prefix of a single wrapper.

    Where it holds several state dicts, each name starts with its own, as in a flat file: which of
    them is meant only the manifest can decide.
    """
    found = list(_networks(value))
    if not found or not all(isinstance(name, str) for _, part in found for name in part):
        raise _Refused("no_state_dict")
    if len(found) == 1:
        ((_, part),) = found
        bare = all(name.startswith(_PREFIX) for name in part)
        return {name.removeprefix(_PREFIX) if bare else name: part[name] for name in part}
    named: dict[str, Any] = {}
    for path, part in found:
        for name, tensor in part.items():
            full = f"{path}.{name}" if path else name
            if full in named:
                raise _Refused("ambiguous_checkpoint")
            named[full] = tensor
    return named


def _check(tensors: dict[str, Any], most_bytes: int) -> None:
    import torch

    for tensor in tensors.values():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise _Refused("tensor_kind")
    # Views can be far larger than the memory behind them: count before anything is copied.
    if sum(prod(tensor.shape) * tensor.element_size() for tensor in tensors.values()) > most_bytes:
        raise _Refused("output_too_large")


def _parts(file: BinaryIO, parts: list[tuple[int, int]]) -> dict[str, Any]:
    """The tensors of several checkpoints, each a flat state dict, by number and name."""
    import torch

    found: dict[str, Any] = {}
    for number, (start, size) in enumerate(parts):
        file.seek(start)
        value = _load(io.BytesIO(file.read(size)))
        flat = isinstance(value, Mapping) and value
        if not flat or not all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor)
            for name, tensor in value.items()
        ):
            raise _Refused("no_state_dict")
        found |= {f"{number}.{name}": tensor for name, tensor in value.items()}
    return found


def _convert(most_bytes: int, parts: list[tuple[int, int]]) -> None:
    try:
        with open(0, "rb", closefd=False) as file:
            tensors = _parts(file, parts) if parts else _state_dict(_load(file))
        _check(tensors, most_bytes)
        describe(tensors)
    except _Refused as error:
        _send(REFUSED + str(error).encode())
        return
    except ArtifactRejected as error:
        _send(REFUSED + error.code.encode())
        return
    _send(SENT)
    write_tensors(tensors, {}, _send)


def _send(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _warm_up() -> None:
    """Trigger every lazy import of loading and writing, since no file can be opened afterwards."""
    import torch

    torch.set_num_threads(1)
    codecs.lookup("latin1")  # bytes in a pickle of protocol 2
    _skip_trainers_objects()
    for value in ({"a": torch.zeros(2), "b": torch.nn.Parameter(torch.zeros(()))}, {"c": print}):
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(value, file, _use_new_zipfile_serialization=zipped)
            file.seek(0)
            try:
                write_tensors(_state_dict(_load(file)), {}, lambda _: None)
            except _Refused:
                continue


def _skip_trainers_objects() -> None:
    """Have torch's own restricted reader put stand-ins in the place of trainers' objects."""
    import torch

    torch.serialization.add_safe_globals(
        [
            (OrderedDict if name.endswith("Dict") else _Skipped, name.replace(" ", "."))
            for name in sorted(IGNORED)
        ]
    )


def main() -> int:
    """Lock this process, report it, convert; the only argument is a JSON object of limits."""
    limits = json.loads(sys.argv[1])
    try:
        own_namespaces = _locks.leave_the_world()
        _warm_up()
        _locks.lock(
            memory_bytes=limits["memory_bytes"],
            cpu_seconds=limits["cpu_seconds"],
            drop_user=not own_namespaces,
        )
    except Unavailable as error:
        sys.stderr.write(error.sentence)
        return 1
    _send(LOCKED)
    _convert(limits["output_bytes"], limits["parts"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
