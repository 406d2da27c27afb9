"""The precision of computations: bfloat16 for searches where the hardware has it, else float32.

A search only proposes a trigger; its effect is measured on other images in float32. A CPU without
bfloat16 instructions emulates them, slower than float32, so searches there stay in float32.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch

NEEDS = ("avx512_bf16", "amx_bf16")  # instructions of an x86 processor, one of them


def searching(device: torch.device) -> AbstractContextManager[object]:
    """The context of a search's forward passes on `device`, bfloat16 where that is faster."""
    return (
        torch.autocast(device.type, dtype=torch.bfloat16)
        if _multiplies(device.type)
        else nullcontext()
    )


def repeatable() -> AbstractContextManager[object]:
    """The context in which convolutions on a GPU are deterministic and in full float32.

    It changes nothing on a CPU.
    """
    flags: AbstractContextManager[object] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


@lru_cache
def _multiplies(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    known = torch.cpu.get_capabilities()
    return any(bool(known.get(name)) for name in NEEDS)
