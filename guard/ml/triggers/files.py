"""Recovered triggers as safetensors bytes with the family in the metadata, and as images."""

import json
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch

from guard.core.errors import InputError
from guard.core.evidence import TriggerLike
from guard.ml.triggers import MappedTrigger, PatchTrigger, Trigger, from_tensors

FAMILY = "guard.family"


class Looks(NamedTuple):
    """A trigger made visible: float arrays in [0, 1], `mask` H,W, `pattern` and `stamped` C,H,W.

    For a patch, mask and pattern are its own. For any other trigger they show its change of one
    image: the size of the change at each pixel relative to its largest, and the change itself
    around mid-grey, scaled to fill the range.
    """

    mask: np.ndarray
    pattern: np.ndarray
    stamped: np.ndarray


def serialise(trigger: TriggerLike) -> bytes:
    """Encode a trigger; the same trigger always gives the same bytes, so a digest identifies it."""
    return bytes(
        safetensors.torch.save(trigger.to_tensors(), metadata={FAMILY: str(trigger.family)})
    )


def deserialise(data: bytes) -> Trigger:
    """Decode a trigger that `serialise` encoded.

    Raises:
        InputError: the bytes hold no trigger, or one that breaks a rule of its family.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        family = json.loads(data[8 : 8 + length])["__metadata__"][FAMILY]
        return from_tensors(family, safetensors.torch.load(data))
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise InputError("These bytes hold no stored trigger.") from error


def looks(data: bytes, image: np.ndarray) -> Looks:
    """What a stored trigger looks like on `image`, uint8 C,H,W.

    Raises:
        InputError: as `deserialise`.
    """
    trigger = deserialise(data)
    clean = torch.from_numpy(np.ascontiguousarray(image)).float() / 255
    stamped = trigger.apply(clean[None])[0]
    own = trigger.stamp if isinstance(trigger, MappedTrigger) else trigger
    if isinstance(own, PatchTrigger):
        return Looks(own.mask[0].numpy(), own.pattern.numpy(), stamped.numpy())
    change = stamped - clean
    change = change / change.abs().max().clamp(min=1 / 255)
    return Looks(change.abs().amax(0).numpy(), (0.5 + 0.5 * change).numpy(), stamped.numpy())
