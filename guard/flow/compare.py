"""Compare two artifacts: architecture, accuracy, effect of recovered triggers, changed weights.

No database and no network, as in `guard.vetting`. Nothing here decides anything; it only measures.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected, CleanSetError, InputError
from guard.core.evidence import Accuracy, AsrEstimate, Evidence, Outcome, Target
from guard.core.manifest import Manifest
from guard.core.progress import Progress, silent
from guard.vetting import examine, modalities, parent_comparison
from guard.vetting.model_path import locate
from guard.vetting.repair_probes import Replay

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet, Labelled
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.networks.compare import Moved


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models; `accuracy` is None where no clean set was given."""

    name: str
    digest: str
    architecture: str
    classes: int
    parameters: int
    label_names: tuple[str, ...]
    accuracy: Accuracy | None = None


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A trigger that the scan of A found suspicious, measured on both models."""

    target: Target
    family: str
    digest: str
    a: AsrEstimate
    b: AsrEstimate


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All differences between the two models.

    `layers` lists the most changed first; `unmatched` names tensors of one model that match none of
    the other. `agreement` is the share (0..1) of the `images` hold-out images to which both give
    the same label. `scan` is the detectors' evidence about A, or None where no scan was requested.
    """

    a: Side
    b: Side
    same_architecture: bool
    layers: "tuple[Moved, ...]"
    unmatched: tuple[str, ...]
    agreement: float | None = None
    images: int = 0
    replayed: tuple[Replayed, ...] = ()
    scan: tuple[Evidence, ...] | None = None

    @property
    def identical(self) -> bool:
        """Whether both are the same model, that is, the same canonical file."""
        return self.a.digest == self.b.digest

    def could_not_look(self) -> list[str]:
        """The scan's detectors that could not look, each with its reason."""
        return [
            f"{item.method}: {item.reason}"
            for item in self.scan or ()
            if item.outcome is Outcome.COULD_NOT_LOOK
        ]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready document; an infinite number or NaN becomes null."""
        data = {
            **asdict(self),
            "identical": self.identical,
            "could_not_look": self.could_not_look(),
        }
        data["scan"] = None if self.scan is None else [item.to_dict() for item in self.scan]
        accuracies = self.a.accuracy, self.b.accuracy
        data["acc_difference"] = None
        if accuracies[0] is not None and accuracies[1] is not None:
            data["acc_difference"] = accuracies[1].overall - accuracies[0].overall
            data["acc_difference_per_class"] = [
                after - before
                for before, after in zip(
                    accuracies[0].per_class, accuracies[1].per_class, strict=True
                )
            ]
        plain: dict[str, Any] = _finite(data)
        return plain


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def compare(
    a: Path,
    b: Path,
    curated: "CuratedSet | None",
    *,
    names: tuple[str, str],
    detectors: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    seconds: float = math.inf,
    device: str | None = None,
    progress: Progress = silent,
    budget: Budget | None = None,
) -> Comparison:
    """Compare two uploads; nothing in them is executed.

    Args:
        a, b: model files, or folders with `model.safetensors` and `config.json`.
        curated: the clean set whose hold-out is used for measurements; None compares architecture
            and weights alone.
        detectors: parameters by name. They scan A, and the triggers that they find suspicious are
            replayed on both models. Needs `curated`.
        seconds: time budget of all detectors together.
        budget: limits of each upload.

    Raises:
        InputError: there is no such file, or the clean set does not fit both models.
        ArtifactRejected: a rule of the format, the manifest or the architecture is broken; the
            message names the model.
        MethodFailed: a logit is not finite.
    """
    from guard.ml.networks.compare import agreement, moved

    with TemporaryDirectory() as folder:
        opened = []
        for place, path, name in (("a", a, names[0]), ("b", b, names[1])):
            (own := Path(folder) / place).mkdir()
            opened.append(_open(path, name, own, curated, device, budget or Budget()))
    (model_a, side_a), (model_b, side_b) = opened
    same = _network(model_a) == _network(model_b)
    layers, unmatched = moved(model_a.inner, model_b.inner)
    plain = Comparison(
        a=side_a, b=side_b, same_architecture=same, layers=layers, unmatched=unmatched
    )
    if curated is None:
        return plain
    curated = _seen_by_both(model_a, model_b, curated, names)
    found: tuple[tuple[Evidence, ...], tuple[Replayed, ...]] | tuple[None, tuple[()]] = (None, ())
    if detectors is not None:
        examined = examine.examine(
            model_a,
            side_a.digest,
            curated,
            detectors,
            seed=seed,
            seconds=seconds,
            progress=progress,
        )
        replays = parent_comparison.replays_from(examined.evidence, examined.triggers)
        found = (
            examined.evidence,
            tuple(_replayed(one, model_a, model_b, curated.holdout) for one in replays),
        )
    return replace(
        plain,
        agreement=agreement(model_a, model_b, curated.holdout),
        images=len(curated.holdout),
        scan=found[0],
        replayed=found[1],
    )


def _seen_by_both(
    model_a: "ImageModel", model_b: "ImageModel", curated: "CuratedSet", names: tuple[str, str]
) -> "CuratedSet":
    """The clean set as both take it; three equal channels may fit each of two sizes."""
    if model_a.manifest.input_size != model_b.manifest.input_size:
        raise CleanSetError(
            f"{names[0]} and {names[1]} take images of other channels, so that no clean set is the "
            "same for both; compare them without one.",
            code="cleanset_wrong_size",
        )
    return curated.seen_by(model_a.manifest.input_size[0])


def _open(
    path: Path,
    name: str,
    out: Path,
    curated: "CuratedSet | None",
    device: str | None,
    budget: Budget,
) -> tuple["ImageModel", Side]:
    from guard.ml import measure

    weights, manifest = locate(path)
    try:
        text = manifest.read_bytes() if manifest else None
        inspected = examine.inspect_upload(weights, weights.name, text, out, budget=budget)
        if curated is not None:
            curated = modalities.fitted(inspected.manifest, curated)
    except (ArtifactRejected, CleanSetError) as error:
        raise type(error)(f"{name}: {error.sentence}", code=error.code) from error
    facts = inspected.manifest
    if not isinstance(facts, Manifest):
        raise InputError(
            f"{name} is a {facts.modality} model; only images are compared.", code="modality"
        )
    model = examine.open_model(inspected.canonical, device=device)
    accuracy = (
        None if curated is None else measure.accuracy(model, curated.holdout, curated.facts.classes)
    )
    side = Side(
        name=name,
        digest=inspected.digest,
        architecture=facts.architecture,
        classes=facts.num_classes,
        label_names=tuple(facts.label_names),
        parameters=sum(tensor.numel() for tensor in model.inner.parameters()),
        accuracy=accuracy,
    )
    return model, side


def _network(model: "ImageModel") -> tuple[object, ...]:
    """What must agree for two networks to count as one architecture, tensor shapes included."""
    facts = model.manifest
    shapes = {name: tuple(tensor.shape) for name, tensor in model.inner.state_dict().items()}
    return facts.architecture, facts.num_classes, facts.input_size, dict(facts.model_args), shapes


def _replayed(replay: Replay, a: "ImageModel", b: "ImageModel", holdout: "Labelled") -> Replayed:
    from guard.ml import measure

    trigger = examine.restore_trigger(replay.data)
    on = [
        measure.asr(
            model,
            holdout,
            trigger,
            replay.target,
            trigger.family,
            natural=replay.natural,
            budget=replay.budget,
        )
        for model in (a, b)
    ]
    return Replayed(
        target=replay.target, family=trigger.family, digest=replay.digest, a=on[0], b=on[1]
    )
