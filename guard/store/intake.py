"""The queries of intake: which object versions are known, and the scans of one upload."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Text, bindparam, or_, select, true
from sqlalchemy.orm import Session

from guard.core.states import ScanState
from guard.store._read import first, many, rows_of, table
from guard.store.rows import NominationRow, NominationState, ScanRow
from guard.store.tables import Nomination, Scan, Uploader

_SCANS = table(Scan)
_NOMINATIONS, _UPLOADERS = table(Nomination), table(Uploader)
_OPEN = (
    rows_of(Nomination)
    .where(
        _NOMINATIONS.c.state == NominationState.NEW,
        _NOMINATIONS.c.bucket == bindparam("bucket_"),
        _NOMINATIONS.c.key == bindparam("key_"),
        _NOMINATIONS.c.version_id.is_not_distinct_from(bindparam("version_", type_=Text)),
    )
    .limit(1)
)
#: Separates the version of the weights from that of a `config.json` that arrived after their scan.
LATE_MANIFEST = "#config="
#: Separates the ETag from the time of a later upload of the same bytes, without versions.
AGAIN = "#again="


def known(s: Session, bucket: str, keys: Collection[str]) -> set[tuple[str, str | None]]:
    """The (key, version) pairs among `keys` with a scan, or a nomination that waits or was taken.

    Give at most a few hundred keys at once.
    """
    found: set[tuple[str, str | None]] = set()
    for source, counts in (
        (_SCANS, true()),
        (_NOMINATIONS, _NOMINATIONS.c.state.in_((NominationState.NEW, NominationState.ACCEPTED))),
    ):
        where = (source.c.bucket == bucket, source.c.key.in_(list(keys)), counts)
        rows = s.execute(select(source.c.key, source.c.version_id).where(*where))
        found.update((row.key, row.version_id) for row in rows)
    return found


def refused(
    s: Session, bucket: str, keys: Collection[str]
) -> dict[tuple[str, str | None], tuple[int, datetime]]:
    """How often each (key, version) among `keys` was refused, and when it was last nominated.

    Give at most a few hundred keys at once.
    """
    column = _NOMINATIONS.c
    where = (
        column.bucket == bucket,
        column.key.in_(list(keys)),
        column.state == NominationState.REFUSED,
    )
    found: dict[tuple[str, str | None], tuple[int, datetime]] = {}
    for row in s.execute(select(column.key, column.version_id, column.received_at).where(*where)):
        place = (row.key, row.version_id)
        count, last = found.get(place, (0, row.received_at))
        found[place] = (count + 1, max(last, row.received_at))
    return found


def last_uploads(
    s: Session, bucket: str, keys: Collection[str]
) -> dict[tuple[str, str], tuple[datetime, str]]:
    """The newest upload of each content that was scanned and whose version is not known.

    By key and ETag pin: when the store took it, in whole seconds, and the pin of its scan. Give at
    most a few hundred keys at once.
    """
    column = _SCANS.c
    where = (
        column.bucket == bucket,
        column.key.in_(list(keys)),
        column.parent_scan_id.is_(None),
        column.version_id.startswith("etag:"),
    )
    rows = s.execute(
        select(column.key, column.version_id, column.uploaded_at, column.created_at).where(*where)
    )
    found: dict[tuple[str, str], tuple[datetime, str]] = {}
    for row in rows:
        pin = str(row.version_id).partition(LATE_MANIFEST)[0]
        at = (row.uploaded_at or row.created_at).replace(microsecond=0)
        place = (row.key, pin.partition(AGAIN)[0])
        found[place] = max(found.get(place, (at, pin)), (at, pin))
    return found


def scans_of_upload(s: Session, bucket: str, key: str, pin: str) -> list[ScanRow]:
    """The scans of one upload, including those with a manifest that arrived later.

    Scans of models that were purified from it are left out.
    """
    late = _SCANS.c.version_id.startswith(pin + LATE_MANIFEST, autoescape=True)
    where = (_SCANS.c.bucket == bucket, _SCANS.c.key == key, _SCANS.c.parent_scan_id.is_(None))
    statement = rows_of(Scan).where(*where, or_(_SCANS.c.version_id == pin, late))
    return many(s, ScanRow, statement.order_by(_SCANS.c.created_at, _SCANS.c.version_id))


def open_nomination(
    s: Session, bucket: str, key: str, version_id: str | None
) -> NominationRow | None:
    """A notice of the same object that has not been handled yet."""
    return first(s, NominationRow, _OPEN, bucket_=bucket, key_=key, version_=version_id)


def open_scans_of(s: Session, principal: str, limit: int) -> int:
    """How many unfinished scans of uploads a principal may have uploaded; `limit` is enough."""
    where = (
        _UPLOADERS.c.principal == principal,
        _UPLOADERS.c.scan_id == _SCANS.c.id,
        _SCANS.c.parent_scan_id.is_(None),
        _SCANS.c.state.not_in((ScanState.DONE, ScanState.FAILED)),
    )
    return len(s.execute(select(_SCANS.c.id).where(*where).limit(limit)).all())
