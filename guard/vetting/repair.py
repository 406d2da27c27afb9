"""One candidate of the purification tournament: run a defense, replay the parent's triggers."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.errors import GuardError, MethodFailed
from guard.core.modality import Modality
from guard.core.progress import Progress, silent
from guard.core.purification import PurificationFacts
from guard.core.tracing import span
from guard.defenses import DEFENSES
from guard.vetting.accused import AccusedImages
from guard.vetting.modalities import fitted
from guard.vetting.parent_comparison import compared_with_parent
from guard.vetting.repair_probes import Replay

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel


@dataclass(frozen=True, kw_only=True)
class Start:
    """A candidate that is repaired further, its digest, and the defenses that made it, in order."""

    model: "ImageModel"
    digest: str
    after: tuple[str, ...]


def repair(
    model: "ImageModel",
    parent: str,
    curated: "CuratedSet",
    defense: str,
    parameters: Mapping[str, Any],
    replays: Sequence[Replay],
    out: Path,
    *,
    start: Start | None = None,
    accused: AccusedImages | None = None,
    blind: bool = False,
    seed: int = 0,
    seconds: float = math.inf,
    progress: Progress = silent,
) -> tuple[str, PurificationFacts]:
    """Repair a copy of `model`, write the candidate's canonical file to `out`, and compare both.

    Args:
        model: the parent, with digest `parent`; the candidate is compared with it in every respect.
        start: the candidate to repair instead of the parent.
        accused: what a sift of the parent's training set found: an informed defense learns from a
            part of it, and every candidate is tried on the other.
        blind: no trigger of the parent is proven; the facts say so.

    Returns:
        The candidate's digest and the facts that the policy reads.

    Raises:
        MethodFailed: the defense could not repair this model, or crashed; nothing was written, and
            another defense may still succeed.
    """
    from guard.formats._canonical import write_canonical
    from guard.ml.networks import architectures

    curated = fitted(model.manifest, curated)
    method = DEFENSES.get(defense)(**parameters)
    if accused is not None:
        method = method.informed(accused.taught)
    begun = time.monotonic()
    origin = model if start is None else start.model
    with span(f"defense {defense}"):
        repaired = crash_as_failure(
            lambda: method(origin, curated.visible(), seed=seed, progress=progress, seconds=seconds)
        )
    spent = time.monotonic() - begun
    # A defense may have inserted a layer: then the manifest of what it returned describes it.
    manifest = getattr(repaired, "manifest", origin.manifest)
    digest = write_canonical(architectures.export(repaired), manifest, out)
    facts = PurificationFacts(
        defense=defense,
        version=method.version,
        parameters=method.parameters(),
        parent=parent,
        battery=_commitment() if method.draws_battery else None,
        seconds=spent,
        after=() if start is None else start.after,
        start="" if start is None else start.digest,
        **_compared(
            model,
            repaired,
            curated,
            replays,
            seed=seed,
            progress=progress,
            accused=accused,
            blind=blind,
        ),
    )
    return digest, facts


def _commitment() -> str:
    from guard.ml.search.battery import commitment

    return commitment()


def _compared(
    model: Any,
    repaired: Any,
    curated: Any,
    replays: Sequence[Replay],
    *,
    seed: int,
    progress: Progress,
    accused: AccusedImages | None,
    blind: bool,
) -> dict[str, Any]:
    """The fields of `PurificationFacts` that compare parent and child, by their modality."""
    if model.manifest.modality is Modality.GRAPHS:
        from guard.vetting import _graph_proof

        found = _graph_proof.compared(
            model, repaired, curated, replays, seed=seed, progress=progress
        )
        return {**found, "blind": blind}
    from guard.ml import measure

    return compared_with_parent(
        model,
        repaired,
        curated,
        replays,
        acc_before=measure.accuracy(model, curated.holdout, curated.facts.classes),
        seed=seed,
        progress=progress,
        accused=accused,
        blind=blind,
    )


def crash_as_failure(work: Callable[[], Any]) -> Any:
    """What `work` returns.

    Raises:
        MethodFailed: it raised anything but an error of the guard; those go through.
    """
    try:
        return work()
    except GuardError:
        raise
    except Exception as error:
        raise MethodFailed(
            f"It crashed: {type(error).__name__}: {error}", code="crashed"
        ) from error
