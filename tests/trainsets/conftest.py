"""A place to read training sets into."""

from pathlib import Path

import pytest


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """An empty folder for the decoded set."""
    place = tmp_path / "spool"
    place.mkdir()
    return place
