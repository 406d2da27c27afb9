"""How near clean images of other classes come to a class, in units of the mean margin.

That is the part of a class's being easily reached which the task itself explains.
"""

import math

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.measure import BATCH, device_of, evaluating

NEAR = 0.9  # quantile of other classes' clean images


def depth(logits: Tensor, targets: Tensor) -> Tensor:
    """Margin N: the logit of each row's target minus the largest other one.

    Args:
        logits: float N,K.
        targets: class indices, int64 N.
    """
    own = logits.gather(1, targets[:, None])[:, 0]
    return own - logits.scatter(1, targets[:, None], -math.inf).amax(1)


def nearness(logits: Tensor, labels: Tensor, classes: int) -> tuple[float, list[float]]:
    """The mean margin of clean images, and how near other classes' images come to each class.

    Args:
        logits: float N,K of clean images.
        labels: their classes, int64 N, on the same device.
        classes: K.

    Returns:
        The mean margin in logits; and for each class the `NEAR` quantile of the margins with which
        images of other classes go to it, in units of the mean margin: at most about 0, and nearer
        to 0 for a class that is easily mistaken.

    Raises:
        MethodFailed: the mean margin is not positive or not finite: the model is near chance.
    """
    scale = float(depth(logits, labels).double().mean())
    if not math.isfinite(scale) or scale <= 0:
        raise MethodFailed(
            "On clean images the model's margins are not positive on average; it is near chance.",
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
    """The quantiles of `nearness` for a model on labelled images, one for each class.

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
