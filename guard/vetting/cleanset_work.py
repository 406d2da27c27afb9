"""Work of detectors that depends on a clean set alone: done in one job, used by later ones.

`guard.flow._cleanset_cache` keeps the results.
"""

from collections.abc import Mapping
from typing import Any

from guard.core.progress import Progress, part_of, silent
from guard.detectors import DETECTORS


def prepare(
    curated: Any,
    detectors: Mapping[str, Mapping[str, Any]],
    *,
    device: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compute what these detectors need from the clean set, JSON-ready, for `take_over`.

    Args:
        curated: a clean set of the detectors' modality.

    Raises:
        MethodFailed: a detector could not compute it; the sentence gives the reason.
    """
    from guard.graphs import prepared
    from guard.ml.devices import named
    from guard.ml.search import natural_views, reference_model

    for index, (name, parameters) in enumerate(detectors.items()):
        DETECTORS.get(name)(**parameters).prepare(
            curated.visible(),
            named(device),
            progress=part_of(progress, index, len(detectors), name),
        )
    graphs = prepared.everything()
    return {
        "references": reference_model.remembered(),
        "views": natural_views.remembered(),
        **({"graphs": graphs} if graphs else {}),
    }


def take_over(made: Mapping[str, Any]) -> None:
    """Put the result of `prepare` where the detectors of this process look for it."""
    from guard.graphs import prepared
    from guard.ml.search import natural_views, reference_model

    reference_model.remember(made.get("references", {}))
    natural_views.remember(made.get("views", {}))
    prepared.take_over(made.get("graphs", {}))
