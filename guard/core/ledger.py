"""How the ledger's rows are chained.

Each hash covers the row's own columns and the hash of the row before.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from guard.core.digests import json_digest

#: The hash that the first row continues.
GENESIS = "0" * 64
#: The kind of the ledger's acts that seal what a principal did.
DONE = "act"
#: The kinds that say which keys are trusted.
KEY_KINDS = ("open", "accept", "trust", "distrust")


class Link(Protocol):
    """A row of a chain; `seq` counts from 1 without a gap, so that a deleted row is noticed."""

    @property
    def seq(self) -> int: ...
    @property
    def previous(self) -> str: ...
    @property
    def hash(self) -> str: ...


def row_hash(previous: str, row: Mapping[str, Any]) -> str:
    """The hash of a row, given as a mapping of its columns without `previous` and `hash`.

    Times are UTC.
    """
    plain = {
        **row,
        "verdict": str(row["verdict"]),
        "issued_at": row["issued_at"].isoformat(),
        "expires_at": row["expires_at"].isoformat(),
    }
    return json_digest([previous, plain])


def act_hash(previous: str, row: Mapping[str, Any]) -> str:
    """The hash of a row of the ledger's acts, given as `row_hash` is.

    The first element differs from a verdict's, so that no row of one chain fits the other.
    """
    return json_digest(["act", previous, {**row, "at": row["at"].isoformat()}])
