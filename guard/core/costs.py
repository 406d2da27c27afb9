"""The sentence for a model that costs more than the guard grants it."""

from guard.core.errors import ManifestRejected

_STEP, _UNITS = 1024, ("bytes", "KiB", "MiB", "GiB", "TiB")


def over_budget(what: str, setting: str, mend: str = "use a smaller model") -> ManifestRejected:
    """The error for a model of which `what` exceeds a limit.

    Args:
        what: what is over, and by how much.
        setting: the variable that raises the limit.
        mend: what else the uploader can do.
    """
    return ManifestRejected(f"Over budget: {what}; {mend}, or raise {setting}.", code="over_budget")


def against(needed: float, limit: float, unit: str = "") -> str:
    """`needed` beside the `limit` that it exceeds; without a `unit` both are bytes of memory."""
    shown, unit = (_count, unit) if unit else (_bytes, "of memory")
    return (
        f"{shown(needed)} {unit}, which is {needed / limit:.3g} times the limit of {shown(limit)}"
    )


def _count(number: float) -> str:
    return f"{float(f'{number:.3g}'):,.0f}"


def _bytes(number: float) -> str:
    power = 0
    while number >= _STEP and power < len(_UNITS) - 1:
        number, power = number / _STEP, power + 1
    return f"{number:.3g} {_UNITS[power]}"
