"""Whether a gradient search can move at all on a network: the ground under every search.

A network can keep its predictions and give no gradient, or one too faint to follow: its head
saturates or overflows, a layer answers by a look-up, its weights are denormal. A search then ends
where it began and finds nothing, which says nothing. Here the same kind of search is given a goal
that an honest network always reaches: a whole image of its own, as strange as it likes, that the
network takes for the class.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.errors import MethodFailed
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import device_of

STEPS, RATE = 60, 0.1  # of Adam on the image
STARTS = 2  # clean images that each class's search starts from
MOST_CLASSES = 50  # that are tried; of more, these are drawn
LEAST_REACHED = 0.9  # of the classes
LOOKED_AT = 32  # clean images whose gradients are looked at
LEAST_MOVING = 0.9  # of these, whose gradient is finite and not faint
#: The length of a gradient, of logits with a mean margin of 1 or more: searches add constants of
#: 1e-8 to what they divide by, and follow no slope that is fainter than that.
FAINT = 1e-5


@dataclass(frozen=True, kw_only=True)
class Mobility:
    """What a search with an easy goal achieved.

    `reached` is the share (0..1) of tried classes that some image leads to, `moving` the share of
    clean images at which the loss has a finite gradient that is not faint.
    """

    reached: float
    moving: float

    @property
    def enough(self) -> bool:
        """Whether a search that finds nothing says something."""
        return self.reached >= LEAST_REACHED and self.moving >= LEAST_MOVING


def require_mobility(model: nn.Module, clean: CleanSet, method: str) -> None:
    """Refuse a network on which a search would find nothing whatever there is.

    Args:
        model: in eval mode, its parameters without gradients.
        method: its name as it stands in a sentence.

    Raises:
        MethodFailed: `cannot_move`.
    """
    found = mobility(model, clean.search, clean.classes)
    if not found.enough:
        raise MethodFailed(
            f"{method} cannot search this model: its loss has a usable gradient on "
            f"{found.moving:.0%} of clean images, and a search for an image of any kind reaches "
            f"{found.reached:.0%} of its classes. Train it without saturating or frozen layers.",
            code="cannot_move",
        )


def mobility(model: nn.Module, data: Labelled, classes: int) -> Mobility:
    """Search an image for each class, from clean images, and look at gradients on the way.

    Draws from a generator of its own, so that the caller's random numbers stay as they are.
    """
    generator = torch.Generator().manual_seed(0)
    tried = torch.randperm(classes, generator=generator)[:MOST_CLASSES]
    starts = torch.randint(len(data), (len(tried) * STARTS,), generator=generator)
    device = device_of(model)
    return Mobility(
        reached=_reached(
            model, data.pick(starts).floats(device), tried.repeat_interleave(STARTS).to(device)
        ),
        moving=_moving(model, data, classes, generator),
    )


def _reached(model: nn.Module, images: Tensor, wanted: Tensor) -> float:
    first, second = torch.zeros_like(images), torch.zeros_like(images)
    done = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for step in range(1, STEPS + 1):
        gradient, found = _gradient(model, images, wanted)
        done |= found == wanted
        if bool(done.all()):
            break
        if not bool(torch.isfinite(gradient).all()):
            return 0.0
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient.square()
        # Each image's own scale, so that a steep or a flat loss takes equal steps.
        scale = (second / (1 - 0.99**step)).flatten(1).mean(1).sqrt().view(-1, 1, 1, 1)
        move = first / (1 - 0.9**step) / scale.clamp(min=torch.finfo(images.dtype).tiny)
        images = (images - RATE * move.clamp(-1, 1)).clamp(0, 1)
    by_class = done.view(-1, STARTS).any(1)
    return float(by_class.float().mean())


def _moving(model: nn.Module, data: Labelled, classes: int, generator: torch.Generator) -> float:
    some = data.pick(torch.randint(len(data), (LOOKED_AT,), generator=generator))
    offset = torch.randint(1, classes, (len(some),), generator=generator)
    device = device_of(model)
    other = ((some.labels + offset) % classes).to(device)
    gradient, _ = _gradient(model, some.floats(device), other)
    length = gradient.flatten(1).norm(dim=1)
    return float((torch.isfinite(length) & (length > FAINT)).float().mean())


def _gradient(model: nn.Module, images: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image's own cross-entropy, N,C,H,W, and what the model takes each image for, N."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(images).float()
        loss = functional.cross_entropy(logits, wanted, reduction="sum")
        try:
            (gradient,) = torch.autograd.grad(loss, images)
        except RuntimeError:  # no path to the image, or one that a change in place has cut
            gradient = torch.zeros_like(images)
    return gradient.detach(), logits.detach().argmax(1)
