"""`guard served`: everything that is served, and whether it may be."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import text

from guard.core.states import EXIT_CODES, Verdict
from guard.policy.rules import GateRule
from guard.store.session import transaction
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


def test_it_says_how_a_client_gets_at_a_model(service: Service, cli: Cli) -> None:
    published(service)

    (row,) = json.loads(cli("served", "--format", "json").out)

    assert row["calling"].startswith("Nothing answers: carry ")
    assert row["calling"] in cli("served", "--name", "digits").err


def test_what_was_put_there_behind_the_guards_back_exits_6(service: Service, cli: Cli) -> None:
    published(service)
    foreign(service)
    answer = cli("served")

    assert answer.code == 6
    assert "NOT VETTED" in answer.out
    assert cli("served", "--name", "digits").code == 0


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.HELD])
def test_what_a_warning_gate_let_through_is_marked_and_exits_as_its_verdict(
    service: Service, cli: Cli, verdict: Verdict
) -> None:
    only_warn(service)
    scan = published(service, verdict)

    answer = cli("served")
    assert answer.code == EXIT_CODES[verdict]
    assert f"WARNS ({verdict})" in answer.out
    (row,) = json.loads(cli("served", "--format", "json").out)
    assert (row["vetted"], row["verdict"], row["gate"]["would_be"]) == (False, verdict, verdict)

    status = cli("status", scan.id)
    assert status.code == EXIT_CODES[verdict]
    assert "The gate only warns" in " ".join(status.out.split())
    assert json.loads(cli("status", scan.id, "--format", "json").out)["gate"] == row["gate"]
    report = cli("report", scan.id, "--format", "json")
    assert json.loads(report.out)["gate"] == row["gate"]
    assert report.code in (0, EXIT_CODES[verdict])

    foreign(service)
    assert cli("served").code == 6


def test_once_the_gate_enforces_again_the_same_model_was_not_vetted(
    service: Service, cli: Cli
) -> None:
    policy = service.guard.policy
    only_warn(service)
    published(service, Verdict.REJECTED)
    service.guard = replace(service.guard, policy=policy)

    answer = cli("served")

    assert answer.code == 6
    assert "only cleared or purified" in " ".join(answer.out.split())


def test_a_verdict_that_cannot_be_read_is_shown_all_the_same(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.HELD)
    with transaction(service.guard.engine) as session:
        session.execute(text("DROP TRIGGER verdicts_no_update"))
        session.execute(text("UPDATE verdicts SET envelope = '{}'"))

    answer = cli("status", scan.id, "--format", "json")

    assert (answer.code, json.loads(answer.out)["gate"]) == (5, None)


def only_warn(service: Service) -> None:
    policy = replace(service.guard.policy, gate=GateRule(mode="warn"))
    service.guard = replace(service.guard, policy=policy)
