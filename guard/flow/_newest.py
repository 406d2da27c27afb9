"""The verdict on an artifact that counts: the newest that decided something.

`inconclusive` says that somebody could not look, and nothing about the model. So it takes no other
verdict's place: a clearing holds until its own end, which nothing but a verdict extends, and a
rejection stays. Every verdict that decides takes the place of the one before it, whichever upload
of the same bytes it was given on, where the same policy rules both: what was decided in a project
under a policy of its own says nothing about the same bytes elsewhere, nor the other way round.
"""

from typing import TYPE_CHECKING

from guard.attest import dsse
from guard.attest.chain import differences
from guard.attest.views import read_verdict
from guard.core.errors import IntegrityMismatch
from guard.core.states import UNDECIDED
from guard.store import ledger, projects, scans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from guard.attest.keys import TrustedKeys
    from guard.store.rows import LedgerRow, ScanRow


def verdict(
    session: "Session", digest: str, trusted: "TrustedKeys", scan: "ScanRow | None" = None
) -> "LedgerRow | None":
    """The row that counts; the newest of all where none decided, None where there is none.

    A row is passed over only if its signed statement says so: otherwise whoever changed a
    rejection's column would bring an older clearing back.

    Args:
        scan: for which it is to count; None for a question about the bytes alone.
    """
    newest = None
    for row in _under_one_policy(session, digest, scan):
        if not _undecided(row, trusted):
            return row
        newest = newest or row
    return newest


def _under_one_policy(
    session: "Session", digest: str, scan: "ScanRow | None"
) -> "Iterator[LedgerRow]":
    """The verdicts on an artifact under the policy that rules `scan`, the newest first."""
    apart = scan is not None and bool(projects.with_policy(session))
    own = _rule(session, scan) if scan is not None and apart else ""
    row = ledger.latest_for(session, digest)
    while row is not None:
        if not apart or _rule(session, scans.get(session, row.scan_id)) == own:
            yield row
        row = ledger.latest_for(session, digest, before=row.seq)


def _rule(session: "Session", scan: "ScanRow") -> str:
    """The name of the policy that a scan's project has; empty for the installation's."""
    project = projects.of_key(session, scan.bucket, scan.key)
    return "" if project is None else project.policy or ""


def _undecided(row: "LedgerRow", trusted: "TrustedKeys") -> bool:
    if row.verdict not in UNDECIDED:
        return False
    try:
        view = read_verdict(dsse.verify(row.envelope, trusted))
    except IntegrityMismatch:
        return False  # the gate refuses it
    return not differences(row, view)
