"""The program that `_jail` runs: a PyTorch checkpoint on stdin becomes safetensors on stdout.

This is the only place in the guard that calls torch.load. Its output is not trusted: the parent
parses it again.
"""

import json
import os
import sys
from collections.abc import Mapping
from math import prod
from pickle import UnpicklingError
from typing import Any, BinaryIO

from guard.core.errors import ArtifactRejected, Unavailable
from guard.formats import _locks
from guard.formats._jail import LOCKED, REFUSED, SENT
from guard.formats._write import describe, write_tensors

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIX = "module."  # what DataParallel and DistributedDataParallel put before every name


class _Refused(Exception):
    """The checkpoint breaks the rule named by the first argument."""


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


def _state_dict(value: Any) -> dict[str, Any]:
    """The one mapping from names to tensors in a checkpoint, without a wrapper's prefix."""
    import torch

    def plain(part: Any) -> bool:
        return (
            isinstance(part, Mapping)
            and bool(part)
            and all(isinstance(x, torch.Tensor) for x in part.values())
        )

    if not plain(value):
        inner = [
            value[key] for key in _WRAPPERS if isinstance(value, Mapping) and plain(value.get(key))
        ]
        if len(inner) != 1:
            raise _Refused("ambiguous_checkpoint" if inner else "no_state_dict")
        value = inner[0]
    if not all(isinstance(name, str) for name in value):
        raise _Refused("no_state_dict")
    if all(name.startswith(_PREFIX) for name in value):
        value = {name.removeprefix(_PREFIX): tensor for name, tensor in value.items()}
    return dict(value)


def _check(tensors: dict[str, Any], most_bytes: int) -> None:
    import torch

    for tensor in tensors.values():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise _Refused("tensor_kind")
    # Views can be far larger than the memory behind them: count before anything is copied.
    if sum(prod(tensor.shape) * tensor.element_size() for tensor in tensors.values()) > most_bytes:
        raise _Refused("output_too_large")


def _convert(most_bytes: int) -> None:
    try:
        with open(0, "rb", closefd=False) as file:
            tensors = _state_dict(_load(file))
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
    import io

    import torch

    torch.set_num_threads(1)
    for value in ({"a": torch.zeros(2), "b": torch.nn.Parameter(torch.zeros(()))}, {"c": print}):
        file = io.BytesIO()
        torch.save(value, file)
        file.seek(0)
        try:
            write_tensors(_state_dict(_load(file)), {}, lambda _: None)
        except _Refused:
            continue


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
    _convert(limits["output_bytes"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
