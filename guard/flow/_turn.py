"""Whose turn a served name is: the newest upload's, until a rollback, and only its owner's.

Upload order is the order in which the store took the uploads; where that is not known or equal, the
order in which the guard received them. A purified child and a repeated scan take their upload's
place. A superseded upload keeps its verdict; that a newer one was published is never undone by
an older one that is cleared later, nor by the newer one's withdrawal: `guard.flow.rollback` is the
way back.
"""

from datetime import datetime
from typing import TYPE_CHECKING

from guard.core.errors import LeaseLost, NotServable
from guard.flow._served_name import prefix_of
from guard.store import claims, publications, scans

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.store.rows import ClaimRow, Lease, ScanRow


class Superseded(NotServable):
    """A newer upload of the name was published, or a person went back from this one."""

    code = "superseded"


def check(session: "Session", scan: "ScanRow", now: datetime) -> "ClaimRow":
    """The claim under which the scan's artifact may be published now.

    Raises:
        Superseded: it is not the newest.
        NameTaken: the name belongs to another prefix or another owner.
    """
    claims.lock(session, scan.name)
    claim = claims.find(session, scan.name)
    digest = scan.canonical_digest
    if claim is not None:
        if digest == claim.rolled_back_to:
            return claim  # a person decided, also about another owner's model
        if digest in {row.digest for row in publications.active(session, scan.name)}:
            return claim  # a repetition: reconcile puts it back, or a renewed verdict
    upload = root(session, scan)
    claim = claims.take(
        session,
        name=scan.name,
        bucket=upload.bucket,
        prefix=prefix_of(upload.key),
        owner=upload.submitted_by,
        now=now,
    )
    if claim.name != scan.name:
        raise claims.NameTaken(
            f"s3://{claim.bucket}/{claim.prefix} is served as {claim.name!r}, not as "
            f"{scan.name!r}; upload the model again."
        )
    if claim.newest_scan_id is None:
        return claim
    newest = scans.get(session, claim.newest_scan_id)
    if order(upload) < order(newest):
        raise Superseded(
            f"A newer upload of {scan.name!r} was published (scan {newest.id}); "
            f"`guard rollback {scan.name} --to {scan.id}` goes back to this one."
        )
    if claim.rolled_back_to is not None and upload.id == newest.id:
        raise Superseded(
            f"{scan.name!r} was rolled back from this upload; upload it again, or "
            f"`guard rollback {scan.name} --to {scan.id}`."
        )
    return claim


def check_held(claim: "ClaimRow", lease: "Lease") -> None:
    """Check that nobody else began to publish under the name since this lease took its turn.

    Raises:
        LeaseLost: somebody did, after this lease had run out.
    """
    if (claim.publisher_scan_id, claim.publisher_token) != (lease.scan_id, lease.token):
        raise LeaseLost(f"Another worker publishes under {claim.name!r}; stop without writing.")


def published(session: "Session", claim: "ClaimRow", scan: "ScanRow") -> None:
    """Remember that the scan's artifact is served now."""
    upload = root(session, scan)
    if (upload.bucket, prefix_of(upload.key)) != (claim.bucket, claim.prefix):
        return  # what another prefix left under this name counts for no order
    newest = claim.newest_scan_id and scans.get(session, claim.newest_scan_id)
    if not newest or order(upload) > order(newest):
        claims.change(session, claim.name, newest_scan_id=upload.id, rolled_back_to=None)


def root(session: "Session", scan: "ScanRow") -> "ScanRow":
    """The scan of the upload that this scan's artifact was made from."""
    while scan.parent_scan_id is not None:
        scan = scans.get(session, scan.parent_scan_id)
    return scan


def order(upload: "ScanRow") -> tuple[datetime, datetime, str]:
    """What an upload is older or newer by."""
    return (upload.uploaded_at or upload.created_at, upload.created_at, upload.id)
