"""The guard with the policy for one artifact's modality in force."""

from typing import TYPE_CHECKING

from guard.core.modality import modality_of
from guard.flow.context import Guard
from guard.store import artifacts
from guard.store.session import reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.store.rows import ScanRow


def for_artifact(guard: Guard, session: "Session", digest: str | None) -> Guard:
    """`guard` as it decides about an artifact; unchanged where no manifest is stored."""
    row = artifacts.find(session, digest) if digest else None
    if row is None or row.manifest is None:
        return guard
    return guard.of(modality_of(row.manifest))


def for_scan(guard: Guard, scan: "ScanRow") -> Guard:
    """`guard` as it decides about a scan's artifact; unchanged before it was inspected."""
    with reading(guard.engine) as session:
        return for_artifact(guard, session, scan.canonical_digest)
