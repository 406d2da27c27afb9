"""What a scan costs before it runs: images through the network by detector, seconds from a probe.

Detectors declare their plans; nothing is examined here. The same figures carry the time left of a
running scan (`Forecast`) and keep the time budget of a policy.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from guard.core.errors import GuardError
from guard.core.modality import Modality
from guard.core.planned import NONE, Passes, Plan, Sizes, Speed
from guard.core.progress import Progress, reckoned

if TYPE_CHECKING:
    from guard.ml.cleanset import CleanSet

SHARE = 0.02  # of a scan's seconds, which its probe may take at most
OWN = "clean_accuracy"  # what the guard measures itself
_LEAST = 1e-6  # seconds; no detector takes none


@dataclass(frozen=True, kw_only=True)
class Range:
    """A number as it is at least, usually and at most."""

    least: float
    usual: float
    most: float

    def __add__(self, other: "Range") -> "Range":
        return Range(
            least=self.least + other.least,
            usual=self.usual + other.usual,
            most=self.most + other.most,
        )

    def to_dict(self) -> dict[str, float]:
        """JSON-ready, to six significant digits."""
        return {
            name: float(f"{value:.6g}")
            for name, value in (("least", self.least), ("usual", self.usual), ("most", self.most))
        }


ZERO = Range(least=0.0, usual=0.0, most=0.0)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one detector costs; `images` and `seconds` are None where it has no plan.

    `images` go through the model that is examined, the measurements on the hold-out among them;
    `weighted` counts those with gradients twice.
    `reference` are seconds of the guard's own networks, which are part of `seconds`.
    """

    name: str
    images: Range | None = None
    searched: Range | None = None
    weighted: Range | None = None
    seconds: Range | None = None
    reference: float = 0.0

    def numbers(self, speed: Speed | None) -> dict[str, float]:
        """What evidence keeps of it: as it usually is, and the speed in seconds a thousand images.

        Empty where nobody knows what the detector costs.
        """
        if self.images is None or self.searched is None or self.seconds is None or speed is None:
            return {}
        found = {
            "images": self.images.usual,
            "images_with_gradients": self.searched.usual,
            "seconds": self.seconds.usual,
            "forward_seconds_per_1000": speed.forward,
            "search_seconds_per_1000": speed.searched,
        }
        return {name: float(f"{value:.6g}") for name, value in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        shown = {
            "images": self.images,
            "images_with_gradients": self.searched,
            "images_weighted": self.weighted,
            "seconds": self.seconds,
        }
        return {
            "detector": self.name,
            **{key: None if one is None else one.to_dict() for key, one in shown.items()},
            "reference_seconds": float(f"{self.reference:.6g}"),
        }


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """All detectors in the policy's order, and what the guard measures itself (`own`).

    The speeds are None where no detector has a plan.
    """

    detectors: tuple[Cost, ...]
    own: Cost
    speed: Speed | None = None
    reference: Speed | None = None

    @property
    def unknown(self) -> tuple[str, ...]:
        """The detectors of which nobody knows what they cost."""
        return tuple(one.name for one in self.detectors if one.seconds is None)

    def total(self, what: Callable[[Cost], Range | None]) -> Range:
        """The sum over all that is known."""
        found = (what(one) for one in (self.own, *self.detectors))
        return sum((one for one in found if one is not None), ZERO)

    def left_out(self, budget: float) -> tuple[str, ...]:
        """The detectors that a time budget of so many seconds leaves out, if all goes as usual."""
        spent, out = (self.own.seconds or ZERO).usual, []
        for one in self.detectors:
            needed = (one.seconds or ZERO).usual
            if spent + needed > budget:
                out.append(one.name)
            else:
                spent += needed
        return tuple(out)


def estimated(model: Any, curated: Any, detectors: Mapping[str, Any]) -> Estimate:
    """What these detectors cost on a model, from their plans and a probe of at most a second.

    Args:
        model: in eval mode; it stays as it is.
        curated: the clean set as the model takes it.
        detectors: each with its parameters, by name and in their order.
    """
    if model.manifest.modality is not Modality.IMAGES:
        costs = tuple(Cost(name=name) for name in detectors)
        return Estimate(detectors=costs, own=Cost(name=OWN))
    from guard.ml.measure import device_of

    device, clean = device_of(model), curated.visible()
    sizes = _sizes(clean, device.type)
    plans = {name: _plan(one, sizes, clean, device) for name, one in detectors.items()}
    own = Passes(forward=len(curated.holdout))
    speed, reference = _speeds(model, clean, device, own, list(plans.values()))
    held = len(curated.holdout)
    return Estimate(
        detectors=tuple(_cost(name, plan, held, speed, reference) for name, plan in plans.items()),
        own=_cost(OWN, Plan.exactly(own), held, speed, None),
        speed=speed,
        reference=reference,
    )


def _sizes(clean: "CleanSet", device: str) -> Sizes:
    return Sizes(
        classes=clean.classes,
        search=len(clean.search),
        calibration=len(clean.calibration),
        device=device,
    )


def _plan(detector: Any, sizes: Sizes, clean: Any, device: Any) -> Plan | None:
    if detector.modality is not Modality.IMAGES:
        return None
    try:
        plan: Plan | None = detector.plan(sizes)
    except Exception:  # noqa: BLE001 - a plug-in's fault in a figure must not end the scan
        return None
    if plan is not None and plan.reference != NONE and detector.prepared(clean, device):
        return replace(plan, reference=NONE)
    return plan


def _speeds(
    model: Any, clean: "CleanSet", device: Any, own: Passes, plans: Sequence[Plan | None]
) -> tuple[Speed | None, Speed | None]:
    """The speed of the model, and of the guard's own networks where some are to be trained."""
    known = [plan for plan in plans if plan is not None]
    if not known:
        return None, None
    from guard.ml.speed import probe, reference_speed

    usual = sum((plan.usual for plan in known), own)
    apart = sum((plan.reference for plan in known), NONE)
    channels, height, width = (int(side) for side in clean.search.images.shape[1:])
    shape = (channels, height, width)
    try:
        speed = probe(model, shape, allowed=lambda found: SHARE * found.seconds(usual))
        if apart == NONE:
            return speed, None
        return speed, reference_speed(
            shape, clean.classes, device, allowed=lambda found: SHARE * found.seconds(apart)
        )
    except (RuntimeError, GuardError):  # out of memory, say: a method will report it
        return None, None


def _cost(
    name: str, plan: Plan | None, held: int, speed: Speed | None, reference: Speed | None
) -> Cost:
    if plan is None or speed is None:
        return Cost(name=name)
    usual, most = (Passes(forward=count * held) for count in plan.triggers)
    passes = (plan.least, plan.usual + usual, plan.most + most)
    apart = reference.seconds(plan.reference) if reference is not None else 0.0
    return Cost(
        name=name,
        images=_range(one.images for one in passes),
        searched=_range(one.searched for one in passes),
        weighted=_range(one.weighted for one in passes),
        seconds=_range(apart + speed.seconds(one) for one in passes),
        reference=apart,
    )


def _range(values: Any) -> Range:
    least, usual, most = values
    return Range(least=least, usual=usual, most=most)


class Forecast:
    """The progress of a scan by planned seconds, and the time left by the speed so far.

    Detectors without a plan count as the mean of the others; where one has none, the time left is
    unknown.

    Args:
        estimate: of all detectors, in their order.
        progress: called with the share of planned seconds that is done.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        estimate: Estimate,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stated = [
            None if one.seconds is None else one.seconds.usual for one in estimate.detectors
        ]
        known = [one for one in self._stated if one is not None]
        mean = sum(known) / len(known) if known else 1.0
        self._planned = [max(mean if one is None else one, _LEAST) for one in self._stated]
        self._sure = len(known) == len(self._stated)
        self._total = sum(self._planned) or 1.0
        self._progress, self._clock = progress, clock
        # Work that is done: as planned, and as it took. Skipped detectors are neither.
        self._done = self._took = 0.0
        self._passed = 0.0  # planned seconds behind us, skipped ones too

    @property
    def pace(self) -> float:
        """Seconds that a planned second takes, by what ran so far; 1 before anything did."""
        trust = SHARE * self._total
        return (self._took + trust) / (self._done + trust)

    def needs(self, index: int) -> float | None:
        """The seconds that detector `index` usually takes at the pace so far; None if unknown."""
        stated = self._stated[index]
        return None if stated is None else stated * self.pace

    def step(self, index: int, name: str) -> Progress:
        """The progress of detector `index`, within that of all."""
        begun, planned, before = self._clock(), self._planned[index], (self._done, self._took)

        def inner(done: float, note: str = "") -> None:
            self._done = before[0] + planned * done
            self._took = before[1] + self._clock() - begun
            left = (self._total - self._passed - planned * done) * self.pace
            with reckoned(max(0.0, left) if self._sure else None):
                share = (self._passed + planned * done) / self._total
                self._progress(share, f"{name} {note}".strip())

        return inner

    def ended(self, index: int) -> None:
        """Detector `index` has run, or was skipped."""
        self._passed += self._planned[index]
