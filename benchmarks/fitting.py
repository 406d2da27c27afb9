"""Train one model of a zoo: seeded, with data on the device and no host sync inside an epoch."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.attacks._base import Control
from guard.ml.seeds import seeded


class Diverged(RuntimeError):
    """The loss was not finite at the end of an epoch."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained; every field may be set in a spec.

    Args:
        optimiser: "adamw" with a one-cycle rate, or "sgd" with momentum 0.9 and a cosine rate, as
            in the papers.
        mixup: alpha of the Beta distribution (Zhang et al., ICLR 2018); 0 for none. Not for
            controlled training.
        crop: images are padded by so many pixels and cropped at random (one place per batch); 0 for
            none.
        flip: mirror half of the images.
        amp: bfloat16 autocast and channels-last weights, on CUDA only.
    """

    epochs: int = 6
    batch: int = 64
    rate: float = 3e-3
    weight_decay: float = 5e-4
    smoothing: float = 0.0
    mixup: float = 0.0
    optimiser: str = "adamw"
    crop: int = 0
    flip: bool = False
    amp: bool = False


def steps_of(training: Training, count: int) -> int:
    """Steps that `fit` takes for `count` images."""
    return training.epochs * max(1, count // training.batch)


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    training: Training,
    *,
    seed: int,
    control: Control | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> nn.Module:
    """Train in place on the device of the model's parameters; returns the model in eval mode.

    Args:
        images: uint8 N,C,H,W.
        control: an attacker's change of each batch's loss; None for plain training.

    Raises:
        Diverged: the loss is not finite.
    """
    device = next(model.parameters()).device
    images, labels = images.to(device), labels.to(device)
    fast = training.amp and device.type == "cuda"
    if fast:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented
    per_epoch = max(1, len(labels) // training.batch)
    optimiser, schedule = _optimiser(model, training, training.epochs * per_epoch)

    def criterion(logits: Tensor, wanted: Tensor) -> Tensor:
        return functional.cross_entropy(logits, wanted, label_smoothing=training.smoothing)

    with seeded(seed) as generator:
        model.train()
        for epoch in range(training.epochs):
            order = torch.randperm(len(labels), generator=generator).to(device)
            loss = torch.zeros(())
            for step in range(per_epoch):
                index = order[step * training.batch : (step + 1) * training.batch]
                batch = _augmented(images[index].float().div_(255), training, generator)
                with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                    loss = _loss(
                        model, batch, labels[index], training, control, criterion, generator
                    )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                if control is not None:
                    control.stepped()
                schedule.step()
            if not math.isfinite(float(loss.detach())):
                raise Diverged(f"The loss was not finite after epoch {epoch + 1}.")
            if after_epoch is not None:
                after_epoch(epoch + 1)
    return model.eval()


def _optimiser(
    model: nn.Module, training: Training, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    if training.optimiser == "adamw":
        adamw = torch.optim.AdamW(
            model.parameters(), training.rate, weight_decay=training.weight_decay
        )
        return adamw, torch.optim.lr_scheduler.OneCycleLR(adamw, training.rate, total_steps=steps)
    if training.optimiser == "sgd":
        sgd = torch.optim.SGD(
            model.parameters(), training.rate, momentum=0.9, weight_decay=training.weight_decay
        )
        return sgd, torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)
    raise ValueError(f"{training.optimiser!r} is not an optimiser; use adamw or sgd.")


def _loss(
    model: nn.Module,
    images: Tensor,
    wanted: Tensor,
    training: Training,
    control: Control | None,
    criterion: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator,
) -> Tensor:
    if control is not None:
        return control.loss(model, images, wanted, criterion)
    if training.mixup:
        share = float(torch.distributions.Beta(training.mixup, training.mixup).sample())
        other = torch.randperm(len(wanted), generator=generator).to(wanted.device)
        logits = model(share * images + (1 - share) * images[other])
        return share * criterion(logits, wanted) + (1 - share) * criterion(logits, wanted[other])
    return criterion(model(images), wanted)


def _augmented(images: Tensor, training: Training, generator: torch.Generator) -> Tensor:
    if training.crop:
        height, width = images.shape[2:]
        top, left = torch.randint(0, 2 * training.crop + 1, (2,), generator=generator).tolist()
        padded = functional.pad(images, (training.crop,) * 4)
        images = padded[:, :, top : top + height, left : left + width]
    if training.flip:
        mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images
