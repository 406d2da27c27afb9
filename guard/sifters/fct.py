"""FCT: how far the features of an image move when it is turned and shifted.

Steps:
    1. step A: train a fresh network on the whole set, without augmentation, for two passes
    2. step B: ten more passes that only push the classes' centroids apart
    3. score every image once: the squared distance between the features of the image and of a
       randomly turned and shifted copy
    4. the lowest fifth of the scores is called clean, the highest twentieth poisoned
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.progress import Progress, span
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.precision import repeatable
from guard.sifters._base import Scores, Sifter
from guard.sifters._features import Network, floats, network_of, scored
from guard.sifters._throwaway import descend, fresh
from guard.trainsets import Batch, TrainingSet

BATCH = 128
RATE, MOMENTUM, DECAY, T_MAX = 0.01, 0.9, 5e-4, 100
TURN, SHIFT = 180.0, 0.2  # degrees either way; share of the side either way


class Split(NamedTuple):
    """FCT's sets as int64 places, and its thresholds; images at a threshold are in its set."""

    clean: np.ndarray
    poisoned: np.ndarray
    gamma_clean: float
    gamma_poisoned: float


@dataclass(frozen=True, kw_only=True)
class Fct(Sifter):
    """Feature consistency towards transformations.

    Source: Chen, Wu and Wang, NeurIPS 2022, sections 3 and 4.1, with the published code where the
    paper is silent (one optimiser and its cosine schedule over both steps, SGD 0.01, momentum 0.9,
    weight decay 5e-4, batches of 128, one draw of a rotation by up to 180 degrees and then a shift
    by up to a fifth of the side, nearest pixel and filled with black). Deviation: the scores are
    computed once. The published code draws anew for the sets, so that they are not quite the ones
    that the thresholds define. It ranks; it has no clean reference, and no false discovery rate.

    What is not done here, though it was proposed: dividing by the norm of the features or taking
    ranks within a class. Both were measured, and both made it worse.

    Args:
        epochs_a, epochs_b: passes of the steps.
        transforms: draws a score is averaged over; the paper has one.
        upload: take the uploaded model's features instead of a throw-away network's.
        clean_share, poisoned_share: the paper's alpha_c and alpha_p.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Chen et al., Exploiting Sensitivity of Poisoned Samples, NeurIPS 2022"
    poisoning: ClassVar[frozenset[str]] = frozenset({"dirty-label", "clean-label", "all-to-all"})
    fast: ClassVar[Mapping[str, Any]] = MappingProxyType({"epochs_b": 1})

    epochs_a: int = 2
    epochs_b: int = 10
    transforms: int = 1
    upload: bool = False
    clean_share: float = 0.2
    poisoned_share: float = 0.05

    def score(
        self, model: nn.Module, train: TrainingSet, clean: CleanSet, *, progress: Progress
    ) -> Scores:
        if self.upload:
            network, begin = network_of(model, clean, method="FCT"), 0.0
        else:
            begin = 0.9
            network = self._taught(model, train, clean, progress, begin)

        def moved(batch: Batch) -> np.ndarray:
            plain = network.outputs(batch.images)[1].astype(np.float64)
            total = np.zeros(len(plain))
            for _ in range(self.transforms):
                copy = turned_and_shifted(floats(batch.images, device_of(network.model)))
                # Whole grey levels, as an image file has; nearest pixels keep them.
                again = network.outputs(copy.mul(255).round_().to(torch.uint8).cpu().numpy())[1]
                total += ((plain - again) ** 2).sum(1)
            return total / self.transforms

        return Scores(train=scored(train, moved, span(progress, begin, 1.0, "training images")))

    def split(self, scores: np.ndarray) -> Split:
        """The paper's sets, by both thresholds, from scores float64 N."""
        ordered, count = np.sort(scores), len(scores)
        low = float(ordered[int(self.clean_share * count)])
        high = float(ordered[min(count - 1, count - int(self.poisoned_share * count))])
        return Split(np.flatnonzero(scores <= low), np.flatnonzero(scores >= high), low, high)

    def _taught(
        self, model: nn.Module, train: TrainingSet, clean: CleanSet, progress: Progress, end: float
    ) -> Network:
        made = fresh(model, clean)
        network = network_of(made, clean, method="FCT")
        optimiser = torch.optim.SGD(
            made.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_MAX)
        made.train()
        passes = self.epochs_a + self.epochs_b
        for epoch in range(passes):
            first = epoch < self.epochs_a

            def loss(images: Tensor, labels: Tensor, *, first: bool = first) -> Tensor:
                logits, features = network.run(images)
                if first:
                    return functional.cross_entropy(logits, labels)
                return centroid_similarity(features, labels)

            watch = span(progress, end * epoch / passes, end * (epoch + 1) / passes, "training")
            with repeatable():
                descend(train, made, optimiser, loss, batch=BATCH, watch=watch)
            schedule.step()
        made.eval().requires_grad_(requires_grad=False)
        return network


def centroid_similarity(features: Tensor, labels: Tensor) -> Tensor:
    """The mean cosine similarity of the classes' centroids in a batch, a scalar.

    The paper's "intra-class loss". The mean runs over all pairs, the zeros of the diagonal
    included.

    Args:
        features: float N,D.
        labels: int64 N; classes that do not occur have no centroid.
    """
    present = labels.unique()
    centroids = torch.stack([features[labels == row].mean(0) for row in present])
    unit = functional.normalize(centroids, dim=1)
    similarity = unit @ unit.T
    return (similarity * (1 - torch.eye(len(present)).to(similarity))).mean()


def turned_and_shifted(images: Tensor) -> Tensor:
    """Copies of float images N,C,H,W in [0, 1]: turned, then shifted by whole pixels, each anew.

    What comes from outside is black; what the rotation pushed out does not come back.
    """
    count, (height, width) = len(images), images.shape[2:]
    angle = (torch.rand(count) * 2 - 1) * math.radians(TURN)
    turn = torch.zeros(count, 2, 3)
    turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
    turn[:, 0, 1] = -angle.sin() * height / width  # the grid has sides of 2, whatever the image's
    turn[:, 1, 0] = angle.sin() * width / height
    shift = torch.eye(2, 3).repeat(count, 1, 1)
    for row, side in enumerate((width, height)):
        steps = ((torch.rand(count) * 2 - 1) * SHIFT * side).round()
        shift[:, row, 2] = 2 * steps / side
    for grid in (turn, shift):
        places = functional.affine_grid(grid.to(images), list(images.shape), align_corners=False)
        images = functional.grid_sample(images, places, mode="nearest", align_corners=False)
    return images
