"""What a method will cost before it runs: images through networks, and seconds on one device.

A method declares its plan from its parameters and the sizes of model and clean set; a probe
(`guard.ml.speed`) turns images into seconds.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the work of a method on images depends on, beside its parameters.

    `search` and `calibration` are the images of the clean set that methods see, `device` is the
    type of a torch device: how many images go through a network at once depends on it.
    """

    classes: int
    search: int
    calibration: int
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Images through one network: `forward` alone, `searched` forward and backward."""

    forward: float = 0.0
    searched: float = 0.0

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(forward=self.forward + other.forward, searched=self.searched + other.searched)

    def __mul__(self, factor: float) -> "Passes":
        return Passes(forward=self.forward * factor, searched=self.searched * factor)

    @property
    def images(self) -> float:
        """All images, however they go through."""
        return self.forward + self.searched

    @property
    def weighted(self) -> float:
        """Forward passes of as much work: one with a backward pass to the image counts as two."""
        return self.forward + 2 * self.searched


NONE = Passes()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The images that one method passes through the model that it examines.

    `least` where searches end as early as they can, `usual` on a model on which nothing stands out,
    `most` where everything does that the method follows up. `reference` go through small networks
    that the guard itself trains on the clean set, and none do where their results are kept.
    `triggers` are the recovered triggers, usually and at most, each of which is then measured on
    the hold-out.
    """

    least: Passes
    usual: Passes
    most: Passes
    reference: Passes = NONE
    triggers: tuple[int, int] = (0, 0)

    @classmethod
    def exactly(cls, passes: Passes, *, triggers: int = 0) -> "Plan":
        """A plan from which no run departs."""
        return cls(least=passes, usual=passes, most=passes, triggers=(triggers, triggers))

    def __add__(self, other: "Plan") -> "Plan":
        return Plan(
            least=self.least + other.least,
            usual=self.usual + other.usual,
            most=self.most + other.most,
            reference=self.reference + other.reference,
            triggers=(
                self.triggers[0] + other.triggers[0],
                self.triggers[1] + other.triggers[1],
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds that a thousand images take through one network on one device."""

    forward: float
    searched: float

    def seconds(self, passes: Passes) -> float:
        """How long so many images take."""
        return (self.forward * passes.forward + self.searched * passes.searched) / 1000
