"""The CIFAR-style networks of the papers, one file each; the folder is the registry."""

from typing import TYPE_CHECKING

from guard.core.shelf import Shelf

if TYPE_CHECKING:
    from torch import nn

NETS: "Shelf[nn.Module]" = Shelf("guard.ml.networks.nets")
