"""Logging, set up once per process: JSON lines on stderr with control characters escaped.

A line says to which trace, scan and stage it belongs (`guard.core.tracing`), and no secret of the
settings is in it.

Modules write `_LOG = structlog.get_logger()` and `_LOG.info("scan_created", scan_id=...)`: the
event is a constant, the facts are fields. Libraries that use Python's own logging, above all
Celery, appear in the same form from level `warning` on.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from guard.core.errors import InputError
from guard.core.secret import Secret
from guard.core.text import printable
from guard.core.tracing import here

HIDDEN = "***"
#: A shorter one would be found everywhere, and is none.
LEAST_SECRET = 6
_PASSWORD = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^/\s:@]*:(?P<password>[^/\s@]+)@")
_SECRET_NAME = re.compile(
    r"(?i)(.*_)?(password|passwd|secret|secret_key|access_key|api_key|authorization|token)"
)
#: Our own tokens, bearer tokens, private keys.
_TOKEN = re.compile(
    r"\bguard_[0-9a-f]{8,}_[\w-]{16,}|(?i:\bbearer\s+)[\w.~+/=-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"
)
_secrets: set[str] = set()
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(level: str = "info", *, json: bool = True, stream: TextIO | None = None) -> None:
    """Set up structlog for this process; a second call replaces the first.

    Args:
        level: debug, info, warning or error.
        json: one JSON object per line; otherwise lines for people.
        stream: where lines go; None means stderr, looked up at each line.

    Raises:
        InputError: there is no such level.
    """
    if level.lower() not in LEVELS:
        raise InputError(f"GUARD_LOG_LEVEL must be one of {', '.join(LEVELS)}.", code="bad_setting")
    render: Any = (
        structlog.processors.JSONRenderer(sort_keys=True, default=repr)
        if json
        else (structlog.dev.ConsoleRenderer(colors=False))
    )
    steps: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    finish: list[Any] = [
        structlog.processors.format_exc_info,
        _name_place,
        _hide_secrets,
        _escape_fields,
        render,
    ]
    structlog.configure(
        processors=[*steps, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level.lower()]),
        logger_factory=lambda *_args: structlog.PrintLogger(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = _Libraries(stream)
    handler.setLevel(max(logging.WARNING, LEVELS[level.lower()]))
    # Without it a library's final messages are lost, because Celery attaches a handler that writes
    # nothing to its own loggers.
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*steps, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Libraries)]:
        root.removeHandler(old)
    root.addHandler(handler)


def hide(settings: object) -> None:
    """Keep the secrets of these settings out of every line, wherever they turn up.

    That is each `Secret`, and the password of each URL.
    """
    for value in vars(settings).values():
        if isinstance(value, Secret):
            found = value.reveal()
        else:
            match = _PASSWORD.search(value) if isinstance(value, str) else None
            found = match["password"] if match else ""
        if len(found) >= LEAST_SECRET:
            _secrets.add(found)


class _Libraries(logging.StreamHandler[Any]):
    """A handler for Python's own logging; without a stream it looks up stderr at each line."""

    def __init__(self, stream: TextIO | None) -> None:
        logging.Handler.__init__(self)
        self._stream = stream

    @property
    def stream(self) -> TextIO:
        return self._stream or sys.stderr


def _name_place(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Say to which trace, scan and stage a line belongs."""
    place = here()
    for name, value in ({} if place is None else place.to_dict()).items():
        event.setdefault(name, value)
    return event


def _hide_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Take out what a library or an error's text may have carried along."""
    return {
        key: HIDDEN if isinstance(value, str) and _SECRET_NAME.fullmatch(key) else hidden(value)
        for key, value in event.items()
    }


def hidden(value: Any) -> Any:
    """A value as it may be shown: without what `hide` was given, passwords of URLs and tokens."""
    if isinstance(value, str):
        for secret in _secrets:
            value = value.replace(secret, HIDDEN)
        value = _PASSWORD.sub(rf"\g<scheme>{HIDDEN}@", value)
        return _TOKEN.sub(HIDDEN, value)
    if isinstance(value, dict):
        return {
            key: HIDDEN
            if isinstance(item, str) and _SECRET_NAME.fullmatch(str(key))
            else hidden(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [hidden(item) for item in value]
    return value


def _escape_fields(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    # A traceback keeps its line breaks: JSON escapes them, and people want to read them.
    trace = event.pop("exception", None)
    cleaned = {printable(key, limit=None): _clean(value) for key, value in event.items()}
    if trace is not None:
        cleaned["exception"] = "\n".join(
            printable(line, limit=None) for line in str(trace).split("\n")
        )
    return cleaned


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, limit=None)
    if isinstance(value, dict):
        return {printable(key, limit=None): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(item) for item in value]
    return value
