"""Does a small perturbation wake what is left of a backdoor?

On top of the recovered trigger one perturbation for all pictures is learnt, and the same without
the trigger: any network can be led to a class by enough of it, so what counts is how much the
trigger helps.

Source of the question: Zhu et al., "Breaking the False Sense of Security in Backdoor Defense
through Re-Activation Attack", NeurIPS 2024. Deviations: the trigger is the recovered one, not the
attacker's; the plain perturbation is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.measure import Stamps, device_of, evaluating, predict


@dataclass(frozen=True, kw_only=True)
class Waker:
    """`radius` in pixel values 0..1, the same for every pixel.

    `steps` of Adam at `rate`, `batch` pictures each.
    """

    radius: float = 8 / 255
    steps: int = 60
    batch: int = 32
    rate: float = 0.1


@dataclass(frozen=True)
class Shifted:
    """A trigger (or none) and then a shift of all pictures; clipped to the value range."""

    trigger: Stamps | None
    shift: Tensor

    def apply(self, images: Tensor) -> Tensor:
        """Stamped and shifted copies of float images N,C,H,W in [0, 1]."""
        stamped = images if self.trigger is None else self.trigger.apply(images)
        return (stamped + self.shift.to(stamped.device)).clamp(0, 1)


def wake(
    model: nn.Module,
    search: Labelled,
    measured: Labelled,
    trigger: Stamps | None,
    target: int,
    waker: Waker,
    watch: Callable[[float], None],
) -> tuple[int, int]:
    """Learn the shift on `search`, count on `measured`; draws from torch's global CPU generator.

    Returns:
        (pictures of other classes that arrive, how many there are).

    Raises:
        MethodFailed: no picture of another class, or a logit is not finite.
    """
    others, shown = search.pick(search.labels != target), measured.pick(measured.labels != target)
    if not len(others) or not len(shown):
        raise MethodFailed(
            f"Every picture has class {target}; nothing can be led there.", code="too_few_images"
        )
    device = device_of(model)
    raw = torch.zeros(1, *others.images.shape[1:], device=device, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=waker.rate)
    wanted = torch.full((waker.batch,), target, device=device)
    with evaluating(model):
        for step in range(waker.steps):
            images = others.pick(torch.randint(len(others), (waker.batch,))).floats(device)
            logits = model(Shifted(trigger, waker.radius * raw.tanh()).apply(images))
            loss = cross_entropy(logits, wanted)
            if not bool(torch.isfinite(loss)):
                raise MethodFailed(
                    "The model gives logits that are not finite; it cannot be measured.",
                    code="non_finite",
                )
            (raw.grad,) = torch.autograd.grad(loss, raw)
            optimiser.step()
            watch((step + 1) / waker.steps)
    found = Shifted(trigger, waker.radius * raw.detach().tanh())
    return int((predict(model, shown, trigger=found) == target).sum()), len(shown)
