"""The signer that these tests trust."""

from pathlib import Path

import pytest

from guard.attest.keys import Signer, TrustedKeys
from tests.attest.making import a_signer, trusting


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return a_signer(tmp_path)


@pytest.fixture
def trusted(signer: Signer) -> TrustedKeys:
    return trusting(signer)
