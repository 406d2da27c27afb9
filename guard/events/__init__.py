"""Read the object notifications of several stores into nominations: (bucket, key, version).

A nomination is a hint; facts come from the bucket itself.
"""

from guard.events._nomination import Nomination
from guard.events.parse import parse_event

__all__ = ["Nomination", "parse_event"]
