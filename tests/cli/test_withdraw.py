"""`guard withdraw`: taken down, and never served again."""

import json
from collections.abc import Callable

import pytest

from tests.cli.conftest import Answer, Service
from tests.cli.serving import published

Cli = Callable[..., Answer]


@pytest.mark.parametrize("by", ["name", "digest"])
def test_withdrawing_takes_it_down_for_good(by: str, service: Service, cli: Cli) -> None:
    scan = published(service)
    what = scan.name if by == "name" else scan.canonical_digest
    answer = cli("withdraw", what, "--reason", "found a hole", "--format", "json")

    assert answer.code == 0
    assert json.loads(answer.out) == [
        {"name": "digits", "version": "1.0", "digest": scan.canonical_digest}
    ]
    assert cli("served").out == "nothing is served\n"
    assert cli("publish", scan.id).code == 1


def test_people_are_told_what_was_withdrawn(service: Service, cli: Cli) -> None:
    scan = published(service)

    assert (
        cli("withdraw", "digits", "--reason", "x").out
        == f"withdrawn digits 1.0 sha256:{scan.canonical_digest}\n"
    )


def test_withdrawing_what_is_not_served_says_so(service: Service, cli: Cli) -> None:
    assert cli("withdraw", "nothing", "--reason", "x").code == 4
    assert "not being served" in cli("withdraw", "f" * 64, "--reason", "x").out
    assert cli("withdraw", "digits").code == 4
