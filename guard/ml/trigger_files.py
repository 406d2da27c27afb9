"""Recovered triggers as bytes: safetensors with the family in its metadata."""

import json

import safetensors
import safetensors.torch

from guard.core.errors import InputError
from guard.core.evidence import TriggerLike
from guard.ml.triggers import Trigger, from_tensors

FAMILY = "guard.family"


def serialise(trigger: TriggerLike) -> bytes:
    """The same trigger always gives the same bytes, so that their digest names it."""
    return bytes(safetensors.torch.save(trigger.to_tensors(), metadata={FAMILY: str(trigger.family)}))


def deserialise(data: bytes) -> Trigger:
    """The inverse of `serialise`.

    Raises:
        InputError: the bytes hold no trigger, or one that breaks a rule of its family.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        family = json.loads(data[8 : 8 + length])["__metadata__"][FAMILY]
        return from_tensors(family, safetensors.torch.load(data))
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise InputError("These bytes hold no stored trigger.") from error
