"""Small models of transformers for tests, by names and shapes: no part of that package is needed.

`FILE` holds what transformers wrote and answered (`benchmarks.make_transformers_golden`).
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FILE = Path(__file__).parents[1] / "tests" / "vetting" / "transformers_golden.json"
PREPROCESSOR: dict[str, Any] = {"image_mean": [0.5], "image_std": [0.25], "do_normalize": True}


@cache
def models() -> dict[str, Any]:
    """The golden models by name."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def weights(shapes: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Weights by name, float32 and counters int64, that follow from names and shapes alone."""
    made = {}
    for place, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        if name.endswith("num_batches_tracked"):
            made[name] = torch.zeros((), dtype=torch.int64)
            continue
        drawn = np.random.RandomState(place).standard_normal(shape)
        if name.endswith("running_var"):
            drawn = 0.5 + np.abs(drawn)
        elif "norm" in name and name.endswith("weight"):
            drawn = 1 + 0.3 * drawn
        elif len(shape) > 1:
            drawn = drawn / math.sqrt(math.prod(shape[1:]))
        made[name] = torch.from_numpy(np.asarray(drawn, dtype=np.float32))
    return made


def images(channels: int, side: int) -> Tensor:
    """Three images: float32 N,C,H,W in [0, 1]."""
    drawn = np.random.RandomState(1).random_sample((3, channels, side, side))
    return torch.from_numpy(drawn.astype(np.float32))
