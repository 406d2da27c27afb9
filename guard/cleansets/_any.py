"""A clean set of any modality from a path: pairs where the file has their columns, else images."""

from pathlib import Path

from guard.cleansets import _pairs
from guard.cleansets._curate import curate
from guard.cleansets._read import read_source
from guard.core.evidence import AnyCleanSet


def curated_source(path: Path, name: str, seed: int = 0) -> tuple[bytes, AnyCleanSet]:
    """The checked and split blob of what lies at `path`, and its facts.

    Raises:
        CleanSetError: there is nothing usable at `path`; the sentence says what is wrong.
        MissingExtra: it holds pairs, and RDKit is not installed.
    """
    if _pairs.claims(path):
        return _pairs.curate_pairs(_pairs.read(path), name, seed)
    return curate(read_source(path), name, seed)
