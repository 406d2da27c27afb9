"""`guard doctor`: a table or JSON, and an exit code that a script can read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.doctor import CHECKS
from tests.cli.conftest import Answer
from tests.house.sources import fresh

Cli = Callable[..., Answer]
#: What asks other hosts, or takes long to ask.
SERVICES = ("broker", "broker_messages", "workers", "serving", "device")
STORE = ("buckets", "bucket_versions", "bucket_events", "clock", "blobs", "blobs_apart")


def skipping(*names: str) -> list[str]:
    return [part for name in names for part in ("--skip", name)]


def test_it_says_what_is_wrong_and_ends_with_1(cli: Cli) -> None:
    answer = cli("doctor", "--json", *skipping(*SERVICES, *STORE))

    found = {one["check"]: one for one in json.loads(answer.out)}
    assert answer.code == 1
    assert set(found) == {"settings", *(c.name for c in CHECKS)} - {*SERVICES, *STORE}
    assert found["database"]["state"] == "failed"
    assert found["schema"]["state"] == "could_not_check"
    assert set(found["database"]) == {"check", "state", "sentence", "mend"}


def test_warnings_alone_end_with_0(cli: Cli) -> None:
    assert cli("db", "upgrade").code == 0
    answer = cli("doctor", *skipping(*SERVICES, *STORE, "clean_sets"))

    assert answer.code == 0
    assert "principals" in answer.out
    assert "0 failed" in answer.out


def test_settings_that_are_wrong_are_its_first_finding(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_SCAN_SECOND", "5")
    answer = cli("doctor", "--format", "json")

    (only,) = json.loads(answer.out)
    assert (answer.code, only["check"], only["state"]) == (1, "settings", "failed")
    assert "GUARD_SCAN_SECONDS" in only["sentence"]


def test_plug_ins_that_are_unsafe_do_not_keep_it_from_saying_so(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GUARD_PLUGINS", str(tmp_path / "none"))
    answer = cli("doctor", "--json", *skipping(*SERVICES, *STORE))

    found = {one["check"]: one["state"] for one in json.loads(answer.out)}
    assert found["plug_ins"] == "failed"


def test_a_check_that_does_not_exist_is_a_usage_error(cli: Cli) -> None:
    answer = cli("doctor", "--skip", "nothing")

    assert answer.code == 4
    assert "there are database" in answer.err


def test_it_starts_without_torch() -> None:
    script = (
        "import sys, guard.doctor, guard.cli.doctor;"
        "print([n for n in ('torch', 'celery', 'opentelemetry') if n in sys.modules])"
    )

    assert fresh(script).strip() == "[]"
