"""Work of detectors that depends on a clean set alone: done in one job, used by later ones.

`guard.flow._cleanset_cache` keeps the results.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from guard.core.progress import Progress, part_of, silent
from guard.detectors import DETECTORS

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet


def prepare(
    curated: "CuratedSet",
    detectors: Mapping[str, Mapping[str, Any]],
    *,
    device: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compute what these detectors need from the clean set, JSON-ready, for `take_over`.

    Raises:
        MethodFailed: a detector could not compute it; the sentence gives the reason.
    """
    from guard.ml.devices import named
    from guard.ml.search import natural_views, reference_model

    for index, (name, parameters) in enumerate(detectors.items()):
        DETECTORS.get(name)(**parameters).prepare(
            curated.visible(),
            named(device),
            progress=part_of(progress, index, len(detectors), name),
        )
    return {"references": reference_model.remembered(), "views": natural_views.remembered()}


def take_over(prepared: Mapping[str, Any]) -> None:
    """Put the result of `prepare` where the detectors of this process look for it."""
    from guard.ml.search import natural_views, reference_model

    reference_model.remember(prepared.get("references", {}))
    natural_views.remember(prepared.get("views", {}))
