"""Checks before a long search or repair that a model and its pairs allow one."""

import torch

from guard.core.errors import MethodFailed
from guard.core.pairs import CleanPairs
from guard.graphs.model import GraphModel

LEAST_SEARCH, LEAST_CALIBRATION = 16, 8  # pairs


def check_pairs(model: GraphModel, clean: CleanPairs) -> None:
    """Refuse too few pairs and a model whose latents are not finite.

    Raises:
        MethodFailed: `few_pairs` or `non_finite`.
    """
    if len(clean.search) < LEAST_SEARCH or len(clean.calibration) < LEAST_CALIBRATION:
        raise MethodFailed(
            f"The clean set has {len(clean.search)} search and {len(clean.calibration)} "
            f"calibration pairs; {LEAST_SEARCH} and {LEAST_CALIBRATION} are needed. Add pairs.",
            code="few_pairs",
        )
    texts = clean.search.texts[:4]
    latents = model.latents(model.contexts(texts), [(0, place) for place in range(len(texts))])
    finite = all(bool(torch.isfinite(one).all()) for one in model.state_dict().values())
    if not finite or not bool(torch.isfinite(latents).all()):
        raise MethodFailed("The model gives latents that are not finite.", code="non_finite")


def drawn_seed() -> int:
    """A seed for noise and trainings, drawn from torch's global generator, which is seeded."""
    return int(torch.randint(2**31, (1,)))
