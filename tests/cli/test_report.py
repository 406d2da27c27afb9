"""`guard report`: a stored scan as a table, one JSON document, or a page."""

import json
from collections.abc import Callable
from pathlib import Path

from guard.core.states import Verdict
from tests.cli.conftest import Answer, Service
from tests.reports.official import junit_faults, sarif_faults

Cli = Callable[..., Answer]


def test_a_stored_scan_is_one_document_with_its_verdicts_code(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.REJECTED)
    answer = cli("report", scan.id, "--format", "json")
    document = json.loads(answer.out)

    assert answer.code == 1
    assert (document["digest"], document["verdict"]) == (scan.canonical_digest, "rejected")
    assert (document["scan_id"], document["verdict_id"]) == (scan.id, scan.verdict_id)
    assert document["reasons"] == ["A patch of 9 pixels."]


def test_a_page_is_written_whole_and_named(service: Service, cli: Cli, tmp_path: Path) -> None:
    scan, page = service.scan(Verdict.CLEARED, name="<svg onload=alert(1)>"), tmp_path / "page.html"
    answer = cli("report", scan.id, "--format", "html", "--out", page)

    assert answer.code == 0
    assert answer.out == f"cleared <svg onload=alert(1)> {page}\n"
    assert "<svg onload" not in page.read_text()
    assert "&lt;svg onload" in page.read_text()


def test_a_page_needs_a_place(service: Service, cli: Cli, tmp_path: Path) -> None:
    scan = service.scan(Verdict.CLEARED)

    assert cli("report", scan.id, "--format", "html").code == 4
    assert (
        cli("report", scan.id, "--format", "html", "--out", tmp_path / "no" / "page.html").code == 4
    )
    assert cli("report", scan.id, "--format", "json", "--out", tmp_path / "page.json").code == 4
    assert list(tmp_path.glob("*.html")) == []


def test_sarif_and_junit_go_to_stdout_or_into_a_file_with_the_verdicts_code(
    service: Service, cli: Cli, tmp_path: Path
) -> None:
    scan = service.scan(Verdict.HELD, name="<b>")
    log, tests = tmp_path / "guard.sarif", tmp_path / "guard.xml"
    printed = cli("report", scan.id, "--format", "sarif")
    written = cli("report", scan.id, "--format", "sarif", "--out", log)
    junit = cli("report", scan.id, "--format", "junit", "--out", tests)

    assert (printed.code, written.code, junit.code) == (5, 5, 5)
    assert json.loads(printed.out) == json.loads(log.read_text())
    assert sarif_faults(json.loads(printed.out)) == []
    assert written.out == f"held <b> {log}\n"
    assert junit_faults(tests.read_text()) == []
    assert tests.read_text() == cli("report", scan.id, "--format", "junit").out


def test_one_run_writes_every_form_that_is_wanted(
    service: Service, cli: Cli, tmp_path: Path
) -> None:
    scan = service.scan(Verdict.CLEARED)
    forms = ("json", "html", "sarif", "junit", "cyclonedx", "card")
    wanted = [one for form in forms for one in ("--also", f"{form}={tmp_path / form}")]
    answer = cli("report", scan.id, *wanted)

    assert answer.code == 0
    assert "CLEARED" in answer.out
    assert sorted(one.name for one in tmp_path.iterdir() if one.is_file()) == sorted(forms)
    assert json.loads((tmp_path / "json").read_text())["verdict"] == "cleared"


def test_a_scan_without_a_verdict_has_no_report(service: Service, cli: Cli) -> None:
    answer = cli("report", service.scan().id)

    assert (answer.code, answer.out) == (4, "")
    assert "no verdict yet" in answer.err
