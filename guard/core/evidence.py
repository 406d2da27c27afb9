"""What methods say about an artifact: findings, ASR estimates, evidence.

Plain data, JSON in and out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from guard.core.digests import json_digest
from guard.core.text import in_turn

Target = int | str | None  # a class index, "all-to-all", or unknown


class Outcome(StrEnum):
    """Not run is not passed: the third outcome never satisfies a policy."""

    FINDINGS = "findings"
    NOTHING = "nothing"
    COULD_NOT_LOOK = "could_not_look"


class TriggerLike(Protocol):
    """A recovered trigger: how to stamp it, and how to store it as named arrays."""

    @property
    def family(self) -> str: ...

    def apply(self, images: Any) -> Any: ...
    def to_tensors(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class AsrEstimate:
    """k of n hold-out images, whose class is not the target, went to the target.

    Wilson 95 % interval.

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
        """JSON-ready; the in-memory trigger stays behind."""
        data = asdict(replace(self, trigger=None, numbers=dict(self.numbers)))
        del data["trigger"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Finding":
        """The inverse of `to_dict`."""
        asr = AsrEstimate(**data["asr"]) if data.get("asr") else None
        return cls(**{**data, "asr": asr})


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that one method version said about one artifact on one clean set.

    Or why it could not look.
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
    reason: str = ""
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """Two runs with one key are one piece of evidence."""
        return json_digest(
            [
                self.artifact,
                self.method,
                self.version,
                dict(self.parameters),
                self.cleanset,
                self.seed,
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
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

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Evidence":
        """The inverse of `to_dict`."""
        return cls(
            **{
                **data,
                "outcome": Outcome(data["outcome"]),
                "families": tuple(data["families"]),
                "findings": tuple(Finding.from_dict(item) for item in data["findings"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class CleanSetFacts:
    """What a policy may ask about a clean set without seeing a picture."""

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
class Accuracy:
    """Clean accuracy on the hold-out: overall and per-class recall, in 0..1."""

    overall: float
    per_class: tuple[float, ...]
    images: int


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """Fresh patches from a distribution that was learnt on the parent, one a hold-out picture.

    On parent and child.

    Their `budget` is the region's size in pixels. Where no distribution could be learnt, they were
    found by so many new searches on the parent (`searches`), and the budget is what each may cover.
    """

    before: AsrEstimate
    after: AsrEstimate
    searches: int = 0


@dataclass(frozen=True, kw_only=True)
class Relearned:
    """How fast a parent's trigger comes back on a copy of the child that is taught `pictures` of
    it.

    `asr` is its ASR (0..1) after each of `steps`, `rivals` that of triggers of the same mask at a
    random place in random colours, taught in the same way. Over several draws of pictures and
    rivals all are means, of the best rival's rates, the second's, and so on; then `leads` has each
    draw's own.
    """

    target: Target
    family: str
    budget: float
    pictures: int
    steps: tuple[int, ...]
    asr: tuple[float, ...]
    rivals: tuple[tuple[float, ...], ...]
    leads: tuple[float, ...] = ()

    @property
    def lead(self) -> float:
        """The largest lead in ASR (-1..1) over the best rival after a step.

        NaN where one could not be measured.
        """
        return lead_of(self.asr, self.rivals)


def lead_of(asr: Sequence[float], rivals: Sequence[Sequence[float]]) -> float:
    """As `Relearned.lead`.

    Before the first step nothing has been learnt, so that it does not count.
    """
    best = [
        max(rates) if all(map(math.isfinite, rates)) else math.nan
        for rates in zip(*rivals, strict=True)
    ]
    leads = [own - other for own, other in zip(asr[1:], best[1:], strict=True)]
    return max(leads) if leads and all(map(math.isfinite, leads)) else math.nan


@dataclass(frozen=True, kw_only=True)
class Woken:
    """What a perturbation of at most `radius` (0..1), one for all pictures.

    Adds to a parent's trigger on the child.

    `stamped` is the ASR of the trigger with a perturbation learnt on top of it, `alone` that of one
    learnt without.
    """

    radius: float
    stamped: AsrEstimate
    alone: AsrEstimate

    @property
    def lead(self) -> float:
        """How much the trigger helps (-1..1)."""
        return self.stamped.estimate - self.alone.estimate


@dataclass(frozen=True, kw_only=True)
class SharedRisk:
    """Share of `images` hold-out pictures with a perturbation within `radius` on which two networks
    err alike.

    `after` is that of parent and child, `before` the parent's own. A search found them: the true
    shares are larger.
    """

    radius: float
    images: int
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class PurificationFacts:
    """How a purified candidate compares with its parent on the hold-out.

    `replayed` holds one estimate per suspicious trigger recovered on the parent, measured on the
    child. `resampled` and `relearned` look beyond those triggers, for patches, `woken` for all that
    lead to one class, `shared` beyond any trigger; `unproved` says for what they could not, and
    why. `swapped` has for each class how many pictures the parent had right and the child has
    wrong, and the other way round; none in facts from before it was counted. `after` names the
    defenses that had repaired what this one started from, in order, and `start` is the digest of
    that candidate; both are empty where it started from the parent.
    """

    defense: str
    version: int
    parameters: Mapping[str, Any]
    parent: str
    acc_before: Accuracy
    acc_after: Accuracy
    replayed: tuple[AsrEstimate, ...]
    seconds: float
    resampled: tuple[Resampled, ...] = ()
    relearned: tuple[Relearned, ...] = ()
    woken: tuple[Woken, ...] = ()
    shared: SharedRisk | None = None
    unproved: tuple[str, ...] = ()
    swapped: tuple[tuple[int, int], ...] = ()
    after: tuple[str, ...] = ()
    start: str = ""

    @property
    def chain(self) -> str:
        """All defenses in words: `shared_distillation, then patch_unlearning`."""
        return in_turn((*self.after, self.defense))
