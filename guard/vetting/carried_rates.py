"""What the trigger that accused images carry does to images that it was not read from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from guard.core.evidence import AsrEstimate, Target
from guard.core.sift import SiftReport
from guard.core.states import Family
from guard.core.trainset import Suspect
from guard.vetting.accused import LEAST

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.sifting.carried import Carried
    from guard.trainsets import TrainingSet

MOST = 500  # images of one label; the first in the order of suspicion


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

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end of the estimate."""
        pair = self.carried.estimate, self.stronger.estimate
        return min(pair), max(pair)


def carried_by(
    train: "TrainingSet",
    suspects: Sequence[Suspect],
    curated: "CuratedSet",
    *,
    mapped: bool = False,
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
        curated.holdout.labels.new_tensor(sources),
        curated.visible().together(),
        mapped=mapped,
    )


def rates(
    model: "ImageModel", train: "TrainingSet", report: SiftReport, curated: "CuratedSet"
) -> tuple[CarriedRates, ...]:
    """The rates of the label map, or where there is none, for each class that stands out.

    Classes with fewer than `LEAST` suspects, or where nothing can be estimated, are left out.
    """
    from guard.ml.measure import asr

    found: list[CarriedRates] = []
    if report.label_map is not None:
        return _mapped(model, train, report.suspects, report.label_map.mapping, curated)
    for one in report.classes:
        own = [each for each in report.suspects if each.label == one.label]
        made = carried_by(train, own, curated) if one.stands_out else None
        if made is not None:
            pair = [
                asr(model, curated.holdout, trigger, one.label, str(trigger.family))
                for trigger in (made.trigger, made.stronger)
            ]
            found.append(CarriedRates(one.label, *pair))
    return tuple(found)


def _mapped(
    model: "ImageModel",
    train: "TrainingSet",
    suspects: Sequence[Suspect],
    mapping: Sequence[int],
    curated: "CuratedSet",
) -> tuple[CarriedRates, ...]:
    from guard.ml.measure import predict
    from guard.ml.statistics import wilson

    own = [
        one for one in suspects if one.estimated is not None and mapping[one.estimated] == one.label
    ]
    made = carried_by(train, own, curated, mapped=True)
    wanted = curated.holdout.labels.new_tensor(mapping)[curated.holdout.labels]
    known = (wanted >= 0) & (wanted != curated.holdout.labels)
    if made is None or not bool(known.any()):
        return ()
    images, wanted, pair = curated.holdout.pick(known), wanted[known], []
    for trigger in (made.trigger, made.stronger):
        hits, count = int((predict(model, images, trigger=trigger) == wanted).sum()), len(wanted)
        low, high = wilson(hits, count)
        pair.append(
            AsrEstimate(
                target=str(Family.ALL_TO_ALL),
                family=str(trigger.family),
                successes=hits,
                trials=count,
                estimate=hits / count,
                low=low,
                high=high,
            )
        )
    return (CarriedRates(str(Family.ALL_TO_ALL), *pair),)


def sentence(rate: CarriedRates, names: Sequence[str]) -> str:
    """The rates for people."""
    target = rate.target
    where = f"to {names[target]!r}" if isinstance(target, int) else "where the map leads"
    return (
        f"A {rate.carried.family} trigger as accused images carry it sends "
        f"{rate.carried.estimate:.0%} of the hold-out {where}, twice as strong "
        f"{rate.stronger.estimate:.0%}; an attacker's own may be of either strength."
    )
