"""Read the values of a transformers configuration, and refuse those that timm has no place for."""

from collections.abc import Mapping
from typing import Any

from guard.core.errors import ManifestRejected

_MAX_WHOLE = 1 << 20
#: transformers' names of activations, and timm's.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


class Reader:
    """The values of a configuration, each checked as it is read."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.kind: str = data["model_type"]

    def refusal(self, why: str) -> ManifestRejected:
        return ManifestRejected(
            f"config.json is that of the transformers model {ascii(self.kind)[:60]}: {why}",
            code="manifest_transformers",
        )

    def whole(self, key: str, default: int) -> int:
        value = self.data.get(key, default)
        if type(value) is not int or not 1 <= value <= _MAX_WHOLE:
            raise self.refusal(f"{key} must be a positive integer.")
        return value

    def wholes(self, key: str, default: list[int]) -> list[int]:
        value = self.data.get(key, default)
        good = isinstance(value, list) and 1 <= len(value) <= 64
        if not good or not all(type(part) is int and 1 <= part <= _MAX_WHOLE for part in value):
            raise self.refusal(f"{key} must be a list of positive integers.")
        return list(value)

    def truth(self, key: str) -> bool:
        """A truth value that is true where it is left out."""
        value = self.data.get(key, True)
        if type(value) is not bool:
            raise self.refusal(f"{key} must be true or false.")
        return value

    def number(self, key: str, default: float, largest: float) -> float:
        value = self.data.get(key, default)
        if type(value) not in (int, float) or not 0 <= value <= largest:
            raise self.refusal(f"{key} must be a number in 0..{largest:g}.")
        return float(value)

    def square(self, key: str, default: int) -> int:
        """A side that is given as one number, or twice."""
        value = self.data.get(key, default)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        if type(value) is not int or not 1 <= value <= _MAX_WHOLE:
            raise self.refusal(f"{key} must be one positive integer.")
        return value

    def only(self, key: str, wanted: Any) -> None:
        """Refuse any other value than `wanted`, which is also the default."""
        value = self.data.get(key, wanted)
        if type(value) is not type(wanted) or value != wanted:
            raise self.refusal(
                f"{key} is {ascii(value)[:60]}, and timm's network has only {wanted!a}."
            )

    def activation(self) -> dict[str, Any]:
        """The argument `act_layer`, unless the activation is timm's usual one."""
        name = self.data.get("hidden_act", "gelu")
        found = _ACTIVATIONS.get(name) if isinstance(name, str) else None
        if found is None:
            raise self.refusal(
                f"hidden_act is {ascii(name)[:60]}, which timm's network does not have."
            )
        return {} if found == "gelu" else {"act_layer": found}
