"""The fine-tuning loop of all defenses, and the checks that every repair needs."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import accuracy, device_of

#: From images (float32 N,C,H,W in [0, 1]) and labels (int64 N), both on the model's device, to the
#: scalar loss that is minimised; or to the terms of a sum one after the other, so that a term's
#: graph is freed before the next one is built.
Objective = Callable[[Tensor, Tensor], Tensor | Iterable[Tensor]]
WIDE = 900  # inputs of a neuron, more than in any of the networks that rates were chosen on


def fit(
    model: nn.Module,
    data: Labelled,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    *,
    rounds: int,
    batch: int,
    progress: Progress,
    note: str = "",
    decay: bool = False,
    after_round: Callable[[int], bool] | None = None,
    after_step: Callable[[], None] | None = None,
) -> int:
    """Minimise `objective` in `rounds` passes over `data`, shuffled by torch's global generator.

    The model is changed in place. Its mode is the caller's choice: in eval mode batch-norm
    statistics stay as they are.

    Args:
        optimiser: of the parameters that may change.
        batch: images a step; the last step of a pass takes those that are left.
        progress: called after each step with `note` and the pass; an exception ends the loop.
        decay: one cycle: each group's rate rises to its own over the first 30 % of the steps, then
            falls to zero.
        after_round: called with the number of finished passes; True ends the loop.
        after_step: called after each step of the optimiser, to project weights back to where they
            must be.

    Returns:
        The number of finished passes.

    Raises:
        MethodFailed: the loss is not finite.
    """
    device = device_of(model)
    # A generator of its own, so that what an objective draws from the global one cannot change the
    # order of the images.
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
    total, step = rounds * -(-len(data) // batch), 0
    rates = [group["lr"] for group in optimiser.param_groups]
    schedule = (
        torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total, cycle_momentum=False)
        if decay
        else None
    )
    for finished in range(1, rounds + 1):
        for images, labels in data.batches(batch, generator=generator, device=device):
            loss = objective(images, labels)
            optimiser.zero_grad(set_to_none=True)
            for term in (loss,) if isinstance(loss, Tensor) else loss:
                if not bool(torch.isfinite(term)):
                    raise MethodFailed(
                        f"The loss was not finite at step {step + 1}; the model is broken or the "
                        "rate too high.",
                        code="non_finite",
                    )
                term.backward()
            optimiser.step()
            if after_step is not None:
                after_step()
            if schedule is not None:
                schedule.step()
            step += 1
            progress(step / total, f"{note} pass {finished} of {rounds}".strip())
        if after_round is not None and after_round(finished):
            return finished
    return rounds


def tune(
    model: nn.Module,
    data: Labelled,
    objective: Objective,
    *,
    rate: float,
    rounds: int,
    batch: int,
    progress: Progress,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    note: str = "",
    after_step: Callable[[], None] | None = None,
) -> None:
    """`fit` of all weights by SGD over one cycle, batch-norm statistics included.

    In place; the model is in eval mode afterwards.

    Raises:
        MethodFailed: the loss is not finite.
    """
    optimiser = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=momentum, weight_decay=weight_decay
    )
    model.train()
    fit(
        model,
        data,
        objective,
        optimiser,
        rounds=rounds,
        batch=batch,
        progress=progress,
        note=note,
        decay=True,
        after_step=after_step,
    )
    model.eval()


class Kept:
    """The latest state of a model that had kept its accuracy on the clean calibration images.

    Args:
        model: the model before the repair; `look` reads its state then and there.
        clean: its calibration part is measured.
        drop: calibration accuracy (0..1) that a kept state may have lost; one image always may be.
        method: the method's name as it appears in the error message.
    """

    def __init__(self, model: nn.Module, clean: CleanSet, *, drop: float, method: str) -> None:
        self._model, self._clean, self._method = model, clean, method
        self._before = self._now = self._measured()
        self._allowed = max(drop, 1 / len(clean.calibration))
        self._state: dict[str, Tensor] | None = None

    def look(self) -> None:
        """Keep the state of now if it is accurate enough."""
        self._now = self._measured()
        if self._now >= self._before - self._allowed:
            self._state = {
                name: tensor.detach().clone() for name, tensor in self._model.state_dict().items()
            }

    def restore(self) -> None:
        """Bring back what was kept.

        Raises:
            MethodFailed: no state was.
        """
        if self._state is None:
            raise MethodFailed(
                f"{self._method} lowered the accuracy on the calibration images from "
                f"{self._before:.1%} to {self._now:.1%}; use a lower rate or more clean images.",
                code="accuracy_collapsed",
            )
        self._model.load_state_dict(self._state)

    def _measured(self) -> float:
        return accuracy(self._model, self._clean.calibration, self._clean.classes).overall


def by_fan_in(weights: Sequence[nn.Parameter], rate: float) -> list[dict[str, Any]]:
    """Adam's parameter groups: `rate`, less for neurons of more than `WIDE` inputs, in proportion.

    Each of Adam's steps moves every weight by about the rate, and an answer by that times the
    inputs: a rate that suits narrow networks ruins wide ones (Yang et al., Tensor Programs V,
    NeurIPS 2021).
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for weight in weights:
        inputs = weight[0].numel() if weight.dim() > 1 else 1
        groups.setdefault(rate * min(1.0, WIDE / inputs), []).append(weight)
    return [{"params": some, "lr": own} for own, some in groups.items()]


def require_images(clean: CleanSet, *, per_class: int, method: str) -> None:
    """Refuse a clean set that has too few images of some class.

    Args:
        clean: what the method may see.
        per_class: how many search images every class needs.
        method: the method's name as it appears in the error message.

    Raises:
        MethodFailed: a class has fewer, or the calibration part lacks a class.
    """
    counts = torch.bincount(clean.search.labels, minlength=clean.classes)
    rarest = int(counts.argmin())
    if counts[rarest] < per_class:
        raise MethodFailed(
            f"{method} needs at least {per_class} search images of every class; class {rarest} has "
            f"{int(counts[rarest])}. Add images to the clean set.",
            code="too_few_images",
        )
    lacking = torch.bincount(clean.calibration.labels, minlength=clean.classes).argmin()
    if not bool((clean.calibration.labels == lacking).any()):
        raise MethodFailed(
            f"{method} needs calibration images of every class; class {int(lacking)} has none. "
            "Add images to the "
            "clean set.",
            code="too_few_images",
        )


def require_accuracy(
    model: nn.Module, clean: CleanSet, before: float, *, drop: float, method: str
) -> float:
    """Refuse a repaired model that lost its task; small losses are for the policy to judge.

    Args:
        model: the repaired model.
        clean: its calibration part is measured.
        before: calibration accuracy of the model before the repair, 0..1.
        drop: the largest loss of accuracy that is accepted, 0..1.
        method: the method's name as it appears in the error message.

    Returns:
        The calibration accuracy now.

    Raises:
        MethodFailed: more than `drop` was lost.
    """
    now = accuracy(model, clean.calibration, clean.classes).overall
    if not now >= before - drop:
        raise MethodFailed(
            f"{method} lowered the accuracy on the calibration images from {before:.1%} to "
            f"{now:.1%}; "
            "use a lower rate or more clean images.",
            code="accuracy_collapsed",
        )
    return now
