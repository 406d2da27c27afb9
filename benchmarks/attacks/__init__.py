"""Attack makers for experiments and the demo, one file per attack; the guard never imports them."""

from typing import TYPE_CHECKING

from guard.core.shelf import Shelf

if TYPE_CHECKING:
    from benchmarks.attacks._base import Attack

ATTACKS: "Shelf[Attack]" = Shelf("benchmarks.attacks")
