"""A vetted model and the authority that releases it."""

from pathlib import Path

import pytest

from tests.publishers.making import Authority, Vetted, vetted


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Vetted:
    return vetted(tmp_path_factory.mktemp("models"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "keys" / "trusted.json")
