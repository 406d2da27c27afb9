"""A short training loop for small models on a CPU, and the two numbers that experiments report."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.ml.cleanset import Labelled
from guard.ml.seeds import seeded


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int = 8,
    seed: int = 0,
    batch: int = 64,
    rate: float = 3e-3,
    weight_decay: float = 5e-4,
    smoothing: float = 0.0,
) -> nn.Module:
    """AdamW with a one-cycle rate; trains `model` in place and returns it in eval mode.

    The caller seeds the model's initial weights, by building it inside `seeded(seed)`.

    Args:
        images: uint8 N,C,H,W; the model gets them as floats in [0, 1] on its own device.
    """
    device = next(model.parameters()).device
    data = Labelled(images, labels)
    steps = max(1, len(data) // batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=rate, total_steps=epochs * steps
    )
    with seeded(seed) as generator:
        model.train()
        for _ in range(epochs):
            for index, (inputs, classes) in enumerate(
                data.batches(batch, generator=generator, device=device)
            ):
                if index == steps:  # the last, short batch would disturb batch-norm statistics
                    break
                loss = functional.cross_entropy(model(inputs), classes, label_smoothing=smoothing)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
    return model.eval()


@torch.no_grad()
def predictions(model: nn.Module, images: Tensor, batch: int = 512) -> Tensor:
    """Predicted classes, int64 N on the CPU, in eval mode (the mode is restored)."""
    mode, device = model.training, next(model.parameters()).device
    model.eval()
    parts = [model(part.to(device).float() / 255).argmax(1).cpu() for part in images.split(batch)]
    model.train(mode)
    return torch.cat(parts)


def accuracy(model: nn.Module, data: Labelled) -> float:
    """Share of images that are classified as labelled."""
    return float((predictions(model, data.images) == data.labels).double().mean())


def attack_success(model: nn.Module, attack: "object", data: Labelled, target: int) -> float:
    """ASR: the share of stamped images of other classes that are classified as `target`."""
    others = data.pick(data.labels != target)
    stamped = attack.stamp(others.images)  # type: ignore[attr-defined]
    return float((predictions(model, stamped) == target).double().mean())
