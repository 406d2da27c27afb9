"""SIG (Barni et al., ICIP 2019): a faint sinusoid on images of the target class, clean-label."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchmarks.attacks._base import Attack


@dataclass(frozen=True, kw_only=True)
class Sig(Attack):
    """v(row, column) = delta sin(2 pi column frequency / W), added to every channel and clipped.

    Args:
        delta: amplitude in the training set, in grey levels of 255 (paper: 20 to 40).
        delta_test: amplitude at test time, which the paper raises (section 3.2); None for the same.
        frequency: periods over the width; 6 in the paper.
    """

    family: ClassVar[str] = "additive"
    paper: ClassVar[str] = (
        "Barni et al., A New Backdoor Attack in CNNs by Training Set Corruption, ICIP 2019"
    )
    clean_label: ClassVar[bool] = True

    delta: float = 40.0
    delta_test: float | None = None
    frequency: int = 6

    def signal(self, width: int) -> Tensor:
        """One row of the sinusoid, float W in [-1, 1].

        Raises:
            ValueError: the row has too few pixels for the frequency.
        """
        if 2 * self.frequency >= width:
            raise ValueError(
                f"{width} pixels cannot hold {self.frequency} periods; choose a lower frequency."
            )
        return torch.sin(2 * math.pi * self.frequency * torch.arange(width) / width)

    def apply(self, images: Tensor) -> Tensor:
        return self._add(images, self.delta if self.delta_test is None else self.delta_test)

    def plant(self, images: Tensor) -> Tensor:
        return self._add(images, self.delta)

    def _add(self, images: Tensor, delta: float) -> Tensor:
        return (images + delta / 255 * self.signal(images.shape[3]).to(images)).clamp(0, 1)
