"""Who may have uploaded an artifact: the owners of its key, never what an upload claims."""

import uuid
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, func, insert, or_, select, update
from sqlalchemy.orm import Session

from guard.core.roles import Role
from guard.store import projects
from guard.store._read import many, rows_of, table
from guard.store.rows import OwnerRow
from guard.store.tables import PrefixOwner, Scan, Uploader

_OWNERS, _UPLOADERS, _SCANS = table(PrefixOwner), table(Uploader), table(Scan)


def add_owner(s: Session, *, bucket: str, prefix: str, principal: str, now: datetime) -> None:
    """Let a principal upload under a prefix; harmless if it may already."""
    there = select(_OWNERS.c.id).where(*_same(bucket, prefix, principal))
    if s.execute(there).first() is None:
        values = {"bucket": bucket, "prefix": prefix, "principal": principal, "created_at": now}
        s.execute(insert(_OWNERS).values(id=uuid.uuid4().hex, **values))


def remove_owner(s: Session, *, bucket: str, prefix: str, principal: str, now: datetime) -> bool:
    """End a principal's ownership; what was uploaded meanwhile stays theirs.

    Returns:
        Whether it was an owner.
    """
    same = _same(bucket, prefix, principal)
    ended = update(_OWNERS).where(*same).values(removed_at=now).returning(_OWNERS.c.id)
    return s.execute(ended).first() is not None


def list_owners(s: Session) -> list[OwnerRow]:
    """Every ownership that has not ended, by bucket and prefix."""
    order = (_OWNERS.c.bucket, _OWNERS.c.prefix, _OWNERS.c.principal)
    return many(
        s, OwnerRow, rows_of(PrefixOwner).where(_OWNERS.c.removed_at.is_(None)).order_by(*order)
    )


def owners_of(s: Session, bucket: str, key: str) -> frozenset[str]:
    """Every principal that owns a prefix of `key`.

    All of them count, of the longest prefix and of shorter ones: each could have uploaded it.
    """
    covers = func.substr(key, 1, func.length(_OWNERS.c.prefix)) == _OWNERS.c.prefix
    where = (_OWNERS.c.bucket == bucket, _OWNERS.c.removed_at.is_(None), covers)
    return frozenset(s.execute(select(_OWNERS.c.principal).where(*where)).scalars())


def prefixes_of(s: Session, principal: str) -> list[tuple[str, str]]:
    """The buckets and prefixes that a principal owns."""
    mine = (_OWNERS.c.principal == principal, _OWNERS.c.removed_at.is_(None))
    found = select(_OWNERS.c.bucket, _OWNERS.c.prefix).where(*mine)
    return [(row.bucket, row.prefix) for row in s.execute(found)]


def may_upload(s: Session, bucket: str, key: str) -> frozenset[str]:
    """The owners of `key`, and the uploaders of its project: each could have uploaded it."""
    project = projects.of_key(s, bucket, key)
    members = projects.people(s, project.name, Role.UPLOADER) if project is not None else ()
    return owners_of(s, bucket, key).union(members)


def record(s: Session, scan_id: str, principals: Collection[str]) -> None:
    """Keep who owned the key of a scan when its upload was taken in."""
    for name in sorted(principals):
        s.execute(insert(_UPLOADERS).values(scan_id=scan_id, principal=name))


def of_scan(s: Session, scan_id: str) -> frozenset[str]:
    """Everybody who may have uploaded a scan's artifact, one of its parents, or the same bytes.

    A trigger refuses an approval by any of them as far as one parent; here are all parents.
    """
    found: set[str] = set()
    seen: set[str] = set()
    to_do = {scan_id}
    while to_do:
        seen |= to_do
        related = s.execute(select(*_COLUMNS).where(_SCANS.c.id.in_(to_do))).all()
        digests = {row.upload_digest for row in related} | {row.canonical_digest for row in related}
        parents = {row.parent_scan_id for row in related if row.parent_scan_id is not None}
        found |= {row.submitted_by for row in related if row.submitted_by is not None}
        found |= _owners_of_scans(s, to_do)
        found |= _members_of_keys(s, {(row.bucket, row.key) for row in related})
        rows = select(_UPLOADERS.c.principal).where(_UPLOADERS.c.scan_id.in_(to_do))
        found.update(s.execute(rows).scalars())
        same = set(s.execute(select(_SCANS.c.id).where(_has(digests - {None}))).scalars())
        to_do = (parents | same) - seen
    return frozenset(found)


def _owners_of_scans(s: Session, ids: Collection[str]) -> frozenset[str]:
    """What `owners_of` gives for the keys of some scans, in one query however many they are."""
    covers = func.substr(_SCANS.c.key, 1, func.length(_OWNERS.c.prefix)) == _OWNERS.c.prefix
    found = (
        select(_OWNERS.c.principal)
        .join_from(_OWNERS, _SCANS, (_OWNERS.c.bucket == _SCANS.c.bucket) & covers)
        .where(_SCANS.c.id.in_(ids), _OWNERS.c.removed_at.is_(None))
        .distinct()
    )
    return frozenset(s.execute(found).scalars())


def _members_of_keys(s: Session, keys: Collection[tuple[str, str]]) -> frozenset[str]:
    """The uploaders of the projects of some keys, in as many queries as there are projects."""
    known = projects.list_all(s)
    names = set[str]()
    for bucket, key in keys:
        found = projects.covering(known, bucket, key)
        names |= set() if found is None else {found.name}
    return frozenset[str]().union(*(projects.people(s, one, Role.UPLOADER) for one in names))


_COLUMNS = (
    _SCANS.c.bucket,
    _SCANS.c.key,
    _SCANS.c.upload_digest,
    _SCANS.c.canonical_digest,
    _SCANS.c.parent_scan_id,
    _SCANS.c.submitted_by,
)


def _has(digests: Collection[str]) -> ColumnElement[bool]:
    return or_(_SCANS.c.upload_digest.in_(digests), _SCANS.c.canonical_digest.in_(digests))


def _same(bucket: str, prefix: str, principal: str) -> tuple[ColumnElement[bool], ...]:
    return (
        _OWNERS.c.bucket == bucket,
        _OWNERS.c.prefix == prefix,
        _OWNERS.c.principal == principal,
        _OWNERS.c.removed_at.is_(None),
    )
