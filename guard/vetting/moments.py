"""Triggers estimated from the accused images that no repair learns from, to be tried on candidates.

A repair has seen images with the trigger; what it is proved on must be none of those, nor be made
of them. Each candidate is tried on the trigger as it was estimated, and is searched from there.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.core.digests import sha256
from guard.core.errors import GuardError
from guard.core.evidence import AsrEstimate
from guard.core.sift import SiftRules
from guard.core.states import Family
from guard.core.trainset import Suspect
from guard.vetting.accused import LEAST, by_label
from guard.vetting.carried_rates import MOST, carried_by, clean_side
from guard.vetting.examine import restore_trigger
from guard.vetting.repair_probes import Replay

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.sifting.carried import Carried
    from guard.ml.sifting.moments import Estimated
    from guard.ml.sifting.whitened import Clean
    from guard.ml.triggers import Trigger
    from guard.trainsets import TrainingSet

log = logging.getLogger(__name__)

#: A trigger that works less often (lower end) on the upload may be a likeness of classes: that a
#: repaired model has it too proves nothing.
WORKS = SiftRules().max_obedience
SIBLINGS = 4  # classes that are searched for beside the target
STEPS, BATCH = 60, 16  # of the search: those with which patch inversion measures siblings


def replays_of_proof(
    model: "ImageModel",
    train: "TrainingSet",
    suspects: Sequence[Suspect],
    curated: "CuratedSet",
) -> tuple[Replay, ...]:
    """One trigger for each label with at least `LEAST` accused images in the proof part.

    Labels where no estimate works on the model's own hold-out have none.
    """
    from guard.ml.triggers.files import serialise

    clean: Clean | None = None
    proof = [one for one in suspects if one.proof]
    groups, _ = by_label([one.label for one in proof])
    found = []
    for target, places in groups.items():
        if not isinstance(target, int):
            continue  # images of several labels have no trigger in common
        clean = clean or clean_side(curated)
        own = [proof[place] for place in places]
        trigger = _working(model, train, own, curated, clean, target)
        if trigger is not None:
            data = serialise(trigger)
            found.append(Replay(target=target, digest=sha256(data), data=data))
    return tuple(found)


def _working(
    model: "ImageModel",
    train: "TrainingSet",
    own: Sequence[Suspect],
    curated: "CuratedSet",
    clean: "Clean",
    target: int,
) -> "Trigger | None":
    """The trigger that works best (lower end): what accused images carry, or the best by moments.

    The first explains the images, the second is chosen by how it works on the model; of a dozen
    images a patch may show in their moments alone.
    """
    from guard.ml.measure import asr

    found: list[tuple[float, Trigger]] = []
    made = _carried(train, own, clean)
    if made is not None:
        family = str(made.trigger.family)
        low = asr(model, curated.holdout, made.trigger, target, family).low
        found.append((low, made.trigger))
    best = _by_moments(model, train, own, curated, target)
    if best is not None:
        found.append((best.asr.low, best.trigger))
    low, trigger = max(found, key=lambda one: one[0], default=(0.0, None))
    return trigger if low > WORKS else None


def _carried(train: "TrainingSet", own: Sequence[Suspect], clean: "Clean") -> "Carried | None":
    """What accused images carry; None where that cannot be read off them, for whatever reason.

    The same images are then tried by their moments, and what is measured is as before.
    """
    try:
        return carried_by(train, own, clean)
    except GuardError as error:
        log.warning("no trigger read off accused images: %s", error.sentence)
    except Exception:
        log.exception("no trigger read off accused images")
    return None


def _by_moments(
    model: "ImageModel",
    train: "TrainingSet",
    own: Sequence[Suspect],
    curated: "CuratedSet",
    target: int,
) -> "Estimated | None":
    from guard.ml.sifting.moments import estimated
    from guard.ml.sifting.shares import as_labelled

    kept, origins = _sources(own[:MOST])
    if len(kept) < LEAST:
        return None
    index = np.array([one.index for one in kept], np.int64)
    images = as_labelled(train.rows(index), train.labels[index])
    return estimated(model, images, np.array(origins, np.int64), curated, target)


def _sources(own: Sequence[Suspect]) -> tuple[list[Suspect], list[int]]:
    """The images that tell something of the trigger, and the class that each comes from.

    Clean-label ones come from their label; among dirty-label ones, those that look like their label
    are probably clean.
    """
    sure = [one for one in own if one.estimated is not None]
    strange = [one for one in sure if one.estimated != one.label]
    if sure and 2 * len(strange) < len(sure):
        return list(own), [one.label for one in own]
    return strange, [one.estimated for one in strange if one.estimated is not None]


def searched_from(
    repaired: Any,
    curated: "CuratedSet",
    replay: Replay,
    *,
    seed: int,
    watch: Callable[[float], None],
) -> AsrEstimate | None:
    """The ASR of the best patch that a search on a repaired model finds from an estimated one.

    A repair that has unlearnt the very stamp may obey another that is no larger. Some sibling
    classes are searched for from the same patch, with the same effort; the best of their rates is
    `natural`. All rates are of the hold-out, which no search sees.

    Args:
        repaired: from float images N,C,H,W in [0, 1] to logits N,K; left as it is.
        curated: of the model's classes.
        replay: its trigger is where the search starts.
        seed: the same seed gives the same rates on one machine.
        watch: called with the share done; may raise.

    Returns:
        None where the trigger is no patch to one class: nothing else is searched for from a start.

    Raises:
        MethodFailed: a number is not finite; whatever `watch` raises.
    """
    trigger, target = restore_trigger(replay.data), replay.target
    if trigger.family != Family.PATCH or not isinstance(target, int):
        return None
    from guard.ml.measure import asr, device_of
    from guard.ml.search.patches import PatchEffort, patches_within, same_start
    from guard.ml.seeds import seeded

    model = copy.deepcopy(repaired).eval().requires_grad_(requires_grad=False)
    others = [row for row in range(curated.facts.classes) if row != target]
    spread = np.linspace(0, len(others) - 1, min(SIBLINGS, len(others))).round().astype(int)
    rows, device = [target, *(others[place] for place in spread.tolist())], device_of(model)
    effort = PatchEffort(steps=STEPS, batch=BATCH)
    start = same_start(trigger, rows, device)  # type: ignore[arg-type]  # its family is patch
    with seeded(seed):
        found = patches_within(model, curated.search, start, trigger.norm, effort, watch)
    rates = [
        asr(model, curated.holdout, found.trigger(place), row, str(Family.PATCH)).estimate
        for place, row in enumerate(rows)
    ]
    return asr(
        model,
        curated.holdout,
        found.trigger(0),
        target,
        str(Family.PATCH),
        natural=max(rates[1:], default=None),
        budget=trigger.norm,
    )
