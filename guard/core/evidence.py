"""What methods report about an artifact: findings, ASR estimates, accuracy, evidence.

All of it is plain data that is stored as JSON.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from guard.core.digests import json_digest
from guard.core.modality import Modality
from guard.core.plain import from_plain, to_plain

Target = int | str | None  # a class index, "all-to-all", or unknown


class Outcome(StrEnum):
    """What came of one run. Not run is not passed: `could_not_look` never satisfies a policy."""

    FINDINGS = "findings"
    NOTHING = "nothing"
    MEASURED = "measured"  # numbers that accuse nobody, such as clean accuracy
    COULD_NOT_LOOK = "could_not_look"


class TriggerLike(Protocol):
    """A recovered trigger: how to stamp it, and how to store it as named arrays."""

    @property
    def family(self) -> str: ...

    def apply(self, images: Any) -> Any: ...
    def to_tensors(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class AsrEstimate:
    """The attack success rate of a trigger, measured on the hold-out.

    `successes` of `trials` images, none of which has the target class, were classified as the
    target once the trigger was stamped on them. `low` to `high` is the Wilson 95 % interval.
    `natural` is the best ASR that any sibling class reached at the same `budget` (a size, in the
    family's own unit: for patches the L1 norm of the mask in pixels); None where it was not
    measured.
    """

    target: Target
    family: str
    successes: int
    trials: int
    estimate: float
    low: float
    high: float
    natural: float | None = None
    budget: float | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statement by one method version about one artifact, with numbers.

    `score` is in 0..1, higher is more suspicious. `trigger` exists only in memory; once stored,
    `trigger_digest` names its blob.
    """

    family: str
    target: Target
    suspicious: bool
    score: float
    statement: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    asr: AsrEstimate | None = None
    trigger: TriggerLike | None = field(default=None, compare=False, repr=False)
    trigger_digest: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """This finding as JSON-ready values, without the in-memory trigger."""
        data = asdict(replace(self, trigger=None, numbers=dict(self.numbers)))
        del data["trigger"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Finding":
        """The inverse of `to_dict`."""
        asr = from_plain(AsrEstimate, data["asr"]) if data.get("asr") else None
        return cls(**{**data, "asr": asr})


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Clean accuracy on the hold-out: overall and per-class recall, in 0..1."""

    overall: float
    per_class: tuple[float, ...]
    images: int


@dataclass(frozen=True, kw_only=True)
class GraphQuality:
    """How well a text-to-graph model does its task, measured on hold-out prompts; shares in 0..1.

    Attributes:
        similarity: mean MACCS cosine similarity of what was generated to the prompt's own molecule.
        qualified: share with a similarity of at least 0.5.
        novelty: share of those with a similarity under 0.8.
        diversity: mean pairwise Tanimoto distance (Morgan fingerprints) within a prompt.
        uniqueness: share of distinct canonical SMILES.
        ring_systems: share of molecules with a ring system, by its canonical SMILES.
        prompts: hold-out prompts that were used.
        molecules: what was generated for them.
    """

    similarity: float
    qualified: float
    novelty: float
    diversity: float
    uniqueness: float
    ring_systems: Mapping[str, float]
    prompts: int
    molecules: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that one method version reports about one artifact on one clean set, or why it could not.

    `accuracy` (of an image model) or `quality` (of a text-to-graph model) is what the guard itself
    measured on the hold-out; methods that look for backdoors have findings instead. `blobs` holds
    digests of what is stored beside it, by a name; under `battery` it is a commitment to the secret
    that its changes were drawn from. `cost` is what was reckoned before it ran
    (`guard.vetting.estimate`). `over_budget`: the seconds of the time budget that it did not fit,
    for a run that was spared or ended by it; under another budget it is another run.
    """

    artifact: str
    method: str
    version: int
    parameters: Mapping[str, Any]
    cleanset: str
    seed: int
    outcome: Outcome
    families: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    accuracy: Accuracy | None = None
    quality: GraphQuality | None = None
    reason: str = ""
    seconds: float = 0.0
    blobs: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict, compare=False)
    over_budget: float | None = None

    @property
    def key(self) -> str:
        """The digest of what identifies it: two runs with one key are one piece of evidence."""
        parts: list[Any] = [
            self.artifact,
            self.method,
            self.version,
            dict(self.parameters),
            self.cleanset,
            self.seed,
        ]
        if self.over_budget is not None:
            parts.append({"over_budget": self.over_budget})
        return json_digest(parts)

    def to_dict(self) -> dict[str, Any]:
        """This evidence as JSON-ready values; what there is none of may be left out."""
        data: dict[str, Any] = {
            "artifact": self.artifact,
            "method": self.method,
            "version": self.version,
            "parameters": dict(self.parameters),
            "cleanset": self.cleanset,
            "seed": self.seed,
            "outcome": str(self.outcome),
            "families": list(self.families),
            "findings": [finding.to_dict() for finding in self.findings],
            "reason": self.reason,
            "seconds": self.seconds,
        }
        if self.accuracy is not None:
            data["accuracy"] = asdict(self.accuracy)
        if self.quality is not None:
            data["quality"] = {"kind": str(Modality.GRAPHS), **to_plain(self.quality)}
        if self.blobs:
            data["blobs"] = dict(self.blobs)
        if self.cost:
            data["cost"] = dict(self.cost)
        if self.over_budget is not None:
            data["over_budget"] = self.over_budget
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Evidence":
        """The inverse of `to_dict`; also reads how accuracy was stored before it had a kind."""
        data = _with_accuracy(data)
        accuracy = data.get("accuracy")
        quality = data.get("quality")
        return cls(
            **{
                **data,
                "outcome": Outcome(data["outcome"]),
                "families": tuple(data["families"]),
                "findings": tuple(Finding.from_dict(item) for item in data["findings"]),
                "accuracy": None if accuracy is None else from_plain(Accuracy, accuracy),
                "quality": None if quality is None else from_plain(GraphQuality, quality),
            }
        )


def _with_accuracy(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Convert evidence that was stored when accuracy was a finding of the family `accuracy`.

    Its numbers were `overall`, `images`, and `class_0`, `class_1`... with one for each class.
    """
    if [finding["family"] for finding in data["findings"]] != ["accuracy"]:
        return data
    numbers = data["findings"][0]["numbers"]
    recalls = [numbers[f"class_{index}"] for index in range(len(numbers) - 2)]
    accuracy = {
        "overall": numbers["overall"],
        "per_class": recalls,
        "images": int(numbers["images"]),
    }
    return {**data, "outcome": Outcome.MEASURED, "findings": (), "accuracy": accuracy}


@dataclass(frozen=True, kw_only=True)
class CleanSetFacts:
    """The facts about a clean set that a policy reads; it never sees an image."""

    modality: ClassVar[Modality] = Modality.IMAGES
    name: str
    digest: str
    classes: int
    channels: int
    height: int
    width: int
    per_class: int  # images of the rarest class
    search: int
    calibration: int
    holdout: int


@dataclass(frozen=True, kw_only=True)
class PairSetFacts:
    """As `CleanSetFacts`, of pairs of a text and a molecule.

    `heavy_atoms` are those of the largest molecule (all but hydrogen), `elements` all that occur.
    """

    modality: ClassVar[Modality] = Modality.GRAPHS
    name: str
    digest: str
    search: int
    calibration: int
    holdout: int
    heavy_atoms: int
    elements: tuple[str, ...]

    @property
    def pairs(self) -> int:
        """The pairs of all three parts."""
        return self.search + self.calibration + self.holdout

    def to_dict(self) -> dict[str, Any]:
        """These facts as JSON-ready values, with their `kind`."""
        return {"kind": str(self.modality), **asdict(self), "elements": list(self.elements)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "PairSetFacts":
        """The inverse of `to_dict`."""
        plain = {name: value for name, value in data.items() if name != "kind"}
        return cls(**{**plain, "elements": tuple(plain["elements"])})


AnyCleanSet = CleanSetFacts | PairSetFacts


def clean_set_from(data: Mapping[str, Any]) -> AnyCleanSet:
    """Stored facts about a clean set of any modality; those of images carry no `kind`.

    Raises:
        ValueError: a kind that this release does not know.
    """
    if Modality(data.get("kind", str(Modality.IMAGES))) is Modality.GRAPHS:
        return PairSetFacts.from_dict(data)
    return CleanSetFacts(**{name: value for name, value in data.items() if name != "kind"})
