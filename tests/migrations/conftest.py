"""Every test of the migrations runs on a SQLite file and on a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with nothing in it."""
    if request.param == "postgresql":
        with postgres.empty() as address:
            yield address
        return
    yield f"sqlite:///{tmp_path / 'guard.db'}"
