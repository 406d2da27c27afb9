"""Turn untrusted bytes into named tensors without executing anything; one file per format."""

from guard.core.contracts import Format
from guard.core.shelf import Shelf

FORMATS: Shelf[Format] = Shelf("guard.formats")
