"""What a purified child is asked beyond its parent's triggers: samples of their distribution, and to learn them anew.

For patches alone: of other families no distribution is learnt. Both take seconds on a small network; what could not be
measured is said, and a policy that has a limit for it then refuses.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guard.core.contracts import Progress, silent
from guard.core.errors import Cancelled, MethodFailed, OutOfTime
from guard.core.evidence import AsrEstimate, Relearned, Resampled, Target
from guard.core.states import Family
from guard.flow.vet import restore_trigger

if TYPE_CHECKING:
    from guard.ml.architectures import ImageModel
    from guard.ml.cleanset import CuratedSet
    from guard.ml.trigger_sets import TriggerSet
    from guard.ml.triggers import PatchTrigger

MOST_TARGETS = 4  # classes that are looked at; a model with more backdoors than that has no repair
SECONDS = 45.0  # of all; a job of the service has a minute beside its defense
STEPS, BATCH = 150, 16  # of the generators
ROOM = 2.0  # pixels of the region, in norms of the recovered patch: masks are soft, samples are opaque
LEARNT = 0.5  # ASR (lower end) on the parent, under which samples prove nothing about the child
LARGEST = 0.2  # of the picture, as in MESA removal


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
    """As in `PurificationFacts`."""

    resampled: tuple[Resampled, ...] = ()
    relearned: tuple[Relearned, ...] = ()
    unproved: tuple[str, ...] = ()


def prove(parent: "ImageModel", child: Any, curated: "CuratedSet", replays: Sequence[Replay], *, seed: int = 0,
          seconds: float = SECONDS, progress: Progress = silent) -> Proof:
    """Ask both questions for the smallest recovered patch of each class; same seed, same answer, on one machine.

    Args:
        child: the repaired module; takes float images in [0, 1], N,C,H,W, and returns logits N,K. Left as it is.
        seconds: of wall time for all; what is not done by then is said in `unproved`.

    Raises:
        Cancelled: `progress` said so. Every other failure becomes a sentence in `unproved`.
    """
    from guard.ml.seeds import seeded

    end = time.monotonic() + seconds

    def watch(_done: float) -> None:
        if time.monotonic() > end:
            raise OutOfTime(f"It ran out of the {seconds:g} seconds that it has.")
        progress(1.0, "proving the repair")

    resampled: list[Resampled] = []
    relearned: list[Relearned] = []
    unproved: list[str] = []
    for target, trigger in _smallest(replays, unproved):
        try:
            with seeded(seed):
                resampled.append(_resample(parent, child, curated, trigger, target, watch))
        except Cancelled:
            raise
        except MethodFailed as error:
            unproved.append(f"Fresh patches for class {target} could not be measured: {error.sentence}")
        try:
            with seeded(seed):
                relearned.append(_relearn(child, curated, trigger, target, watch))
        except Cancelled:
            raise
        except MethodFailed as error:
            unproved.append(f"How fast class {target} is learnt anew could not be measured: {error.sentence}")
    return Proof(tuple(resampled), tuple(relearned), tuple(unproved))


def _smallest(replays: Sequence[Replay], unproved: list[str]) -> Iterator[tuple[int, "PatchTrigger"]]:
    """The smallest patch of each class, in the order of classes; of what has none, a sentence."""
    found: dict[int, PatchTrigger] = {}
    for replay in replays:
        trigger = restore_trigger(replay.data)
        if trigger.family != Family.PATCH or not isinstance(replay.target, int):
            unproved.append(f"The trigger for class {replay.target} is no patch ({trigger.family}); it was replayed "
                            "alone.")
        elif replay.target not in found or trigger.norm < found[replay.target].norm:
            found[replay.target] = trigger  # type: ignore[assignment]  # its family says so
    for place, target in enumerate(sorted(found)):
        if place < MOST_TARGETS:
            yield target, found[target]
        else:
            unproved.append(f"Only {MOST_TARGETS} classes are looked at; class {target} was not.")


def _resample(parent: "ImageModel", child: Any, curated: "CuratedSet", trigger: "PatchTrigger", target: int,
              watch: Callable[[float], None]) -> Resampled:
    from guard.ml.mesa import Effort
    from guard.ml.seeds import seeded
    from guard.ml.trigger_sets import LEAST_PIXELS, Region, learn_sets

    pixels = min(max(round(ROOM * trigger.norm), LEAST_PIXELS), int(LARGEST * trigger.mask.numel()))
    frozen = copy.deepcopy(parent).eval().requires_grad_(requires_grad=False)
    learnt = learn_sets(frozen, curated.search, [target], [Region.found(trigger.mask, pixels)],
                        Effort(steps=STEPS, batch=BATCH), watch)[0]
    with seeded(0):  # both see the same patches on the same pictures
        before = _estimate(frozen, curated, learnt, pixels)
    if not before.low >= LEARNT:
        raise MethodFailed(f"What was learnt works on {before.estimate:.1%} of the parent's own pictures only.",
                           code="not_learnt")
    with seeded(0):
        return Resampled(before=before, after=_estimate(child, curated, learnt, pixels))


def _estimate(model: Any, curated: "CuratedSet", learnt: "TriggerSet", pixels: int) -> AsrEstimate:
    from guard.ml.statistics import wilson
    from guard.ml.trigger_sets import successes

    hits, trials = successes(model, curated.holdout, learnt)
    if not trials:
        raise MethodFailed(f"Every hold-out picture has class {learnt.target}.", code="too_few_images")
    low, high = wilson(hits, trials)
    return AsrEstimate(target=learnt.target, family=str(Family.PATCH), successes=hits, trials=trials,
                       estimate=hits / trials, low=low, high=high, budget=float(pixels))


def _relearn(child: Any, curated: "CuratedSet", trigger: "PatchTrigger", target: int,
             watch: Callable[[float], None]) -> Relearned:
    from guard.ml import relearning

    probe = relearning.Probe()
    curves = relearning.relearn(child, curated.search, curated.holdout, trigger, target, probe, watch)
    return Relearned(target=target, family=str(Family.PATCH), budget=trigger.norm, pictures=probe.handful,
                     steps=relearning.CHECKS, asr=curves.trigger, rivals=curves.rivals)
