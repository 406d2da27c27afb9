"""One candidate of the purification tournament: run a defense, replay the parent's triggers."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.errors import GuardError, MethodFailed
from guard.core.evidence import AsrEstimate, Evidence
from guard.core.progress import Progress, silent
from guard.core.purification import PurificationFacts
from guard.defenses import DEFENSES
from guard.vetting import repair_probes
from guard.vetting.examine import fits, restore_trigger
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
    seed: int = 0,
    seconds: float = math.inf,
    progress: Progress = silent,
) -> tuple[str, PurificationFacts]:
    """Repair a copy of `model`, write the candidate's canonical file to `out`, and compare both.

    Args:
        model: the parent, with digest `parent`; the candidate is compared with it in every respect.
        start: the candidate to repair instead of the parent.

    Returns:
        The candidate's digest and the facts that the policy reads.

    Raises:
        MethodFailed: the defense could not repair this model, or crashed; nothing was written, and
            another defense may still succeed.
    """
    from guard.formats._canonical import write_canonical
    from guard.ml import measure
    from guard.ml.networks import architectures

    fits(model.manifest, curated)
    method = DEFENSES.get(defense)(**parameters)
    before = measure.accuracy(model, curated.holdout, curated.facts.classes)
    begun = time.monotonic()
    origin = model if start is None else start.model
    repaired = _crash_as_failure(
        lambda: method(origin, curated.visible(), seed=seed, progress=progress, seconds=seconds)
    )
    spent = time.monotonic() - begun
    # A defense may have inserted a layer: then the manifest of what it returned describes it.
    manifest = (
        repaired.manifest if isinstance(repaired, architectures.ImageModel) else origin.manifest
    )
    digest = write_canonical(architectures.export(repaired), manifest, out)
    beyond = repair_probes.prove(model, repaired, curated, replays, seed=seed, progress=progress)
    facts = PurificationFacts(
        defense=defense,
        version=method.version,
        parameters=method.parameters(),
        parent=parent,
        acc_before=before,
        acc_after=measure.accuracy(repaired, curated.holdout, curated.facts.classes),
        seconds=spent,
        replayed=tuple(_replayed(repaired, curated, replay) for replay in replays),
        resampled=beyond.resampled,
        relearned=beyond.relearned,
        reactivated=beyond.reactivated,
        shared=beyond.shared,
        unproved=beyond.unproved,
        swapped=measure.swapped(model, repaired, curated.holdout, curated.facts.classes),
        after=() if start is None else start.after,
        start="" if start is None else start.digest,
    )
    return digest, facts


def _replayed(repaired: Any, curated: "CuratedSet", replay: Replay) -> AsrEstimate:
    from guard.ml import measure

    trigger = restore_trigger(replay.data)
    return measure.asr(
        repaired,
        curated.holdout,
        trigger,
        replay.target,
        trigger.family,
        natural=replay.natural,
        budget=replay.budget,
    )


def _crash_as_failure(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except GuardError:
        raise
    except Exception as error:
        raise MethodFailed(
            f"It crashed: {type(error).__name__}: {error}", code="crashed"
        ) from error


def replays_from(evidence: Sequence[Evidence], data: Mapping[str, bytes]) -> list[Replay]:
    """The suspicious triggers among `evidence`, with their bytes looked up by digest in `data`."""
    return [
        Replay(
            target=finding.target,
            digest=finding.trigger_digest,
            data=data[finding.trigger_digest],
            natural=finding.numbers.get("natural_asr"),
            budget=finding.numbers.get("budget"),
        )
        for item in evidence
        for finding in item.findings
        if finding.suspicious and finding.trigger_digest is not None
    ]


def asr_of(evidence: Sequence[Evidence]) -> list[AsrEstimate]:
    """The estimates of the triggers that `replays_from` finds, in its order."""
    return [
        finding.asr
        for item in evidence
        for finding in item.findings
        if finding.suspicious and finding.trigger_digest is not None and finding.asr is not None
    ]
