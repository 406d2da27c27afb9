"""Whether a database may have changed is known without a query, and never wrongly denied."""

from pathlib import Path

from sqlalchemy import Engine

from guard.store import outbox
from guard.store.changes import Changes
from guard.store.session import make_engine, reading, transaction
from tests import sqlite
from tests.attest.making import NOW


def add(engine: Engine) -> None:
    with transaction(engine) as session:
        outbox.add(session, "inspect", {"scan_id": "one"}, NOW)


def test_what_was_committed_is_seen_and_on_sqlite_nothing_else(engine: Engine) -> None:
    changes = Changes(engine)
    assert changes.since_last(), "the first time"
    quiet = engine.dialect.name == "sqlite"
    for _ in range(3):
        with reading(engine) as session:
            outbox.due(session, NOW)
        assert changes.since_last() is not quiet

    add(engine)

    assert changes.since_last()
    assert changes.since_last() is not quiet


def test_a_commit_of_another_process_is_seen(tmp_path: Path) -> None:
    url = sqlite.migrated(tmp_path)
    here, there = make_engine(url), make_engine(url)
    changes = Changes(here)
    assert [changes.since_last(), changes.since_last()] == [True, False]

    add(there)

    assert [changes.since_last(), changes.since_last()] == [True, False]
    here.dispose()
    there.dispose()


def test_where_it_cannot_be_asked_something_may_have_changed(tmp_path: Path) -> None:
    nowhere = make_engine(f"sqlite:///{tmp_path / 'no' / 'folder' / 'guard.db'}")
    changes = Changes(nowhere)

    assert [changes.since_last() for _ in range(3)] == [True, True, True]
