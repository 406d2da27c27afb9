"""`guard status`: a scan without a verdict never exits with 0."""

import io
import json
import sys
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from guard.core.states import EXIT_CODES, ScanState, Verdict
from guard.core.verdict import VerdictFacts
from guard.flow._verdict import Terms, write
from guard.store import ledger, nominations, scans
from guard.store.rows import NominationState
from guard.store.session import transaction
from tests.cli.conftest import Answer, Service
from tests.reports.official import junit_faults, sarif_faults

Cli = Callable[..., Answer]


def test_the_list_shows_every_scan_with_state_and_verdict(service: Service, cli: Cli) -> None:
    service.scan(Verdict.CLEARED, name="good")
    service.scan(Verdict.REJECTED, name="bad")
    service.scan(name="fresh")
    answer = cli("status")

    assert answer.code == 0
    for name, words in (("good", "done"), ("bad", "rejected"), ("fresh", "queued")):
        line = next(line for line in answer.out.splitlines() if name in line)

        assert words in line


def test_an_empty_list_says_so(service: Service, cli: Cli) -> None:
    assert cli("status") == Answer(0, "none\n", "")
    assert cli("status", "--format", "json").out == "[]\n"


def test_a_verdict_that_cannot_be_read_is_shown_without_waivers(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.HELD)
    guard = service.guard
    with transaction(guard.engine) as session:
        row = ledger.append(
            session,
            verdict_id="f" * 32,
            artifact=scan.canonical_digest or "",
            scan_id=scan.id,
            verdict=Verdict.HELD,
            envelope={},
            issued_at=guard.now(),
            expires_at=guard.now() + timedelta(days=1),
            policy_digest="c" * 64,
        )
        scans.move(session, scan.id, scan.state, guard.now(), verdict_id=row.id)
    answer = cli("status", scan.id, "--format", "json")

    assert (answer.code, json.loads(answer.out)["waivers"]) == (5, [])


@pytest.mark.parametrize("verdict", list(Verdict))
def test_one_scan_exits_with_its_verdicts_code(
    verdict: Verdict, service: Service, cli: Cli
) -> None:
    scan = service.scan(verdict)
    answer = cli("status", scan.id[:8], "--format", "json")

    assert answer.code == EXIT_CODES[verdict]
    assert json.loads(answer.out) | {
        "verdict": str(verdict),
        "id": scan.id,
        "state": "done",
    } == json.loads(answer.out)


def test_a_scan_without_a_verdict_is_not_zero(service: Service, cli: Cli) -> None:
    assert cli("status", service.scan().id).code == 2


def test_a_failed_scan_is_not_zero_and_shows_its_error(service: Service, cli: Cli) -> None:
    scan = service.scan(error="The \x1b[31mworker died.")
    with transaction(service.guard.engine) as session:
        scans.move(session, scan.id, ScanState.FAILED, service.guard.now())
    answer = cli("status", scan.id)

    assert answer.code == 2
    assert "\\x1b[31mworker" in "".join(answer.out.split())
    assert "\x1b" not in answer.out


def test_a_scan_that_is_not_there_is_a_usage_error(service: Service, cli: Cli) -> None:
    answer = cli("status", "ffffffff")

    assert (answer.code, answer.out) == (4, "")
    assert "There is no scan" in answer.err


def test_watching_ends_with_the_verdict(
    service: Service, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guard.cli._scans.POLL_SECONDS", 0.01)
    scan = service.scan()

    def conclude() -> None:
        with transaction(service.guard.engine) as session:
            write(
                service.guard,
                session,
                scan,
                str(scan.canonical_digest),
                VerdictFacts(verdict=Verdict.REJECTED, reasons=("x",)),
                Terms(),
            )

    worker = threading.Timer(0.2, conclude)
    worker.start()
    answer = cli("status", scan.id, "--watch", "--format", "json")
    worker.join()

    assert answer.code == 1
    assert json.loads(answer.out)["verdict"] == "rejected"
    assert [json.loads(line)["state"] for line in answer.err.splitlines()] == ["queued", "done"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def interrupted_after(
    monkeypatch: pytest.MonkeyPatch, looks: int, between: Callable[[], object]
) -> None:
    """A person who presses Ctrl-C after some looks; `between` happens after the first."""
    seen = []

    def sleep(_seconds: float) -> None:
        seen.append(1)
        if len(seen) == 1:
            between()
        if len(seen) == looks:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)


def test_watching_everything_prints_one_line_for_each_change(
    service: Service, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = service.scan(name="first")
    interrupted_after(monkeypatch, 3, lambda: service.scan(Verdict.CLEARED, name="second"))
    answer = cli("status", "--watch")

    assert answer.code == 130
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert [(line["name"], line["state"], line["verdict"]) for line in lines] == [
        ("first", "queued", None),
        ("second", "done", "cleared"),
    ]
    assert lines[0]["id"] == first.id


def test_on_a_terminal_a_table_is_redrawn(
    service: Service, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.scan(name="first")
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    interrupted_after(monkeypatch, 3, lambda: service.scan(Verdict.CLEARED, name="second"))

    assert cli("status", "--watch").code == 130
    assert "first" in screen.getvalue()
    assert "second" in screen.getvalue()


def test_on_a_terminal_one_scan_is_followed_to_its_end(
    service: Service, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = service.scan(name="first")
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")

    def conclude() -> None:
        with transaction(service.guard.engine) as session:
            write(
                service.guard,
                session,
                scan,
                str(scan.canonical_digest),
                VerdictFacts(verdict=Verdict.HELD, reasons=("x",)),
                Terms(),
            )

    interrupted_after(monkeypatch, 99, conclude)

    assert cli("status", scan.id, "--watch").code == 5
    assert "queued" in screen.getvalue()
    assert "held" in screen.getvalue()


def test_without_a_schema_it_says_what_to_do(cli: Cli) -> None:
    answer = cli("status")

    assert (answer.code, answer.out) == (2, "")
    assert "guard db upgrade" in answer.err
    assert "Traceback" not in answer.err


def test_the_reason_of_each_refusal_is_shown(service: Service, cli: Cli) -> None:
    scan = service.scan(name="bad")
    with transaction(service.guard.engine) as session:
        facts = VerdictFacts(verdict=Verdict.REJECTED, reasons=("A stripe.", "A square."))
        write(service.guard, session, scan, str(scan.canonical_digest), facts, Terms())
        now = service.guard.now()
        keys = (("1", "models/a/x.txt"), ("2", "models/a/x.txt"), ("3", scan.key))
        for number, key in keys:  # of the last one there is a scan by now
            nominations.add(
                session,
                nomination_id=number * 32,
                bucket="models",
                key=key,
                version_id="v1",
                source="event",
                now=now,
            )
            nominations.settle(
                session, number * 32, NominationState.REFUSED, reason="It is no model."
            )
    listed = " ".join(cli("status").out.split())

    assert "A stripe. (and 1 more)" in listed
    assert "It is no model." in listed
    assert "A stripe. A square." in " ".join(cli("status", scan.id).out.split())
    assert json.loads(cli("status", scan.id, "-f", "json").out)["reasons"] == [
        "A stripe.",
        "A square.",
    ]
    (refused,) = json.loads(cli("status", "--refused", "-f", "json").out)
    assert (refused["key"], refused["reason"]) == ("models/a/x.txt", "It is no model.")


def test_pipelines_get_a_result_for_each_scan_and_a_scan_that_runs_is_an_error(
    service: Service, cli: Cli
) -> None:
    done = service.scan(Verdict.CLEARED, name="good")
    service.scan(Verdict.HELD, name="odd")
    service.scan(name="fresh", error="It broke.")
    log, tests = (cli("status", "--format", form) for form in ("sarif", "junit"))
    one = cli("status", done.id, "--format", "junit")

    assert (log.code, tests.code, one.code) == (5, 5, 0)
    assert sarif_faults(json.loads(log.out)) == []
    assert {item["ruleId"]: item["kind"] for item in json.loads(log.out)["runs"][0]["results"]} == {
        "verdict/cleared": "pass",
        "verdict/held": "fail",
        "verdict/pending": "fail",
    }
    assert "It broke." in log.out
    assert junit_faults(tests.out) == junit_faults(one.out) == []
    assert tests.out.count("<error ") == tests.out.count("<failure ") == 1


def test_a_watched_scan_is_a_document_once_it_has_ended(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.REJECTED)
    answer = cli("status", scan.id, "--watch", "--format", "junit")

    assert answer.code == 1
    assert junit_faults(answer.out) == []
    assert json.loads(answer.err)["verdict"] == "rejected"


@pytest.mark.parametrize("other", [("--jobs",), ("--refused",), ("--watch",)])
def test_pipelines_get_scans_only(service: Service, cli: Cli, other: tuple[str, ...]) -> None:
    answer = cli("status", *other, "--format", "sarif")

    assert (answer.code, answer.out) == (4, "")
