"""`guard db`: from nothing to a schema, and again without harm; the roles of PostgreSQL."""

import secrets
from collections.abc import Callable

import pytest
from sqlalchemy import text

from guard.store.session import make_engine
from tests import postgres
from tests.cli.conftest import Answer

Cli = Callable[..., Answer]


def test_an_upgrade_makes_the_schema_and_may_be_repeated(cli: Cli) -> None:
    assert cli("status").code == 2
    assert cli("db", "upgrade").code == 0
    assert cli("db", "upgrade").code == 0
    assert cli("status") == Answer(0, "none\n", "")


def test_a_database_that_cannot_be_is_a_sentence(cli: Cli, monkeypatch: object) -> None:
    monkeypatch.setenv("GUARD_DATABASE_URL", "mysql://somewhere/db")  # type: ignore[attr-defined]
    answer = cli("db", "upgrade")

    assert answer.code == 4
    assert "Only SQLite and PostgreSQL" in answer.err


def test_the_rights_of_roles_are_printed_as_sql_and_sqlite_has_none(cli: Cli) -> None:
    printed = cli("db", "roles", "--prefix", "mine_")
    applied = cli("db", "roles", "--apply")

    assert printed.code == 0
    assert "GRANT SELECT ON" in printed.out
    assert "TO mine_worker;" in printed.out
    assert "INSERT ON verdicts" not in printed.out
    assert (applied.code, applied.out) == (4, "")
    assert "SQLite" in applied.err


def test_roles_are_granted_by_the_owner(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    url, prefix = postgres.migrated(), f"t{secrets.token_hex(4)}_"
    monkeypatch.setenv("GUARD_DATABASE_URL", url)
    answer = cli("db", "roles", "--apply", "--prefix", prefix)
    names = [prefix + role for role in ("worker", "signer", "api", "notifier", "reader")]

    assert answer == Answer(0, f"granted: {', '.join(names)}\n", "")
    engine = make_engine(url)
    with engine.begin() as connection:
        for name in names:
            connection.execute(text(f"DROP OWNED BY {name}"))
            connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()
