"""What a sift says to those who train, as places in a training set."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sifted:
    """What a sift says to those who train: places int64 in the training set.

    `suspects` are accused and may be learnt from; `proof` are accused and kept for the proof, so
    they are neither trained on nor looked at. `trusted` are the least conspicuous images of each
    class. `relabelled` holds, for each of `suspects`, the class that a clean reference gives it,
    -1 where it is unsure.
    """

    suspects: np.ndarray
    proof: np.ndarray
    trusted: np.ndarray
    relabelled: np.ndarray
