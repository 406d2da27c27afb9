"""`guard rollback`: an older model is served again, on a person's word."""

import json
from collections.abc import Callable

import pytest

from guard.core.states import Verdict
from tests.cli.conftest import Answer, Service
from tests.cli.serving import published
from tests.cli.test_name import claimed

Cli = Callable[..., Answer]


@pytest.mark.row(42)
def test_a_rollback_sends_the_older_model_on_its_way(service: Service, cli: Cli) -> None:
    claimed(service)
    published(service)
    older = service.scan(Verdict.CLEARED)
    answer = cli("rollback", "digits", "--to", older.id, "--reason", "x", "--format", "json")

    assert answer.code == 0
    assert json.loads(answer.out)["state"] == "publishing"
    assert "guard served" in cli("rollback", "digits", "--to", older.id, "--reason", "x").out


def test_a_rollback_to_nothing_says_so(service: Service, cli: Cli) -> None:
    claimed(service)
    answer = cli("rollback", "digits", "--reason", "x")

    assert answer.code == 4
    assert "no earlier version" in answer.err
    assert cli("rollback", "nobody", "--reason", "x").code == 4
