"""The tensor types that are vetted, under their safetensors names.

8-bit floats, packed types and complex types are left out: no architecture that the guard builds
uses them, and readers disagree about them.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: safetensors name -> (torch name, bytes per element)
_TYPES = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "I16": ("int16", 2),
    "I32": ("int32", 4),
    "I64": ("int64", 8),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
}
ITEM_BYTES = {name: size for name, (_, size) in _TYPES.items()}


@cache
def torch_dtypes() -> "dict[str, torch.dtype]":
    """safetensors name -> torch type; imports torch."""
    import torch

    return {name: getattr(torch, torch_name) for name, (torch_name, _) in _TYPES.items()}


def dtype_name(dtype: "torch.dtype") -> str | None:
    """The safetensors name of a torch type; None for one that is not vetted."""
    return next((name for name, known in torch_dtypes().items() if known == dtype), None)
