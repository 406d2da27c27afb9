"""How many images the searches pass through a network, from their parameters.

Methods add these up in their plans (`guard.core.planned`); a test counts what they really pass.
"""

import math
from collections.abc import Sequence

from guard.core.planned import NONE, Passes, Plan, Sizes
from guard.ml.search.battery import EACH, FAMILIES
from guard.ml.search.class_ranking import ALIGNMENT, ATTRACTION
from guard.ml.search.class_views import EACH as EACH_IMAGES
from guard.ml.search.class_views import FEW_CLASSES, FEW_EACH, MOST_IMAGES
from guard.ml.search.engine import Pace
from guard.ml.search.natural_asr import LADDER
from guard.ml.search.patches import PASS_IMAGES, PatchEffort
from guard.ml.search.reference_model import MOST_SEEN
from guard.ml.suitability import LEAST_PER_CLASS


def pass_images(device: str) -> int:
    """Images of one forward pass of a search on a device of this type."""
    return PASS_IMAGES.get(device, 256)


def patches(effort: PatchEffort, rows: int) -> Passes:
    """One search for a patch of each of `rows` classes."""
    return Passes(searched=effort.steps * effort.batch * rows)


def several_patches(effort: PatchEffort, again: int, rows: int) -> Passes:
    """`guard.ml.search.multistart.several_searches`."""
    return Passes(searched=effort.steps * (effort.batch + again * max(1, effort.batch // 2)) * rows)


def triggers(pace: Pace, rows: int, windows: int | None = None) -> Passes:
    """`windows` windows of a search for triggers, all of its pace by default."""
    count = pace.windows if windows is None else windows
    return Passes(searched=pace.batch * pace.window * count * rows)


def siblings(row: Passes, rows: int, calibration: int) -> Passes:
    """`Siblings.within`: `row` is the search for one class, measured on calibration images."""
    return row * rows + Passes(forward=rows * calibration)


def stronger(row: Passes, rows: int, search: int, calibration: int) -> Passes:
    """The most that `Siblings.stronger` passes for one class among `rows`."""
    rungs = len(LADDER)
    failures = Passes(forward=(1 + rungs) * (search + calibration))
    looks = siblings(row, rows, calibration) * rungs
    return row * rungs + failures + looks + Passes(forward=calibration)


def followed(row: Passes, rows: int, search: int, calibration: int) -> Passes:
    """The most for one class that stands out: its siblings at its budget, then `stronger`."""
    return siblings(row, rows, calibration) + stronger(row, rows, search, calibration)


def reference(sizes: Sizes, rounds: int, search: Passes) -> Passes:
    """Of the guard's own network: its training and the same search; none without rounds."""
    return training(sizes.search + sizes.calibration, rounds) + search if rounds else NONE


def training(images: int, rounds: int) -> Passes:
    """`guard.ml.search.reference_model.trained` on so many images."""
    passes = max(1, min(rounds, MOST_SEEN // max(1, images)))
    return Passes(forward=images, searched=images * passes)


def descent(pace: Pace, levels: int, rows: int) -> tuple[Passes, Passes, Passes]:
    """`guard.ml.search.engine.descend`: the least, where it stays in its pace, and the most."""
    least = max(1, min(pace.windows // 2, levels - 1 + pace.least))
    most = pace.windows + pace.least * levels
    return (
        triggers(pace, rows, least),
        triggers(pace, rows, pace.windows),
        triggers(pace, rows, most),
    )


def random_starts(starts: int, pace: Pace, levels: int, device: str) -> Passes:
    """`TriggerSearch.start_from_random`: each start on the first images."""
    drawn = (pace.windows + pace.least * levels) * pace.window * pace.batch
    return Passes(forward=starts * min(pass_images(device), drawn))


def early(windows: int) -> int:
    """After how many windows of `minimal_triggers` a hopeless search ends."""
    return math.ceil(windows / 2)


def views(
    sizes: Sizes, names: Sequence[str], batteries: int, references: int = 0, rounds: int = 0
) -> Plan:
    """A ranking of classes by the views `names` (`guard.ml.search.class_ranking`)."""
    images = sizes.search + sizes.calibration
    aligned = Passes(forward=2 + min(MOST_IMAGES, images)) if ALIGNMENT in names else NONE
    drawn = NONE
    if ATTRACTION in names:
        each = FEW_EACH if sizes.classes <= FEW_CLASSES else EACH_IMAGES
        changes = len(FAMILIES) * EACH * batteries
        drawn = Passes(forward=changes * sizes.classes * each)
    usual = Passes(forward=sizes.calibration) + aligned + drawn
    # Where no head is found, or a class has few images.
    least = Passes(forward=sizes.calibration) + drawn * (LEAST_PER_CLASS / FEW_EACH)
    own = training(images, rounds) + Passes(forward=2 + min(MOST_IMAGES, images))
    attracted = Passes(forward=len(FAMILIES) * EACH * batteries * sizes.classes * FEW_EACH)
    return Plan(least=least, usual=usual, most=usual, reference=(own + attracted) * references)
