"""`guard publish`: only what the gate lets through."""

import json
from collections.abc import Callable

import pytest

from guard.core.states import Verdict
from tests.cli.conftest import Answer, Service

Cli = Callable[..., Answer]


def test_a_cleared_scan_is_sent_on_its_way(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.CLEARED)
    answer = cli("publish", scan.id, "--format", "json")

    assert answer.code == 0
    assert json.loads(answer.out)["state"] == "publishing"


def test_people_are_told_what_to_do_next(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.PURIFIED)
    answer = cli("publish", scan.id[:6])

    assert answer.code == 0
    assert str(scan.canonical_digest) in answer.out
    assert "guard served" in answer.out


@pytest.mark.parametrize(
    "verdict", [verdict for verdict in Verdict if verdict not in {"cleared", "purified"}]
)
def test_nothing_else_is(verdict: Verdict, service: Service, cli: Cli) -> None:
    scan = service.scan(verdict)
    answer = cli("publish", scan.id)

    assert (answer.code, answer.out) == (1, "")
    assert cli("status", scan.id, "--format", "json").out.count('"state": "done"') == 1
