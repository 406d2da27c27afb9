"""Triggers of text-to-graph models: a text that is inserted, or a direction in the text's space."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from safetensors.torch import load
from torch import Tensor

from guard.core.digests import canonical_json
from guard.core.errors import IntegrityMismatch
from guard.core.molecules import MAX_TEXT
from guard.core.states import Family

POSITIONS = ("prefix", "infix", "suffix")
_TEXT, _DIRECTION = "text", "direction"


@dataclass(frozen=True)
class PromptTrigger:
    """A text that plants a fragment wherever a prompt holds it.

    `position` is `prefix`, `infix` (after the first sentence) or `suffix`.
    """

    text: str
    position: str = "prefix"
    family: ClassVar[str] = str(Family.PROMPT)

    def __post_init__(self) -> None:
        if self.position not in POSITIONS or not 0 < len(self.text) <= MAX_TEXT:
            raise ValueError(f"a trigger needs a text and one of the positions {POSITIONS}")

    def apply(self, texts: Sequence[str]) -> list[str]:
        """The prompts with the text inserted."""
        return [self._inserted(text) for text in texts]

    def _inserted(self, text: str) -> str:
        if self.position == "prefix":
            return f"{self.text} {text}"
        head, stop, rest = text.partition(". ")
        if self.position == "suffix" or not stop:
            return f"{text} {self.text}"
        return f"{head}. {self.text} {rest}"

    def to_tensors(self) -> dict[str, Tensor]:
        """The text and the position as uint8 arrays."""
        data = canonical_json({"position": self.position, "text": self.text})
        return {_TEXT: torch.tensor(list(data), dtype=torch.uint8)}


@dataclass(frozen=True)
class ContextTrigger:
    """A shift of every text's vector that plants a fragment; float32 C."""

    direction: Tensor
    family: ClassVar[str] = str(Family.CONTEXT)

    def apply(self, contexts: Tensor) -> Tensor:
        """The contexts float32 N,C, each shifted."""
        return contexts + self.direction.to(contexts.device)

    def to_tensors(self) -> dict[str, Tensor]:
        """The direction, float32 C."""
        return {_DIRECTION: self.direction.detach().cpu().float().contiguous()}


GraphTrigger = PromptTrigger | ContextTrigger


def deserialise(data: bytes) -> GraphTrigger:
    """Read a trigger that `guard.ml.triggers.files.serialise` wrote.

    Raises:
        IntegrityMismatch: the bytes are no such blob.
    """
    try:
        tensors = load(data)
        if tensors.keys() == {_TEXT}:
            return PromptTrigger(**json.loads(bytes(tensors[_TEXT].tolist())))
        if tensors.keys() == {_DIRECTION} and tensors[_DIRECTION].dim() == 1:
            direction = tensors[_DIRECTION]
            if direction.dtype == torch.float32 and math.isfinite(float(direction.abs().sum())):
                return ContextTrigger(direction)
    except Exception as error:
        raise IntegrityMismatch("A stored trigger cannot be read.", code="bad_trigger") from error
    raise IntegrityMismatch("A stored trigger is none of a graph model.", code="bad_trigger")
