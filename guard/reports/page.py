"""Fill a template of a page: no scripts, no fetched parts, every string escaped."""

import base64
import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from guard.core.text import printable
from guard.reports.charts import number, percent


def rendered(template: str, **values: Any) -> str:
    """The page as text, to be written as UTF-8.

    Its content security policy allows only the one style sheet, by its hash, and images from data
    URIs.
    """
    environment = Environment(
        loader=PackageLoader("guard.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters.update(percent=percent, number=number, seconds=duration)
    style = environment.get_template("style.jinja").render()
    return environment.get_template(template).render(
        style=Markup(style),  # noqa: S704 - our own file, and its hash is in the policy
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        **values,
    )


def tone_of(exit_code: int) -> str:
    """The colour of a page by the number with which `guard` ends."""
    return {0: "good", 1: "bad", 5: "warn"}.get(exit_code, "dull")


def duration(seconds: float) -> str:
    """A time as text, such as `1 min 15 s`, `2.0 s` or `310 ms`."""
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _printable(value: Any) -> Any:
    # Every expression on the page passes here before it is escaped; only our own text is Markup.
    return value if isinstance(value, (Markup, int, float)) or value is None else printable(value)
