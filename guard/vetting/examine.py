"""The part of a scan that touches a model: inspect it, run detectors, measure on the hold-out.

It takes paths and returns plain data, without a database or a network. A job's child process runs
it for the service, and `guard scan` runs it in its own process.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.contracts import Budget
from guard.core.digests import canonical_json, sha256
from guard.core.errors import Cancelled, CleanSetError, GuardError, ManifestRejected
from guard.core.evidence import Accuracy, Evidence, Finding, Outcome
from guard.core.manifest import Manifest
from guard.core.progress import Progress, part_of, silent
from guard.core.states import Family
from guard.detectors import DETECTORS
from guard.vetting.battery_secret import COMMITMENT

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet, Labelled
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.triggers import Trigger

ACCURACY_METHOD = "clean_accuracy"
ACCURACY_VERSION = 1
SMOKE_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """An upload that broke no rule, rewritten canonically."""

    format: str
    manifest: Manifest
    canonical: Path
    digest: str
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Examined:
    """The detectors' evidence, and what the guard itself measured on the hold-out.

    `triggers` maps digests to the safetensors bytes of recovered triggers; `smoke` is the JSON with
    which a publisher compares the serving system's answers.
    """

    evidence: tuple[Evidence, ...]
    accuracy: Accuracy
    triggers: Mapping[str, bytes] = field(default_factory=dict)
    smoke: bytes = b""


def inspect_upload(
    path: Path, name: str, manifest: bytes | None, out: Path, *, budget: Budget
) -> Inspected:
    """Check an upload and write its canonical file into the folder `out`.

    Args:
        path: the uploaded bytes; never executed, and unpickled only in the jail.
        name: the uploader's file name, for formats that the bytes alone do not identify.
        manifest: the bytes of `config.json`, or None where none was uploaded.

    Raises:
        ArtifactRejected: a rule of the format, the manifest or the architecture is broken.
    """
    from guard.formats._canonical import MANIFEST_KEY, write_canonical
    from guard.formats._read import open_tensors
    from guard.ml.networks import architectures

    # The format comes first: whoever uploads a pickle should read about the pickle and not about a
    # missing manifest.
    fmt, header, tensors = open_tensors(path, name, budget=budget)
    if manifest is not None:
        facts = Manifest.parse(manifest)
    else:
        embedded = header.metadata.get(MANIFEST_KEY)
        if embedded is None:
            raise ManifestRejected(
                "There is no config.json beside the weights; upload one that names architecture, "
                "num_classes and pretrained_cfg.input_size, as timm writes it.",
                code="manifest_missing",
            )
        facts = Manifest.parse(embedded.encode())
    architectures.check(facts, header, budget=budget)
    target = out / "model.safetensors"
    digest = write_canonical(tensors, facts, target)
    count = sum(math.prod(tensor.shape) for tensor in header.tensors)
    return Inspected(format=fmt, manifest=facts, canonical=target, digest=digest, parameters=count)


def fits(manifest: Manifest, curated: "CuratedSet") -> None:
    """Refuse a clean set that does not fit this model.

    Raises:
        CleanSetError: channels, image size or number of classes differ.
    """
    facts = curated.facts
    have = (facts.channels, facts.height, facts.width)
    if manifest.input_size != have:
        raise CleanSetError(
            f"The model takes {_size(manifest.input_size)} images, clean set {facts.name!r} holds "
            f"{_size(have)}; name a clean set of the model's own size.",
            code="cleanset_wrong_size",
        )
    if manifest.num_classes != facts.classes:
        raise CleanSetError(
            f"The model has {manifest.num_classes} classes, clean set {facts.name!r} has "
            f"{facts.classes}; name a clean set with the model's own classes.",
            code="cleanset_wrong_classes",
        )


def _size(size: tuple[int, int, int]) -> str:
    return "x".join(str(side) for side in size)


def open_model(canonical: Path, *, device: str | None = None) -> "ImageModel":
    """Load a canonical file into its architecture, in eval mode.

    `device` is a torch device; None takes CUDA where there is one.
    """
    from guard.formats._canonical import read_canonical
    from guard.ml.devices import best_device
    from guard.ml.networks import architectures

    manifest, tensors = read_canonical(canonical)
    model = architectures.load(manifest, tensors)
    return model.to(device or best_device()).eval()


def manifest_of(canonical: Path) -> Manifest:
    """The manifest that a canonical file holds.

    Raises:
        ArtifactRejected: the guard did not write the file.
    """
    from guard.formats._canonical import read_manifest

    with canonical.open("rb") as file:
        return read_manifest(file)


def examine(
    model: "ImageModel",
    artifact: str,
    curated: "CuratedSet",
    detectors: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    seconds: float = math.inf,
    progress: Progress = silent,
    known: Callable[[str], bool] = lambda _key: False,
    settled: Callable[[tuple[Evidence, ...]], bool] = lambda _evidence: False,
) -> Examined:
    """Run every detector once, and measure each recovered trigger on the hold-out.

    No detector sees the hold-out.

    Args:
        artifact: digest of the canonical file that `model` was loaded from.
        detectors: parameters by detector name.
        seconds: time budget of all detectors together.
        known: whether evidence with this key is stored already; such a detector is not run again.
        settled: called after each detector with all evidence so far; if it returns True, the
            detectors after it are skipped.

    Raises:
        CleanSetError: the clean set does not fit the model.
        Cancelled: `progress` raised it. Every other failure of a detector becomes evidence that it
            could not look.
    """
    from guard.ml import measure

    fits(model.manifest, curated)
    started = time.monotonic()
    accuracy = measure.accuracy(model, curated.holdout, curated.facts.classes)
    taken = time.monotonic() - started
    evidence = [
        replace(accuracy_evidence(artifact, curated.facts.digest, accuracy, seed), seconds=taken)
    ]
    triggers: dict[str, bytes] = {}
    end = time.monotonic() + seconds
    for index, (name, parameters) in enumerate(detectors.items()):
        step = part_of(progress, index, len(detectors), name)
        item = _run_detector(
            name,
            parameters,
            model,
            artifact,
            curated,
            seed=seed,
            seconds=end - time.monotonic(),
            progress=step,
            known=known,
        )
        if item is not None:
            evidence.append(_measure_triggers(item, model, curated.holdout, triggers))
        if settled(tuple(evidence)):
            break
    return Examined(
        evidence=tuple(evidence),
        accuracy=accuracy,
        triggers=triggers,
        smoke=smoke_samples(model, curated.holdout),
    )


def _run_detector(
    name: str,
    parameters: Mapping[str, Any],
    model: "ImageModel",
    artifact: str,
    curated: "CuratedSet",
    *,
    seed: int,
    seconds: float,
    progress: Progress,
    known: Callable[[str], bool],
) -> Evidence | None:
    detector = DETECTORS.get(name)(**parameters)
    blank = Evidence(
        artifact=artifact,
        method=name,
        version=detector.version,
        parameters=detector.parameters(),
        cleanset=curated.facts.digest,
        seed=seed,
        outcome=Outcome.COULD_NOT_LOOK,
        families=tuple(sorted(detector.families)),
    )
    if known(blank.key):
        return None
    started = time.monotonic()
    try:
        findings = detector(
            model, curated.visible(), seed=seed, progress=progress, seconds=max(0.0, seconds)
        )
    except Cancelled:
        raise
    except GuardError as error:
        return replace(blank, reason=error.sentence, seconds=time.monotonic() - started)
    except Exception as error:  # noqa: BLE001 - a crash of one method is evidence and not the end
        return replace(
            blank, reason=f"{type(error).__name__}: {error}", seconds=time.monotonic() - started
        )
    return replace(
        blank,
        outcome=Outcome.FINDINGS if findings else Outcome.NOTHING,
        findings=tuple(findings),
        seconds=time.monotonic() - started,
        blobs=_commitment() if detector.draws_battery else {},
    )


def _commitment() -> dict[str, str]:
    from guard.ml.search.battery import commitment

    return {COMMITMENT: commitment()}


def _measure_triggers(
    item: Evidence, model: "ImageModel", holdout: "Labelled", triggers: dict[str, bytes]
) -> Evidence:
    from guard.ml import measure
    from guard.ml.triggers.files import serialise

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
            holdout,
            finding.trigger,
            finding.target,
            finding.family,
            natural=finding.numbers.get("natural_asr"),
            budget=finding.numbers.get("budget"),
        )
        findings.append(replace(finding, asr=estimate, trigger_digest=digest, trigger=None))
    return replace(item, findings=tuple(findings))


def _measurable(finding: Finding) -> bool:
    """Whether it is known as which class each image should be classified.

    It is where there is one target class, or where the trigger carries a mapping of classes.
    """
    mapped = finding.trigger is not None and finding.trigger.family == Family.ALL_TO_ALL
    return isinstance(finding.target, int) or (finding.target == Family.ALL_TO_ALL and mapped)


def accuracy_evidence(artifact: str, cleanset: str, accuracy: Accuracy, seed: int) -> Evidence:
    """The guard's own measurement of clean accuracy as evidence."""
    return Evidence(
        artifact=artifact,
        method=ACCURACY_METHOD,
        version=ACCURACY_VERSION,
        parameters={},
        cleanset=cleanset,
        seed=seed,
        outcome=Outcome.MEASURED,
        families=(),
        accuracy=accuracy,
    )


def accuracy_of(evidence: Sequence[Evidence]) -> Accuracy | None:
    """The accuracy among stored evidence; None where it was never measured."""
    return next((item.accuracy for item in evidence if item.accuracy is not None), None)


def smoke_samples(model: "ImageModel", holdout: "Labelled") -> bytes:
    """A few hold-out images as PNG and the model's probabilities for them, as canonical JSON."""
    import base64

    from guard.ml import samples

    some = samples.spread(holdout, SMOKE_IMAGES)
    return canonical_json(
        {
            "images": [base64.b64encode(data).decode() for data in samples.as_png(some)],
            "probabilities": [
                [round(value, 6) for value in row] for row in samples.probabilities(model, some)
            ],
        }
    )


def restore_trigger(data: bytes) -> "Trigger":
    """A stored trigger, ready to stamp."""
    from guard.ml.triggers.files import deserialise

    return deserialise(data)
