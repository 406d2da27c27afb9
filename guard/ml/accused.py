"""Accused training images in memory, as a defense may learn from them."""

from dataclasses import dataclass

from torch import Tensor

from guard.ml.cleanset import Labelled


@dataclass(frozen=True)
class Accused:
    """What a sift found, as images; none of the proof part is among them.

    Attributes:
        suspects: the accused images with their labels in the training set.
        relabelled: int64 N, for each suspect the class that a clean reference gives it, -1 where it
            is unsure.
        trusted: the least conspicuous training images of each class.
    """

    suspects: Labelled
    relabelled: Tensor
    trusted: Labelled
