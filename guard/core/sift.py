"""What a sift of a training set found, as plain data: it accuses, it never clears."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from guard.core.evidence import AsrEstimate
from guard.core.plain import Digest
from guard.core.trainset import Suspect, TrainingSetFacts

#: Under which a sift is evidence. It is no detector and is on no shelf.
METHOD, VERSION = "training_set", 5
#: The scores of findings that a sift makes: proven poison, and what a person must look at.
PROVEN, DOUBTFUL = 1.0, 0.5


class SiftVerdict(StrEnum):
    """What came of a sift; `nothing` says that nobody was accused, not that the set is clean."""

    NOTHING = "nothing"
    POISONED = "poisoned"
    REVIEW = "review"
    COULD_NOT_LOOK = "could_not_look"


#: With which `guard sift` ends: nobody accused, poisoned, could not look, for a person.
SIFT_EXIT_CODES: Mapping[SiftVerdict, int] = {
    SiftVerdict.NOTHING: 0,
    SiftVerdict.POISONED: 1,
    SiftVerdict.COULD_NOT_LOOK: 2,
    SiftVerdict.REVIEW: 5,
}


class Poisoning(StrEnum):
    """How accused images relate to their label.

    Dirty-label ones look like another class to the reference network, clean-label ones like their
    own.
    """

    DIRTY_LABEL = "dirty-label"
    CLEAN_LABEL = "clean-label"


class Remark(StrEnum):
    """What a sift reports about the data, whether or not it harmed the model."""

    LABEL_ERRORS = "label errors"
    UNLEARNT_POISON = "poison that the model did not learn"


@dataclass(frozen=True, kw_only=True)
class SiftRules:
    """When images are accused, and when a model is rejected for it.

    Attributes:
        max_fdr: the estimated share of clean images among the suspects, at most.
        min_images: suspects that a class needs.
        fold: times the median number of suspects of the sibling classes.
        max_obedience: a model that classifies more of the suspects as labelled (lower end of the
            interval) has learnt them; also the limit of an estimated trigger's ASR. The most that
            was seen of label errors is 0.14, the least of learnt poison 0.53.
        ahead: a trigger estimated from suspects proves poison where the lower end of its ASR is
            more than this above the best ASR of the same estimate for any sibling class.
        max_source_share: where more of a class's suspects come from one class, label errors explain
            them as well as poison does (0.54 was seen, and 0.14 of poison).
        least_clean: clean images a class; with 10, one of three honest sets was accused.
        max_accuracy_gap: the accuracy on a model's own training set is not below that on clean
            images by more than this.
        proof: the share of suspects that no repair may learn from.
        trusted: the share of each class, the least conspicuous images, that is called trusted.
    """

    max_fdr: float = 0.1
    min_images: int = 15
    fold: float = 3.0
    max_obedience: float = 0.2
    ahead: float = 0.15
    max_source_share: float = 0.4
    least_clean: int = 20
    max_accuracy_gap: float = 0.05
    proof: float = 0.3
    trusted: float = 0.4


@dataclass(frozen=True, kw_only=True)
class Share:
    """`successes` of `trials`, with the Wilson 95 % interval `low` to `high`."""

    successes: int
    trials: int
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """One method's scores of a training set, or why there are none (`failed`).

    The numbers are quantiles of the scores; `null` counts the clean images behind it, 0 where the
    method only ranks. `poisoning` names the kinds that the method speaks about, sorted.
    """

    method: str
    version: int
    parameters: Mapping[str, Any]
    seconds: float
    null: int = 0
    quantiles: Mapping[str, float] = field(default_factory=dict)
    poisoning: tuple[str, ...] = ()
    failed: str | None = None


@dataclass(frozen=True, kw_only=True)
class SuspectTrigger:
    """A trigger estimated from suspects.

    `asr` is the "ASR of the trigger estimated from suspects" on the hold-out. It is a lower bound
    in practice for triggers that differ from image to image. `siblings` is the best rate that the
    same estimate reached for another class; None where it was not asked.
    """

    digest: Digest
    family: str
    asr: AsrEstimate
    siblings: float | None = None

    def works(self, rules: SiftRules) -> bool:
        """Whether it works, and far better than for any sibling, as far as that was asked."""
        return self.asr.low > max(rules.max_obedience, (self.siblings or 0.0) + rules.ahead)


@dataclass(frozen=True, kw_only=True)
class SiftedClass:
    """What was found in the images of one label.

    `accused` counts those at the allowed false discovery rate, `resolved` is the number that must
    be accused before the clean images allow so low a rate at all. The rest is known of classes that
    stand out: `sources` counts the estimated true classes of the suspects, and `source_share` is
    the largest one's share; `obedience` is the share of suspects that the model classifies as
    labelled.
    """

    label: int
    name: str
    images: int
    accused: int
    resolved: int
    stands_out: bool = False
    poisoning: Poisoning | None = None
    obedience: Share | None = None
    sources: tuple[int, ...] = ()
    source_share: float | None = None
    trigger: SuspectTrigger | None = None
    remark: Remark | None = None


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """A coherent map of classes among accused images, as an all-to-all poisoning leaves it.

    `mapping` holds the label of each class, -1 where none is known; `images` follow it, a `share`
    of those whose true class is estimated. `mutual` is the share of mapped classes that are swapped
    in pairs, as classes that are hard to tell apart are.
    """

    mapping: tuple[int, ...]
    images: int
    share: float
    mutual: float
    obedience: Share


@dataclass(frozen=True, kw_only=True)
class FdrPoint:
    """How many images of the accused classes have at most this estimated false discovery rate."""

    fdr: float
    images: int


@dataclass(frozen=True, kw_only=True)
class SiftReport:
    """A sift of one training set, with the model that it is claimed to have taught.

    Attributes:
        reasons: a sentence each.
        accuracy: the share of (a sample of) the set that the model classifies as labelled;
            `clean_accuracy` that of clean images. None where they were not measured.
        least_p: the least p value that the clean images allow.
        curve: over all classes that stand out.
        remarks: reports about the data, a sentence each.
    """

    verdict: SiftVerdict
    reasons: tuple[str, ...]
    training_set: TrainingSetFacts
    cleanset: str
    seed: int
    rules: SiftRules
    methods: tuple[ScoreSummary, ...] = ()
    accuracy: float | None = None
    clean_accuracy: float | None = None
    least_p: float | None = None
    classes: tuple[SiftedClass, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    label_map: LabelMap | None = None
    curve: tuple[FdrPoint, ...] = ()
    remarks: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SiftedSet:
    """Which training set of a model was sifted, and with what result.

    `digest` is None where the set could not be read; `suspects` counts the accused images of the
    classes that stand out, and `report` is the digest of the stored `SiftReport`.
    """

    uri: str
    digest: Digest | None
    result: SiftVerdict
    suspects: int = 0
    report: Digest | None = None
