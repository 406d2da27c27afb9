"""What detectors computed from a pair set alone, as JSON values: kept here for `examine`.

`Detector.prepare` puts it here; `guard.vetting.cleanset_work` carries it to later processes, and
`guard.flow._cleanset_cache` keeps it on the machine.
"""

from collections.abc import Mapping
from typing import Any

_kept: dict[str, Any] = {}


def keep(key: str, value: Any) -> None:
    """Keep a JSON value; the key names method, version, parameters and pair set."""
    _kept[key] = value


def kept(key: str) -> Any:
    """The value under a key; None where there is none."""
    return _kept.get(key)


def everything() -> dict[str, Any]:
    """All values by their keys."""
    return dict(_kept)


def take_over(values: Mapping[str, Any]) -> None:
    """Keep what `everything` gave in another process."""
    _kept.update(values)
