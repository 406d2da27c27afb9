"""Fill a template: every string escaped, and one strict content security policy for all pages."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from guard.api.access import guard_of, scope_of
from guard.console._who import Reader
from guard.core.progress import left_text
from guard.core.roles import Act
from guard.core.text import printable
from guard.reports.charts import number, percent
from guard.reports.page import duration
from guard.store import listing, reviews
from guard.store.session import reading

#: No script at all, no frame, no other host; forms go to ourselves, images are ours or data URIs.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Cross-Origin-Opener-Policy": "same-origin"}
MOST_COUNTED = 100  # a number beside a title says "100 or more"


def page(
    request: Request, template: str, reader: Reader | None, status: int = 200, **values: Any
) -> HTMLResponse:
    """A page as an answer.

    Args:
        reader: who reads it; None for pages that are open to everybody, which show no counts.
    """
    guard = guard_of(request)
    counts = _counts(request) if reader is not None else {}
    text = (
        _environment()
        .get_template(template)
        .render(
            reader=reader,
            counts=counts,
            now=guard.now(),
            path=request.url.path,
            may=_may(reader),
            **values,
        )
    )
    return HTMLResponse(text, status, headers=HEADERS)


def _may(reader: Reader | None) -> Mapping[str, bool]:
    return {act.name.lower(): reader is not None and reader.principal.may(act) for act in Act}


def _counts(request: Request) -> dict[str, int]:
    scope = scope_of(request)
    with reading(guard_of(request).engine) as session:
        return {
            "queue": len(reviews.waiting_ids(session, MOST_COUNTED, scope)),
            "alarms": listing.open_alarms(session, MOST_COUNTED, scope),
        }


@cache
def stylesheet() -> str:
    """The style sheet of all pages: that of the reports, and the console's own."""
    own = files("guard.console").joinpath("static/console.css").read_text(encoding="utf-8")
    return _environment().get_template("style.jinja").render() + own


@cache
def _environment() -> Environment:
    made = Environment(
        loader=ChoiceLoader([PackageLoader("guard.console"), PackageLoader("guard.reports")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    made.filters.update(
        percent=percent,
        number=number,
        seconds=duration,
        utc=utc,
        ago=ago,
        short=short,
        left=left_text,
    )
    made.globals.update(tone_of=tone_of, ends=ends)
    return made


def utc(value: datetime | None) -> str:
    """A time as text, to the minute."""
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def ago(value: datetime, now: datetime) -> str:
    """How long ago a time was, such as `3 h` or `2 days`."""
    return _span(now - value)


def ends(value: datetime, now: datetime) -> str:
    """How long until a time, or that it is over."""
    return "expired" if value <= now else f"in {_span(value - now)}"


def _span(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    for size, name in ((86400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size:
            many = seconds // size
            return f"{many} {name}{'s' if name == 'day' and many > 1 else ''}"
    return f"{seconds} s"


def short(value: str | None) -> str:
    """The beginning of a digest or an id."""
    return (value or "")[:12]


_TONES = {
    "cleared": "good",
    "purified": "good",
    "rejected": "bad",
    "failed": "bad",
    "refused": "bad",
    "held": "warn",
    "inconclusive": "warn",
    "waiting": "warn",
}


def tone_of(value: object) -> str:
    """The colour of a verdict or a state; a tag always has its text beside it."""
    return _TONES.get(str(value), "dull")


def _printable(value: Any) -> Any:
    # Every expression passes here before it is escaped; only our own text is Markup.
    return value if isinstance(value, (Markup, int, float)) or value is None else printable(value)
