"""Retrainers: from a training set that may be poisoned to a new network; one file each."""

from typing import TYPE_CHECKING

from guard.core.shelf import Shelf

if TYPE_CHECKING:
    from guard.retrainers._base import Retrainer

RETRAINERS: "Shelf[Retrainer]" = Shelf("guard.retrainers")
