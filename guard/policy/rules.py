"""The rules of a policy as frozen values; every default refuses or is the stricter choice."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from guard.core.digests import json_digest
from guard.core.errors import PolicyError
from guard.core.modality import Modality
from guard.core.states import SERVABLE_VERDICTS, GateMode, Verdict, WouldBe
from guard.core.verdict import Gated
from guard.policy.calibration import Calibration

RETRAIN = "retrain"  # the section of `RetrainRule`
REPAIR_WHEN = ("rejected", "doubted", "always")
REPAIR_OTHERWISE = ("held", "served")


@dataclass(frozen=True, kw_only=True)
class DetectorRule:
    """A detector that runs; `params` are those of its parameters that differ from the defaults."""

    required: bool = True
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DefenseRule:
    """A defense that may repair a model; defenses are tried in the policy's order.

    With `after` it continues from the candidate of the latest earlier rule of that name, whatever
    the verdict on that candidate. An `informed` one learns from accused training images: it is
    tried before all others where there are any, and skipped where there are none. A `blind` one is
    for models without a proven trigger (`RepairRule`): it is tried on these alone, and they are
    repaired by no other, except by informed ones.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    after: str = ""
    informed: bool = False
    blind: bool = False


@dataclass(frozen=True, kw_only=True)
class RepairRule:
    """Which models are repaired though no trigger of theirs is proven.

    `when` is one of `REPAIR_WHEN`: `rejected` repairs only what was rejected with a measured
    trigger for each accused class; `doubted` also repairs what is held or rejected without one, and
    what would pass with a p value of at most `level` (0..1), of any method; `always` whatever would
    pass as well. The upload itself is then never served, only a copy that passes.

    `otherwise` is one of `REPAIR_OTHERWISE`: what becomes of an upload that would pass where no
    copy of it does. `held`: a person must look. `served`: it is served as it is, after all.
    """

    when: str = "rejected"
    level: float = 0.05
    otherwise: str = "held"

    @property
    def spares(self) -> bool:
        """Whether an upload of which no copy passes is judged by the policy's other rules."""
        return self.when != REPAIR_WHEN[0] and self.otherwise == REPAIR_OTHERWISE[1]


@dataclass(frozen=True, kw_only=True)
class CleanSetRule:
    """How much clean data a verdict needs: images of the rarest class, and hold-out images."""

    min_per_class: int = 20
    min_holdout: int = 100


@dataclass(frozen=True, kw_only=True)
class AccuracyRule:
    """How accurate a model must be on clean images.

    `min_times_chance`: with a clean accuracy below this multiple of 1/K nothing is decided. That
    bound is never more than halfway from chance to 1, which matters for two or three classes.
    `max_drop` and `max_class_drop` (0..1): the accuracy that purification may cost overall, and the
    recall in any one class.
    """

    min_times_chance: float = 2.0
    max_drop: float = 0.02
    max_class_drop: float = 0.10


@dataclass(frozen=True, kw_only=True)
class GraphRule:
    """What a verdict on a text-to-graph model needs; shares in 0..1.

    `min_similarity`: with a mean similarity to the prompts' own molecules below this nothing is
    decided. `max_drop`: what a repair may cost of it. `min_asr`: a recovered text proves a
    backdoor if the lower end of its ASR exceeds this. `rare`: two methods that accuse one fragment
    prove one where at most this share of the clean set holds it. Of a
    repaired model: `max_over_natural` is by how much the upper end of a trigger's ASR may exceed
    the rate without it, `max_unprompted` how often an accused fragment may come without any
    trigger (or three times its share of the clean set, where that is more), and `max_inverted` how
    often by a new shift of the contexts.
    """

    min_similarity: float = 0.3
    max_drop: float = 0.02
    min_asr: float = 0.2
    rare: float = 0.02
    max_over_natural: float = 0.02
    max_unprompted: float = 0.01
    max_inverted: float = 0.2


@dataclass(frozen=True, kw_only=True)
class ProofRule:
    """What a purified model must resist beyond its parent's triggers.

    A measurement whose limit is None is only reported. `max_resampled` (0..1) is compared with the
    upper end of the ASR of fresh patches from the parent's distribution, `max_lead` (0..1) with the
    lead in ASR of the parent's trigger over random ones when a copy relearns both, and `max_woken`
    (0..1) with what the trigger adds to the ASR of a small universal perturbation: the limit on
    reactivation, whose key in policy files is older than that name. `max_kept` (0..1) is for blind
    repairs: of the universal perturbations that work on the parent, the share that still works.
    """

    max_resampled: float | None = None
    max_lead: float | None = None
    max_woken: float | None = None
    max_kept: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingSetRule:
    """What a sift of the training set must be like, and what follows from it.

    `required`: without a training set the verdict is inconclusive, and where one could not be
    sifted, held. Accused images count up to an estimated
    share of clean ones among them (`max_fdr`, 0..1), and together only if there are `min_images` of
    them. `action` is the verdict on a model that is proven to obey them: `rejected`, `held`, or
    `reported`, which only adds the sentence to the reasons.
    """

    required: bool = False
    max_fdr: float = 0.1
    min_images: int = 15
    action: str = "rejected"


@dataclass(frozen=True, kw_only=True)
class RetrainRule:
    """What may be asked of the service about training sets.

    `methods` names the retrainers that the service runs; with none it retrains nothing. A
    retraining ends after `budget_seconds` of work, whatever it has. At most `max_open` jobs on
    training sets, sifts by request among them, wait or run at once.
    """

    methods: tuple[str, ...] = ()
    budget_seconds: float = 4 * 3600.0
    max_open: int = 8


@dataclass(frozen=True, kw_only=True)
class CombinationRule:
    """How the p values of several methods count together; with only one it has no effect.

    `reject_level`: a recovered trigger proves a backdoor only if the combined p is at most this.
    `hold_level`: a combined p of at most this holds a model that no method flagged by itself; 0
    never does. `class_level`: the same for the combined p of one class.
    """

    reject_level: float = 0.01
    hold_level: float = 0.001
    class_level: float = 0.03


@dataclass(frozen=True, kw_only=True)
class CalibrationRule:
    """A calibration, and the share of honest models (0..1) that it may flag."""

    calibration: Calibration
    max_fpr: float = 0.05


@dataclass(frozen=True, kw_only=True)
class LifetimeRule:
    """What happens to a served model as its verdict ages.

    `rescan_before_days`: how long before the end a re-scan begins; None for seven days, or a
    quarter of the lifetime where that is less. `on_expiry`, if no re-scan came to an end in time:
    `unpublish` lets the gate refuse the model, `review` does so and puts it before a person, and
    `warn` signs an extension of one day at a time.
    """

    rescan_before_days: float | None = None
    on_expiry: str = "unpublish"


@dataclass(frozen=True, kw_only=True)
class GateRule:
    """What the gate does with a model that may not be served.

    `mode`: `enforce` refuses it; `warn` serves it all the same and says so in every answer.
    """

    mode: str = str(GateMode.ENFORCE)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All rules together; `digest` is in every verdict.

    `asr_limit` is compared with the *upper* end of an ASR interval. `natural` is the verdict on a
    trigger that sibling classes have as well: `held` or `rejected`. With `stop_early`, detectors
    that come later in the policy are skipped once earlier ones have proven a backdoor; a model that
    passes has always been examined by all. `time_budget` is in seconds, for all detectors on one
    model: one that does not fit is not run, and what it covers is not covered. `modality` is that
    of the models which it is for; `graphs` applies to text-to-graph models alone.
    """

    name: str
    version: int = 1
    lifetime_days: float = 30.0
    lifetime: LifetimeRule = field(default_factory=LifetimeRule)
    gate: GateRule = field(default_factory=GateRule)
    detectors: Mapping[str, DetectorRule] = field(default_factory=dict)
    defenses: tuple[DefenseRule, ...] = ()
    asr_limit: float = 0.10
    cleanset: CleanSetRule = field(default_factory=CleanSetRule)
    accuracy: AccuracyRule = field(default_factory=AccuracyRule)
    proof: ProofRule = field(default_factory=ProofRule)
    natural: str = "held"
    review_always: bool = False
    stop_early: bool = False
    time_budget: float | None = None
    combination: CombinationRule = field(default_factory=CombinationRule)
    calibration: CalibrationRule | None = None
    training_set: TrainingSetRule = field(default_factory=TrainingSetRule)
    modality: Modality = Modality.IMAGES
    graphs: GraphRule = field(default_factory=GraphRule)
    retrain: RetrainRule = field(default_factory=RetrainRule)
    repair: RepairRule = field(default_factory=RepairRule)

    @property
    def digest(self) -> str:
        """SHA-256 of all rules that a verdict may depend on.

        What may be asked of the service is none of them: another budget for retraining must not
        have everything that is served scanned again.
        """
        return json_digest({key: value for key, value in self.to_dict().items() if key != RETRAIN})

    def to_dict(self) -> dict[str, Any]:
        """The rules as JSON-ready values, in which a digest stands for the calibration file."""
        data = asdict(replace(self, calibration=None))
        # A rule that has its default is left out where it is newer than the digests of policies
        # that are in use: these stay the same.
        for key, standard in _NEWER.items():
            if getattr(self, key) == standard:
                del data[key]
        if "proof" in data and self.proof.max_kept is None:
            del data["proof"]["max_kept"]  # likewise
        if "repair" in data and self.repair.otherwise == REPAIR_OTHERWISE[0]:
            del data["repair"]["otherwise"]  # likewise
        if self.modality is Modality.IMAGES:
            del data["modality"], data["graphs"]  # likewise
        for rule in data["defenses"]:
            for key in ("after", "informed", "blind"):
                if not rule[key]:
                    del rule[key]
        if self.calibration is not None:
            data["calibration"] = {
                "digest": self.calibration.calibration.digest,
                "max_fpr": self.calibration.max_fpr,
            }
        return data

    @classmethod
    def none(cls, modality: Modality) -> "Policy":
        """In place of a policy that nobody configured: it clears nothing, as it names no detector.

        Every decision under it is inconclusive.
        """
        return cls(name="none", modality=modality)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Policy":
        """The inverse of `to_dict`, for a policy without a calibration.

        Raises:
            PolicyError: it has one, which cannot be restored from its digest.
        """
        if data.get("calibration") is not None:
            raise PolicyError("A policy with a calibration cannot be read from its digest.")
        nested: dict[str, Any] = {
            "detectors": {name: DetectorRule(**rule) for name, rule in data["detectors"].items()},
            "defenses": tuple(DefenseRule(**rule) for rule in data["defenses"]),
            "cleanset": CleanSetRule(**data["cleanset"]),
            "accuracy": AccuracyRule(**data["accuracy"]),
            "proof": ProofRule(**data.get("proof", {})),
            "lifetime": LifetimeRule(**data.get("lifetime", {})),
            "gate": GateRule(**data.get("gate", {})),
            "combination": CombinationRule(**data["combination"]),
            "training_set": TrainingSetRule(**data.get("training_set", {})),
            "modality": Modality(data.get("modality", Modality.IMAGES)),
            "graphs": GraphRule(**data.get("graphs", {})),
            RETRAIN: _retrain_of(data.get(RETRAIN, {})),
            "repair": RepairRule(**data.get("repair", {})),
        }
        return cls(**{**data, **nested})

    @property
    def gate_mode(self) -> GateMode:
        """What the gate does with a model that may not be served."""
        return GateMode(self.gate.mode)

    def gated(self, verdict: Verdict, *, expired: bool = False) -> Gated | None:
        """What a verdict states about the gate; None where it enforces, and for unvettable files.

        Args:
            expired: the verdict rests on one that had ended.
        """
        if self.gate_mode is GateMode.ENFORCE or verdict is Verdict.UNVETTABLE:
            return None
        if verdict in SERVABLE_VERDICTS:
            would_be = WouldBe.EXPIRED if expired else WouldBe.PUBLISHED
        else:
            would_be = WouldBe(verdict)
        return Gated(mode=GateMode.WARN, would_be=would_be)

    def decides_as(self, digest: str) -> bool:
        """Whether `digest` is this policy's own, or that of the same rules in another mode."""
        modes = (replace(self, gate=GateRule(mode=str(mode))) for mode in GateMode)
        return digest in {policy.digest for policy in modes}

    @property
    def lifetime_seconds(self) -> float:
        """How long a verdict holds, in seconds."""
        return self.lifetime_days * 86400.0

    @property
    def rescan_before_seconds(self) -> float:
        """How long before its verdict ends a served model is scanned again."""
        days = self.lifetime.rescan_before_days
        return (min(7.0, self.lifetime_days / 4) if days is None else days) * 86400.0


#: Rules that are newer than the digests of policies that are in use, with their defaults.
_NEWER: Mapping[str, Any] = {
    "proof": ProofRule(),
    "stop_early": False,
    "time_budget": None,
    "lifetime": LifetimeRule(),
    "gate": GateRule(),
    "training_set": TrainingSetRule(),
    RETRAIN: RetrainRule(),
    "repair": RepairRule(),
}


def _retrain_of(data: Mapping[str, Any]) -> RetrainRule:
    """The rule from JSON, which knows no tuples."""
    return RetrainRule(**{**data, "methods": tuple(data.get("methods", ()))})
