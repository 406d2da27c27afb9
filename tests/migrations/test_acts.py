"""Revision 0007 takes over what principals did and what was done to names, in the order of time."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from guard.core.roles import Act
from guard.store import acts, migrate
from guard.store.session import make_engine, reading, transaction

THEN = datetime(2026, 1, 1, tzinfo=UTC)
OLD_ACT = """
INSERT INTO acts (act, principal, role, authenticated, token_id, subject, detail, at)
VALUES (:act, 'bob', 'reviewer', :yes, 't', 'v', 'seen', :at)
"""
OLD_NAME = """
INSERT INTO name_acts (id, name, act, "by", reason, detail, at)
VALUES (:id, 'fraud', 'rollback', 'carol', 'it broke', '{"from": ["a"], "to": "b"}', :at)
"""


def test_acts_of_both_tables_come_into_one_and_back(url: str) -> None:
    migrate.upgrade(url, "0006")
    engine = make_engine(url)
    with transaction(engine) as s:
        for number, act in enumerate(("approve", "publish")):
            s.execute(
                text(OLD_ACT), {"act": act, "yes": True, "at": THEN + timedelta(hours=2 * number)}
            )
        s.execute(text(OLD_NAME), {"id": "n", "at": THEN + timedelta(hours=1)})
    engine.dispose()

    migrate.upgrade(url)

    engine = make_engine(url)
    with reading(engine) as s:
        rows = list(reversed(acts.list_recent(s)))
        assert acts.unsealed(s) == rows
    assert [(row.act, row.principal, row.subject, row.detail) for row in rows] == [
        (Act.APPROVE, "bob", "v", "seen"),
        (Act.ROLLBACK, "carol", "fraud", "it broke"),
        (Act.PUBLISH, "bob", "v", "seen"),
    ]
    assert [row.facts for row in rows] == [{}, {"from": ["a"], "to": "b"}, {}]
    assert [row.authenticated for row in rows] == [True, False, True]
    assert rows[0].at == THEN
    assert len({row.id for row in rows}) == 3
    engine.dispose()

    migrate.downgrade(url, "0006")

    engine = make_engine(url)
    with reading(engine) as s:
        assert list(s.execute(text("SELECT act FROM acts ORDER BY seq")).scalars()) == [
            "approve",
            "publish",
        ]
        assert list(s.execute(text('SELECT name, "by", reason FROM name_acts'))) == [
            ("fraud", "carol", "it broke")
        ]
    engine.dispose()
