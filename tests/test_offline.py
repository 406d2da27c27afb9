"""The Python API: where a clean set of a name comes from, and what a broken database is called."""

from pathlib import Path

import pytest

from guard import offline_inputs
from guard.core.errors import CleanSetError, Unavailable


def test_a_database_that_is_broken_is_not_taken_for_a_missing_clean_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_DATA_DIR", str(tmp_path))
    (tmp_path / "guard.db").write_bytes(b"this is no database" * 100)

    with pytest.raises(Unavailable, match="database"):
        offline_inputs.curated_set("squares")


def test_where_nothing_was_ever_stored_there_is_no_such_clean_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_DATA_DIR", str(tmp_path))

    with pytest.raises(CleanSetError, match="no stored clean set"):
        offline_inputs.curated_set("squares")
    assert not list(tmp_path.glob("*.db"))  # a look creates none
