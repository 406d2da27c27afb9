"""The way from an uploaded file to named tensors: choose the format, inspect, read."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from guard.core.contracts import Budget, Header, TensorInfo
from guard.formats._bytes import HEAD_BYTES, reject
from guard.formats._choose import choose
from guard.formats._dtypes import dtype_name

if TYPE_CHECKING:
    from torch import Tensor


def open_tensors(
    path: Path,
    name: str,
    budget: Budget,
    look: Callable[[Mapping[str, str] | None], None] = lambda _metadata: None,
) -> "tuple[str, Header, dict[str, Tensor]]":
    """Read the file at `path`, which the uploader called `name`.

    Args:
        path: of the file.
        name: for formats that the bytes alone do not identify.
        budget: limits of the file.
        look: called with None once the format is known to be vetted, and with the header's metadata
            before a tensor is read; may raise ArtifactRejected.

    Returns:
        The format's name, a header that lists what was read, and the tensors: on the CPU, finite,
        each with its own memory.

    Raises:
        ArtifactRejected: the format is unknown or not vetted, or one of its rules is broken.
        Unavailable: the file needs the jail, and this machine cannot build one.
    """
    with path.open("rb") as file:
        kind = choose(file.read(HEAD_BYTES), name)
        if kind.vettable:
            look(None)
        header = kind.inspect(file, budget=budget)
        look(header.metadata)
        tensors = kind.tensors(file, budget=budget)
    return header.format, header_of(header.format, tensors, header.metadata), tensors


def header_of(kind: str, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> Header:
    """The header of a file of the format `kind` that would hold these tensors.

    Raises:
        ArtifactRejected: `dtype_not_allowed`.
    """
    found = tuple(_info(key, tensor) for key, tensor in tensors.items())
    return Header(format=kind, tensors=found, metadata=metadata)


def _info(name: str, tensor: "Tensor") -> TensorInfo:
    dtype = dtype_name(tensor.dtype)
    if dtype is None:
        raise reject(
            "dtype_not_allowed", f"Tensor {name!r} has a type that is not vetted; use float32."
        )
    return TensorInfo(name=name, dtype=dtype, shape=tuple(tensor.shape))
