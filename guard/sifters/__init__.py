"""Sifters: from a model, the set that taught it and a clean set to one score for each image."""

from typing import TYPE_CHECKING

from guard.core.shelf import Shelf

if TYPE_CHECKING:
    from guard.sifters._base import Sifter

SIFTERS: "Shelf[Sifter]" = Shelf("guard.sifters")
