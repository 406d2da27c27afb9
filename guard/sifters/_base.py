"""The contract of a sifter, and the guarantees that its base class gives."""

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, ClassVar, final

import numpy as np
from torch import nn

from guard.core.errors import MethodFailed
from guard.core.modality import Modality, require
from guard.core.plugins import marked
from guard.core.progress import Progress, silent
from guard.ml.cleanset import CleanSet
from guard.ml.deadline import guarded
from guard.ml.seeds import seeded
from guard.trainsets import TrainingSet


@dataclass(frozen=True)
class Scores:
    """One statistic on every training image, and on clean images that played no part in it.

    Attributes:
        train: float64 N, in the order of the training set; higher is more suspicious.
        null: float64 M, the same statistic on clean images, cross-fitted; None where the method
            has no clean reference, so that its scores only rank.
        null_labels: int64 M, the labels of the clean images behind `null`; None as `null`.
        estimated: int64 N, the class that a clean reference gives each training image, -1 where it
            is unsure; None where the method has no opinion.
    """

    train: np.ndarray
    null: np.ndarray | None = None
    null_labels: np.ndarray | None = None
    estimated: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Sifter(ABC):
    """Scores the images of a training set, given the model that they taught, clean data and a seed.

    A subclass is a frozen dataclass of plain parameters, each with a default, and one method
    `score`. It is never given the trigger, the attack or which images are poisoned. A sifter
    accuses images; it clears no model and adds no coverage.

    `poisoning` says which kinds it speaks about: "dirty-label", "clean-label", "all-to-all".
    """

    version: ClassVar[int]
    paper: ClassVar[str]
    #: The models whose training sets it scores, as of a detector.
    modality: ClassVar[Modality] = Modality.IMAGES
    poisoning: ClassVar[frozenset[str]]
    fast: ClassVar[Mapping[str, Any]] = MappingProxyType({})  # the defaults that `quick` changes

    @abstractmethod
    def score(
        self, model: nn.Module, train: TrainingSet, clean: CleanSet, *, progress: Progress
    ) -> Scores:
        """The scores of all training images.

        `model` takes float images N,C,H,W in [0, 1] and returns logits N,K; it is a copy for this
        call, in eval mode with gradients off. Random numbers come from torch's and NumPy's global
        generators, which the caller has seeded. The training set is read in batches.

        Raises:
            MethodFailed: these images cannot be scored; the message gives the reason.
        """

    @final
    def parameters(self) -> dict[str, Any]:
        """The plain parameters, JSON-ready.

        Those of a plug-in from outside the package include its file's digest.
        """
        return marked(type(self), asdict(self))

    @classmethod
    def quick(cls) -> dict[str, Any]:
        """Parameters of a fast run: enough work to see that a promise holds, no more."""
        return dict(cls.fast)

    @final
    def __call__(
        self,
        model: nn.Module,
        train: TrainingSet,
        clean: CleanSet,
        *,
        seed: int,
        progress: Progress = silent,
        seconds: float = math.inf,
    ) -> Scores:
        """Run `score` on a copy of the model; the same seed gives the same scores on one machine.

        Raises:
            MethodFailed: the images could not be scored, a score is not finite, or there is not one
                for each image. Subclasses: OutOfTime, Cancelled.
        """
        require(self.modality, model, type(self).__name__)
        own = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        watch = guarded(progress, deadline=time.monotonic() + seconds)
        with seeded(seed):
            found = self.score(own, train, clean, progress=watch)
        name = type(self).__name__
        if found.train.shape != (len(train),):
            raise MethodFailed(f"{name} did not give one score an image.", code="bad_scores")
        for numbers in (found.train, found.null):
            if numbers is not None and not np.isfinite(numbers).all():
                raise MethodFailed(f"{name} gave a score that is not finite.", code="non_finite")
        return found
