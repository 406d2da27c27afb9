"""How image classifiers are vetted; the functions of `guard.vetting.modalities.Kind`."""

import base64
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from guard.core.contracts import Budget, Header
from guard.core.costs import against, over_budget
from guard.core.digests import canonical_json, sha256
from guard.core.errors import CleanSetError
from guard.core.evidence import CleanSetFacts, Evidence, Finding
from guard.core.manifest import Manifest
from guard.core.states import Family
from guard.vetting.examine import accuracy_evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel

SMOKE_IMAGES = 8


def afford(manifest: Manifest, *, budget: Budget) -> None:
    """Refuse a network by the number of its classes, and by what one image costs in it."""
    if manifest.num_classes > budget.classes:
        raise over_budget(
            f"the model has {against(manifest.num_classes, budget.classes, 'classes')}",
            "GUARD_MAX_CLASSES",
            "vet a model of fewer classes",
        )
    from guard.ml.networks import architectures

    architectures.afford(manifest, budget=budget)


def check(manifest: Manifest, header: Header, *, budget: Budget) -> None:
    """Refuse an architecture that does not exist, and weights that do not fit it."""
    from guard.ml.networks import architectures

    architectures.check(manifest, header, budget=budget)


def conformed(
    manifest: Manifest, tensors: "Mapping[str, Any]", *, budget: Budget
) -> "tuple[Manifest, dict[str, Any]]":
    """The manifest of the network alone, and its weights by its own names, in the vetted types."""
    from guard.ml.networks import architectures

    found = architectures.conformed(manifest, tensors, budget=budget)
    return replace(manifest, state_dict=None, naming=None), found


def load(manifest: Manifest, tensors: "Mapping[str, Any]") -> "ImageModel":
    """The network, with its input transform inside."""
    from guard.ml.networks import architectures

    return architectures.load(manifest, tensors)


def read_clean(data: bytes, name: str) -> "CuratedSet":
    """A stored set of labelled images."""
    from guard import cleansets
    from guard.ml.cleanset import CuratedSet

    return CuratedSet.from_arrays(*cleansets.load(data, name))


def fitted(manifest: Manifest, curated: "CuratedSet") -> "CuratedSet":
    """The set as the network takes it; refuses other channels, image sizes and class counts."""
    match(manifest, curated.facts)
    curated = curated.seen_by(manifest.input_size[0])
    if curated.facts.channels != manifest.input_size[0]:
        raise _wrong_size(manifest, curated.facts)
    return curated


def match(manifest: Manifest, facts: CleanSetFacts) -> None:
    """Refuse images of another size and other classes."""
    channels, *size = manifest.input_size
    grey = (channels, facts.channels) == (1, 3)  # where the three are equal
    if size != [facts.height, facts.width] or not (grey or channels == facts.channels):
        raise _wrong_size(manifest, facts)
    if manifest.num_classes != facts.classes:
        raise CleanSetError(
            f"The model has {manifest.num_classes} classes, clean set {facts.name!r} has "
            f"{facts.classes}; name a clean set with the model's own classes.",
            code="cleanset_wrong_classes",
        )


def _wrong_size(manifest: Manifest, facts: CleanSetFacts) -> CleanSetError:
    have = (facts.channels, facts.height, facts.width)
    return CleanSetError(
        f"The model takes {_size(manifest.input_size)} images, clean set {facts.name!r} holds "
        f"{_size(have)}{_no_grey(manifest, have)}; name a clean set of the model's own size.",
        code="cleanset_wrong_size",
    )


def _no_grey(manifest: Manifest, have: tuple[int, int, int]) -> str:
    """Why a set of three channels is not read as grey, for a network of one."""
    if have != (3, *manifest.input_size[1:]) or manifest.input_size[0] != 1:
        return ""
    return " whose three channels differ, so that they cannot be read as grey"


def _size(size: tuple[int, int, int]) -> str:
    return "x".join(str(side) for side in size)


def measured(model: "ImageModel", artifact: str, curated: "CuratedSet", *, seed: int) -> Evidence:
    """Clean accuracy on the hold-out."""
    from guard.ml import measure

    started = time.monotonic()
    accuracy = measure.accuracy(model, curated.holdout, curated.facts.classes)
    taken = time.monotonic() - started
    return replace(accuracy_evidence(artifact, curated.facts.digest, accuracy, seed), seconds=taken)


def with_rates(
    item: Evidence,
    model: "ImageModel",
    curated: "CuratedSet",
    triggers: dict[str, bytes],
    *,
    seed: int,
) -> Evidence:
    """The evidence with the ASR of each trigger that was recovered, stamped on the hold-out."""
    from guard.ml import measure
    from guard.ml.triggers.files import serialise

    del seed
    findings: list[Finding] = []
    for finding in item.findings:
        if finding.trigger is None or not _measurable(finding):
            findings.append(finding)
            continue
        data = serialise(finding.trigger)
        digest = sha256(data)
        triggers[digest] = data
        estimate = measure.asr(
            model,
            curated.holdout,
            finding.trigger,
            finding.target,
            finding.family,
            natural=finding.numbers.get("natural_asr"),
            budget=finding.numbers.get("budget"),
        )
        findings.append(replace(finding, asr=estimate, trigger_digest=digest, trigger=None))
    return replace(item, findings=tuple(findings))


def completed(
    evidence: tuple[Evidence, ...],
    model: "ImageModel",
    curated: "CuratedSet",
    triggers: dict[str, bytes],
    *,
    seed: int,
) -> tuple[Evidence, ...]:
    """The evidence as it is: a method's trigger is for its own class."""
    del model, curated, triggers, seed
    return evidence


def _measurable(finding: Finding) -> bool:
    """Whether it is known as which class each image should be classified.

    It is where there is one target class, or where the trigger carries a mapping of classes.
    """
    mapped = finding.trigger is not None and finding.trigger.family == Family.ALL_TO_ALL
    return isinstance(finding.target, int) or (finding.target == Family.ALL_TO_ALL and mapped)


def smoke(model: "ImageModel", curated: "CuratedSet") -> bytes:
    """A few hold-out images as PNG and the model's probabilities for them."""
    from guard.ml import samples

    some = samples.spread(curated.holdout, SMOKE_IMAGES)
    return canonical_json(
        {
            "images": [base64.b64encode(data).decode() for data in samples.as_png(some)],
            "probabilities": [
                [round(value, 6) for value in row] for row in samples.probabilities(model, some)
            ],
        }
    )
