"""Publishers bring an approved artifact to serving; one file per publisher."""

from guard.core.contracts import Publisher
from guard.core.shelf import Shelf

PUBLISHERS: Shelf[Publisher] = Shelf("guard.publishers")
