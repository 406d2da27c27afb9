"""How far an image lies from the clean images of its label, as the uploaded model sees them.

Steps:
    1. the input of the model's last layer, for all clean images
    2. for each fold of the clean set: the means of the classes and one covariance of the others
    3. clean images: the distance under the fit of their fold, which did not see them
    4. training images, batch by batch: the mean distance under all fits
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from guard.core.progress import Progress, span
from guard.ml.cleanset import CleanSet
from guard.ml.sifting.covariance import fitted
from guard.sifters._base import Scores, Sifter
from guard.sifters._features import folds, network_of, require_clean, scored
from guard.trainsets import Batch, TrainingSet


@dataclass(frozen=True, kw_only=True)
class CleanDistance(Sifter):
    """Mahalanobis distance to the label's clean mean, one covariance for all classes.

    Source: our own design. The distance is that of Lee et al. (NeurIPS 2018), measured from clean
    images that nobody could poison, with the covariance of Ledoit and Wolf: there may be more
    features than clean images. Within the clean set it is cross-fitted, since a mean is too near
    to the images that it is the mean of.

    Args:
        folds: parts of the clean set. With five, a fit lacks a fifth of the images, so that the
            distances of clean images are hardly larger than a fit on all would make them.
        min_per_class: clean images that every class needs; fewer have no mean worth the name.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none"
    poisoning: ClassVar[frozenset[str]] = frozenset({"dirty-label", "clean-label", "all-to-all"})

    folds: int = 5
    min_per_class: int = 5

    def score(
        self, model: nn.Module, train: TrainingSet, clean: CleanSet, *, progress: Progress
    ) -> Scores:
        require_clean(clean, per_class=self.min_per_class, method="The clean distance")
        progress(0.0, "clean images")
        network, data = network_of(model, clean, method="The clean distance"), clean.together()
        features, labels = network.of_clean(data)[1], data.labels.numpy()
        part = folds(labels, self.folds)
        null, fits = np.empty(len(labels)), []
        for fold in range(self.folds):
            inside = part == fold
            fits.append(fitted(features[~inside], labels[~inside], clean.classes))
            null[inside] = fits[-1].distances(features[inside], labels[inside])

        def distance(batch: Batch) -> np.ndarray:
            seen = network.outputs(batch.images)[1]
            return np.asarray(np.mean([fit.distances(seen, batch.labels) for fit in fits], axis=0))

        found = scored(train, distance, span(progress, 0.1, 1.0, "training images"))
        return Scores(train=found, null=null, null_labels=labels)
