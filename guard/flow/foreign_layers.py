"""Layers that only the guard's own repairs make, and whether a model that has one is such a repair.

A conditional polarizer can keep every prediction and leave no gradient to a search, so that none is
accepted from anybody else.
"""

from sqlalchemy.orm import Session

from guard.store import artifacts
from guard.store.rows import ArtifactKind

FOREIGN_POLARIZER = (
    "config.json puts a polarizer into the network, a layer that only the guard's own repairs "
    "make, and the guard made no such model; upload the network without guard.polarizer."
)


def made_here(session: Session, digest: str) -> bool:
    """Whether the canonical file of this digest is a repair that this database's guard made."""
    known = artifacts.find(session, digest)
    return known is not None and known.kind is ArtifactKind.PURIFIED
