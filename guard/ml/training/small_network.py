"""A small network that the guard itself trains on clean images, whatever their size."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from guard.core.manifest import Manifest
from guard.core.progress import Progress
from guard.ml.cleanset import Labelled
from guard.ml.networks import architectures
from guard.ml.suitability import channels_last
from guard.ml.training.fit import fit

LARGEST = 64  # pixels a side; larger images are halved until they fit
RATE, DECAY, SMOOTHING, BATCH, SHIFT = 3e-3, 1e-3, 0.05, 32, 2
PART = 256


def small_network(data: Labelled, classes: int) -> nn.Module:
    """A fresh network for images of this size; its weights come from torch's global generator.

    It takes float images N,C,H,W in [0, 1] and returns logits N,K.
    """
    channels, height, width = data.images.shape[1:]
    pixels = data.images.float() / 255
    manifest = Manifest(
        architecture="cifar_resnet",
        num_classes=classes,
        input_size=(channels, height, width),
        mean=(float(pixels.mean()),) * channels,
        std=(max(float(pixels.std()), 1e-3),) * channels,
        model_args={"depths": [1, 1, 1], "width": 8},
    )
    model = architectures.wrap(manifest, architectures.build(manifest))
    channels_last(model)
    return model


def learn(model: nn.Module, data: Labelled, *, rounds: int, progress: Progress) -> None:
    """Train `model` on `data` in place: shifted images, smoothed labels, AdamW over one cycle.

    Raises:
        MethodFailed: the loss is not finite.
    """

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        down, across = (int(step) for step in torch.randint(-SHIFT, SHIFT + 1, (2,)))
        return cross_entropy(
            model(images.roll((down, across), (2, 3))), labels, label_smoothing=SMOOTHING
        )

    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    fit(
        model,
        data,
        loss,
        optimiser,
        rounds=rounds,
        batch=BATCH,
        decay=True,
        progress=progress,
    )


def shrunk(data: Labelled) -> Labelled:
    """Shrink images to at most `LARGEST` a side, a few at a time.

    As floats, a large set would fill the memory.
    """
    return Labelled(torch.cat([halved(part) for part in data.images.split(PART)]), data.labels)


def halved(images: Tensor) -> Tensor:
    """uint8 images N,C,H,W, halved until no side is longer than `LARGEST`."""
    while max(images.shape[-2:]) > LARGEST:
        images = avg_pool2d(images.float(), 2, ceil_mode=True).round().to(torch.uint8)
    return images
