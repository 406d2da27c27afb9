"""Claims: to which key prefix and owner a served name belongs."""

from datetime import datetime

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.store._read import first, insert_once, many, rows_of, table
from guard.store.rows import ClaimRow, Lease
from guard.store.tables import Claim, Scan

_CLAIMS, _SCANS = table(Claim), table(Scan)


class NameTaken(InputError):
    """The served name belongs to another prefix or another owner."""

    code = "name_taken"


def take(
    s: Session, *, name: str, bucket: str, prefix: str, owner: str | None, now: datetime
) -> ClaimRow:
    """The claim of this prefix, made now if it has none yet.

    A prefix keeps the name that it claimed first, whatever the rule for names says later.

    Args:
        name: what the rule calls this prefix.
        owner: the uploader; None where the store does not tell.

    Raises:
        NameTaken: the name belongs to another prefix, or the prefix to another owner.
    """
    there = of_prefix(s, bucket, prefix)
    if there is None:
        values = {
            "name": name,
            "bucket": bucket,
            "prefix": prefix,
            "owner": owner,
            "since": now,
            "newest_scan_id": None,
            "rolled_back_to": None,
            "publisher_scan_id": None,
            "publisher_token": None,
        }
        insert_once(s, Claim, values)  # nothing is inserted where another worker was faster
        there = of_prefix(s, bucket, prefix)
    return allowed(there if there is not None else get(s, name), bucket, prefix, owner)


def allowed(claim: ClaimRow, bucket: str, prefix: str, owner: str | None) -> ClaimRow:
    """The claim itself, if an upload of `owner` under `prefix` may use it.

    Raises:
        NameTaken: it may not.
    """
    if (claim.bucket, claim.prefix) != (bucket, prefix):
        raise NameTaken(
            f"The name {claim.name!r} belongs to s3://{claim.bucket}/{claim.prefix}; upload under "
            f"another folder, or have it transferred by `guard name transfer {claim.name}`."
        )
    if claim.owner != owner:
        raise NameTaken(
            f"The name {claim.name!r} belongs to {claim.owner or 'an uploader without a name'}, "
            f"and {owner or 'an uploader without a name'} uploaded this; have it transferred by "
            f"`guard name transfer {claim.name}`, or upload under another folder."
        )
    return claim


def get(s: Session, name: str) -> ClaimRow:
    """The claim of this name.

    Raises:
        InputError: nobody claimed it.
    """
    found = find(s, name)
    if found is None:
        raise InputError(
            f"No upload claimed the name {name!r}; `guard name list` lists those that are.",
            code="unknown_name",
        )
    return found


def find(s: Session, name: str) -> ClaimRow | None:
    """The claim of this name; None where nobody claimed it."""
    return first(s, ClaimRow, rows_of(Claim).where(_CLAIMS.c.name == name))


def of_prefix(s: Session, bucket: str, prefix: str) -> ClaimRow | None:
    """The claim that a key prefix holds."""
    where = (_CLAIMS.c.bucket == bucket, _CLAIMS.c.prefix == prefix)
    return first(s, ClaimRow, rows_of(Claim).where(*where))


def list_all(s: Session) -> list[ClaimRow]:
    """Every claim, by name."""
    return many(s, ClaimRow, rows_of(Claim).order_by(_CLAIMS.c.name))


def lock(s: Session, name: str) -> None:
    """Have other workers wait with this name until the transaction ends."""
    s.execute(select(_CLAIMS.c.name).where(_CLAIMS.c.name == name).with_for_update())


def turn(s: Session, name: str, lease: Lease, now: datetime) -> bool:
    """Take the name for one publication; False while another worker publishes under it.

    It is held as long as the worker holds its scan. Call it behind `lock`.
    """
    held = select(_SCANS.c.id).where(
        _SCANS.c.id == _CLAIMS.c.publisher_scan_id,
        _SCANS.c.lease_token == _CLAIMS.c.publisher_token,
        _SCANS.c.lease_until >= now,
    )
    free = or_(_CLAIMS.c.publisher_scan_id == lease.scan_id, ~held.exists())
    found = s.execute(
        update(_CLAIMS)
        .where(_CLAIMS.c.name == name, free)
        .values(publisher_scan_id=lease.scan_id, publisher_token=lease.token)
        .returning(_CLAIMS.c.name)
    ).first()
    return found is not None


def change(s: Session, name: str, **values: str | None) -> None:
    """Set columns of a claim; give only what changes.

    Raises:
        StoreConflict: at commit, if the new prefix holds another name.
    """
    s.execute(update(_CLAIMS).where(_CLAIMS.c.name == name).values(**values))
