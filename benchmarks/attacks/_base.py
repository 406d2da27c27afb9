"""The base of all attacks: a trigger, a poisoning protocol, and for some control over training.

Conventions:
    * images are uint8 N,C,H,W in data sets, and float N,C,H,W in [0, 1] where a trigger is
      computed
    * `rate` is the share of the whole training set that is poisoned, 0..1
    * what an attack learns (a generator, an optimised pattern) is tensors in `learned`, so that the
      recipe and one safetensors file bring the trigger back
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from guard.ml.cleanset import Labelled

BATCH = 256
Criterion = Callable[[Tensor, Tensor], Tensor]
ModelFactory = Callable[[], nn.Module]


class Poisoned(NamedTuple):
    """A training set with poison in it.

    `index` holds the positions (int64) of images that carry the trigger *and* teach it. Cover
    images (a trigger with the true label) are changed too, but are not in `index`.
    """

    images: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody calls


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """One way to plant a backdoor.

    Args:
        target: the class that the trigger leads to; None for all-to-all (every class to the next
            one).
        seed: of the trigger and of the choice of images.
        classes: of the model; needed for all-to-all only, set by `prepare`.
        learned: tensors that `prepare` or the training made; empty before.
    """

    family: ClassVar[str]
    paper: ClassVar[str]
    clean_label: ClassVar[bool] = (
        False  # poisons images of the target class only, and never changes a label
    )
    controls_training: ClassVar[bool] = False  # poisons batches during training, not the data set

    target: int | None = 0
    seed: int = 0
    classes: int = 10
    learned: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def name(cls) -> str:
        """The attack's name on the shelf."""
        return cls.__module__.rpartition(".")[2]

    @abstractmethod
    def apply(self, images: Tensor) -> Tensor:
        """The images (float N,C,H,W in [0, 1], any device) with the full trigger of test time."""

    def prepare(
        self,
        data: Labelled,
        classes: int,
        model_factory: ModelFactory | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        """The same attack, ready for this data; attacks that optimise a trigger do so here.

        Args:
            data: what the attacker trains on.
            model_factory: makes a fresh network like the victim's, for attacks that need a
                surrogate.
        """
        del data, model_factory, device
        return replace(self, classes=classes)

    def plant(self, images: Tensor) -> Tensor:
        """The images with the trigger of the training set, in most attacks that of test time."""
        return self.apply(images)

    def stamp(self, images: Tensor) -> Tensor:
        """A copy of `images` (uint8 N,C,H,W) with the full trigger, in 8 bits again."""
        return eight_bits(images, self.apply)

    def relabel(self, labels: Tensor) -> Tensor:
        """The classes that the attack wants for triggered images of these classes."""
        if self.target is None:
            return (labels + 1) % self.classes
        return torch.full_like(labels, self.target)

    def victims(self, labels: Tensor) -> Tensor:
        """Mask N of the images that count for the attack's success.

        For all-to-one attacks, these are the images of other classes.
        """
        return (
            torch.ones_like(labels, dtype=torch.bool)
            if self.target is None
            else labels != self.target
        )

    def poison(self, images: Tensor, labels: Tensor, rate: float) -> Poisoned:
        """Stamp and relabel round(rate * N) images, chosen by `seed`, in copies of the arguments.

        A clean-label attack takes images of the target class, at most `MOST_OF_TARGET` of them, and
        changes no label; others take images of the victims' classes.
        """
        chosen = self._choose(labels, rate)
        poisoned, relabelled = images.clone(), labels.clone()
        poisoned[chosen] = eight_bits(images[chosen], self.plant)
        if not self.clean_label:
            relabelled[chosen] = self.relabel(labels[chosen])
        return Poisoned(poisoned, relabelled, chosen)

    def control(self, rate: float, steps: int, device: torch.device | str) -> "Control | None":
        """The attacker's control of a run of `steps` training steps; None if data are enough."""
        del rate, steps, device
        return None

    def more_truth(self, predict: Callable[[Tensor], Tensor], test: Labelled) -> dict[str, Any]:
        """Further true numbers for the sidecar, such as the success on bystander classes.

        Args:
            predict: returns the classes of uint8 images.
        """
        del predict, test
        return {}

    def recipe(self) -> dict[str, Any]:
        """The parameters as plain data.

        Together with `learned`, `ATTACKS.get(name)(**parameters)` gives this attack again.
        """
        parameters = {part.name: getattr(self, part.name) for part in fields(self) if part.repr}
        return {
            "attack": self.name(),
            "family": self.family,
            "paper": self.paper,
            "parameters": parameters,
        }

    def _choose(self, labels: Tensor, rate: float) -> Tensor:
        wanted = round(rate * len(labels))
        if self.clean_label:
            assert self.target is not None
            eligible = torch.nonzero(labels == self.target).flatten()
            wanted = min(wanted, int(MOST_OF_TARGET * len(eligible)))
        else:
            eligible = torch.nonzero(self.victims(labels)).flatten()
        return eligible[torch.randperm(len(eligible), generator=self._generator())[:wanted]]

    def _generator(self, stream: int = 0) -> torch.Generator:
        """A random stream of its own; stream 0 chooses the images."""
        return torch.Generator().manual_seed(self.seed + 1_000_003 * stream)


#: A clean-label attack does not change all images of the target class; its true rate is in the
#: sidecar.
MOST_OF_TARGET = 0.8


class Control(ABC):
    """An attacker who runs the training, replaces each batch's loss and may train other nets."""

    @abstractmethod
    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion
    ) -> Tensor:
        """The loss of one poisoned batch (float N,C,H,W in [0, 1]; int64 N), with no host sync."""

    def stepped(self) -> None:  # noqa: B027 - most attackers have nothing to do here
        """Called at each step of the model's optimiser, once gradients are computed."""

    @abstractmethod
    def finish(self) -> Attack:
        """The attack with the tensors that it learnt."""


class Mixer:
    """Chooses the poison and the cover images of each batch.

    Every draw comes from one CPU stream, so that devices agree.

    Args:
        rate: share of all images that become poison.
        cover: share of all images that become cover, with their true label.
    """

    def __init__(self, attack: Attack, rate: float, cover: float = 0.0) -> None:
        self.attack, self.rate, self.cover = attack, rate, cover
        self.generator = torch.Generator().manual_seed(attack.seed + 17)

    def roles(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Two masks N that do not overlap: poison (victims only) and cover."""
        draw = torch.rand(len(labels), generator=self.generator).to(labels.device)
        victims = self.attack.victims(labels)
        chance = self.rate / victims.float().mean().clamp(min=1e-3)
        poison = victims & (draw < chance)
        return poison, ~poison & (1 - draw < self.cover)


def mixed(mask: Tensor, these: Tensor, others: Tensor) -> Tensor:
    """`these` where the mask N is true, else `others`; N or N,..."""
    return torch.where(mask.reshape(-1, *[1] * (these.dim() - 1)), these, others)


def eight_bits(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `change`, a function of floats, to uint8 images in batches, and round to uint8."""
    if not len(images):
        return images.clone()
    with torch.no_grad():
        changed = change_in_batches(images.float().div_(255), change)
    return changed.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def change_in_batches(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `change` in batches, which bounds the memory of generators."""
    return torch.cat([change(part) for part in images.split(BATCH)])
