"""How a repaired model compares with its parent: accuracy, the parent's triggers, and the proof."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guard.core.evidence import Accuracy, AsrEstimate, Evidence
from guard.core.progress import Progress
from guard.vetting import repair_probes
from guard.vetting.examine import restore_trigger
from guard.vetting.repair_probes import Replay

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel


def compared_with_parent(
    parent: "ImageModel",
    repaired: Any,
    curated: "CuratedSet",
    replays: Sequence[Replay],
    *,
    acc_before: Accuracy,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Measure what `PurificationFacts` states about parent and child, by its fields' names.

    Args:
        repaired: the child, an `nn.Module` from images N,C,H,W in [0, 1] to logits N,K.
        replays: the parent's suspicious triggers.
        acc_before: the parent's clean accuracy on the hold-out.
    """
    from guard.ml import measure

    beyond = repair_probes.prove(parent, repaired, curated, replays, seed=seed, progress=progress)
    return {
        "acc_before": acc_before,
        "acc_after": measure.accuracy(repaired, curated.holdout, curated.facts.classes),
        "replayed": tuple(_replayed(repaired, curated, replay) for replay in replays),
        "resampled": beyond.resampled,
        "relearned": beyond.relearned,
        "reactivated": beyond.reactivated,
        "shared": beyond.shared,
        "unproved": beyond.unproved,
        "swapped": measure.swapped(parent, repaired, curated.holdout, curated.facts.classes),
    }


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
