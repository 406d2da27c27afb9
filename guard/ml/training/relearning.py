"""Measure how fast a model re-learns a trigger from a few images, compared with random triggers.

A repair may hide a backdoor instead of removing it; then a few images reactivate it. Any trigger is
learnt sooner or later, so what counts is the lead over triggers of the same mask at a random place
with random colours, on the same model, for the same class, with the same images.

The steps are gradient steps of a fixed length in units of the weights' norm: a learning rate that
reactivates the backdoor of one network has no effect on another, or destroys it. Every step
contains clean images; without them the model learns to predict one class for every image.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import starmap

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.errors import MethodFailed
from guard.core.evidence import TriggerLike
from guard.core.purification import lead_of
from guard.ml.cleanset import Labelled
from guard.ml.measure import device_of, predict
from guard.ml.triggers import PatchTrigger

CHECKS = (0, 1, 2, 4, 8)  # steps after which success is measured
MOST_MEASURED = 100  # images on which it is, in each draw


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Settings: `handful` stamped and `clean` clean images a step, and `rivals` random triggers.

    A step's length is `stride` times the weights' norm. One handful of images proves little: on the
    same model one is learnt at once and the next hardly at all, so `draws` of them are averaged.
    """

    handful: int = 10
    clean: int = 40
    stride: float = 0.005
    rivals: int = 3
    draws: int = 5


@dataclass(frozen=True)
class Curves:
    """Success rates (0..1) after each of `CHECKS`, for the trigger and for its rivals, best first.

    All are means over the draws; `leads` are those of the single draws.
    """

    trigger: tuple[float, ...]
    rivals: tuple[tuple[float, ...], ...]
    leads: tuple[float, ...]


def relearn(
    model: nn.Module,
    data: Labelled,
    measured: Labelled,
    trigger: PatchTrigger,
    target: int,
    probe: Probe,
    watch: Callable[[float], None],
) -> Curves:
    """Train copies of `model` on a trigger and on its rivals.

    Draws from torch's global CPU generator.

    Args:
        model: takes float images N,C,H,W in [0, 1]; left as it is.
        data: the images to train on, stamped and clean.
        measured: the images to measure success on, in each draw at most `MOST_MEASURED` of other
            classes.
        trigger: the recovered trigger.
        target: its class.
        probe: the settings.
        watch: called with the share done; may raise.

    Raises:
        MethodFailed: no image of another class, or a loss or logit is not finite.
    """
    others, shown = data.pick(data.labels != target), measured.pick(measured.labels != target)
    if not len(others) or not len(shown):
        raise MethodFailed(
            f"Every image has class {target}; no trigger can be trained.", code="too_few_images"
        )
    draws = [
        _draw(
            model,
            data,
            others,
            shown,
            trigger,
            target,
            probe,
            partial(watch, turn / probe.draws),
        )
        for turn in range(probe.draws)
    ]
    own, rivals = (torch.tensor(rates, dtype=torch.float64) for rates in zip(*draws, strict=True))
    ranked = rivals.sort(dim=1, descending=True).values.mean(0)
    return Curves(
        tuple(own.mean(0).tolist()),
        tuple(map(tuple, ranked.tolist())),
        tuple(starmap(lead_of, draws)),
    )


def _draw(
    model: nn.Module,
    data: Labelled,
    others: Labelled,
    shown: Labelled,
    trigger: PatchTrigger,
    target: int,
    probe: Probe,
    watch: Callable[[], None],
) -> tuple[tuple[float, ...], list[tuple[float, ...]]]:
    """Success rates of the trigger and of each rival, all trained on the same images."""
    few = others.pick(torch.randperm(len(others))[: probe.handful])
    plain = [data.pick(torch.randperm(len(data))[: probe.clean]) for _ in range(CHECKS[-1])]
    some = shown.pick(torch.randperm(len(shown))[:MOST_MEASURED])
    rivals = [random_like(trigger) for _ in range(probe.rivals)]
    curves = []
    for one in (trigger, *rivals):
        curves.append(_curve(model, few, plain, some, one, target, probe.stride))
        watch()
    return curves[0], curves[1:]


def random_like(trigger: PatchTrigger) -> PatchTrigger:
    """A patch with the same mask at another place, in colours drawn uniformly from 0..1."""
    height, width = trigger.mask.shape[1:]
    shift = int(torch.randint(height, ())), int(torch.randint(width, ()))
    return PatchTrigger(trigger.mask.cpu().roll(shift, (1, 2)), torch.rand(trigger.pattern.shape))


def _curve(
    model: nn.Module,
    few: Labelled,
    plain: list[Labelled],
    shown: Labelled,
    trigger: TriggerLike,
    target: int,
    stride: float,
) -> tuple[float, ...]:
    own = copy.deepcopy(model).eval().requires_grad_()
    device = device_of(own)
    stamped = trigger.apply(few.floats(device))
    wanted = torch.full((len(few),), target, device=device)
    found = [_success(own, shown, trigger, target)]
    for step, clean in enumerate(plain, 1):
        images, labels = (
            torch.cat([stamped, clean.floats(device)]),
            torch.cat([wanted, clean.labels.to(device)]),
        )
        _step(own, cross_entropy(own(images), labels), stride)
        if step in CHECKS:
            found.append(_success(own, shown, trigger, target))
    return tuple(found)


def _step(model: nn.Module, loss: Tensor, stride: float) -> None:
    """Step down the loss by `stride` times the norm of all weights together, in place."""
    weights = list(model.parameters())
    found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, weights, allow_unused=True)
    pairs = [
        (weight, slope) for weight, slope in zip(weights, found, strict=True) if slope is not None
    ]
    steepness = _norm([slope for _, slope in pairs])
    if not bool(torch.isfinite(steepness)) or not bool(torch.isfinite(loss)):
        raise MethodFailed(
            "The model's gradients are not finite; it cannot be trained.", code="non_finite"
        )
    if not float(steepness):
        return
    length = stride * _norm([weight.detach() for weight, _ in pairs]) / steepness
    with torch.no_grad():
        for weight, slope in pairs:
            weight.sub_(length * slope)


def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack([tensor.pow(2).sum() for tensor in tensors]).sum().sqrt()


def _success(model: nn.Module, shown: Labelled, trigger: TriggerLike, target: int) -> float:
    return float((predict(model, shown, trigger=trigger) == target).double().mean())
