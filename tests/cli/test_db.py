"""`guard db upgrade`: from nothing to a schema, and again without harm."""

from collections.abc import Callable

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
