"""One scene for tests that only read, and a fresh one for those that act."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.scene import Scene


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A scene that no test changes."""
    made = Scene(tmp_path_factory.mktemp("console"))
    yield made
    made.guard.engine.dispose()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.guard.engine.dispose()
