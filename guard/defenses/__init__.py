"""Defenses: from a model and a clean set to a repaired model; one file each."""

from typing import TYPE_CHECKING

from guard.core.shelf import Shelf

if TYPE_CHECKING:
    from guard.defenses._base import Defense

DEFENSES: "Shelf[Defense]" = Shelf("guard.defenses")
