"""A report from evidence in hand: recovered triggers as images, and what a repair changed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.core.evidence import AsrEstimate, Evidence, Finding, Target
from guard.reports.report import Answered, Demonstration, RecoveredTrigger, Report
from guard.vetting.examine import restore_trigger

if TYPE_CHECKING:
    from guard.ml.cleanset import Labelled
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.triggers import Trigger

MOST_SHOWN = 4  # of the parent's triggers; the report's bars show them all
MOST_IMAGES = 6  # of each trigger
LabelledImages = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]  # uint8 N,C,H,W and labels N


def demonstrated(
    report: Report,
    parent: "ImageModel",
    child: "ImageModel",
    evidence: Sequence[Evidence],
    data: Mapping[str, bytes],
    holdout: "Labelled",
) -> Report:
    """`report` with its parent's triggers on hold-out images, and what both models answer.

    Args:
        child: the artifact that the report is about.
        evidence: that about the parent.
        data: the bytes of its triggers by digest; a trigger that is missing there is not shown.
    """
    from guard.ml.measure import predict

    shown: list[Demonstration] = []
    replayed = () if report.purification is None else report.purification.replayed
    for finding, after in _suspected(evidence, replayed):
        stored = data.get(finding.trigger_digest or "")
        if stored is None or len(shown) == MOST_SHOWN:
            continue
        trigger = restore_trigger(stored)
        some, wanted = _of_each_class(holdout, trigger, finding.target)
        if not wanted:
            continue
        answers = [predict(model, some, trigger=trigger).tolist() for model in (parent, child)]
        stamped = trigger.apply(some.floats()).numpy()
        images = [
            Answered(image=image, label=label, wanted=aim, before=old, after=new)
            for image, label, aim, old, new in zip(
                stamped, some.labels.tolist(), wanted, *answers, strict=True
            )
        ]
        shown.append(
            Demonstration(
                family=finding.family,
                target=finding.target,
                before=finding.asr,
                after=after,
                images=images,
            )
        )
    return replace(report, demonstrations=shown)


def _suspected(
    evidence: Sequence[Evidence], replayed: Sequence[AsrEstimate]
) -> list[tuple[Finding, AsrEstimate | None]]:
    """Each suspicious trigger with its ASR on the child; one of each class before a second one."""
    left, turns = list(replayed), Counter[str]()
    found = []
    for finding in (
        one for item in evidence for one in item.findings if one.suspicious and one.trigger_digest
    ):
        place = next(
            (
                index
                for index, one in enumerate(left)
                if (one.target, one.family) == (finding.target, finding.family)
            ),
            None,
        )
        found.append(
            (turns[str(finding.target)], finding, None if place is None else left.pop(place))
        )
        turns[str(finding.target)] += 1
    return [(finding, after) for _, finding, after in sorted(found, key=lambda one: one[0])]


def _of_each_class(
    holdout: "Labelled", trigger: "Trigger", target: Target
) -> tuple["Labelled", list[int]]:
    """The first image of each class that the trigger leads to another class, and that other class.

    Of many classes, evenly spread ones are taken.
    """
    from guard.ml.triggers import MappedTrigger

    first: dict[int, tuple[int, int]] = {}
    for place, label in enumerate(holdout.labels.tolist()):
        wanted = int(trigger.mapping[label]) if isinstance(trigger, MappedTrigger) else target
        if isinstance(wanted, int) and wanted != label:
            first.setdefault(label, (place, wanted))
    every = [first[label] for label in sorted(first)]
    spread = (
        np.linspace(0, len(every) - 1, min(MOST_IMAGES, len(every))).round().astype(int).tolist()
    )
    chosen = [every[index] for index in spread]
    return holdout.pick(holdout.labels.new_tensor([place for place, _ in chosen])), [
        wanted for _, wanted in chosen
    ]


def recovered(
    evidence: Sequence[Evidence], data: Mapping[str, bytes], holdout: LabelledImages
) -> list[RecoveredTrigger]:
    """Every stored trigger as images, each stamped on one clean image of another class."""
    from guard.ml.triggers.files import looks

    found = []
    for item in evidence:
        for finding in item.findings:
            if finding.trigger_digest is None or finding.trigger_digest not in data:
                continue
            images, labels = holdout
            target = finding.target if isinstance(finding.target, int) else None
            others = [index for index, label in enumerate(labels) if label != target]
            clean = images[others[0]] if others else np.full(images.shape[1:], 127, np.uint8)
            shown = looks(data[finding.trigger_digest], clean)
            found.append(
                RecoveredTrigger(
                    family=finding.family,
                    target=finding.target,
                    digest=finding.trigger_digest,
                    mask=shown.mask,
                    pattern=shown.pattern,
                    stamped=shown.stamped if others else None,
                )
            )
    return found
