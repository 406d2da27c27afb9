"""How numbers and rows of the sift's record are written in Markdown."""

from collections.abc import Mapping
from typing import Any


def head(*names: str) -> list[str]:
    return [line(*names), "|---" * len(names) + "|"]


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def short(value: float | None, digits: int = 2) -> str:
    """A number of a table; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def counted(share: Mapping[str, Any]) -> str:
    """A share as counts with its interval."""
    if not share["n"]:
        return "-"
    return f"{share['k']}/{share['n']} ({share['low']:.2f} to {share['high']:.2f})"


def interval(share: Mapping[str, Any]) -> str:
    """A share with its interval."""
    if share["share"] is None:
        return "-"
    return f"{share['share']:.3f} ({share['low']:.2f} to {share['high']:.2f})"


def judged(verdicts: Mapping[str, int]) -> str:
    """Counts of verdicts."""
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in verdicts.items())
