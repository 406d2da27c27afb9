"""A table of a policy file that names the key of whatever is wrong with it."""

import math
from typing import Any

from guard.core.errors import PolicyError

MAX_WHOLE = 1_000_000_000


class Table:
    """A TOML table all of whose keys are known."""

    def __init__(self, name: str, value: Any, keys: set[str]) -> None:
        if not isinstance(value, dict):
            raise PolicyError(f"{name} must be a table.")
        odd = sorted(set(value) - keys)
        if odd:
            where = f"{name}." if name else ""
            raise PolicyError(
                f"The policy has the unknown key {where}{odd[0]}; known here: "
                f"{', '.join(sorted(keys))}."
            )
        self.name, self._value = name, value

    def table(self, key: str, keys: set[str]) -> "Table":
        return Table(key, self._value.get(key, {}), keys)

    def has(self, key: str) -> bool:
        return key in self._value

    def raw(self, key: str, default: Any) -> Any:
        value = self._value.get(key, default)
        if type(value) is not type(default):
            raise PolicyError(
                f"{self._path(key)} must be a {'list' if isinstance(default, list) else 'table'}."
            )
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value.get(key, default)
        if not isinstance(value, str) or not value:
            raise PolicyError(f"{self._path(key)} must be a string that is not empty.")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._value.get(key, default)
        if not isinstance(value, bool):
            raise PolicyError(f"{self._path(key)} must be true or false.")
        return value

    def number(self, key: str, default: float, *, low: float = 0.0, high: float = 1.0) -> float:
        value = self._value.get(key, default)
        good = (
            isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        )
        if not good or not low <= value <= high:
            raise PolicyError(f"{self._path(key)} must be a number in {low:g}..{high:g}.")
        return float(value)

    def whole(self, key: str, default: int) -> int:
        value = self._value.get(key, default)
        if type(value) is not int or not 1 <= value <= MAX_WHOLE:
            raise PolicyError(f"{self._path(key)} must be a whole number in 1..{MAX_WHOLE}.")
        return value

    def _path(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key
