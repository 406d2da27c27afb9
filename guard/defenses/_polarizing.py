"""Find the place for a polarizer in a network and insert it, for every defense that trains one."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.manifest import PolarizerPlace
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.networks.architectures import ImageModel, wrap
from guard.ml.networks.cut_points import waypoints
from guard.ml.networks.polarizer import Conditioned, Halves, Polarizer, attach

LAYERS_AFTER = 3  # two and the head: with fewer, the polarizer could do no more than another head
PROBES = 4


def place_for(model: nn.Module, clean: CleanSet, *, conditional: bool = False) -> PolarizerPlace:
    """The place for a polarizer: before the last layer or block with `LAYERS_AFTER` layers left.

    Raises:
        MethodFailed: `no_place`: there is none; `polarized`: the model has a polarizer already.
    """
    if any(isinstance(module, Polarizer) for module in model.modules()):
        raise MethodFailed(
            "The model has a polarizer already; repair the model it was made from.",
            code="polarized",
        )
    network = model.inner if isinstance(model, ImageModel) else model
    images = clean.search.pick(torch.arange(PROBES)).floats(device_of(model))
    for point in waypoints(model, network, images):
        if point.layers_after >= LAYERS_AFTER:
            return PolarizerPlace(
                before=point.name, channels=point.channels, conditional=conditional
            )
    raise MethodFailed(
        "Neural Polarizer finds no layer that all information passes through and that is followed "
        "by two weighted layers and the head; this architecture cannot have one.",
        code="no_place",
    )


def inserted(model: nn.Module, place: PolarizerPlace, classes: int) -> nn.Module:
    """The model with a fresh polarizer, recorded in its manifest; it shares the model's tensors."""
    device = device_of(model)
    if not isinstance(model, ImageModel):
        return attach(model, place, classes).to(device).eval()
    network = attach(model.inner, place, classes)
    return wrap(replace(model.manifest, polarizer=place), network).to(device).eval()


def halved(model: nn.Module, clean: CleanSet) -> Halves:
    """Cut a polarized model in two.

    For a conditional polarizer, `rest` without a class gives the logits of the bare network.
    """
    images = clean.search.pick(torch.arange(PROBES)).floats(device_of(model))
    network = model.inner if isinstance(model, ImageModel) else model
    network = network.network if isinstance(network, Conditioned) else network

    def run(images: Tensor) -> Tensor:
        if isinstance(model, ImageModel):
            images = (images - model.mean) / model.std
        logits: Tensor = network(images)
        return logits

    return Halves(network, run, images)
