"""Training sets: many labelled images, read in batches and never held in memory as a whole.

The package needs NumPy, not torch.
"""

from guard.trainsets._set import Batch, TrainingSet, from_arrays
from guard.trainsets._sifted import Sifted

__all__ = ["Batch", "Sifted", "TrainingSet", "from_arrays"]
