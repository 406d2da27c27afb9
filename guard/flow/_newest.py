"""The verdict on an artifact that counts: the newest that decided something.

`inconclusive` says that somebody could not look, and nothing about the model. So it takes no other
verdict's place: a clearing holds until its own end, which nothing but a verdict extends, and a
rejection stays. Every verdict that decides takes the place of the one before it, whichever upload
of the same bytes it was given on.
"""

from typing import TYPE_CHECKING

from guard.attest import dsse
from guard.attest.chain import differences
from guard.attest.views import read_verdict
from guard.core.errors import IntegrityMismatch
from guard.core.states import UNDECIDED
from guard.store import ledger

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.attest.keys import TrustedKeys
    from guard.store.rows import LedgerRow


def verdict(session: "Session", digest: str, trusted: "TrustedKeys") -> "LedgerRow | None":
    """The row that counts; the newest of all where none decided, None where there is none.

    A row is passed over only if its signed statement says so: otherwise whoever changed a
    rejection's column would bring an older clearing back.
    """
    newest = row = ledger.latest_for(session, digest)
    while row is not None:
        if not _undecided(row, trusted):
            return row
        row = ledger.latest_for(session, digest, before=row.seq)
    return newest


def _undecided(row: "LedgerRow", trusted: "TrustedKeys") -> bool:
    if row.verdict not in UNDECIDED:
        return False
    try:
        view = read_verdict(dsse.verify(row.envelope, trusted))
    except IntegrityMismatch:
        return False  # the gate refuses it
    return not differences(row, view)
