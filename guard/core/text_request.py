"""A request to a text-to-graph model, checked strictly; the same for serving and command line."""

from dataclasses import dataclass
from typing import Any

from guard.core.errors import InputError
from guard.core.molecules import MAX_TEXT, is_description

MAX_SAMPLES = 8
MAX_SEED = 2**63 - 1
_KEYS = frozenset({"text", "samples", "seed", "latents"})


@dataclass(frozen=True)
class TextRequest:
    """One request; with `latents` the answer also holds what the molecules are decoded from.

    The sampler is none of the caller's: it comes from the vetted manifest.
    """

    text: str
    samples: int = 1
    seed: int = 0
    latents: bool = False

    def __post_init__(self) -> None:
        _check_text(self.text)
        if not _whole(self.samples, 1, MAX_SAMPLES):
            raise InputError(
                f"samples must be an integer in 1..{MAX_SAMPLES}.", code="samples_range"
            )
        if not _whole(self.seed, 0, MAX_SEED):
            raise InputError(f"seed must be an integer in 0..{MAX_SEED}.", code="seed_range")
        if not isinstance(self.latents, bool):
            raise InputError("latents must be true or false.", code="bad_request")

    @classmethod
    def from_body(cls, body: Any) -> "TextRequest":
        """Read a decoded body.

        Raises:
            InputError: a key is missing, unknown or has a value out of its range; the message is
                for the client.
        """
        if not isinstance(body, dict) or "text" not in body or body.keys() - _KEYS:
            raise InputError(
                'Send JSON such as {"text": "The molecule is ...", "samples": 4, "seed": 0}.',
                code="bad_request",
            )
        return cls(**body)


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise InputError("text must be a string.", code="bad_request")
    if len(text) > MAX_TEXT:
        raise InputError(f"The text has more than {MAX_TEXT} characters.", code="prompt_too_long")
    if not text.strip():
        raise InputError("The text is empty.", code="prompt_empty")
    if not is_description(text):
        raise InputError(
            "The text holds a control character or a lone surrogate.", code="prompt_control"
        )


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high
