"""What is wrong with a chain of rows: a missing row, a broken link, a hash that does not fit.

Both chains of the ledger are checked here; `guard.core.ledger` hashes their rows.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from guard.core.ledger import GENESIS, Link

L = TypeVar("L", bound=Link)


def broken(
    rows: Iterable[L],
    expected: Callable[[L], str],
    noun: str,
    after: int = 0,
    previous: str = GENESIS,
) -> Iterator[str]:
    """Every missing row, broken link and wrong hash behind row `after`, one sentence each.

    Signatures are not read: a head that is signed vouches for every row before it.

    Args:
        expected: what a row's hash must be.
        noun: what a row is called, such as "Ledger row".
        previous: the hash of row `after`.
    """
    seq = after
    for row in (row for row in rows if row.seq > after):
        if row.seq != seq + 1:
            yield f"{noun} {seq + 1} is missing: row {row.seq} follows row {seq}."
        if row.previous != previous:
            yield f"{noun} {row.seq} does not continue the row before it."
        yield from altered(row, expected, noun)
        seq, previous = row.seq, row.hash


def altered(row: L, expected: Callable[[L], str], noun: str) -> Iterator[str]:
    """A sentence where the hash of a row is not that of its columns."""
    if row.hash != expected(row):
        yield f"{noun} {row.seq} was changed: its hash does not match its columns."
