"""Artifacts: the digests that the guard holds, and where each came from."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.store._read import first, insert_once, many, rows_of, table
from guard.store.rows import ArtifactKind, ArtifactRow
from guard.store.tables import Artifact

_ARTIFACTS = table(Artifact)


def put(
    s: Session,
    *,
    digest: str,
    size: int,
    kind: ArtifactKind,
    now: datetime,
    parent_digest: str | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> ArtifactRow:
    """Record an artifact.

    One that is there already stays as it was first recorded, and comes back; only a manifest is
    filled in where there was none. An upload that is a canonical file itself, as `guard purify`
    writes, is recorded twice under one digest: by receiving, then with its manifest by inspection.
    """
    values = {
        "digest": digest,
        "size": size,
        "kind": kind,
        "parent_digest": parent_digest,
        "manifest": None if manifest is None else dict(manifest),
        "created_at": now,
    }
    if not insert_once(s, Artifact, values) and manifest is not None:
        without = (_ARTIFACTS.c.digest == digest, _ARTIFACTS.c.manifest.is_(None))
        s.execute(update(_ARTIFACTS).where(*without).values(manifest=dict(manifest)))
    return get(s, digest)


def find(s: Session, digest: str) -> ArtifactRow | None:
    """The artifact with this digest, or None."""
    return first(s, ArtifactRow, rows_of(Artifact).where(_ARTIFACTS.c.digest == digest))


def get(s: Session, digest: str) -> ArtifactRow:
    """The artifact with this digest.

    Raises:
        InputError: there is none.
    """
    found = find(s, digest)
    if found is None:
        raise InputError(f"The guard knows no artifact {digest[:12]}.", code="unknown_artifact")
    return found


def children(s: Session, digest: str) -> list[ArtifactRow]:
    """The artifacts that were made from this one, the oldest first."""
    statement = rows_of(Artifact).where(_ARTIFACTS.c.parent_digest == digest)
    return many(s, ArtifactRow, statement.order_by(_ARTIFACTS.c.created_at, _ARTIFACTS.c.digest))
