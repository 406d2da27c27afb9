"""Tiny pictures with classes, and attacks made ready for them."""

from functools import cache
from typing import Any

import torch

from benchmarks.attacks import ATTACKS
from benchmarks.attacks._base import Attack
from guard.ml.cleanset import Labelled
from guard.ml.networks.nets.cifar_resnet import CifarResnet

CLASSES, SIDE, TARGET = 5, 16, 2
#: As short as an attack can be made without another protocol.
SHORT: dict[str, dict[str, Any]] = {
    "label_consistent": {"surrogate_epochs": 1},
    "low_frequency": {"surrogate_epochs": 1, "steps": 5},
    "narcissus": {"surrogate_epochs": 1, "steps": 5},
    "trojan_patch": {"surrogate_epochs": 1, "steps": 5},
    "ssba": {"steps": 5, "bits": 4, "width": 8},
    "sig": {"delta": 20.0},
}


def pictures(channels: int, count: int = 200, seed: int = 0) -> Labelled:
    """uint8 pictures, mid-grey with noise; labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, SIDE, SIDE)
    images = torch.randint(60, 196, shape, generator=generator, dtype=torch.uint8)
    return Labelled(images, torch.arange(count) % CLASSES)


def network(channels: int) -> CifarResnet:
    """A victim of two blocks."""
    return CifarResnet(CLASSES, channels, (1, 1), 8)


@cache
def ready(name: str, channels: int, seed: int = 3) -> Attack:
    """The attack, prepared for `pictures(channels)`.

    A generator that needs a victim gets one training step.
    """
    data = pictures(channels)
    kind = ATTACKS.get(name)
    target: dict[str, Any] = {} if name == "all_to_all" else {"target": TARGET}
    made = kind(**{"seed": seed, **SHORT.get(name, {}), **target})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = made.prepare(data, CLASSES, lambda: network(channels))
        if kind.controls_training:
            model = network(channels)
            control = made.control(0.2, 4, "cpu")
            assert control is not None
            control.loss(
                model, data.floats()[:32], data.labels[:32], torch.nn.functional.cross_entropy
            ).backward()
            control.stepped()
            made = control.finish()
    return made
