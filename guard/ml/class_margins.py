"""How near clean pictures of other classes come to a class.

What a task explains of a class's being easily reached.
"""

import math

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.measure import BATCH, device_of, evaluating

NEAR = 0.9  # quantile of other classes' clean pictures


def depth(logits: Tensor, targets: Tensor) -> Tensor:
    """Each row's logit of its target less the greatest other one; logits N,K, targets int64 N."""
    own = logits.gather(1, targets[:, None])[:, 0]
    return own - logits.scatter(1, targets[:, None], -math.inf).amax(1)


def nearness(logits: Tensor, labels: Tensor, classes: int) -> tuple[float, list[float]]:
    """(mean margin of clean pictures in logits.

    Per class the `NEAR` quantile of other pictures' margin into it).

    The quantiles are in units of the mean margin: at most about 0, and nearer to it for a class
    easily mistaken.

    Args:
        logits: N,K of clean pictures, `labels` their classes, int64 N; both on one device.

    Raises:
        MethodFailed: the mean margin is not positive or not finite: the model is near chance.
    """
    scale = float(depth(logits, labels).double().mean())
    if not math.isfinite(scale) or scale <= 0:
        raise MethodFailed(
            "On clean pictures the model's margins are not positive on average; it is near chance.",
            code="near_chance",
        )
    near = []
    for row in range(classes):
        others = logits[labels != row]
        into = depth(others, torch.full((len(others),), row, device=logits.device))
        near.append(float(into.double().quantile(NEAR)) / scale)
    return scale, near


@torch.no_grad()
def nearness_of(model: nn.Module, data: Labelled, classes: int) -> list[float]:
    """The quantiles of `nearness` for a model on labelled pictures.

    Raises:
        MethodFailed: as `nearness`, or a logit is not finite.
    """
    device = device_of(model)
    with evaluating(model):
        logits = torch.cat([model(images) for images, _ in data.batches(BATCH, device=device)])
    if not bool(torch.isfinite(logits).all()):
        raise MethodFailed(
            "The model gives logits that are not finite; it cannot be measured.", code="non_finite"
        )
    return nearness(logits, data.labels.to(device), classes)[1]
