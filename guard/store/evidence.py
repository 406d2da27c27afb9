"""Evidence: the results of each method version; append-only, kept even if the artifact is not."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from guard.core.digests import canonical_json
from guard.core.errors import MethodFailed
from guard.core.evidence import Evidence
from guard.store._read import insert_once, rows_of, table
from guard.store.tables import EvidenceRecord

_EVIDENCE = table(EvidenceRecord)


def add(s: Session, evidence: Evidence, now: datetime) -> bool:
    """Record a piece of evidence unless its key is taken; returns whether it was recorded.

    Raises:
        MethodFailed: it holds a number that is not finite.
    """
    body = evidence.to_dict()
    try:
        canonical_json(body)
    except ValueError as error:
        raise MethodFailed(
            f"{evidence.method} gave evidence with a number that is not finite; it was not kept.",
            code="non_finite",
        ) from error
    values = {
        "key": evidence.key,
        "artifact_digest": evidence.artifact,
        "cleanset_digest": evidence.cleanset,
        "method": evidence.method,
        "version": evidence.version,
        "outcome": str(evidence.outcome),
        "body": body,
        "created_at": now,
    }
    return insert_once(s, EvidenceRecord, values)


def find(s: Session, key: str) -> Evidence | None:
    """The evidence under a key, or None; a repeated stage thereby skips finished work."""
    found = _all(s, _EVIDENCE.c.key == key)
    return found[0] if found else None


def for_artifact(s: Session, digest: str, cleanset_digest: str | None = None) -> list[Evidence]:
    """All evidence on an artifact (with one clean set, if given), the oldest first."""
    where = [_EVIDENCE.c.artifact_digest == digest]
    if cleanset_digest is not None:
        where.append(_EVIDENCE.c.cleanset_digest == cleanset_digest)
    return _all(s, *where)


def versions(s: Session, digest: str, cleanset_digest: str) -> set[tuple[str, int]]:
    """The methods that looked at an artifact with one clean set, as (name, version)."""
    where = (
        _EVIDENCE.c.artifact_digest == digest,
        _EVIDENCE.c.cleanset_digest == cleanset_digest,
    )
    rows = s.execute(select(_EVIDENCE.c.method, _EVIDENCE.c.version).where(*where))
    return {(row.method, row.version) for row in rows}


def _all(s: Session, *where: Any) -> list[Evidence]:
    statement = (
        rows_of(EvidenceRecord).where(*where).order_by(_EVIDENCE.c.created_at, _EVIDENCE.c.key)
    )
    return [Evidence.from_dict(found.body) for found in s.execute(statement)]
