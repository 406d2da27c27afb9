"""Triggers estimated from the accused images that no repair learns from, to be tried on candidates.

A repair has seen images with the trigger; what it is proved on must be none of those, nor be made
of them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guard.core.digests import sha256
from guard.core.sift import SiftRules
from guard.core.trainset import Suspect
from guard.vetting.accused import LEAST, by_label
from guard.vetting.repair_probes import Replay

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.trainsets import TrainingSet

#: A trigger that works less often (lower end) on the upload may be a likeness of classes: that a
#: repaired model has it too proves nothing.
WORKS = SiftRules().max_obedience
MOST = 500  # images of one label; the first in the order of suspicion


def replays_of_proof(
    model: "ImageModel",
    train: "TrainingSet",
    suspects: Sequence[Suspect],
    curated: "CuratedSet",
) -> tuple[Replay, ...]:
    """One trigger for each label with at least `LEAST` accused images in the proof part.

    Labels where no estimate works on the model's own hold-out have none.
    """
    from guard.ml.sifting.moments import estimated
    from guard.ml.sifting.shares import as_labelled
    from guard.ml.triggers.files import serialise

    proof = [one for one in suspects if one.proof]
    groups, _ = by_label([one.label for one in proof])
    found = []
    for target, places in groups.items():
        if not isinstance(target, int):
            continue  # images of several labels have no trigger in common
        own, origins = _sources([proof[place] for place in places[:MOST]])
        if len(own) < LEAST:
            continue
        index = np.array([one.index for one in own], np.int64)
        images = as_labelled(train.rows(index), train.labels[index])
        made = estimated(model, images, np.array(origins, np.int64), curated, target)
        if made is not None and made.asr.low > WORKS:
            data = serialise(made.trigger)
            found.append(Replay(target=target, digest=sha256(data), data=data))
    return tuple(found)


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
