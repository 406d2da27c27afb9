"""The four forms in which a backdoored model once hid from every search."""

from dataclasses import replace

import torch
from torch import Tensor

from guard.core.manifest import PolarizerPlace
from guard.ml.networks import architectures
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.dataflow import flow_of, with_features
from guard.ml.networks.polarizer import Conditioned, polarizer_of
from guard.ml.networks.rewriting import with_scaled_head, with_scaled_norm

PLAIN, HEAD, HEAD_NORM = "as it is", "head", "head + norm"
POLARIZER, POLARIZER_NORM = "polarizer", "polarizer + norm"
REWRITES = (HEAD, HEAD_NORM, POLARIZER, POLARIZER_NORM)
#: An honest model is rewritten in one way of each pair.
PAIRS = ((HEAD, HEAD_NORM), (POLARIZER, POLARIZER_NORM))


def rewritten(model: ImageModel, how: str, images: Tensor) -> ImageModel:
    """A copy of `model` in one of the forms, with the same answers on clean `images`.

    Args:
        images: float N,C,H,W in [0, 1], of every class.

    Raises:
        ValueError: an answer has changed.
    """
    own = model
    if how in {HEAD_NORM, POLARIZER_NORM}:
        own = with_scaled_norm(own, images)
    if how in {HEAD, HEAD_NORM}:
        own = with_scaled_head(own, images)
    if how in {POLARIZER, POLARIZER_NORM}:
        own = with_dead_polarizer(own, images)
    with torch.no_grad():
        if not torch.equal(own(images).argmax(1), model(images).argmax(1)):
            raise ValueError(f"{how} changes an answer of the model")
    return own


@torch.no_grad()
def with_dead_polarizer(model: ImageModel, images: Tensor) -> ImageModel:
    """A copy that answers by a table: a polarizer of scale 0, whose shifts are classes' features.

    Args:
        images: float N,C,H,W in [0, 1], of every class.

    Raises:
        ValueError: the model predicts some class for none of the images.
    """
    flow = flow_of(model, images[:2])
    if flow.head is None:
        raise ValueError("the model's head cannot be found")
    head = flow.layers[flow.head]
    logits, features = with_features(model, head, images)
    before = head.weight_name.removeprefix("inner.").removesuffix(".weight")
    place = PolarizerPlace(before=before, channels=features.shape[1], conditional=True)
    manifest = replace(model.manifest, polarizer=place)
    other = architectures.wrap(manifest, architectures.build(manifest)).eval()
    network = other.inner
    if not isinstance(network, Conditioned):
        raise TypeError("a conditional polarizer wraps its network")
    network.network.load_state_dict(
        {
            (f"{before}.layer.{name.removeprefix(before + '.')}")
            if name.startswith(f"{before}.")
            else name: tensor
            for name, tensor in model.inner.state_dict().items()
        },
        strict=False,
    )
    polarizer = polarizer_of(other)
    polarizer.scale.zero_()
    for label in range(manifest.num_classes):
        own = logits.argmax(1) == label
        if not bool(own.any()):
            raise ValueError(f"no image is taken for class {label}")
        sure = logits.softmax(1)[own, label].argmax()
        polarizer.shift[label] = features[own][sure]
    return other
