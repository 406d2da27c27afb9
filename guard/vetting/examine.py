"""The part of a scan that touches a model: inspect it, run detectors, measure on the hold-out.

It takes paths and returns plain data, without a database or a network. A job's child process runs
it for the service, and `guard scan` runs it in its own process.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.contracts import Budget
from guard.core.errors import (
    Cancelled,
    GuardError,
    ManifestRejected,
    MissingExtra,
    OutOfTime,
)
from guard.core.evidence import Accuracy, Evidence, GraphQuality, Outcome
from guard.core.manifests import AnyManifest, parse_manifest
from guard.core.progress import Progress, silent
from guard.core.tracing import span
from guard.detectors import DETECTORS
from guard.vetting import modalities
from guard.vetting.battery_secret import COMMITMENT
from guard.vetting.estimate import Forecast, estimated
from guard.vetting.modalities import fitted
from guard.vetting.model_path import in_one_file, refuse_part
from guard.vetting.time_budget import TimeBudget

if TYPE_CHECKING:
    from guard.ml.triggers import Trigger

ACCURACY_METHOD = "clean_accuracy"
ACCURACY_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """An upload that broke no rule, rewritten canonically."""

    format: str
    manifest: AnyManifest
    canonical: Path
    digest: str
    parameters: int
    sketch: str = ""  # `guard.ml.weight_sketches`


@dataclass(frozen=True, kw_only=True)
class Examined:
    """The detectors' evidence, and what the guard itself measured on the hold-out.

    `triggers` maps digests to the safetensors bytes of recovered triggers; `smoke` is the JSON with
    which a publisher compares the serving system's answers.
    """

    evidence: tuple[Evidence, ...]
    triggers: Mapping[str, bytes] = field(default_factory=dict)
    smoke: bytes = b""

    @property
    def accuracy(self) -> Accuracy | None:
        """Clean accuracy on the hold-out; None for a model that has none."""
        return accuracy_of(self.evidence)


def inspect_upload(
    path: Path, name: str, manifest: bytes | None, out: Path, *, budget: Budget
) -> Inspected:
    """Check an upload and write its canonical file into the folder `out`.

    Args:
        path: the uploaded bytes; never executed, and unpickled only in the jail. At the desk it may
            be the index of shards that lie beside it.
        name: the uploader's file name, for formats that the bytes alone do not identify.
        manifest: the bytes of `config.json`, or None where none was uploaded.

    Raises:
        ArtifactRejected: a rule of the format, the manifest or the architecture is broken.
    """
    from guard.formats._canonical import write_canonical
    from guard.formats._read import header_of, open_tensors
    from guard.ml.weight_sketches import sketch_of

    # The format comes first: whoever uploads a pickle should read about the pickle and not about a
    # missing manifest.
    refuse_part(name)
    with in_one_file(path, out, budget.file_bytes) as file:
        look = partial(_afford, manifest, budget)
        fmt, header, tensors = open_tensors(file, name, budget, look)
    if manifest is not None:
        facts = parse_manifest(manifest)
    else:
        embedded = _embedded(header.metadata)
        if embedded is None:
            raise ManifestRejected(
                "There is no config.json beside the weights; upload one that names architecture, "
                "num_classes and pretrained_cfg.input_size, as timm writes it.",
                code="manifest_missing",
            )
        facts = parse_manifest(embedded)
    kind = modalities.of(facts.modality)
    facts, tensors = kind.conformed(facts, tensors, budget=budget)
    header = header_of(fmt, tensors, header.metadata)
    kind.check(facts, header, budget=budget)
    target = out / "model.safetensors"
    digest = write_canonical(tensors, facts, target)
    count = sum(math.prod(tensor.shape) for tensor in header.tensors)
    return Inspected(
        format=fmt,
        manifest=facts,
        canonical=target,
        digest=digest,
        parameters=count,
        sketch=sketch_of(tensors),
    )


def _embedded(metadata: Mapping[str, str]) -> bytes | None:
    from guard.formats._canonical import MANIFEST_KEY

    found = metadata.get(MANIFEST_KEY)
    return None if found is None else found.encode()


def _afford(manifest: bytes | None, budget: Budget, metadata: Mapping[str, str] | None) -> None:
    """Refuse a model by what it would cost, as soon as its manifest is known.

    Every other fault of a manifest is found after the faults of the file.

    Raises:
        ManifestRejected: `over_budget`, or `cost_unknown`.
    """
    if (manifest is None) is (metadata is None):
        return  # not known yet, or looked at before the file was opened
    data = manifest if metadata is None else _embedded(metadata)
    if data is None:
        return
    try:
        facts = parse_manifest(data)
        modalities.of(facts.modality).afford(facts, budget=budget)
    except ManifestRejected as error:
        if error.code in ("over_budget", "cost_unknown"):
            raise
    except MissingExtra:
        return


def open_model(canonical: Path, *, device: str | None = None) -> Any:
    """Load a canonical file into its architecture, in eval mode: a module of its modality.

    `device` is a torch device; None takes CUDA where there is one.
    """
    from guard.formats._canonical import read_canonical
    from guard.ml.devices import best_device

    manifest, tensors = read_canonical(canonical)
    model = modalities.of(manifest.modality).load(manifest, tensors)
    return model.to(device or best_device()).eval()


def manifest_of(canonical: Path) -> AnyManifest:
    """The manifest that a canonical file holds.

    Raises:
        ArtifactRejected: the guard did not write the file.
    """
    from guard.formats._canonical import read_manifest

    with canonical.open("rb") as file:
        return read_manifest(file)


def examine(
    model: Any,
    artifact: str,
    curated: Any,
    detectors: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    seconds: float = math.inf,
    budget: float | None = None,
    progress: Progress = silent,
    known: Callable[[str], bool] = lambda _key: False,
    settled: Callable[[tuple[Evidence, ...]], bool] = lambda _evidence: False,
) -> Examined:
    """Run every detector once, and measure each recovered trigger on the hold-out.

    No detector sees the hold-out.

    Args:
        artifact: digest of the canonical file that `model` was loaded from.
        detectors: parameters by detector name.
        seconds: time limit of all detectors together.
        budget: the policy's seconds for all of them: one that does not fit into what is left, by
            its plan and the speed so far, is not run, and one that is still at it then is ended.
        progress: called with the share of planned seconds that is done;
            `guard.core.progress.seconds_left` is the time left.
        known: whether evidence with this key is stored already; such a detector is not run again.
        settled: called after each detector with all evidence so far; if it returns True, the
            detectors after it are skipped.

    Raises:
        CleanSetError: the clean set does not fit the model.
        Cancelled: `progress` raised it. Every other failure of a detector becomes evidence that it
            could not look.
    """
    limits = TimeBudget.begun(seconds, budget)
    curated = fitted(model.manifest, curated)
    kind = modalities.of(model.manifest.modality)
    evidence = [kind.measured(model, artifact, curated, seed=seed)]
    triggers: dict[str, bytes] = {}
    runs = [
        _Run(made, _blank(name, made, artifact, curated, seed))
        for name, made in (
            (name, DETECTORS.get(name)(**parameters)) for name, parameters in detectors.items()
        )
    ]
    runs = [run for run in runs if not known(run.blank.key)]
    estimate = estimated(model, curated, {run.blank.method: run.detector for run in runs})
    forecast = Forecast(estimate, progress)
    for index, (run, cost) in enumerate(zip(runs, estimate.detectors, strict=True)):
        run.blank = replace(run.blank, cost=cost.numbers(estimate.speed))
        item = limits.spared(run.blank, forecast.needs(index))
        if item is None:
            step = forecast.step(index, run.blank.method)
            item = run.look(model, curated, seed=seed, limits=limits, progress=step)
        forecast.ended(index)
        evidence.append(kind.with_rates(item, model, curated, triggers, seed=seed))
        if settled(tuple(evidence)):
            break
    found = kind.completed(tuple(evidence), model, curated, triggers, seed=seed)
    return Examined(evidence=found, triggers=triggers, smoke=kind.smoke(model, curated))


def _blank(name: str, detector: Any, artifact: str, curated: Any, seed: int) -> Evidence:
    return Evidence(
        artifact=artifact,
        method=name,
        version=detector.version,
        parameters=detector.parameters(),
        cleanset=curated.facts.digest,
        seed=seed,
        outcome=Outcome.COULD_NOT_LOOK,
        families=tuple(sorted(detector.families)),
    )


@dataclass
class _Run:
    """One detector, and its evidence as long as it has not looked."""

    detector: Any
    blank: Evidence

    def look(
        self, model: Any, curated: Any, *, seed: int, limits: TimeBudget, progress: Progress
    ) -> Evidence:
        """What it reports, or why it could not look."""
        blank, started = self.blank, time.monotonic()
        try:
            with span(f"detector {blank.method}"):
                findings = self.detector(
                    model, curated.visible(), seed=seed, progress=progress, seconds=limits.left
                )
        except Cancelled:
            raise
        except OutOfTime as error:
            item = limits.ended(blank, error.sentence)
            return replace(item, seconds=time.monotonic() - started)
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
            blobs=_commitment() if self.detector.draws_battery else {},
        )


def _commitment() -> dict[str, str]:
    from guard.ml.search.battery import commitment

    return {COMMITMENT: commitment()}


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


def quality_of(evidence: Sequence[Evidence]) -> GraphQuality | None:
    """The quality of what a model generates, among stored evidence; None as `accuracy_of`."""
    return next((item.quality for item in evidence if item.quality is not None), None)


def restore_trigger(data: bytes) -> "Trigger":
    """A stored trigger, ready to stamp."""
    from guard.ml.triggers.files import deserialise

    return deserialise(data)
