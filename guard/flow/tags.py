"""Tags on an upload in S3: a hint for whoever reads the bucket, and never read back as the truth.

What counts is the signed verdict. Tags of others are kept; those that begin with `guard:` are the
guard's, so that what an uploader made up is overwritten when the upload is taken in.
"""

from datetime import timedelta
from typing import TYPE_CHECKING

from guard.core.errors import ArtifactRejected, InputError, Unavailable
from guard.core.states import Verdict
from guard.flow import _newest
from guard.flow.context import Guard
from guard.store import alarms, ledger, outbox, revocations, scans
from guard.store.rows import LedgerRow, ScanRow
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ALARM = "tag_failed"
OWN = "guard:"
VERDICT = "guard:verdict"
#: What `guard:verdict` says beside a verdict's own value.
PENDING, EXPIRED, WITHDRAWN = "pending", "expired", "withdrawn"
#: Values under which an upload may be read in quarantine.
READABLE = (str(Verdict.CLEARED), str(Verdict.PURIFIED))
#: What S3 allows one object.
MOST_TAGS = 10
TRIES, PAUSE = 6, 10.0
#: How far back `mark_expired` looks: several times the time between two looks.
LOOK_BACK = timedelta(minutes=20)


def of(guard: Guard, scan: ScanRow) -> dict[str, str]:
    """The guard's own tags for an upload as it stands now, the most important first."""
    with reading(guard.engine) as session:
        row = _verdict(guard, session, scan)
        revoked = revocations.digests(session)
    tags = {VERDICT: PENDING, "guard:scan": scan.id}
    if row is not None:
        tags[VERDICT] = str(row.verdict)
        if row.expires_at <= guard.now():
            tags[VERDICT] = EXPIRED
        tags |= {
            "guard:verdict-id": row.id,
            "guard:digest": row.artifact_digest,
            "guard:expires": f"{row.expires_at:%Y-%m-%dT%H:%M:%SZ}",
            "guard:policy": row.policy_digest[:16],
        }
    if {scan.canonical_digest, scan.upload_digest} & revoked:
        tags[VERDICT] = WITHDRAWN
    return tags


def merged(there: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """Tags of others as they are, and as many of the guard's as there is room for.

    Raises:
        InputError: there is no room for the verdict.
    """
    kept = {name: text for name, text in there.items() if not name.startswith(OWN)}
    room = MOST_TAGS - len(kept)
    if room < 1:
        raise InputError(
            f"The upload has {len(kept)} tags of its own, so none is left for the verdict.",
            code="no_room_for_tags",
        )
    return kept | dict(list(own.items())[:room])


def apply(guard: Guard, scan_id: str, tries: int = 0) -> bool:
    """Tag the upload of a scan with how it stands now; whether that is so afterwards.

    Where the store does not answer, it is tried again later, and in the end an alarm says so.
    """
    with reading(guard.engine) as session:
        scan = scans.get(session, scan_id)
    if not guard.settings.object_tags or _is_candidate(scan):
        return False
    try:
        if scan.version_id is None or scan.version_id.startswith("etag:"):
            raise InputError("The bucket keeps no versions, so a tag could be another upload's.")
        bucket = guard.make_bucket(scan.bucket)
        there = bucket.tags(scan.key, scan.version_id)
        wanted = merged(there, of(guard, scan))
        if wanted != there:
            bucket.put_tags(scan.key, scan.version_id, wanted)
    except Unavailable as error:
        if tries < TRIES:
            with transaction(guard.engine) as session:
                again = {"scan_id": scan_id, "tries": tries + 1}
                outbox.add(session, "tag", again, guard.now(), delay_seconds=PAUSE * 2**tries)
            return False
        return _failed(guard, scan, error.sentence)
    except (ArtifactRejected, InputError) as error:
        return _failed(guard, scan, error.sentence)
    with transaction(guard.engine) as session:
        alarms.clear(session, ALARM, _subject(scan), guard.now())
    return True


def mark_expired(guard: Guard) -> int:
    """Have uploads tagged anew whose verdict has ended lately; how many. Call it often enough."""
    if not guard.settings.object_tags:
        return 0
    now = guard.now()
    with transaction(guard.engine) as session:
        found = ledger.ended_between(session, now - LOOK_BACK, now)
        for scan_id in found:
            outbox.add(session, "tag", {"scan_id": scan_id}, now)
    return len(found)


def _verdict(guard: Guard, session: "Session", scan: ScanRow) -> LedgerRow | None:
    digest = scan.canonical_digest or scan.upload_digest
    newest = _newest.verdict(session, digest, guard.trusted, scan) if digest else None
    if newest is None and scan.verdict_id is not None:
        return ledger.get(session, scan.verdict_id)
    return newest


def _is_candidate(scan: ScanRow) -> bool:
    """Whether the scan is of a repaired copy, whose verdict is not about what was uploaded."""
    return scan.parent_scan_id is not None and scan.detail.rescan is None


def _failed(guard: Guard, scan: ScanRow, sentence: str) -> bool:
    with transaction(guard.engine) as session:
        detail = f"The upload could not be tagged with its verdict: {sentence}"
        alarms.raise_(session, ALARM, _subject(scan), detail, guard.now())
    return False


def _subject(scan: ScanRow) -> str:
    return f"{scan.name} {scan.id[:12]}"
