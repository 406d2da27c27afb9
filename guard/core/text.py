"""Text from strangers, made harmless for terminals and for readers."""

import unicodedata
from collections.abc import Iterable

#: Controls (ESC, NUL, CR...), format characters (bidirectional overrides, zero widths), lone
#: surrogates, line breaks.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(value: object, *, limit: int | None = 2000) -> str:
    """`value` as one line of text that cannot steer a terminal or reorder what stands around it.

    Hidden characters are written as escapes rather than dropped, so that a tampered name looks
    tampered with (threat model C13). A text of more than `limit` characters is cut and ends in an
    ellipsis; with None it is not cut.
    """
    text = str(value)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escape(char) if unicodedata.category(char) in _HIDDEN else char for char in text
    )


def in_turn(names: Iterable[str]) -> str:
    """The names of steps taken one after the other, as `a, then b`."""
    return ", then ".join(names)


def _escape(char: str) -> str:
    code = ord(char)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
