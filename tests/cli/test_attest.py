"""`guard attest`: summaries for other tools, signed as the gate judges now, and on record."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from guard.attest import dsse
from guard.core.states import Verdict
from tests.cli.conftest import Answer, Service

Cli = Callable[..., Answer]


def statement(service: Service, text: str) -> dict[str, Any]:
    """What a trusted key signed."""
    return dsse.verify(json.loads(text), service.guard.trusted)


@pytest.mark.row(38)
def test_a_cleared_model_has_a_vsa_and_an_svr_on_record(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.CLEARED)
    vsa, svr = (cli("attest", "digits", "--as", kind) for kind in ("vsa", "svr"))
    acts = json.loads(cli("acts", "list", "--format", "json").out)

    assert (vsa.code, svr.code) == (0, 0)
    assert statement(service, vsa.out)["predicate"]["verificationResult"] == "PASSED"
    assert statement(service, svr.out)["subject"][0]["digest"]["sha256"] == scan.canonical_digest
    assert [(one["act"], one["detail"]) for one in acts if one["act"] == "attest"] == [
        ("attest", "svr"),
        ("attest", "vsa"),
    ]
    assert cli("verify").code == 0


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.HELD, Verdict.INCONCLUSIVE])
def test_what_the_gate_refuses_fails_in_a_vsa_and_gets_no_svr(
    service: Service, cli: Cli, tmp_path: Path, verdict: Verdict
) -> None:
    scan = service.scan(verdict)
    out = tmp_path / "vsa.json"
    vsa = cli("attest", scan.id, "--out", out)
    svr = cli("attest", scan.id, "--as", "svr")

    assert (vsa.code, vsa.out) == (1, f"FAILED {out}\n")
    predicate = statement(service, out.read_text())["predicate"]
    assert (predicate["verificationResult"], predicate["verifiedLevels"]) == ("FAILED", ["FAILED"])
    assert (svr.code, svr.out) == (1, "")


def test_a_withdrawn_and_an_expired_model_pass_no_more(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.CLEARED)
    cli("withdraw", scan.canonical_digest, "--reason", "x")
    withdrawn = cli("attest", scan.id)
    old = service.scan(Verdict.CLEARED, name="old", data=b"old")
    guard = service.guard
    object.__setattr__(guard, "now", lambda: scan.created_at + timedelta(days=400))
    expired = cli("attest", old.id)

    assert (withdrawn.code, expired.code) == (1, 1)
    assert "withdrawn" in withdrawn.err
    assert "expired" in expired.err


def test_a_changed_row_is_a_mismatch_and_nothing_is_signed(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.REJECTED)
    with service.guard.engine.begin() as connection:
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for (name,) in connection.exec_driver_sql(triggers).fetchall():
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        forged = "UPDATE verdicts SET verdict = 'cleared' WHERE id = ?"
        connection.exec_driver_sql(forged, (scan.verdict_id,))
    answer = cli("attest", scan.id)

    assert (answer.code, answer.out) == (6, "")


def test_a_model_without_a_verdict_has_none(service: Service, cli: Cli) -> None:
    assert cli("attest", service.scan().id).code == 4
