"""The verdict that counts on each artifact with all that it was decided from, batch by batch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from guard.core.evidence import Evidence
from guard.core.notes import ScanNotes
from guard.core.states import Verdict
from guard.store import ledger
from guard.store._read import table
from guard.store.rows import PublicationState
from guard.store.tables import Artifact, EvidenceRecord, LedgerEntry, Publication, Scan

BATCH = 250  # artifacts at a time; the evidence of one batch is in memory


@dataclass(frozen=True, kw_only=True)
class Known:
    """One artifact: the verdict on it that counts, the scan that gave it, and the stored evidence.

    `evidence` is what was found with the clean set of that scan.
    """

    digest: str
    verdict: Verdict
    scan_id: str
    name: str
    bucket: str
    key: str
    cleanset: str
    notes: ScanNotes
    manifest: Mapping[str, Any] | None
    evidence: tuple[Evidence, ...]
    served: bool


def walk(s: Session) -> Iterator[Known]:
    """Every artifact with a verdict and evidence, by digest."""
    verdicts, scans, artifacts = table(LedgerEntry).c, table(Scan).c, table(Artifact).c
    wanted = (
        select(
            verdicts.artifact_digest,
            verdicts.verdict,
            verdicts.scan_id,
            scans.name,
            scans.bucket,
            scans.key,
            scans.cleanset_digest,
            scans.detail,
            artifacts.manifest,
        )
        .join(table(Scan), scans.id == verdicts.scan_id)
        .join(table(Artifact), artifacts.digest == verdicts.artifact_digest)
        .where(verdicts.seq.in_(ledger.counting()), scans.cleanset_digest.is_not(None))
        .order_by(verdicts.artifact_digest)
        .limit(BATCH)
    )
    after = ""
    while rows := s.execute(wanted.where(verdicts.artifact_digest > after)).all():
        digests = [row.artifact_digest for row in rows]
        found, served = _evidence(s, digests), _served(s, digests)
        for row in rows:
            items = found.get((row.artifact_digest, row.cleanset_digest), ())
            if items:
                yield Known(
                    digest=row.artifact_digest,
                    verdict=row.verdict,
                    scan_id=row.scan_id,
                    name=row.name,
                    bucket=row.bucket,
                    key=row.key,
                    cleanset=row.cleanset_digest,
                    notes=row.detail,
                    manifest=row.manifest,
                    evidence=tuple(items),
                    served=row.artifact_digest in served,
                )
        after = digests[-1]


def _evidence(s: Session, digests: list[str]) -> dict[tuple[str, str], list[Evidence]]:
    rows = table(EvidenceRecord).c
    statement = (
        select(rows.artifact_digest, rows.cleanset_digest, rows.body)
        .where(rows.artifact_digest.in_(digests))
        .order_by(rows.created_at, rows.key)
    )
    found: dict[tuple[str, str], list[Evidence]] = {}
    for row in s.execute(statement):
        key = (row.artifact_digest, row.cleanset_digest)
        found.setdefault(key, []).append(Evidence.from_dict(row.body))
    return found


def _served(s: Session, digests: list[str]) -> frozenset[str]:
    rows = table(Publication).c
    where = (rows.digest.in_(digests), rows.state == PublicationState.ACTIVE)
    return frozenset(s.execute(select(rows.digest).where(*where)).scalars())
