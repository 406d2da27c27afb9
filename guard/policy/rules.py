"""What a policy says, as frozen values. Every default refuses or is the stricter choice."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from guard.core.digests import json_digest
from guard.core.errors import PolicyError
from guard.policy.calibration import Calibration


@dataclass(frozen=True, kw_only=True)
class DetectorRule:
    """A detector that has to look; `params` are its parameters where they are not the defaults."""

    required: bool = True
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DefenseRule:
    """A defense that may repair, in the order in which the policy lists them.

    With `after` it repairs the candidate of the latest earlier rule of that name further, whatever
    the verdict on it.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    after: str = ""


@dataclass(frozen=True, kw_only=True)
class CleanSetRule:
    """How much clean data a verdict needs.

    Images of the rarest class, and hold-out images in all.
    """

    min_per_class: int = 20
    min_holdout: int = 100


@dataclass(frozen=True, kw_only=True)
class AccuracyRule:
    """How well a model must do on clean images.

    `min_times_chance`: clean accuracy in units of 1/K below which nothing is decided; never more
    than halfway from chance to 1, which matters for two or three classes. `max_drop` and
    `max_class_drop` (0..1): what purification may cost overall and in any one class.
    """

    min_times_chance: float = 2.0
    max_drop: float = 0.02
    max_class_drop: float = 0.10


@dataclass(frozen=True, kw_only=True)
class ProofRule:
    """What a purified model must resist beyond its parent's triggers.

    None asks nothing, and it is only reported.

    `max_resampled` (0..1) is compared with the upper end of the ASR of fresh patches from the
    parent's distribution, `max_lead` (0..1) with the lead in ASR of the parent's trigger over
    random ones when both are taught anew, `max_woken` (0..1) with what the trigger adds to the ASR
    of a small perturbation.
    """

    max_resampled: float | None = None
    max_lead: float | None = None
    max_woken: float | None = None


@dataclass(frozen=True, kw_only=True)
class CombinationRule:
    """How several methods' p values count together; nothing of it matters while there is only one.

    `reject_level`: a recovered trigger proves a backdoor only if the combined p is at most this.
    `hold_level`: a combined p of at most this holds a model that no method flagged by itself; 0
    never does. `class_level`: the same for what all methods say of one class.
    """

    reject_level: float = 0.01
    hold_level: float = 0.001
    class_level: float = 0.03


@dataclass(frozen=True, kw_only=True)
class CalibrationRule:
    """A fitted combination.

    And the share of honest models (0..1) that it may raise an alarm about.
    """

    calibration: Calibration
    max_fpr: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All rules together; `digest` is in every verdict.

    `asr_limit` is compared with the *upper* end of an ASR interval. `natural` is the verdict on a
    trigger that sibling classes have as well: `held` or `rejected`. `stop_early` lets detectors
    that come later in the policy not look at a model that earlier ones have proven to be
    backdoored; it never shortens the way to a pass.
    """

    name: str
    version: int = 1
    lifetime_days: float = 30.0
    detectors: Mapping[str, DetectorRule] = field(default_factory=dict)
    defenses: tuple[DefenseRule, ...] = ()
    asr_limit: float = 0.10
    cleanset: CleanSetRule = field(default_factory=CleanSetRule)
    accuracy: AccuracyRule = field(default_factory=AccuracyRule)
    proof: ProofRule = field(default_factory=ProofRule)
    natural: str = "held"
    review_always: bool = False
    stop_early: bool = False
    combination: CombinationRule = field(default_factory=CombinationRule)
    calibration: CalibrationRule | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all rules."""
        return json_digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the calibration file is named by its digest."""
        data = asdict(replace(self, calibration=None))
        if self.proof == ProofRule():
            del data[
                "proof"
            ]  # a policy that asks for no proof keeps the digest that it had before there were any
        if not self.stop_early:
            del data["stop_early"]  # likewise
        for rule in data["defenses"]:
            if not rule["after"]:
                del rule["after"]  # likewise
        if self.calibration is not None:
            data["calibration"] = {
                "digest": self.calibration.calibration.digest,
                "max_fpr": self.calibration.max_fpr,
            }
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Policy":
        """The inverse of `to_dict`, for a policy without a calibration.

        Raises:
            PolicyError: it names one, which its digest cannot bring back.
        """
        if data.get("calibration") is not None:
            raise PolicyError("A policy with a calibration cannot be read from its digest.")
        nested: dict[str, Any] = {
            "detectors": {name: DetectorRule(**rule) for name, rule in data["detectors"].items()},
            "defenses": tuple(DefenseRule(**rule) for rule in data["defenses"]),
            "cleanset": CleanSetRule(**data["cleanset"]),
            "accuracy": AccuracyRule(**data["accuracy"]),
            "proof": ProofRule(**data.get("proof", {})),
            "combination": CombinationRule(**data["combination"]),
        }
        return cls(**{**data, **nested})

    @property
    def lifetime_seconds(self) -> float:
        """How long a verdict holds."""
        return self.lifetime_days * 86400.0
