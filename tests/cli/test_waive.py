"""`guard waive`: one reviewer asks, another agrees, and every answer says so."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guard.core.roles import Role
from tests import people
from tests.cli.conftest import Answer
from tests.flow.test_waivers import FINDING, Scene

Cli = Callable[..., Answer]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(tmp_path)
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: made.guard)
    yield made
    made.guard.engine.dispose()


@pytest.fixture
def be(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda name: monkeypatch.setenv(
        "GUARD_TOKEN", people.give(scene.guard, name, Role.REVIEWER)
    )


def test_a_finding_is_waived_by_two_and_shown_everywhere(
    scene: Scene, cli: Cli, be: Callable[[str], None]
) -> None:
    assert cli("waive", "list").out == "no finding was ever waived\n"
    asking = ("--finding", FINDING, "--reason", "a \x1b[2Jsquare", "--until", "2026-12-11")
    be("rita")
    asked = cli("waive", scene.digest, *asking, "--format", "json")
    made = json.loads(asked.out)
    assert (asked.code, made["state"], made["until"]) == (0, "waiting", "2026-12-11T00:00:00Z")
    assert cli("waive", "approve", made["waiver_id"]).code == 1
    be("sam")
    agreed = cli("waive", "approve", made["waiver_id"][:10])
    assert (agreed.code, agreed.out[:9]) == (0, "approved ")
    scene.work()

    status = cli("status", scene.scan_id, "--format", "json")
    assert (status.code, json.loads(status.out)["waivers"][0]["approver"]) == (0, "sam")
    sentence = f"Waived until 2026-12-11 by rita and sam: {FINDING}"
    for shown in (cli("status", scene.scan_id), cli("report", scene.scan_id)):
        text = " ".join(shown.out.replace("│", " ").split())
        assert "Waived until" in text
        assert "\x1b[2J" not in text
    page = scene.folder / "report.html"
    assert cli("report", scene.scan_id, "--format", "html", "--out", page).code == 0
    assert sentence in page.read_text(encoding="utf-8")
    (row,) = json.loads(cli("waive", "list", "--format", "json").out)
    assert (row["state"], row["owner"]) == ("in force", "rita")
    assert "in force" in cli("waive", "list").out

    ended = cli("waive", "revoke", made["waiver_id"], "--reason", "no", "--format", "json")
    assert (ended.code, json.loads(ended.out)["state"]) == (0, "revoked")
    scene.work()
    assert cli("status", scene.scan_id).code == 1
    assert json.loads(cli("status", scene.scan_id, "--format", "json").out)["waivers"] == []


def test_asking_and_ending_answer_in_words(
    scene: Scene, cli: Cli, be: Callable[[str], None]
) -> None:
    be("rita")
    more = ("--finding", FINDING, "--reason", "x", "--until", "2026-12-11")
    asked = cli("waive", "ask", scene.scan_id, *more)
    (row,) = json.loads(cli("waive", "list", "--format", "json").out)

    assert (asked.code, row["waiver_id"] in asked.out) == (0, True)
    ended = cli("waive", "revoke", row["waiver_id"], "--reason", "a mistake")
    assert "decided anew: nothing" in ended.out
    assert cli("waive", "--help").code == 0
    assert cli("waive", scene.scan_id, "--finding", FINDING).code == 4
