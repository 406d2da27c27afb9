"""Check the verdict ledger: links, hashes, signatures, and columns against what was signed."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from guard.attest import dsse
from guard.attest.keys import TrustedKeys
from guard.attest.links import broken
from guard.attest.views import VerdictView, read_verdict
from guard.core.errors import IntegrityMismatch
from guard.core.ledger import row_hash
from guard.core.states import Verdict

NOUN = "Ledger row"


class LedgerLike(Protocol):
    """A ledger row, wherever it was read from."""

    @property
    def seq(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def artifact_digest(self) -> str: ...
    @property
    def scan_id(self) -> str: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def envelope(self) -> Mapping[str, Any]: ...
    @property
    def previous(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def issued_at(self) -> datetime: ...
    @property
    def expires_at(self) -> datetime: ...
    @property
    def policy_digest(self) -> str: ...


def verify_chain(
    rows: Iterable[LedgerLike], trusted: TrustedKeys, *, head: tuple[int, str] | None = None
) -> list[str]:
    """All problems with the ledger, one sentence each; an empty list means that all of it is valid.

    Args:
        rows: the whole ledger, in order.
        head: (seq, hash) of a row noted earlier; without it, rows cut off at the end cannot be
            noticed.
    """
    rows = list(rows)
    problems = list(broken(rows, expected_hash, NOUN))
    seen, found = set[str](), head is None
    for row in rows:
        if row.id in seen:
            problems.append(f"Ledger row {row.seq} repeats the verdict {row.id}.")
        problems.extend(_signed(row, trusted))
        found = found or (row.seq, row.hash) == head
        seen.add(row.id)
    if head is not None and not found:
        problems.append(
            f"The ledger lacks row {head[0]} as it was noted earlier: rows were cut off or "
            "rewritten."
        )
    return problems


def expected_hash(row: LedgerLike) -> str:
    """What `row.hash` must be."""
    return row_hash(
        row.previous,
        {
            "seq": row.seq,
            "id": row.id,
            "artifact_digest": row.artifact_digest,
            "scan_id": row.scan_id,
            "verdict": row.verdict,
            "envelope": dict(row.envelope),
            "issued_at": row.issued_at.astimezone(UTC),
            "expires_at": row.expires_at.astimezone(UTC),
            "policy_digest": row.policy_digest,
        },
    )


def differences(row: LedgerLike, view: VerdictView) -> list[str]:
    """The columns of a row that differ from what was signed."""
    pairs = {
        "id": (row.id, view.verdict_id),
        "artifact_digest": (row.artifact_digest, view.digest),
        "scan_id": (row.scan_id, view.scan_id),
        "verdict": (str(row.verdict), str(view.verdict)),
        "policy_digest": (row.policy_digest, view.policy_digest),
        "issued_at": (row.issued_at, view.issued_at),
        "expires_at": (row.expires_at, view.expires_at),
    }
    return [name for name, (stored, signed) in pairs.items() if stored != signed]


def _signed(row: LedgerLike, trusted: TrustedKeys) -> list[str]:
    try:
        view = read_verdict(dsse.verify(row.envelope, trusted))
    except IntegrityMismatch as error:
        return [f"Ledger row {row.seq}: {error.sentence}"]
    return [
        f"Ledger row {row.seq}: its {name} differs from what was signed."
        for name in differences(row, view)
    ]
