"""In a job.

What detectors work out from a clean set alone, and how the jobs after it get that (see `prepared`).
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
    """What these detectors need, JSON-ready, for `take_over`.

    Raises:
        MethodFailed: a detector could not, and why.
    """
    from guard.ml.devices import named
    from guard.ml.search import reference_model

    for index, (name, parameters) in enumerate(detectors.items()):
        DETECTORS.get(name)(**parameters).prepare(
            curated.visible(),
            named(device),
            progress=part_of(progress, index, len(detectors), name),
        )
    return {"references": reference_model.remembered()}


def take_over(prepared: Mapping[str, Any]) -> None:
    """Leave what `prepare` gave where the detectors of this process find it."""
    from guard.ml.search import reference_model

    reference_model.remember(prepared.get("references", {}))
