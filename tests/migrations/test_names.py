"""Revision 0004 gives every name of an older database to whoever is served under it."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from guard.store import claims, migrate, scans
from guard.store.session import make_engine, reading, transaction

THEN = datetime(2026, 1, 1, tzinfo=UTC)
SCANS = [
    # id, key, name, digest, uploader, parent
    ("a", "teamA/fraud/m.pt", "fraud", "1" * 64, "ann", None),
    ("b", "teamB/fraud/m.pt", "fraud", "2" * 64, "bob", None),
    ("c", "teamB/fraud/m.pt", "fraud", "3" * 64, "bob", "b"),
    ("d", "models/Digits/m.pt", "digits", "4" * 64, None, None),
    ("e", "top.pt", "top", "5" * 64, "eve", None),
]
SCAN = """
INSERT INTO scans (id, bucket, key, version_id, name, canonical_digest, submitted_by, detail, state,
  parent_scan_id, attempts, lease_token, created_at, updated_at)
VALUES (:id, 'models', :key, 'v', :name, :digest, :by, '{}', 'done', :parent, 0, 0, :at, :at)
"""
ARTIFACT = "INSERT INTO artifacts (digest, size, kind, created_at) VALUES (:d, 1, 'upload', :at)"
PUBLICATION = """
INSERT INTO publications (id, digest, name, version, publisher, archive_digest, receipt, envelope,
  state, at, reason)
VALUES ('p', :d, 'fraud', '3.0', 'folder', :d, '{}', '{}', 'active', :at, '')
"""


def test_names_go_to_who_is_served_and_else_to_who_came_first(url: str) -> None:
    migrate.upgrade(url, "0003")
    engine = make_engine(url)
    with transaction(engine) as s:
        for number, (name, key, model, digest, by, parent) in enumerate(SCANS):
            at = THEN + timedelta(hours=number)
            values = {"id": name, "key": key, "name": model, "digest": digest, "by": by}
            s.execute(text(SCAN), {**values, "parent": parent, "at": at})
        s.execute(text(ARTIFACT), {"d": "3" * 64, "at": THEN})
        s.execute(text(PUBLICATION), {"d": "3" * 64, "at": THEN})
    engine.dispose()

    migrate.upgrade(url)

    engine = make_engine(url)
    with reading(engine) as s:
        found = [
            (row.name, row.prefix, row.owner, row.newest_scan_id) for row in claims.list_all(s)
        ]
        assert scans.get(s, "a").uploaded_at is None
    engine.dispose()
    assert found == [
        ("digits", "models/Digits/", None, None),
        ("fraud", "teamB/fraud/", "bob", "b"),
        ("top", "top.pt", "eve", None),
    ]
