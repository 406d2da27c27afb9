"""The file that shows a probe that a process goes round its loop."""

import os
from pathlib import Path

import pytest
from celery.signals import heartbeat_sent

from workers import alive, app
from workers.alive import Alive


def test_a_mark_is_a_file_that_becomes_young_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Alive(tmp_path, "relay")
    one.mark()
    file = tmp_path / "alive" / "relay"
    os.utime(file, (0, 0))
    one.mark()  # too soon: a loop of milliseconds does not touch a disk each time

    assert file.stat().st_mtime == 0
    monkeypatch.setattr(alive, "EVERY", 0.0)
    one.mark()
    assert file.stat().st_mtime > 0
    assert (file.stat().st_mode & 0o077, file.parent.stat().st_mode & 0o077) == (0, 0)


def test_a_folder_that_cannot_be_written_stops_no_process(tmp_path: Path) -> None:
    (tmp_path / "alive").write_text("in the way")

    Alive(tmp_path, "relay").mark()

    assert (tmp_path / "alive").read_text() == "in the way"


def test_a_worker_marks_with_each_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_alive", lambda: Alive(tmp_path, "worker-scan"))
    heartbeat_sent.send(sender=None)

    assert (tmp_path / "alive" / "worker-scan").exists()
