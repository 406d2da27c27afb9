"""SVG drawings as parts of a page: rebuilt from what is known, whatever the document holds.

A drawing's own document is never copied. The page's content security policy allows no `style`
attributes, and a document could hold scripts or links; so shapes are read from it, and written
anew with the few attributes that they need, each of which must be a number, a path or a colour.
"""

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

MOST = 200_000  # characters of a drawing
_SHAPE = re.compile(r"<(path|rect|ellipse)\b([^<>]*)>")
_SIZE = re.compile(r"<svg\b[^<>]*\bviewBox='0 0 (\d{1,4}) (\d{1,4})'")
_ATTRIBUTE = re.compile(r"([a-z-]+)='([^'<>\"&]*)'")
_NUMBER = re.compile(r"-?\d{1,6}(\.\d{1,6})?(px)?")
_PATH = re.compile(r"[MLQCZHV\d\s,.\-]+")
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}|none")
_RULES = {
    **dict.fromkeys(("x", "y", "width", "height", "cx", "cy", "rx", "ry"), _NUMBER),
    **dict.fromkeys(("stroke-width", "opacity", "fill-opacity", "stroke-opacity"), _NUMBER),
    "d": _PATH,
    "fill": _COLOUR,
    "stroke": _COLOUR,
}


def inline(document: str, alt: str) -> Markup:
    """The shapes of an SVG document as an `svg` element that no byte of it can leave.

    Args:
        document: as RDKit writes it. What is not known of it is left out; a document of more than
            `MOST` characters is not read at all.
        alt: what a reader who does not see it is given; escaped here.
    """
    size = _SIZE.search(document[:MOST])
    if size is None or len(document) > MOST:
        return escape(alt)
    shapes = "".join(
        f"<{tag} {' '.join(_attributes(text))}/>" for tag, text in _SHAPE.findall(document)
    )
    width, height = size.groups()
    return Markup(  # noqa: S704 - from the expressions above alone; `alt` is escaped
        f'<svg class="molecule" role="img" aria-label="{escape(alt)}" '
        f'viewBox="0 0 {width} {height}">{shapes}</svg>'
    )


def _attributes(text: str) -> Iterator[str]:
    """Attributes and properties of the `style` attribute, as attributes that stand for them."""
    pairs: dict[str, str] = {}
    for name, value in _ATTRIBUTE.findall(text):
        if name == "style":
            parts = (one.partition(":") for one in value.split(";"))
            pairs |= {key.strip(): found.strip() for key, _, found in parts}
        else:
            pairs[name] = value
    for name, value in pairs.items():
        if (rule := _RULES.get(name)) is not None and rule.fullmatch(value):
            yield f'{name}="{value}"'
