"""Reactivation: test whether a small perturbation brings back what is left of a backdoor.

One perturbation for all images is learnt on top of the recovered trigger, and another one without
the trigger. A large enough perturbation leads any network to a class, so what counts is how much
the trigger helps.

Source: Zhu et al., "Breaking the False Sense of Security in Backdoor Defense through Re-Activation
Attack", NeurIPS 2024. Deviations: the trigger is the recovered one, not the attacker's; the
perturbation without a trigger is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.measure import Stamper, device_of, evaluating, predict


@dataclass(frozen=True, kw_only=True)
class Reactivation:
    """Settings of the search: `steps` of Adam at `rate` with `batch` images each.

    `radius` is the largest change of a pixel value, in 0..1.
    """

    radius: float = 8 / 255
    steps: int = 60
    batch: int = 32
    rate: float = 0.1


@dataclass(frozen=True)
class Shifted:
    """A trigger (or none), then one shift (float 1,C,H,W) of all images, clipped to [0, 1]."""

    trigger: Stamper | None
    shift: Tensor

    def apply(self, images: Tensor) -> Tensor:
        """Copies of float images N,C,H,W in [0, 1] with the trigger and the shift."""
        stamped = images if self.trigger is None else self.trigger.apply(images)
        return (stamped + self.shift.to(stamped.device)).clamp(0, 1)


def reactivate(
    model: nn.Module,
    search: Labelled,
    measured: Labelled,
    trigger: Stamper | None,
    target: int,
    settings: Reactivation,
    watch: Callable[[float], None],
) -> tuple[int, int]:
    """Learn the shift on `search` and count its successes on `measured`.

    Draws from torch's global CPU generator.

    Args:
        model: takes float images N,C,H,W in [0, 1].
        search: images to learn on.
        measured: images to count on.
        trigger: the recovered trigger, or None.
        target: the class to lead to.
        settings: of the search.
        watch: called with the share done; may raise.

    Returns:
        The number of images of other classes that go to the target, and their number in all.

    Raises:
        MethodFailed: no image of another class, or a logit is not finite.
    """
    others, shown = search.pick(search.labels != target), measured.pick(measured.labels != target)
    if not len(others) or not len(shown):
        raise MethodFailed(
            f"Every image has class {target}; nothing can be led there.", code="too_few_images"
        )
    device = device_of(model)
    raw = torch.zeros(1, *others.images.shape[1:], device=device, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=settings.rate)
    wanted = torch.full((settings.batch,), target, device=device)
    with evaluating(model):
        for step in range(settings.steps):
            images = others.pick(torch.randint(len(others), (settings.batch,))).floats(device)
            logits = model(Shifted(trigger, settings.radius * raw.tanh()).apply(images))
            loss = cross_entropy(logits, wanted)
            if not bool(torch.isfinite(loss)):
                raise MethodFailed(
                    "The model gives logits that are not finite; it cannot be measured.",
                    code="non_finite",
                )
            (raw.grad,) = torch.autograd.grad(loss, raw)
            optimiser.step()
            watch((step + 1) / settings.steps)
    found = Shifted(trigger, settings.radius * raw.detach().tanh())
    return int((predict(model, shown, trigger=found) == target).sum()), len(shown)
