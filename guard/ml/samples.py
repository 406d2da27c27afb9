"""A few hold-out images as PNG with a model's outputs, which a serving system must reproduce."""

import io

import torch
from PIL import Image
from torch import Tensor, nn

from guard.core.errors import InputError
from guard.ml.cleanset import Labelled
from guard.ml.measure import device_of, evaluating

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def spread(labelled: Labelled, count: int) -> Labelled:
    """Pick at most `count` images at even distances over the set."""
    return labelled.pick(
        torch.linspace(0, len(labelled) - 1, min(count, len(labelled))).round().long()
    )


def as_png(labelled: Labelled) -> list[bytes]:
    """Encode each image as lossless PNG.

    Raises:
        InputError: the images do not have 1, 3 or 4 channels, so they have no PNG form.
    """
    return [_png(image) for image in labelled.images]


def _png(image: Tensor) -> bytes:
    mode = MODES.get(int(image.shape[0]))
    if mode is None:
        raise InputError(
            f"Images with {image.shape[0]} channels have no PNG form; use 1, 3 or 4 channels."
        )
    array = image.permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if mode == "L" else array, mode=mode).save(buffer, format="PNG")
    return buffer.getvalue()


@torch.no_grad()
def probabilities(model: nn.Module, labelled: Labelled) -> list[list[float]]:
    """The model's softmax outputs in 0..1, N rows of K."""
    with evaluating(model):
        logits = model(labelled.floats(device_of(model)))
    return [[float(value) for value in row] for row in logits.softmax(1).cpu()]
