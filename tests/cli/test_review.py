"""`guard review`: four eyes, a reason, and a name that the reviewer cannot choose."""

import json
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.cli._service import operator
from guard.core.errors import InputError
from guard.core.states import Verdict
from tests.cli.conftest import Answer, Service

Cli = Callable[..., Answer]
ME = operator()


def test_the_list_holds_only_what_waits(service: Service, cli: Cli) -> None:
    held = service.scan(Verdict.HELD)
    service.scan(Verdict.REJECTED)

    assert [row["id"] for row in json.loads(cli("review", "list", "--format", "json").out)] == [
        held.id
    ]


def test_showing_a_held_scan_prints_the_evidence_and_exits_5(
    service: Service, cli: Cli, tmp_path: Path
) -> None:
    held = service.scan(Verdict.HELD)
    answer = cli("review", "show", held.id)

    assert answer.code == 5
    assert "HELD" in answer.out
    assert str(held.canonical_digest) in answer.out
    page = tmp_path / "page.html"
    assert cli("review", "show", held.id, "--format", "html", "--out", page).code == 5
    assert str(held.canonical_digest) in page.read_text()


@pytest.mark.row(32)
@pytest.mark.parametrize(("verb", "verdict"), [("approve", "cleared"), ("reject", "rejected")])
def test_a_decision_makes_a_new_verdict_on_the_same_digest(
    verb: str, verdict: str, service: Service, cli: Cli
) -> None:
    held = service.scan(Verdict.HELD)
    answer = cli("review", verb, held.id, "--reason", "looked at the pictures", "--format", "json")
    said = json.loads(answer.out)

    assert answer.code == 0
    assert (said["verdict"], said["digest"], said["reviewer"]) == (
        verdict,
        held.canonical_digest,
        ME,
    )
    assert said["verdict_id"] != held.verdict_id
    assert cli("review", "list").out == "none\n"


def test_people_are_told_what_was_decided(service: Service, cli: Cli) -> None:
    held = service.scan(Verdict.HELD)
    answer = cli("review", "reject", held.id, "--reason", "no")

    assert answer.out.startswith(
        f"rejected digits sha256:{held.canonical_digest} as {ME}, verdict "
    )


def test_the_uploader_cannot_approve(service: Service, cli: Cli) -> None:
    held = service.scan(Verdict.HELD, by=ME)
    answer = cli("review", "approve", held.id, "--reason", "trust me")

    assert (answer.code, answer.out) == (1, "")
    assert "uploaded this model" in answer.err
    assert cli("review", "list").out != "none\n"


@pytest.mark.parametrize("variable", ["LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER"])
def test_no_variable_changes_who_reviews(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "somebody-else")

    assert operator() == ME


def test_a_user_without_a_name_cannot_review(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_number: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(InputError, match="no login name"):
        operator()


@pytest.mark.row(33)
def test_a_decision_needs_a_reason(service: Service, cli: Cli) -> None:
    held = service.scan(Verdict.HELD)

    assert cli("review", "approve", held.id).code == 4
    assert cli("review", "approve", held.id, "--reason", "  ").code == 4
    assert cli("review", "list").out != "none\n"


def test_what_is_not_held_cannot_be_approved(service: Service, cli: Cli) -> None:
    answer = cli("review", "approve", service.scan(Verdict.REJECTED).id, "--reason", "please")

    assert answer.code == 1
    assert "not held" in answer.err
