"""One released model for the tests of a file."""

from pathlib import Path

import pytest

from guard.inference._models import Models
from tests.inference.making import put
from tests.publishers.making import Authority, Vetted, vetted


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Vetted:
    return vetted(tmp_path_factory.mktemp("models"), seed=1, size=(3, 8, 8))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "keys" / "trusted.json")


@pytest.fixture
def folder(tmp_path: Path, model: Vetted, authority: Authority) -> Path:
    return put(tmp_path / "store", model, authority)


@pytest.fixture
def models(folder: Path, authority: Authority) -> Models:
    return Models(folder.parents[1], authority.trusted)
