"""`guard quarantine policy`: what it prints; what it sets is in tests/flow/test_quarantine.py."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Answer
from tests.flow.place import Place

Cli = Callable[..., Answer]
ARN = "arn:aws:iam::123456789012:role/guard"


def test_the_policy_is_printed_for_the_intake_bucket_and_the_set_principals(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, {"GUARD_QUARANTINE_PRINCIPALS": ARN})
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: place.guard)

    made = json.loads(cli("quarantine", "policy").out)

    assert made["Statement"][0]["Resource"] == ["arn:aws:s3:::models/*"]
    assert made["Statement"][0]["Condition"]["ArnNotLike"] == {"aws:PrincipalArn": [ARN]}
    refused = cli("quarantine", "policy", "other", "--store", "seaweedfs")
    assert (refused.code, refused.out) == (4, "")
    assert "lock the guard out" in refused.err
