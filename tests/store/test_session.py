"""Engines and transactions: what is translated, what is refused, who waits for whom."""

import threading
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import StatementError

from guard.core.errors import GuardError, InputError, Unavailable
from guard.store import alarms
from guard.store.session import StoreConflict, database_url, make_engine, reading, transaction
from tests.store.rows import NOW, a_scan


@pytest.mark.parametrize("url", ["mysql://x/y", "not a url", "sqlite+", ""])
def test_another_database_is_refused_with_what_to_write_instead(url: str) -> None:
    with pytest.raises(InputError, match="sqlite:///FILE"):
        make_engine(url)


def test_a_plain_postgresql_url_means_psycopg_3() -> None:
    for scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        assert database_url(f"{scheme}://u:p@h/db").drivername == "postgresql+psycopg"


def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path / 'no' / 'guard.db'}", f"postgresql://u@/db?host={tmp_path}"):
        engine = make_engine(url)
        with pytest.raises(Unavailable) as refusal, transaction(engine) as s:
            s.execute(text("SELECT 1"))
        engine.dispose()

        assert "SELECT" not in refusal.value.sentence


def test_no_foreign_error_leaks(engine: Engine) -> None:
    statements = ["SELECT nothing FROM scans", "nonsense", "INSERT INTO alarms (id) VALUES ('x')"]
    for statement in statements:
        with pytest.raises(GuardError), transaction(engine) as s:
            s.execute(text(statement))


def test_our_own_errors_pass_as_they_are_and_undo_everything(engine: Engine) -> None:
    def fail() -> None:
        with transaction(engine) as s:
            alarms.raise_(s, "k", "s", "d", NOW)
            raise InputError("mine")

    with pytest.raises(InputError, match="mine"):
        fail()
    with transaction(engine) as s:
        assert alarms.open_alarms(s) == []


def test_a_reader_writes_nothing(engine: Engine) -> None:
    with reading(engine) as s:
        alarms.raise_(s, "k", "s", "d", NOW)
    with reading(engine) as s:
        assert alarms.open_alarms(s) == []


def test_a_reader_is_not_held_up_by_a_writer(engine: Engine) -> None:
    with transaction(engine) as writer:
        alarms.raise_(writer, "k", "s", "d", NOW)
        with reading(engine) as s:
            assert alarms.open_alarms(s) == []


def test_writers_that_read_first_wait_for_each_other_and_all_succeed(engine: Engine) -> None:
    def write(number: int) -> None:
        with transaction(engine) as s:
            alarms.open_alarms(s)
            alarms.raise_(s, "k", str(number), "d", NOW)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine) as s:
        assert len(alarms.open_alarms(s)) == 10


def test_a_time_without_a_zone_is_refused(engine: Engine) -> None:
    with pytest.raises((StatementError, ValueError), match="timezone"), transaction(engine) as s:
        a_scan(s, now=datetime(2026, 11, 21))  # noqa: DTZ001 - the zone is what is missing


def test_foreign_keys_are_kept(engine: Engine) -> None:
    with pytest.raises(StoreConflict), transaction(engine) as s:
        a_scan(s, parent_scan_id="nobody")
