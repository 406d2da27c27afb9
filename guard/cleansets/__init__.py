"""Clean sets: labelled images read from a folder or file, checked, split once, stored as one blob.

The package needs NumPy, not torch.
"""

from guard.cleansets._blob import class_names, load
from guard.cleansets._curate import MIN_PER_CLASS, curate, duplicates
from guard.cleansets._raw import RawSet
from guard.cleansets._read import read_source

__all__ = ["MIN_PER_CLASS", "RawSet", "class_names", "curate", "duplicates", "load", "read_source"]
