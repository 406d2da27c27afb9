"""`guard rescan`, and that an expired verdict is no pass wherever one is answered."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from guard.core.states import EXIT_CODES, Verdict
from guard.core.verdict import VerdictFacts
from guard.flow._verdict import Terms, write
from guard.store import scans
from guard.store.rows import ScanRow
from guard.store.session import transaction
from tests.cli.conftest import Answer, Service

Cli = Callable[..., Answer]


def expired(service: Service, verdict: Verdict) -> ScanRow:
    """A scan whose verdict ended a moment ago."""
    scan = service.scan()
    guard = service.guard
    facts = VerdictFacts(verdict=verdict, reasons=("A patch of 9 pixels.",), score=0.9)
    with transaction(guard.engine) as session:
        terms = Terms(until=guard.now() - timedelta(seconds=1))
        write(guard, session, scan, scan.canonical_digest or "", facts, terms)
        return scans.get(session, scan.id)


@pytest.mark.row(27)
@pytest.mark.parametrize("verdict", list(Verdict))
def test_an_expired_verdict_is_no_pass(verdict: Verdict, service: Service, cli: Cli) -> None:
    scan = expired(service, verdict)

    status = cli("status", scan.id, "--format", "json")
    followed = cli("status", scan.id, "--watch", "--format", "json")
    report = cli("report", scan.id, "--format", "json")

    for answer in (status, followed, report):
        assert answer.code == (EXIT_CODES[verdict] or 2)
        assert json.loads(answer.out)["expired"] is True
    assert f"{verdict} (expired)" in cli("status").out
    assert "EXPIRED" in cli("report", scan.id).out


def test_a_verdict_in_force_is_not_called_expired(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.CLEARED)
    answer = cli("status", scan.id, "--format", "json")

    assert answer.code == 0
    assert json.loads(answer.out)["expired"] is False
    assert "expired" not in cli("status").out


def test_an_expired_review_is_shown_as_such(service: Service, cli: Cli) -> None:
    service.scan(Verdict.HELD, name="fresh")
    assert cli("review", "list").code == 0
    expired(service, Verdict.HELD)

    answer = cli("review", "list")

    assert answer.code == 2
    assert "held (expired)" in answer.out


def test_a_re_scan_is_opened_by_name_and_shown(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.CLEARED, name="digits")

    answer = cli("rescan", "digits", "--format", "json")

    assert answer.code == 0
    (opened,) = json.loads(answer.out)
    assert (opened["name"], opened["digest"]) == ("digits", scan.canonical_digest)
    assert opened["id"] != scan.id
    assert cli("rescan", "--all-expiring").out == "none\n"


@pytest.mark.parametrize("args", [(), ("digits", "--all-expiring")], ids=["none", "both"])
def test_it_wants_exactly_one_thing(args: tuple[str, ...], service: Service, cli: Cli) -> None:
    service.scan(Verdict.CLEARED, name="digits")

    assert cli("rescan", *args).code == 4


def test_what_is_unknown_is_a_usage_error(service: Service, cli: Cli) -> None:
    assert cli("rescan", "nobody").code == 4
