"""Compare two models of one modality: architecture, quality, recovered triggers, changed weights.

No database and no network, as in `guard.vetting`. Nothing here decides anything; it only measures.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected, CleanSetError, InputError
from guard.core.evidence import Accuracy, AsrEstimate, Evidence, GraphQuality, Outcome, Target
from guard.core.manifest import Manifest
from guard.core.modality import Modality
from guard.core.progress import Progress, silent
from guard.vetting import examine, modalities, parent_comparison, two_models
from guard.vetting.model_path import locate

if TYPE_CHECKING:
    from guard.core.pairs import CuratedPairs
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.compare import Moved

Detectors = Mapping[str, Mapping[str, Any]]  # their parameters, by name


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models.

    `classes` is that of an image classifier, `motifs` the size of a text-to-graph model's
    vocabulary. `accuracy` or `quality` was measured on the hold-out; both are None where no clean
    set was given.
    """

    name: str
    digest: str
    modality: Modality
    architecture: str
    parameters: int
    classes: int | None = None
    motifs: int | None = None
    label_names: tuple[str, ...] = ()
    accuracy: Accuracy | None = None
    quality: GraphQuality | None = None


@dataclass(frozen=True)
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
    the same label, or of so many prompts for which both generate the same molecule from the same
    noise. `scan` is the detectors' evidence about A, or None where no scan was requested.
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
        qualities = self.a.quality, self.b.quality
        data["similarity_difference"] = None
        if qualities[0] is not None and qualities[1] is not None:
            data["similarity_difference"] = qualities[1].similarity - qualities[0].similarity
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
    curated: "CuratedSet | CuratedPairs | None",
    *,
    names: tuple[str, str],
    detectors: Callable[[Modality], Detectors] | None = None,
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
        detectors: for models of a modality, parameters by name. They scan A, and the triggers that
            they find suspicious are replayed on both models. Needs `curated`.
        seconds: time budget of all detectors together.
        budget: limits of each upload.

    Raises:
        InputError: there is no such file, the models are of two modalities, or the clean set does
            not fit both.
        ArtifactRejected: a rule of the format, the manifest or the architecture is broken; the
            message names the model.
        MethodFailed: a logit is not finite.
        MissingExtra: text-to-graph models need a library that is not installed.
    """
    from guard.ml.networks.compare import moved

    with TemporaryDirectory() as folder:
        opened = []
        for place, path, name in (("a", a, names[0]), ("b", b, names[1])):
            (own := Path(folder) / place).mkdir()
            opened.append(_open(path, name, own, curated, device, seed, budget or Budget()))
    (model_a, side_a), (model_b, side_b) = opened
    _one_modality(side_a, side_b)
    networks = [getattr(model, "inner", model) for model in (model_a, model_b)]
    same = _design(model_a, networks[0]) == _design(model_b, networks[1])
    layers, unmatched = moved(*networks)
    plain = Comparison(
        a=side_a, b=side_b, same_architecture=same, layers=layers, unmatched=unmatched
    )
    if curated is None:
        return plain
    curated = _seen_by_both(model_a, model_b, curated, names)
    scan: tuple[Evidence, ...] | None = None
    found: list[Replayed] = []
    if detectors is not None:
        wanted = detectors(side_a.modality)
        examined = examine.examine(
            model_a, side_a.digest, curated, wanted, seed=seed, seconds=seconds, progress=progress
        )
        scan = examined.evidence
        for one in parent_comparison.replays_from(scan, examined.triggers):
            family, on = two_models.replayed(one, (model_a, model_b), curated, seed=seed)
            found.append(Replayed(one.target, family, one.digest, *on))
    share, count = two_models.agreement(model_a, model_b, curated, seed=seed)
    return replace(plain, agreement=share, images=count, scan=scan, replayed=tuple(found))


def _one_modality(a: Side, b: Side) -> None:
    if a.modality is not b.modality:
        raise InputError(
            f"{a.name} is a {a.modality} model and {b.name} a {b.modality} model; only models of "
            "one modality are compared.",
            code="modality",
        )


def _seen_by_both(model_a: Any, model_b: Any, curated: Any, names: tuple[str, str]) -> Any:
    """The clean set as both take it; three equal channels may fit each of two sizes."""
    if model_a.manifest.modality is not Modality.IMAGES:
        return curated
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
    curated: "CuratedSet | CuratedPairs | None",
    device: str | None,
    seed: int,
    budget: Budget,
) -> tuple[Any, Side]:
    weights, manifest = locate(path)
    try:
        text = manifest.read_bytes() if manifest else None
        inspected = examine.inspect_upload(weights, weights.name, text, out, budget=budget)
        if curated is not None:
            curated = modalities.fitted(inspected.manifest, curated)
    except (ArtifactRejected, CleanSetError) as error:
        raise type(error)(f"{name}: {error.sentence}", code=error.code) from error
    facts = inspected.manifest
    model = examine.open_model(inspected.canonical, device=device)
    accuracy, quality = (
        (None, None) if curated is None else two_models.measured(model, curated, seed=seed)
    )
    side = Side(
        name=name,
        digest=inspected.digest,
        modality=facts.modality,
        architecture=facts.architecture,
        classes=facts.num_classes if isinstance(facts, Manifest) else None,
        motifs=None if isinstance(facts, Manifest) else len(facts.motifs),
        label_names=tuple(facts.label_names) if isinstance(facts, Manifest) else (),
        parameters=sum(tensor.numel() for tensor in getattr(model, "inner", model).parameters()),
        accuracy=accuracy,
        quality=quality,
    )
    return model, side


def _design(model: Any, network: Any) -> tuple[object, ...]:
    """What must agree for two networks to count as one architecture, tensor shapes included."""
    facts = model.manifest
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    own = (
        (facts.num_classes, facts.input_size)
        if isinstance(facts, Manifest)
        else (facts.pieces, facts.motifs, facts.tokens, facts.sampler)
    )
    return facts.architecture, own, dict(facts.model_args), shapes
