"""How a repaired model compares with its parent: accuracy, the parent's triggers, and the proof."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guard.core.errors import Cancelled, MethodFailed, OutOfTime
from guard.core.evidence import Accuracy, AsrEstimate, Evidence, Finding, Target
from guard.core.progress import Progress
from guard.core.purification import MomentTrigger, OnSuspects
from guard.core.sift import METHOD
from guard.vetting import repair_probes
from guard.vetting.accused import AccusedImages, Proof, by_label
from guard.vetting.examine import restore_trigger
from guard.vetting.moments import searched_from
from guard.vetting.repair_probes import Replay

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel

ACCUSED = "training-set"  # in place of a trigger family: whatever the attacker put on the images


def compared_with_parent(
    parent: "ImageModel",
    repaired: Any,
    curated: "CuratedSet",
    replays: Sequence[Replay],
    *,
    acc_before: Accuracy,
    seed: int,
    progress: Progress,
    accused: AccusedImages | None = None,
    blind: bool = False,
) -> dict[str, Any]:
    """Measure what `PurificationFacts` states about parent and child, by its fields' names.

    Args:
        repaired: the child, an `nn.Module` from images N,C,H,W in [0, 1] to logits N,K.
        replays: the parent's suspicious triggers.
        acc_before: the parent's clean accuracy on the hold-out.
        accused: what a sift of the parent's training set found; its proof part is measured.
        blind: no trigger of the parent is proven.
    """
    from guard.ml import measure

    end = time.monotonic() + repair_probes.SECONDS  # of all that follows
    obeyed, unproved = ([], []) if accused is None else on_suspects(parent, repaired, accused.proof)
    beyond = repair_probes.prove(
        parent, repaired, curated, replays, blind=blind, seed=seed, progress=progress
    )
    known = () if accused is None else accused.moments
    moments, unsearched = _moments(
        parent, repaired, curated, known, seed=seed, end=end, progress=progress
    )
    return {
        "acc_before": acc_before,
        "acc_after": measure.accuracy(repaired, curated.holdout, curated.facts.classes),
        "replayed": tuple(_replayed(repaired, curated, replay) for replay in replays),
        "resampled": beyond.resampled,
        "relearned": beyond.relearned,
        "reactivated": beyond.reactivated,
        "shared": beyond.shared,
        "blind": blind,
        "universal": beyond.universal,
        "unproved": (*beyond.unproved, *unproved, *unsearched),
        "swapped": measure.swapped(parent, repaired, curated.holdout, curated.facts.classes),
        "suspects": tuple(obeyed),
        "moments": tuple(moments),
    }


def on_suspects(
    parent: "ImageModel", repaired: Any, proof: Proof
) -> tuple[list[OnSuspects], list[str]]:
    """The share of the proof images that each model sends to their labels, by label.

    A sentence is added for images that are too few for a rate.
    """
    from guard.ml import measure

    images, fdr = proof.images, proof.fdr
    groups, left = by_label(images.labels.tolist())
    obeyed = [
        (measure.predict(model, images) == images.labels).tolist() for model in (parent, repaired)
    ]
    found = []
    for label, places in groups.items():
        before, after = (
            _share(label, sum(hits[place] for place in places), len(places)) for hits in obeyed
        )
        mean = math.fsum(fdr[place] for place in places) / len(places)
        found.append(OnSuspects(before=before, after=after, fdr=mean))
    if groups and not left:
        return found, []
    sentence = (
        f"{left} accused training images of the proof part are too few to measure whether the "
        "repair holds on them."
        if left
        else "None of the accused training images that were kept for the proof has an estimated "
        "class other than its label, so that none shows whether the repair holds."
    )
    return found, [sentence]


def _moments(
    parent: "ImageModel",
    repaired: Any,
    curated: "CuratedSet",
    replays: Sequence[Replay],
    *,
    seed: int,
    end: float,
    progress: Progress,
) -> tuple[list[MomentTrigger], list[str]]:
    """Triggers estimated from accused images, as they are and as starts of a search on the child.

    A sentence is added for each search that failed or was not done by `end`.
    """

    def watch(_done: float) -> None:
        if time.monotonic() > end:
            raise OutOfTime("The time for probing a repair was used up.")
        progress(1.0, "testing the repair")

    found, failed = [], []
    for replay in replays:
        searched = None
        try:
            searched = searched_from(repaired, curated, replay, seed=seed, watch=watch)
        except Cancelled:
            raise
        except MethodFailed as error:
            failed.append(
                f"No patch was searched for from the estimated trigger for class {replay.target}: "
                f"{error.sentence}"
            )
        before, after = (_replayed(model, curated, replay) for model in (parent, repaired))
        found.append(MomentTrigger(before=before, after=after, searched=searched))
    return found, failed


def _share(target: Target, hits: int, trials: int) -> AsrEstimate:
    from guard.ml.statistics import wilson

    low, high = wilson(hits, trials)
    return AsrEstimate(
        target=target,
        family=ACCUSED,
        successes=hits,
        trials=trials,
        estimate=hits / trials,
        low=low,
        high=high,
    )


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
    """The suspicious triggers among `evidence`, with their bytes looked up by digest in `data`.

    A sift's own are left out: images that teach a repair went into them. What is replayed instead
    is estimated from others (`guard.vetting.moments`).
    """
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
        if _replayable(item, finding) and finding.trigger_digest is not None
    ]


def asr_of(evidence: Sequence[Evidence]) -> list[AsrEstimate]:
    """The estimates of the triggers that `replays_from` finds, in its order."""
    return [
        finding.asr
        for item in evidence
        for finding in item.findings
        if _replayable(item, finding) and finding.asr is not None
    ]


def _replayable(item: Evidence, finding: Finding) -> bool:
    return finding.suspicious and finding.trigger_digest is not None and item.method != METHOD
