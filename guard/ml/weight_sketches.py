"""Make a short sketch of a network's weights, by which nearly equal networks are recognised.

Random signs project all weights to a few numbers, so that the distance of two sketches estimates
that of the weights (Johnson and Lindenstrauss 1984; Achlioptas 2003 for signs).
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from guard.core.weight_sketch import LENGTH, written

_ROWS = 1 << 14  # rows of LENGTH weights at once


def sketch_of(tensors: Mapping[str, Tensor]) -> str:
    """The sketch of a network's weights.

    Each tensor counts by its number of weights, whatever their scale. Counters are left out.

    Args:
        tensors: by name, of any shape and dtype; finite.
    """
    total = torch.zeros(LENGTH, dtype=torch.float64)
    for name, tensor in sorted(tensors.items()):
        if tensor.is_floating_point() and tensor.numel():
            total += _projected(name, tensor)
    return written(total.tolist())


def _projected(name: str, tensor: Tensor) -> Tensor:
    """Sums of a tensor's weights with random signs, float64[LENGTH]; in its own unit, the RMS."""
    flat = tensor.detach().cpu().double().flatten()
    size = flat.square().mean().sqrt()
    if size > 0:
        flat /= size
    seed = hashlib.sha256(f"{name}{tuple(tensor.shape)}".encode()).digest()[:7]
    random = torch.Generator().manual_seed(int.from_bytes(seed, "big"))
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % LENGTH)).reshape(-1, LENGTH)
    total = torch.zeros(LENGTH, dtype=torch.float64)
    for rows in padded.split(_ROWS):
        signs = torch.randint(0, 2, rows.shape, generator=random, dtype=torch.int8)
        total += (rows * (2 * signs - 1)).sum(0)
    return total
