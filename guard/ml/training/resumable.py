"""The loop of long trainings: it keeps its state, and goes on from there to the bit.

A training is a sequence of stages, each with a name, modules, an optimiser and a loss. What a stage
depends on is kept after every pass, and after five minutes within one: the weights and buffers, the
optimiser's state, the random state of torch, NumPy and Python, and the position. The order of the
images in a pass follows from one number that is drawn when the stage starts, and the rate from the
position, so that neither needs a state.

Whatever runs between two stages must depend on nothing but the request, the weights of the stages
before and the random state: after an interruption it runs again.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guard.core.errors import Cancelled, MethodFailed, OutOfTime
from guard.core.progress import Progress
from guard.ml.seeds import random_state, set_random_state
from guard.ml.training.checkpoints import Checkpoint

EVERY = 300.0  # seconds, after which a state is kept within a pass
WARM_UP = 0.3
SURE_AFTER = 2.0  # seconds of work that an estimate of the time left needs


def one_cycle(done: float) -> float:
    """The factor of the rate at `done` (0..1): up to 1 over the first 30 %, then down to 0."""
    if done < WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / WARM_UP)) / 2
    return (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a training.

    Attributes:
        name: unique in the training, without a slash.
        modules: what the stage changes, by name; weights and buffers are kept.
        optimiser: of these modules' parameters, with its full rates.
        images: how many images one pass goes over.
        loss: from positions int64 n in 0..images - 1 to the scalar loss that is minimised.
        epochs: passes.
        batch: images a step. A rest that is no full batch is left out of the pass, since a small
            one disturbs batch norms; fewer images than a batch are one step.
        schedule: the factor of the rates by the share of the stage that is done.
    """

    name: str
    modules: Mapping[str, nn.Module]
    optimiser: torch.optim.Optimizer
    images: int
    loss: Callable[[np.ndarray], Tensor]
    epochs: int
    batch: int
    schedule: Callable[[float], float] = one_cycle

    @property
    def steps(self) -> int:
        """Steps of one pass."""
        return max(1, self.images // self.batch)


class Resumable:
    """A training that goes on where `checkpoint` says that it was.

    The caller has seeded the global generators, and calls `fit` for its stages in a fixed order.
    A stage that was finished before is not trained again: its modules get their final weights.

    Args:
        progress: called after each step with the stage, the pass and the time left. An exception
            ends the training; where it is `Cancelled` or `OutOfTime`, the state is kept first.
    """

    def __init__(self, checkpoint: Checkpoint, progress: Progress, *, every: float = EVERY) -> None:
        self._checkpoint, self._progress, self._every = checkpoint, progress, every
        tensors, plain = checkpoint.load() or ({}, {})
        self._found: dict[str, Tensor] = tensors
        self._plain: dict[str, Any] = plain
        self._finished: list[str] = []
        self._kept: dict[str, Tensor] = {}  # the weights of finished stages
        self._begun: tuple[float, float] | None = None  # clock and share when work began
        self._saved = time.monotonic()

    def fit(self, stage: Stage, start: float, end: float) -> None:
        """Train a stage, or what is left of it; it fills the part `start`..`end` of the progress.

        Raises:
            MethodFailed: the loss is not finite.
        """
        if stage.name in self._plain.get("finished", ()):
            self._load(stage)
            self._keep(stage)
            return
        rates = [group["lr"] for group in stage.optimiser.param_groups]
        step, base = self._enter(stage)
        total, order = stage.epochs * stage.steps, np.empty(0, np.int64)
        while step < total:
            epoch, at = divmod(step, stage.steps)
            if at == 0 or not len(order):
                order = _order(stage.images, base + epoch)
            for group, rate in zip(stage.optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * stage.schedule(step / total)
            _one_step(stage, order[at * stage.batch : (at + 1) * stage.batch], step)
            step += 1
            due = at + 1 == stage.steps or time.monotonic() - self._saved > self._every
            if step == total:
                self._keep(stage)
            if due:
                self._save(stage, base, step)
            try:
                self._report(start + (end - start) * step / total, stage, epoch)
            except (Cancelled, OutOfTime):
                if not due:
                    self._save(stage, base, step)
                raise

    def _enter(self, stage: Stage) -> tuple[int, int]:
        """The first step to do, and the number that the orders of the passes follow from."""
        if self._plain.get("stage") != stage.name:
            return 0, int(torch.randint(2**62, (1,)))
        _load_optimiser(stage.optimiser, self._found, self._plain["optimiser"])
        self._load(stage)
        return self._plain["step"], self._plain["base"]

    def _load(self, stage: Stage) -> None:
        for name, module in stage.modules.items():
            module.load_state_dict(_below(self._found, f"{stage.name}/{name}/"))
        if self._plain["stage"] == stage.name:  # the newest: what follows draws from here on
            set_random_state(_below(self._found, "random/"), self._plain["random"])

    def _keep(self, stage: Stage) -> None:
        self._finished.append(stage.name)
        self._kept |= {name: tensor.cpu().clone() for name, tensor in _weights(stage).items()}

    def _save(self, stage: Stage, base: int, step: int) -> None:
        random, plain_random = random_state()
        tensors = {**self._kept, **_weights(stage)}
        tensors |= {f"random/{name}": tensor for name, tensor in random.items()}
        plain_optimiser = None
        if stage.name not in self._finished:
            state, plain_optimiser = _optimiser_state(stage.optimiser)
            tensors |= state
        self._checkpoint.save(
            tensors,
            {
                "stage": stage.name,
                "step": step,
                "epoch": step // stage.steps,
                "base": base,
                "finished": self._finished,
                "optimiser": plain_optimiser,
                "random": plain_random,
            },
        )
        self._saved = time.monotonic()

    def _report(self, done: float, stage: Stage, epoch: int) -> None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = (now, done)
        spent, gained = now - self._begun[0], done - self._begun[1]
        note = f"{stage.name} pass {epoch + 1} of {stage.epochs}"
        if spent >= SURE_AFTER and gained > 0:
            note += f", {remaining(spent / gained * (1 - done))}"
        self._progress(min(done, 1.0), note)


def remaining(seconds: float) -> str:
    """A time that is left, as a phrase: `about 4 min left`."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s left"
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes < 90 else f"about {minutes / 60:.1f} h left"


def _order(images: int, seed: int) -> np.ndarray:
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed)).numpy()


def _one_step(stage: Stage, places: np.ndarray, step: int) -> None:
    stage.optimiser.zero_grad(set_to_none=True)
    loss = stage.loss(places)
    if not bool(torch.isfinite(loss)):
        raise MethodFailed(
            f"The loss of {stage.name} was not finite at step {step + 1}; the rate is too high for "
            "this network.",
            code="non_finite",
        )
    loss.backward()
    stage.optimiser.step()


def _weights(stage: Stage) -> dict[str, Tensor]:
    return {
        f"{stage.name}/{name}/{key}": tensor
        for name, module in stage.modules.items()
        for key, tensor in module.state_dict().items()
    }


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _optimiser_state(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, any shape, and the rest of the optimiser's state, JSON-ready."""
    found = optimiser.state_dict()
    tensors, plain = {}, {}
    for index, entries in found["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{index}/{key}"] = value
            else:
                plain[f"{index}/{key}"] = value
    groups = [
        {name: list(value) if isinstance(value, tuple) else value for name, value in group.items()}
        for group in found["param_groups"]
    ]
    return tensors, {"state": plain, "groups": groups}


def _load_optimiser(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*_below(tensors, "optimiser/").items(), *plain["state"].items()]:
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": plain["groups"]})
    for weight, entries in optimiser.state.items():
        for key, value in entries.items():
            # Memory as the optimiser made it, like the weight's: another order of the same numbers
            # is summed by other instructions, which need not round alike.
            if isinstance(value, Tensor) and value.shape == weight.shape:
                entries[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
