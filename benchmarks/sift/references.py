"""The label gap's reference networks, kept between cells that have the same clean images.

They depend on the clean images, the seed and the parameters only, never on the model or the
training set. So a kept network is the one that training would give again, and a sift with kept
networks finds the same as one without. It is what makes a hundred sifts affordable.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import safetensors.torch
import torch
from torch import nn

from guard.core.digests import sha256
from guard.core.progress import Progress
from guard.ml.cleanset import Labelled
from guard.ml.training import small_network

_STATE = "random state afterwards"


@contextmanager
def kept(folder: Path) -> Iterator[list[int]]:
    """Inside the block, references are read from `folder`, and written there if they are missing.

    The list holds how many were read and how many were trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts = [0, 0]
    train = small_network.learn

    def learn(model: nn.Module, data: Labelled, *, rounds: int, progress: Progress) -> None:
        file = folder / f"{_key(model, data, rounds)}.safetensors"
        if file.exists():
            state = safetensors.torch.load_file(file)
            torch.set_rng_state(state.pop(_STATE))
            model.load_state_dict(state)
            counts[0] += 1
            return
        train(model, data, rounds=rounds, progress=progress)
        state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        part = file.with_suffix(".part")
        safetensors.torch.save_file(state | {_STATE: torch.get_rng_state()}, part)
        part.rename(file)
        counts[1] += 1

    with patch("guard.sifters.label_gap.learn", learn):
        yield counts


def _key(model: nn.Module, data: Labelled, rounds: int) -> str:
    """What a training depends on: first weights, images, passes, and where the random stream is."""
    parts = [repr((model, rounds)).encode(), torch.get_rng_state().numpy().tobytes()]
    parts += [tensor.detach().numpy().tobytes() for tensor in model.state_dict().values()]
    parts += [data.images.numpy().tobytes(), data.labels.numpy().tobytes()]
    return sha256(b"".join(parts))[:32]
