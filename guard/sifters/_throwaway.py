"""A fresh network that is trained briefly on the whole training set and then thrown away."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.networks import architectures
from guard.ml.suitability import channels_last
from guard.ml.training.small_network import small_network
from guard.sifters._features import floats
from guard.trainsets import TrainingSet


def fresh(model: nn.Module, clean: CleanSet) -> nn.Module:
    """A network of the model's architecture with new weights, from torch's global generator.

    A model without a manifest names no architecture; then it is the guard's own small network.
    """
    if isinstance(model, architectures.ImageModel):
        made: nn.Module = architectures.wrap(model.manifest, architectures.build(model.manifest))
    else:
        made = small_network(clean.together(), clean.classes)
    made = made.to(device_of(model))
    if device_of(made).type == "cpu":
        channels_last(made)
    return made


def shuffled(
    train: TrainingSet, batch: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass in an order from torch's global generator: float images N,C,H,W, int64 labels N.

    A last batch of one image is left out: batch norm cannot train on it.
    """
    order = torch.randperm(len(train)).numpy()
    for some in train.batches(batch, index=order):
        if len(some.labels) > 1:
            yield floats(some.images, device), torch.from_numpy(some.labels).to(device)


def descend(
    train: TrainingSet,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    batch: int,
    watch: Callable[[float], None],
) -> None:
    """One pass over the training set, a step a batch, in place; the network's mode is the caller's.

    Raises:
        MethodFailed: `non_finite`, the loss.
    """
    done = 0
    for images, labels in shuffled(train, batch, device_of(network)):
        loss = loss_of(images, labels)
        if not bool(torch.isfinite(loss)):
            raise MethodFailed(
                "The loss of a throw-away network is not finite; the rate is too high for this "
                "architecture.",
                code="non_finite",
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        done += len(labels)
        watch(min(1.0, done / len(train)))
