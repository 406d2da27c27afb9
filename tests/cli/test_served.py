"""`guard served`: everything that is served, and whether it may be."""

import json
from collections.abc import Callable

from tests.cli.conftest import Answer, Service
from tests.cli.serving import foreign, published

Cli = Callable[..., Answer]


def test_nothing_served_is_fine(service: Service, cli: Cli) -> None:
    assert cli("served") == Answer(0, "nothing is served\n", "")


def test_a_vetted_model_is_listed_with_its_digest(service: Service, cli: Cli) -> None:
    scan = published(service)
    answer = cli("served", "--format", "json")
    (row,) = json.loads(answer.out)

    assert answer.code == 0
    assert (row["name"], row["digest"], row["vetted"], row["default"]) == (
        "digits",
        scan.canonical_digest,
        True,
        True,
    )


def test_what_was_put_there_behind_the_guards_back_exits_6(service: Service, cli: Cli) -> None:
    published(service)
    foreign(service)
    answer = cli("served")

    assert answer.code == 6
    assert "NOT VETTED" in answer.out
    assert cli("served", "--name", "digits").code == 0
