"""What weights a manifest calls for, found without allocating them."""

import torch

from guard.graphs.model import GraphModel, GraphSettings


def shapes(manifest: GraphSettings) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a model's tensors.

    Raises:
        ManifestRejected: a vocabulary, the grammar, the sampler or a size breaks a rule.
    """
    with torch.device("meta"):
        state = GraphModel(manifest).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
