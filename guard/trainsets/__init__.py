"""Training sets: many labelled images, read in batches and never held in memory as a whole.

The package needs NumPy, not torch.
"""

from guard.trainsets._fit import MIN_CLEAN, check_clean, check_digest, for_model
from guard.trainsets._overlap import Overlap, overlap, with_overlap
from guard.trainsets._read import MAX_BYTES, read
from guard.trainsets._set import BATCH, Batch, TrainingSet, from_arrays
from guard.trainsets._sifted import Sifted
from guard.trainsets._source import MAX_IMAGES
from guard.trainsets._spool import open_spool

__all__ = [
    "BATCH",
    "MAX_BYTES",
    "MAX_IMAGES",
    "MIN_CLEAN",
    "Batch",
    "Overlap",
    "Sifted",
    "TrainingSet",
    "check_clean",
    "check_digest",
    "for_model",
    "from_arrays",
    "open_spool",
    "overlap",
    "read",
    "with_overlap",
]
