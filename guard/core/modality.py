"""What kind of model the guard vets: from what to what it maps.

A modality decides how a manifest is read, what a clean set holds, which methods and which policy
apply, and how a served model answers. Everything else (ledger, gate, queues, reviews) is common.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from guard.core.errors import ManifestRejected, MethodFailed

TASK = "task"  # the key of `config.json` that names it


class Modality(StrEnum):
    """The modalities; the values are those of `task` in `config.json` and in stored JSON."""

    IMAGES = "image-classification"
    GRAPHS = "text-to-graph"


#: What a clean set of each modality holds, as a plural for sentences.
HOLDS: Mapping[Modality, str] = {
    Modality.IMAGES: "labelled images",
    Modality.GRAPHS: "pairs of a text and a molecule",
}


def modality_of(config: Mapping[str, Any]) -> Modality:
    """The modality of a decoded `config.json` or a stored manifest; without `task` it is images.

    Raises:
        ManifestRejected: `task` names no modality that the guard vets.
    """
    task = config.get(TASK, str(Modality.IMAGES))
    if not isinstance(task, str) or task not in set(Modality):
        raise ManifestRejected(
            f"config.json: task must be one of {', '.join(Modality)}.", code="manifest_bad_task"
        )
    return Modality(task)


def require(modality: Modality, model: Any, who: str) -> None:
    """Refuse a model of another modality than the method `who` is for.

    A network without a manifest, such as one in the middle of a repair, is an image model.

    Raises:
        MethodFailed: it is for other models.
    """
    own = getattr(getattr(model, "manifest", None), "modality", Modality.IMAGES)
    if own is not modality:
        raise MethodFailed(f"{who} is for {modality} models, not for {own} ones.", code="modality")
