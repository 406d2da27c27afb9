"""The migrated schema is the one the code believes in, on both databases, up and down."""

import itertools
import re
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from guard.core.errors import InputError, Unavailable
from guard.store import alarms, migrate
from guard.store._table import Base
from guard.store.session import make_engine, transaction


def objects(url: str) -> set[str]:
    engine = make_engine(url)
    query = {
        "sqlite": "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'",
        "postgresql": "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = "
        "c.relnamespace "
        "WHERE n.nspname = 'public' UNION SELECT proname FROM pg_proc p "
        "JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'",
    }[engine.dialect.name]
    with transaction(engine) as s:
        found = {str(name) for name in s.execute(text(query)).scalars()}
    engine.dispose()
    return {name for name in found if "alembic" not in name}


def test_the_migrated_schema_is_the_tables_metadata(url: str) -> None:
    migrate.upgrade(url)
    engine = make_engine(url)
    with transaction(engine) as s:
        context = MigrationContext.configure(s.connection(), opts={"compare_type": True})
        found = compare_metadata(context, Base.metadata)
    engine.dispose()

    assert found == []


def test_partial_indexes_keep_their_condition(url: str) -> None:
    """Alembic's comparison does not look at conditions.

    And a unique rule without its own would be another rule.
    """
    migrate.upgrade(url)
    engine = make_engine(url)
    wanted = {
        index.name: str(index.dialect_options["sqlite"]["where"])
        for table in Base.metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["sqlite"]["where"] is not None
    }
    looker = inspect(engine)
    found = {
        index["name"]: re.sub(
            r"[()]|::text", "", str(index["dialect_options"][f"{engine.dialect.name}_where"])
        )
        for name in looker.get_table_names()
        for index in looker.get_indexes(name)
        if f"{engine.dialect.name}_where" in index.get("dialect_options", {})
    }
    engine.dispose()

    assert len(wanted) == 12
    assert found == wanted


def test_nothing_cascades_from_an_artifact_to_what_was_said_of_it(url: str) -> None:
    migrate.upgrade(url)
    engine = make_engine(url)
    looker = inspect(engine)
    keys = [key for table in looker.get_table_names() for key in looker.get_foreign_keys(table)]
    engine.dispose()

    assert len(keys) >= 8
    assert [key for key in keys if key.get("options", {}).get("ondelete")] == []


def test_up_down_and_up_again_leaves_nothing_behind(url: str) -> None:
    assert migrate.current(url) is None
    migrate.upgrade(url)
    first = objects(url)
    assert migrate.current(url) == migrate.head()
    migrate.upgrade(url)  # twice is harmless
    migrate.downgrade(url, "base")

    assert (migrate.current(url), objects(url)) == (None, set())
    migrate.upgrade(url)
    assert objects(url) == first


def test_a_migration_that_fails_leaves_the_database_as_it_was(url: str) -> None:
    engine = make_engine(url)
    with transaction(engine) as s:
        s.execute(
            text("CREATE TABLE alarms (id INTEGER)")
        )  # in the way of the last of the new tables
    engine.dispose()
    with pytest.raises(Exception, match="alarms"):
        migrate.upgrade(url)

    assert objects(url) == {"alarms"}


def test_several_hosts_may_upgrade_at_once(url: str) -> None:
    errors: list[Exception] = []

    def upgrade() -> None:
        try:
            migrate.upgrade(url)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            errors.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert migrate.current(url) == migrate.head()


def test_a_database_without_our_tables_says_what_to_run(url: str) -> None:
    engine = make_engine(url)
    with pytest.raises(Unavailable, match="guard db upgrade"), transaction(engine) as s:
        alarms.open_alarms(s)
    engine.dispose()


def test_an_unknown_revision_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="cannot be changed"):
        migrate.upgrade(url, "9999")


def test_the_folder_of_a_new_sqlite_file_is_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'er' / 'guard.db'}"
    migrate.upgrade(url)

    assert migrate.current(url) == migrate.head()


def test_revisions_are_numbered_in_one_line() -> None:
    folder = Path(migrate._config().get_main_option("script_location") or "") / "versions"
    numbers = sorted(int(file.name[:4]) for file in folder.glob("[0-9]*.py"))

    assert numbers == list(itertools.islice(itertools.count(1), len(numbers)))
    assert migrate.head() == f"{numbers[-1]:04d}"


def test_the_schema_needs_nothing_of_ours_at_hand(tmp_path: Path) -> None:
    """The append-only rule is the database's own.

    It holds for a client that never heard of the guard.
    """
    path = tmp_path / "guard.db"
    migrate.upgrade(f"sqlite:///{path}")
    plain = create_engine(f"sqlite:///{path}")
    with plain.connect() as connection:
        connection.execute(
            text("INSERT INTO revocations VALUES ('1', 'd', 'r', 'b', '2026-01-01 00:00:00')")
        )
        with pytest.raises(Exception, match="append-only"):
            connection.execute(text("DELETE FROM revocations"))
    plain.dispose()
