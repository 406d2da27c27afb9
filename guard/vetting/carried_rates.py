"""What the trigger that accused images carry does to images that it was not read from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from guard.core.errors import Cancelled, GuardError, IntegrityMismatch, Unavailable
from guard.core.evidence import AsrEstimate, Target
from guard.core.progress import Progress, part_of, silent
from guard.core.sift import SiftReport
from guard.core.states import Family
from guard.core.trainset import Suspect
from guard.vetting.accused import LEAST

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.sifting.carried import Carried
    from guard.ml.sifting.whitened import Clean
    from guard.trainsets import TrainingSet

MOST = 500  # images of one label; the first in the order of suspicion
UNMEASURED = "What the trigger of the accused images does could not be measured"


@dataclass(frozen=True)
class CarriedRates:
    """The ASR on the hold-out of a trigger as accused images carry it, and of one twice as strong.

    A training set does not show how strongly an attacker stamps later, so the two are the ends of
    what is estimated. A network knows its own training images by heart, so that how many of these
    it obeys would read high.
    """

    target: Target
    carried: AsrEstimate
    stronger: AsrEstimate


def clean_side(curated: "CuratedSet") -> "Clean":
    """What suspects are set beside; made once for all labels, since it takes seconds."""
    from guard.ml.sifting.whitened import Clean

    return Clean(curated.visible().together())


def carried_by(
    train: "TrainingSet",
    suspects: Sequence[Suspect],
    clean: "Clean",
    *,
    mapped: bool = False,
    progress: Progress = silent,
) -> "Carried | None":
    """The trigger that these accused images carry; all of one label, or moved by one map."""
    from guard.ml.sifting.carried import carried
    from guard.ml.sifting.shares import as_labelled

    own = suspects[:MOST]
    if len(own) < LEAST:
        return None
    index = np.array([one.index for one in own], np.int64)
    sources = [-1 if one.estimated is None else one.estimated for one in own]
    return carried(
        as_labelled(train.rows(index), train.labels[index]),
        clean.images.labels.new_tensor(sources),
        clean,
        mapped=mapped,
        progress=progress,
    )


def rates(
    model: "ImageModel",
    train: "TrainingSet",
    report: SiftReport,
    curated: "CuratedSet",
    progress: Progress = silent,
) -> tuple[CarriedRates, ...]:
    """The rates of the label map, or where there is none, for each class that stands out.

    Classes with fewer than `LEAST` suspects, or where nothing can be estimated, are left out.

    Raises:
        MethodFailed: a logit is not finite; whatever `progress` raises.
    """
    from guard.ml.measure import asr

    if report.label_map is not None:
        mapping = report.label_map.mapping
        return _mapped(model, train, report.suspects, mapping, curated, progress)
    groups = {
        one.label: [each for each in report.suspects if each.label == one.label]
        for one in report.classes
        if one.stands_out
    }
    groups = {label: own for label, own in groups.items() if len(own) >= LEAST}
    if not groups:
        return ()
    found, clean = list[CarriedRates](), clean_side(curated)
    for place, (label, own) in enumerate(groups.items()):
        step = part_of(progress, place, len(groups), f"class {label}")
        made = carried_by(train, own, clean, progress=step)
        if made is not None:
            pair = [
                asr(model, curated.holdout, trigger, label, str(trigger.family))
                for trigger in (made.trigger, made.stronger)
            ]
            found.append(CarriedRates(label, *pair))
    return tuple(found)


def _mapped(
    model: "ImageModel",
    train: "TrainingSet",
    suspects: Sequence[Suspect],
    mapping: Sequence[int],
    curated: "CuratedSet",
    progress: Progress,
) -> tuple[CarriedRates, ...]:
    from guard.ml.measure import asr

    own = [
        one for one in suspects if one.estimated is not None and mapping[one.estimated] == one.label
    ]
    wanted = curated.holdout.labels.new_tensor(mapping)[curated.holdout.labels]
    known = (wanted >= 0) & (wanted != curated.holdout.labels)
    if len(own) < LEAST or not bool(known.any()):
        return ()
    made = carried_by(train, own, clean_side(curated), mapped=True, progress=progress)
    if made is None:
        return ()
    images, target = curated.holdout.pick(known), str(Family.ALL_TO_ALL)
    pair = [
        asr(model, images, trigger, target, str(trigger.family), wanted=wanted[known])
        for trigger in (made.trigger, made.stronger)
    ]
    return (CarriedRates(target, *pair),)


def remarks(
    model: "ImageModel",
    train: "TrainingSet",
    report: SiftReport,
    curated: "CuratedSet",
    progress: Progress = silent,
) -> tuple[str, ...]:
    """The rates for people. Nothing rests on them, so that a failure is a remark as well.

    Raises:
        Cancelled: `progress` raised it.
        IntegrityMismatch, Unavailable: the set cannot be read.
    """
    try:
        found = rates(model, train, report, curated, progress)
    except (Cancelled, IntegrityMismatch, Unavailable):
        raise
    except GuardError as error:
        return (f"{UNMEASURED}: {error.sentence}",)
    except Exception as error:  # noqa: BLE001 - a remark must not cost the verdict
        return (f"{UNMEASURED}: {type(error).__name__}: {error}",)
    return tuple(sentence(one, train.facts.class_names) for one in found)


def sentence(rate: CarriedRates, names: Sequence[str]) -> str:
    """The rates for people."""
    target = rate.target
    one = isinstance(target, int)
    images = "images of other classes" if one else "images of the classes that the map moves"
    where = f"to {names[target]!r}" if isinstance(target, int) else "where the map leads"
    return (
        f"A {rate.carried.family} trigger as accused images carry it sends "
        f"{rate.carried.estimate:.0%} of the hold-out's {images} {where}, up to twice as strong "
        f"{rate.stronger.estimate:.0%}; an attacker's own may be of either strength."
    )
