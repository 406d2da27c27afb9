"""Log lines are JSON on stderr; nothing an uploader chose can steer a terminal or forge a line."""

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from guard import logs
from guard.core.errors import InputError
from guard.core.text import printable
from guard.logs import HIDDEN, configure
from guard.settings import Secret


@pytest.fixture(autouse=True)
def _back_to_defaults() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def logged(level: str = "info", *, json_lines: bool = True) -> tuple[Any, io.StringIO]:
    stream = io.StringIO()
    configure(level, json=json_lines, stream=stream)
    return structlog.get_logger(), stream


def test_a_line_is_one_json_object_with_event_level_time_and_facts() -> None:
    log, stream = logged()
    structlog.contextvars.bind_contextvars(scan_id="s1")
    log.info("scan_created", key="in/a/m.pt", size=5)

    line = json.loads(stream.getvalue())

    assert (line["event"], line["level"], line["scan_id"], line["key"], line["size"]) == (
        "scan_created",
        "info",
        "s1",
        "in/a/m.pt",
        5,
    )
    assert line["timestamp"].endswith("Z")
    assert stream.getvalue().count("\n") == 1


def test_lines_go_to_stderr_so_that_stdout_carries_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure()
    structlog.get_logger().warning("somewhere")

    out, err = capsys.readouterr()
    assert (out, json.loads(err)["event"]) == ("", "somewhere")


def test_lower_levels_are_silent() -> None:
    log, stream = logged("warning")
    log.info("quiet")
    log.warning("loud")

    assert json.loads(stream.getvalue())["event"] == "loud"


@pytest.mark.parametrize("json_lines", [True, False])
def test_no_value_can_steer_a_terminal_or_start_a_line(json_lines: bool) -> None:
    log, stream = logged(json_lines=json_lines)
    evil = 'x\n{"event": "forged"}\r\x1b[2J\x00\u202e\u2028\x9b31m'
    log.info("seen", **{"key": evil, "nested": {"a\x1b": [evil, (evil,)]}, "na\x1bme": 1})

    text = stream.getvalue().rstrip("\n")

    assert text.isprintable()
    assert "\n" not in text


def test_an_exception_is_logged_with_its_trace() -> None:
    log, stream = logged()
    try:
        raise ValueError("evil \x1b[2J")
    except ValueError:
        log.exception("failed")

    line = json.loads(stream.getvalue())
    assert "ValueError: evil \\x1b[2J" in line["exception"]
    assert "\x1b" not in line["exception"]


def test_secrets_stay_hidden_in_logs() -> None:
    log, stream = logged()
    log.info("configured", token=Secret("hunter2"))

    assert "hunter2" not in stream.getvalue()


@dataclass
class Given:
    webhook_token: Secret = field(default_factory=lambda: Secret("t0ken-of-senders"))
    database_url: str = "postgresql://guard:dbpass99@db/guard"
    name: str = "guard"
    short: Secret = field(default_factory=lambda: Secret("ab"))


@pytest.mark.parametrize(
    "text",
    [
        "refused t0ken-of-senders",
        "FATAL: password dbpass99 is wrong",
        "connect redis://:other-pass@host:6379/0",
        "guard_0123456789abcdef_ZmFrZS1zZWNyZXQtZmFrZQ is not known",
        "Authorization: Bearer abcdefgh12345678",
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIF\n-----END PRIVATE KEY-----",
    ],
)
def test_a_secret_in_the_text_of_an_error_is_hidden(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_secrets", set())
    logs.hide(Given())
    log, stream = logged()
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("failed", error=text, nested={"deep": [text], "about": "guard"})

    written = stream.getvalue()
    assert HIDDEN in written
    for secret in ("t0ken-of", "dbpass99", "other-pass", "ZmFrZS1z", "abcdefgh", "MC4CAQ"):
        assert secret not in written
    assert json.loads(written)["nested"]["about"] == "guard"  # a short or plain value is none


@pytest.mark.parametrize("name", ["password", "S3_SECRET_KEY", "Authorization", "webhook_token"])
def test_a_field_with_the_name_of_a_secret_is_hidden(name: str) -> None:
    log, stream = logged()
    log.info("seen", **{name: "plain"}, nested={name: "plain"}, lease_tokens=3)

    line = json.loads(stream.getvalue())
    assert (line[name], line["nested"][name], line["lease_tokens"]) == (HIDDEN, HIDDEN, 3)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(InputError, match="GUARD_LOG_LEVEL"):
        configure("chatty")


@given(st.text())
def test_whatever_is_shown_is_printable_and_plain_text_is_left_alone(text: str) -> None:
    shown = printable(text)

    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)
    assert printable(shown) == shown
    if text.isascii() and text.isprintable():
        assert shown == text


def test_letters_of_every_script_stay_readable() -> None:
    assert printable("Ünïcode 模型 модель") == "Ünïcode 模型 модель"


def test_a_librarys_last_words_are_logged_once_in_the_same_form() -> None:
    """Celery says why a worker ends through Python's own logging."""
    logged()
    _, stream = logged()
    try:
        raise ValueError("worker gone")
    except ValueError:
        logging.getLogger("celery.worker").critical("Unrecoverable error\x1b[2J", exc_info=True)

    line = json.loads(stream.getvalue())

    assert (line["level"], line["logger"]) == ("critical", "celery.worker")
    assert line["event"].startswith("Unrecoverable error")
    assert "\x1b" not in line["event"]
    assert "worker gone" in line["exception"]


def test_a_library_is_not_heard_below_warning() -> None:
    _, stream = logged("debug")

    logging.getLogger("botocore").info("chatter")

    assert stream.getvalue() == ""
