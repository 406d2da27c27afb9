"""Clean sets: labelled images, or pairs of a text and a molecule, read from a folder or file.

They are checked, split once and stored as one blob. The package needs NumPy, not torch; to add a
set of pairs needs RDKit.
"""

from guard.cleansets._any import curated_source
from guard.cleansets._blob import class_names, load
from guard.cleansets._curate import MIN_PER_CLASS, curate, duplicates
from guard.cleansets._pair_blob import kind_of
from guard.cleansets._pair_blob import load as load_pairs
from guard.cleansets._raw import RawSet
from guard.cleansets._read import read_source

__all__ = [
    "MIN_PER_CLASS",
    "RawSet",
    "class_names",
    "curate",
    "curated_source",
    "duplicates",
    "kind_of",
    "load",
    "load_pairs",
    "read_source",
]
