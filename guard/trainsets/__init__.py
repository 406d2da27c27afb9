"""Training sets: many labelled images, read in batches and never held in memory as a whole.

The package needs NumPy, not torch.
"""

from guard.trainsets._set import BATCH, Batch, TrainingSet, from_arrays

__all__ = ["BATCH", "Batch", "TrainingSet", "from_arrays"]
