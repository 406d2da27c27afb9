"""A network of a manifest's architecture that has learnt nothing."""

from dataclasses import replace

import torch

from guard.core.manifest import Manifest
from guard.ml.networks.architectures import ImageModel, build, wrap
from guard.ml.suitability import channels_last


def fresh(manifest: Manifest, device: torch.device) -> ImageModel:
    """A network with weights from torch's global generator, in training mode.

    A polarizer that the manifest names is left out: a new network has nothing to repair.
    """
    plain = replace(manifest, polarizer=None)
    model = wrap(plain, build(plain)).to(device).train()
    channels_last(model)
    return model
