"""Probes of a purified child beyond its parent's triggers.

    * patches: do samples of their distribution work, and how fast does a copy relearn them?
    * every trigger that leads to one class: does a small perturbation on top of it reactivate the
      backdoor?
    * no trigger at all: how often can parent and child be led to the same mistake? Where none is
      proven, also: which universal perturbations of the parent still work?

Each takes seconds on a small network and minutes on a large one without a GPU. What could not be
measured is reported, and a policy that has a limit on it then refuses the child.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from guard.core.errors import Cancelled, MethodFailed, OutOfTime
from guard.core.evidence import AsrEstimate, Target
from guard.core.progress import Progress, silent
from guard.core.purification import (
    Reactivated,
    Relearned,
    Resampled,
    SharedRisk,
    UniversalTransfer,
)
from guard.core.states import Family
from guard.vetting.examine import restore_trigger
from guard.vetting.universal_probe import transferred

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.search.fresh_patches import Patched
    from guard.ml.triggers import PatchTrigger, Trigger

T = TypeVar("T")

MOST_TARGETS = 4  # classes that are probed; a model with more backdoors than that has no repair
SECONDS = 600.0  # of all probes; a job of the service has as many in addition to its defense's
STEPS, BATCH = 150, 16  # of the generators
# Size of the region in multiples of the recovered patch's norm: masks are soft, samples are opaque.
ROOM = 2.0
LEARNT = 0.5  # ASR (lower end) on the parent under which samples prove nothing about the child
SEARCHES = 8  # for single patches, where no distribution can be learnt
LARGEST = 0.2  # share of the image, as in MESA removal
# Images and steps of the search for shared adversarial examples.
RISK_IMAGES, RISK_STEPS = 100, 10
UNKNOWN = "No trigger of the uploaded model is known, so that none could be replayed."
REMAINS = "What remains of universal perturbations"


@dataclass(frozen=True)
class Replay:
    """A trigger recovered on the parent, to be tried on every candidate."""

    target: Target
    digest: str
    data: bytes
    natural: float | None = None
    budget: float | None = None


@dataclass(frozen=True)
class Proof:
    """The results of all probes, as in `PurificationFacts`."""

    resampled: tuple[Resampled, ...] = ()
    relearned: tuple[Relearned, ...] = ()
    reactivated: tuple[Reactivated, ...] = ()
    shared: SharedRisk | None = None
    universal: tuple[UniversalTransfer, ...] = ()
    unproved: tuple[str, ...] = ()


def prove(
    parent: "ImageModel",
    child: Any,
    curated: "CuratedSet",
    replays: Sequence[Replay],
    *,
    blind: bool = False,
    seed: int = 0,
    seconds: float = SECONDS,
    progress: Progress = silent,
) -> Proof:
    """Run all probes; the same seed gives the same results on one machine.

    Args:
        child: the repaired module; takes float images in [0, 1], N,C,H,W, and returns logits N,K.
            Left as it is.
        blind: no trigger is proven, whatever `replays` holds.
        seconds: wall time for all; `unproved` names what is not done by then.

    Raises:
        Cancelled: `progress` raised it. Every other failure becomes a sentence in `unproved`.
    """
    trial = _Trial(seed, seconds, time.monotonic() + seconds, progress)
    attempt, watch, unproved = trial.attempt, trial.watch, trial.unproved
    resampled: list[Resampled] = []
    relearned: list[Relearned] = []
    for target, trigger in _smallest(replays, unproved):
        resampled += attempt(
            f"Fresh patches for class {target}",
            partial(_resample, parent, child, curated, trigger, target, watch),
        )
        relearned += attempt(
            f"How fast class {target} is relearned",
            partial(_relearn, child, curated, trigger, target, watch),
        )
    reactivated = [
        found
        for target, any_trigger in _of_each_class(replays)
        for found in attempt(
            f"The reactivation of class {target}",
            partial(_reactivate, child, curated, any_trigger, target, watch),
        )
    ]
    shared = attempt("The shared adversarial risk", partial(_share, parent, child, curated, watch))
    universal: list[tuple[UniversalTransfer, ...]] = []
    if blind:
        unproved += [UNKNOWN] * (not replays)
        universal = attempt(REMAINS, partial(transferred, parent, child, curated, watch))
    return Proof(
        tuple(resampled),
        tuple(relearned),
        tuple(reactivated),
        shared[0] if shared else None,
        universal[0] if universal else (),
        tuple(unproved),
    )


@dataclass(frozen=True)
class _Trial:
    """Runs probes one by one until the time is over; `unproved` names those that failed."""

    seed: int
    seconds: float
    end: float
    progress: Progress
    unproved: list[str] = field(default_factory=list)

    def watch(self, _done: float) -> None:
        if time.monotonic() > self.end:
            raise OutOfTime(f"It ran out of the {self.seconds:g} seconds that it has.")
        self.progress(1.0, "testing the repair")

    def attempt(self, what: str, probe: Callable[[], T]) -> list[T]:
        """The result of a probe, from the same seed as every other; empty where it failed."""
        from guard.ml.seeds import seeded

        try:
            with seeded(self.seed):
                return [probe()]
        except Cancelled:
            raise
        except MethodFailed as error:
            self.unproved.append(f"{what} could not be measured: {error.sentence}")
            return []


def _of_each_class(replays: Sequence[Replay]) -> list[tuple[int, "Trigger"]]:
    """The first trigger of each class, whatever its family, for at most `MOST_TARGETS` classes."""
    found: dict[int, Trigger] = {}
    for replay in replays:
        if isinstance(replay.target, int) and replay.target not in found:
            found[replay.target] = restore_trigger(replay.data)
    return sorted(found.items())[:MOST_TARGETS]


def _smallest(
    replays: Sequence[Replay], unproved: list[str]
) -> Iterator[tuple[int, "PatchTrigger"]]:
    """The smallest patch of each class, in the order of classes.

    A sentence is added to `unproved` for each trigger that is no patch and each class left out.
    """
    found: dict[int, PatchTrigger] = {}
    for replay in replays:
        trigger = restore_trigger(replay.data)
        if trigger.family != Family.PATCH or not isinstance(replay.target, int):
            unproved.append(
                f"The trigger for class {replay.target} is no patch ({trigger.family}); no "
                "samples of its kind were drawn, and it was not relearned."
            )
        elif replay.target not in found or trigger.norm < found[replay.target].norm:
            found[replay.target] = trigger  # type: ignore[assignment]  # its family is patch
    for place, target in enumerate(sorted(found)):
        if place < MOST_TARGETS:
            yield target, found[target]
        else:
            unproved.append(f"Only {MOST_TARGETS} classes are probed; class {target} was not.")


def _resample(
    parent: "ImageModel",
    child: Any,
    curated: "CuratedSet",
    trigger: "PatchTrigger",
    target: int,
    watch: Callable[[float], None],
) -> Resampled:
    from guard.ml.search.fresh_patches import LEAST_PIXELS, Region, learn_sets
    from guard.ml.search.patch_distribution import DistributionEffort

    pixels = min(max(round(ROOM * trigger.norm), LEAST_PIXELS), int(LARGEST * trigger.mask.numel()))
    frozen = copy.deepcopy(parent).eval().requires_grad_(requires_grad=False)
    learnt = learn_sets(
        frozen,
        curated.search,
        [target],
        [Region.found(trigger.mask, pixels)],
        DistributionEffort(steps=STEPS, batch=BATCH),
        watch,
    )[0]
    found = _on_both(frozen, child, curated, learnt, pixels)
    return (
        found
        if found.before.low >= LEARNT
        else _search_anew(frozen, child, curated, target, pixels, found, watch)
    )


def _search_anew(
    frozen: "ImageModel",
    child: Any,
    curated: "CuratedSet",
    target: int,
    pixels: int,
    learnt: Resampled,
    watch: Callable[[float], None],
) -> Resampled:
    """Patches of single searches, for where those of a distribution hardly work on the parent.

    `learnt` is how the distribution's patches worked.
    """
    from guard.ml.search.fresh_searches import search_set
    from guard.ml.search.patches import PatchEffort

    useless = (
        f"The learnt distribution's patches work on {learnt.before.estimate:.1%} of the hold-out "
        "on the parent itself"
    )
    try:
        patches = search_set(
            frozen,
            curated.search,
            target,
            pixels,
            SEARCHES,
            PatchEffort(steps=STEPS, batch=BATCH),
            watch,
        )
    except MethodFailed as error:
        if error.code != "not_learnt":  # cancelled, or out of time
            raise
        raise MethodFailed(f"{useless}. {error.sentence}", code=error.code) from error
    found = replace(
        _on_both(frozen, child, curated, patches, pixels), searches=len(patches.stamps.masks)
    )
    if not found.before.low >= LEARNT:
        raise MethodFailed(
            f"{useless}, and those of {found.searches} new searches on "
            f"{found.before.estimate:.1%}.",
            code="not_learnt",
        )
    return found


def _on_both(
    frozen: "ImageModel", child: Any, curated: "CuratedSet", patches: "Patched", pixels: int
) -> Resampled:
    from guard.ml.seeds import seeded

    estimates = []
    for model in (frozen, child):
        with seeded(0):  # both models see the same patches on the same images
            estimates.append(_estimate(model, curated, patches, pixels))
    return Resampled(before=estimates[0], after=estimates[1])


def _estimate(model: Any, curated: "CuratedSet", patches: "Patched", pixels: int) -> AsrEstimate:
    from guard.ml.search.fresh_patches import successes

    hits, trials = successes(model, curated.holdout, patches)
    if not trials:
        raise MethodFailed(
            f"Every hold-out image has class {patches.target}.", code="too_few_images"
        )
    return _counted(hits, trials, patches.target, str(Family.PATCH), float(pixels))


def _counted(hits: int, trials: int, target: int, family: str, budget: float | None) -> AsrEstimate:
    from guard.ml.statistics import wilson

    low, high = wilson(hits, trials)
    return AsrEstimate(
        target=target,
        family=family,
        successes=hits,
        trials=trials,
        estimate=hits / trials,
        low=low,
        high=high,
        budget=budget,
    )


def _relearn(
    child: Any,
    curated: "CuratedSet",
    trigger: "PatchTrigger",
    target: int,
    watch: Callable[[float], None],
) -> Relearned:
    from guard.ml.training import relearning

    probe = relearning.Probe()
    curves = relearning.relearn(
        child, curated.search, curated.holdout, trigger, target, probe, watch
    )
    return Relearned(
        target=target,
        family=str(Family.PATCH),
        budget=trigger.norm,
        images=probe.handful,
        steps=relearning.CHECKS,
        asr=curves.trigger,
        rivals=curves.rivals,
        leads=curves.leads,
    )


def _reactivate(
    child: Any,
    curated: "CuratedSet",
    trigger: "Trigger",
    target: int,
    watch: Callable[[float], None],
) -> Reactivated:
    from guard.ml.training.reactivation import Reactivation, reactivate

    settings = Reactivation()
    estimates = [
        _counted(
            *reactivate(child, curated.search, curated.holdout, worn, target, settings, watch),
            target,
            str(trigger.family),
            None,
        )
        for worn in (trigger, None)
    ]
    return Reactivated(radius=settings.radius, stamped=estimates[0], alone=estimates[1])


def _share(
    parent: "ImageModel", child: Any, curated: "CuratedSet", watch: Callable[[float], None]
) -> SharedRisk:
    from guard.ml.samples import spread
    from guard.ml.training.shared_adversarial import Ball, risk

    ball, shown = Ball(steps=RISK_STEPS, step=2 / RISK_STEPS), spread(curated.holdout, RISK_IMAGES)
    frozen = copy.deepcopy(parent).requires_grad_(requires_grad=False)
    before = risk(frozen, frozen, shown, ball)
    watch(0.5)
    after = risk(copy.deepcopy(child).requires_grad_(requires_grad=False), frozen, shown, ball)
    return SharedRisk(radius=ball.rho, images=len(shown), before=before, after=after)
