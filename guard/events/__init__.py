"""Object notifications of several stores, each read into nominations: (bucket, key, version).

A hint, never a fact.
"""

from guard.events._nomination import Nomination
from guard.events.parse import parse_event

__all__ = ["Nomination", "parse_event"]
