"""The attacker's own surrogate network, and the optimisation of triggers on it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.attacks._base import ModelFactory
from benchmarks.fitting import Training, fit
from guard.ml.cleanset import Labelled
from guard.ml.seeds import seeded

BATCH = 64


def surrogate(
    data: Labelled,
    model_factory: ModelFactory | None,
    device: torch.device | str,
    *,
    epochs: int,
    seed: int,
) -> nn.Module:
    """A frozen honest model of the victim's kind, in eval mode; ValueError without a factory."""
    if model_factory is None:
        raise ValueError("This attack needs a surrogate: give `prepare` a model_factory.")
    model = model_factory().to(device)
    fit(model, data.images, data.labels, Training(epochs=epochs), seed=seed)
    return model.requires_grad_(False)


def adversarial(
    model: nn.Module, images: Tensor, labels: Tensor, *, bound: float, steps: int = 20
) -> Tensor:
    """Untargeted PGD within +-`bound`, on float images in [0, 1] and on their device."""
    device = next(model.parameters()).device
    clean, wanted = images.to(device), labels.to(device)
    shift = torch.zeros_like(clean)
    for _ in range(steps):
        shift.requires_grad_(True)
        with torch.enable_grad():
            loss = functional.cross_entropy(model((clean + shift).clamp(0, 1)), wanted)
        grad = torch.autograd.grad(loss, shift)[0]
        shift = (shift.detach() + 2.5 * bound / steps * grad.sign()).clamp(-bound, bound)
    return (clean + shift).clamp(0, 1).to(images.device)


def descend(
    model: nn.Module,
    data: Labelled,
    wanted: Tensor,
    start: tuple[Tensor, ...],
    show: Callable[..., Tensor],
    *,
    steps: int,
    rate: float,
    seed: int,
) -> list[Tensor]:
    """Optimise the variables of a trigger so that the model sees `wanted` in `show(images, ...)`.

    Args:
        wanted: int64 N, the wanted class of each image of `data`.
        start: start values of the variables.

    Returns:
        The variables after `steps` steps of Adam, on the CPU.
    """
    device = next(model.parameters()).device
    variables = [part.to(device).requires_grad_(True) for part in start]
    optimiser = torch.optim.Adam(variables, rate)
    images, labels = data.images.to(device), wanted.to(device)
    with seeded(seed) as generator, torch.enable_grad():
        for _ in range(steps):
            index = torch.randint(len(labels), (BATCH,), generator=generator).to(device)
            batch = images[index].float().div_(255)
            loss = functional.cross_entropy(model(show(batch, *variables)), labels[index])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return [part.detach().cpu() for part in variables]
