"""Progress: a bar on a terminal, JSON lines otherwise, never on stdout."""

import io
import json
import sys

import pytest

from guard.cli._progress import watched
from guard.core.progress import reckoned


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_json_and_not_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 0.5, 1.9, 2.1, 3.0, 5.0])
    with watched("scan", clock=lambda: next(times)) as progress:
        for step in range(6):
            with reckoned(12.34 if step == 5 else None):
                progress(step / 6, f"patch \x1b {step}")
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.err.splitlines()]

    assert captured.out == ""
    assert "\x1b" not in captured.err
    assert [line["note"][-1] for line in lines] == ["0", "3", "5"]
    assert lines[1] == {"event": "progress", "task": "scan", "done": 0.5, "note": "patch \x1b 3"}
    assert lines[2]["seconds_left"] == 12.3


def test_a_terminal_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with watched("scan") as progress, reckoned(200.0):
        progress(0.5, "[red]note\x07")

    assert "3 min left" in screen.getvalue()
    assert "scan" in screen.getvalue()
    assert "[red]note\\x07" in screen.getvalue()
    assert capsys.readouterr().out == ""
