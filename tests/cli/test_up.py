"""`guard up`: one stack a data folder, and other commands find it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.cli._environment import settings_here
from guard.core.errors import Unavailable
from guard.local.supervisor import Stack
from tests.cli.conftest import Answer

Cli = Callable[..., Answer]


def test_a_second_stack_on_the_same_folder_is_refused(cli: Cli, home: Path) -> None:
    with Stack(home, dict(os.environ), parts=("database",)):
        answer = cli("up")

    assert (answer.code, answer.out) == (4, "")
    assert "Another `guard up`" in answer.err


def test_other_commands_use_the_settings_of_the_stack_that_runs(cli: Cli, home: Path) -> None:
    before = settings_here()
    with Stack(home, dict(os.environ), parts=("database",)) as stack:
        stack.start()
        during = settings_here()

        assert during.webhook_token.reveal() == stack.environment()["GUARD_WEBHOOK_TOKEN"]
        assert cli("status") == Answer(0, "none\n", "")
    assert not before.webhook_token
    assert settings_here() == before


def test_the_token_of_who_started_the_stack_is_not_handed_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_TOKEN", "of-the-operator")
    with Stack(home, dict(os.environ), parts=("database",)) as stack:
        stack.start()
        monkeypatch.delenv("GUARD_TOKEN")

        assert "GUARD_TOKEN" not in stack.environment()
        assert not settings_here().token


def test_the_callers_own_settings_win_over_the_stacks(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stack(home, dict(os.environ), parts=("database",)) as stack:
        stack.start()
        monkeypatch.setenv("GUARD_WEBHOOK_TOKEN", "mine")
        monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/other.db")

        assert settings_here().webhook_token.reveal() == "mine"
        assert settings_here().database_url.endswith("other.db")


def test_a_part_that_does_not_start_is_a_sentence(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Stack, _report: object = None) -> None:
        raise Unavailable("seaweedfs could not be started: no such file")

    monkeypatch.setattr(Stack, "start", fail)
    answer = cli("up")

    assert answer == Answer(2, "", "guard: seaweedfs could not be started: no such file\n")


class Small(Stack):
    """A stack of its quickest part."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        super().__init__(folder, env, parts=("database",))

    def wait(self, stop: object = None) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("form", ["table", "json"])
def test_ctrl_c_is_the_normal_end(
    form: str, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guard.local.supervisor.Stack", Small)
    answer = cli("up", "--format", form)

    assert answer.code == 0
    assert "database" in answer.out
    assert '{"event": "component", "component": "database", "state": "ready"}' in answer.err
    assert answer.err.endswith("stopped\n")
    if form == "json":
        assert [part["state"] for part in json.loads(answer.out)] == ["ready"]
    else:
        assert f"data in {home}" in answer.out


@pytest.mark.e2e
def test_up_shows_one_table_and_ends_everything_on_ctrl_c(home: Path) -> None:
    script = Path(sys.executable).with_name("guard")
    process = subprocess.Popen(
        [script, "up", "--format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    printed = ""
    while not printed.endswith("\n]\n"):
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        printed += line
    parts = json.loads(printed)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert {part["component"] for part in parts} >= {
        "seaweedfs",
        "valkey",
        "torchserve",
        "api",
        "relay",
        "beat",
    }
    assert {part["state"] for part in parts} <= {"ready", "external"}
    for part in parts:
        assert part["pid"] is None or not Path(f"/proc/{part['pid']}").exists()
