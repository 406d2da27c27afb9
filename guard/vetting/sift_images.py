"""The images that the page about a sift shows, read while the training set is at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guard.vetting.training_set import Sifted

MOST_SUSPECTS = 60
CLEAN = 6  # images a class
PAIRS = 4  # clean images without and with an estimated trigger


@dataclass(frozen=True)
class Shown:
    """Images uint8 C,H,W.

    Attributes:
        suspects: the most conspicuous accused images, by their place in the set.
        clean: some clean images of each class that has accused ones.
        triggers: uint8 2n,C,H,W by digest of an estimated trigger: each clean image is followed by
            the same one with the trigger.
    """

    suspects: Mapping[int, np.ndarray]
    clean: Mapping[int, Sequence[np.ndarray]]
    triggers: Mapping[str, np.ndarray]


def shown_images(found: Sifted) -> Shown:
    """The images of a sift's page."""
    from guard.vetting.examine import restore_trigger

    report, data = found.report, found.curated.visible().together()
    chosen = report.suspects[:MOST_SUSPECTS]
    index = np.array([one.index for one in chosen], np.int64)
    rows = found.train.rows(index) if len(index) else ()
    wanted = {one.label for one in report.suspects}
    wanted |= {one.label for one in report.classes if one.stands_out}
    images, labels = data.images.numpy(), data.labels.numpy()
    pairs = {}
    for one in report.classes:
        if one.trigger is None or one.trigger.digest not in found.found.triggers:
            continue
        trigger = restore_trigger(found.found.triggers[one.trigger.digest])
        plain = data.pick(data.labels != one.label).floats()[:PAIRS]
        both = np.stack([plain.numpy(), trigger.apply(plain).clamp(0, 1).numpy()], 1)
        pixels = (both.reshape(-1, *both.shape[2:]) * 255).round().astype(np.uint8)
        pairs[one.trigger.digest] = pixels
    return Shown(
        suspects={one.index: row for one, row in zip(chosen, rows, strict=True)},
        clean={label: list(images[labels == label][:CLEAN]) for label in sorted(wanted)},
        triggers=pairs,
    )
