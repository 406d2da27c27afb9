"""Searches in bfloat16 where the hardware multiplies it.

Everything that is counted is counted in float32.

A search only proposes: what a trigger does is measured on other pictures in full precision. On a
CPU without such instructions bfloat16 is emulated and slower than float32, so it is left alone
there.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch

NEEDS = ("avx512_bf16", "amx_bf16")  # instructions of an x86 processor, one of them


def searching(device: torch.device) -> AbstractContextManager[object]:
    """The context of a search's forward passes on `device`.

    Logits come as bfloat16 there, or as they always do.
    """
    return (
        torch.autocast(device.type, dtype=torch.bfloat16)
        if _multiplies(device.type)
        else nullcontext()
    )


def repeatable() -> AbstractContextManager[object]:
    """The context in which convolutions on a GPU repeat themselves to the bit, in full float32.

    No matter on a CPU.
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
