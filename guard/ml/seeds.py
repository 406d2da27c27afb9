"""A block with its own random state, and that state as data for a training that goes on later."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[torch.Generator]:
    """Seed torch (CPU and CUDA), NumPy and `random` inside the block, restore them after it.

    Yields a CPU generator with the same seed, for code that draws explicitly.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def random_state() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state of all generators that `seeded` seeds.

    Returns:
        Integer tensors of shape N by name, and JSON-ready values.
    """
    version, state, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(state, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
    }
    if torch.cuda.is_initialized():
        states = torch.cuda.get_rng_state_all()
        tensors |= {f"cuda{index}": state for index, state in enumerate(states)}
    plain = {
        "python": [version, gauss],
        "numpy": [str(kind), int(position), int(has_gauss), float(cached)],
    }
    return tensors, plain


def set_random_state(tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]) -> None:
    """Put all generators into a state that `random_state` returned, shapes and types as there."""
    torch.set_rng_state(tensors["torch"])
    version, gauss = plain["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    kind, position, has_gauss, cached = plain["numpy"]
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, cached))
    for index in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        if f"cuda{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda{index}"], index)
