"""The images of a page as plain values for a database, and back for a page, checked again.

Whoever reads them back does not trust the row: what is not an image of ours is text, and escaped.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from guard.core.plain import from_plain, to_plain
from guard.reports.fragments import text_cards
from guard.reports.html import exhibits
from guard.reports.report import Report, ShownText

_PNG = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")


def stored(report: Report) -> dict[str, Any]:
    """The images of a report as JSON-ready values; a number that is not finite becomes None."""
    shown = exhibits(report)
    del shown["cards"]
    plain: dict[str, Any] = _finite(to_plain({**shown, "molecules": report.molecules}))
    return plain


def restored(shown: Mapping[str, Any]) -> dict[str, Any]:
    """What `guard.reports.html.exhibits` gave, from what `stored` made of it.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    molecules = tuple(from_plain(ShownText, one) for one in shown["molecules"])
    found = {
        name: _images(shown[name])
        for name in (
            "triggers",
            "strip",
            "strip_left_out",
            "demonstrations",
            "not_drawn",
            "sift",
        )
    }
    return {**found, "cards": text_cards(molecules)}


def _images(value: Any) -> Any:
    if isinstance(value, str):
        # Nothing in a data URI of these characters needs escaping.
        return Markup(value) if _PNG.fullmatch(value) else value  # noqa: S704
    if isinstance(value, Mapping):
        return {name: _images(item) for name, item in value.items()}
    return [_images(item) for item in value] if isinstance(value, list) else value


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
