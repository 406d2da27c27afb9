"""Bytes to named tensors, executing nothing. One file a format."""

from guard.core.contracts import Format
from guard.core.shelf import Shelf

FORMATS: Shelf[Format] = Shelf("guard.formats")
