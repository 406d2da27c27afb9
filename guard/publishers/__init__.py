"""Approved artifact to serving. One file a publisher."""

from guard.core.contracts import Publisher
from guard.core.shelf import Shelf

PUBLISHERS: Shelf[Publisher] = Shelf("guard.publishers")
