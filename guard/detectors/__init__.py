"""Detectors: from a model and a clean set to findings; one file each."""

from typing import TYPE_CHECKING

from guard.core.shelf import Shelf

if TYPE_CHECKING:
    from guard.detectors._base import Detector

DETECTORS: "Shelf[Detector]" = Shelf("guard.detectors")
