"""Do universal perturbations that were found on a parent still work on its repaired copy?

A repair without a proven trigger has nothing to replay. What can be tried are the smallest triggers
of every class and kind that a search finds on the parent; where the parent has a backdoor, the one
of its class is near the attacker's. Those of an honest class are adversarial patterns of one
network, which a copy loses in part as well. So a trigger that still works shows that the repair did
little, and one that does not work any more shows no more than that.
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from guard.core.purification import UniversalTransfer

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.search.families import Searchable

WORKS = 0.5  # ASR (lower end) from which a perturbation counts as working
BATCH, WINDOWS = 8, 8  # of each search
SHOWN = 300  # hold-out images


def kinds() -> tuple["Searchable", ...]:
    """The families of universal perturbations that are searched."""
    from guard.ml.search.families import Additions, Blends, Filters, Patches, Warps, Waves

    return (Patches(), Blends(), Additions(), Waves(), Warps(), Filters())


def transferred(
    parent: "ImageModel", child: Any, curated: "CuratedSet", watch: Callable[[float], None]
) -> tuple[UniversalTransfer, ...]:
    """How many of the parent's universal perturbations work on parent and child, by kind.

    They are found on the search part and counted on the hold-out. Draws from torch's global CPU
    generator.

    Args:
        child: takes float images in [0, 1], N,C,H,W, and returns logits N,K.
        watch: called with the share done; may raise.

    Raises:
        MethodFailed: a loss or a logit is not finite.
    """
    from guard.ml import measure
    from guard.ml.samples import spread
    from guard.ml.search.easiest_classes import universal_triggers
    from guard.ml.search.engine import Pace

    frozen = copy.deepcopy(parent).eval().requires_grad_(requires_grad=False)
    pace, shown = Pace(batch=BATCH, windows=WINDOWS), spread(curated.holdout, SHOWN)
    shape = tuple(int(side) for side in shown.images.shape[1:])
    present = set(shown.labels.tolist())
    answer = []
    for found in universal_triggers(frozen, curated.visible(), kinds(), pace, watch):
        pairs = []
        for row, level in enumerate(found.levels.tolist()):
            if present <= {row}:
                continue
            trigger = found.kind.trigger(found.raw, row, level, shape)  # type: ignore[arg-type]
            before, after = (
                measure.asr(model, shown, trigger, row, found.kind.family, budget=level)
                for model in (frozen, child)
            )
            if before.low >= WORKS:
                pairs.append((before, after))
            watch(1.0)
        most = max(pairs, key=lambda pair: pair[1].estimate, default=None)
        answer.append(
            UniversalTransfer(
                kind=type(found.kind).__name__.lower(),
                classes=len(found.levels),
                worked=len(pairs),
                kept=sum(after.low >= WORKS for _, after in pairs),
                before=None if most is None else most[0],
                after=None if most is None else most[1],
            )
        )
    return tuple(answer)
