"""Recovered triggers as bytes: safetensors with the family in its metadata.

And what such bytes look like.
"""

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
    """A trigger for the eye, float arrays in [0, 1]: `mask` H,W, `pattern` and `stamped` C,H,W.

    Of a patch, mask and pattern are its own. Of anything else they are what it changes on one
    picture: where, relative to its largest change, and the change itself around mid-grey, amplified
    until it fills the range.
    """

    mask: np.ndarray
    pattern: np.ndarray
    stamped: np.ndarray


def serialise(trigger: TriggerLike) -> bytes:
    """The same trigger always gives the same bytes, so that their digest names it."""
    return bytes(
        safetensors.torch.save(trigger.to_tensors(), metadata={FAMILY: str(trigger.family)})
    )


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


def looks(data: bytes, picture: np.ndarray) -> Looks:
    """What a stored trigger looks like on a picture, uint8 C,H,W.

    Raises:
        InputError: as `deserialise`.
    """
    trigger = deserialise(data)
    clean = torch.from_numpy(np.ascontiguousarray(picture)).float() / 255
    stamped = trigger.apply(clean[None])[0]
    own = trigger.stamp if isinstance(trigger, MappedTrigger) else trigger
    if isinstance(own, PatchTrigger):
        return Looks(own.mask[0].numpy(), own.pattern.numpy(), stamped.numpy())
    change = stamped - clean
    change = change / change.abs().max().clamp(min=1 / 255)
    return Looks(change.abs().amax(0).numpy(), (0.5 + 0.5 * change).numpy(), stamped.numpy())
