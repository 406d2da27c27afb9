"""How a purified candidate compares with its parent: measured, stored, and summed up for signing.

`PurificationFacts` holds every number; `RepairSummary` is the part that a signed verdict repeats.
JSON keys are older than some names here: `woken` is reactivation, `pictures` a number of images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guard.core.evidence import Accuracy, AsrEstimate, Target
from guard.core.graph_proof import GraphProof
from guard.core.plain import ADDED, LEFT_OUT, called
from guard.core.text import in_turn


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """ASR of fresh patches on parent and child, one fresh patch for each hold-out image.

    They are drawn from a distribution that was learnt on the parent; then the estimates' `budget`
    is the region's size in pixels. Where none could be learnt, they come from `searches` new
    searches on the parent, and the budget is what each of them may cover.
    """

    before: AsrEstimate
    after: AsrEstimate
    searches: int = field(default=0, metadata=ADDED)


@dataclass(frozen=True, kw_only=True)
class Relearned:
    """How fast a copy of the child relearns a parent's trigger from `images` stamped images.

    `asr` is its ASR (0..1) after each of `steps`. `rivals` holds the same for triggers with the
    same mask at a random place in random colours, learnt in the same way. With several draws of
    images and rivals all rates are means over the draws: of the best rival, the second best, and so
    on; `leads` then holds the lead of each draw.
    """

    target: Target
    family: str
    budget: float
    images: int = field(metadata=called("pictures"))
    steps: tuple[int, ...]
    asr: tuple[float, ...]
    rivals: tuple[tuple[float, ...], ...]
    leads: tuple[float, ...] = field(default=(), metadata=ADDED)

    @property
    def lead(self) -> float:
        """The largest lead in ASR (-1..1) over the best rival after any step.

        It is NaN where a rate could not be measured.
        """
        return lead_of(self.asr, self.rivals)


def lead_of(asr: Sequence[float], rivals: Sequence[Sequence[float]]) -> float:
    """`Relearned.lead` of these rates (0..1).

    The rates before the first step do not count, since nothing has been learnt by then.
    """
    best = [
        max(rates) if all(map(math.isfinite, rates)) else math.nan
        for rates in zip(*rivals, strict=True)
    ]
    leads = [own - other for own, other in zip(asr[1:], best[1:], strict=True)]
    return max(leads) if leads and all(map(math.isfinite, leads)) else math.nan


@dataclass(frozen=True, kw_only=True)
class Reactivated:
    """What one universal perturbation within `radius` (0..1) adds to a parent's trigger.

    Measured on the child. `stamped` is the ASR of the trigger with a perturbation learnt on top of
    it, `alone` that of a perturbation learnt without the trigger.
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
    """Share of `images` hold-out images with a shared adversarial perturbation within `radius`.

    On such an image two networks make the same mistake: `after` of parent and child, `before` of
    the parent with itself. A search found them, so the true shares are larger.
    """

    radius: float
    images: int
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class OnSuspects:
    """How parent and child answer accused training images from which no repair has learnt.

    They carry the attacker's own trigger, and a clean reference gives them another class than their
    label: the share that a model still sends to the label is the true trigger's ASR. `fdr` (0..1)
    is the sift's estimate of how many of them are clean images all the same; an accurate model
    sends those to the label as well, so that this share of the ASR proves nothing.
    """

    before: AsrEstimate
    after: AsrEstimate
    fdr: float


@dataclass(frozen=True, kw_only=True)
class MomentTrigger:
    """ASR on the hold-out, of parent and child, of a trigger estimated from accused images.

    `searched` is that of the best patch of at most its size that a search on the child finds from
    there, with that of sibling classes as `natural`; None where it was not measured.
    """

    before: AsrEstimate
    after: AsrEstimate
    searched: AsrEstimate | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class UniversalTransfer:
    """Universal perturbations of one `kind` that a search found on the parent, one for each class.

    Of `classes` so many `worked` on the parent's hold-out and `kept` working on the child. `before`
    and `after` are the ASR, on parent and child, of the one that the child obeys most of those that
    worked; None where none did.
    """

    kind: str
    classes: int
    worked: int
    kept: int
    before: AsrEstimate | None = field(default=None, metadata=LEFT_OUT)
    after: AsrEstimate | None = field(default=None, metadata=LEFT_OUT)

    @property
    def sentence(self) -> str:
        """The counts for a reader."""
        return (
            f"Universal perturbations ({self.kind}) that were found on the uploaded model work "
            f"there for {self.worked} of {self.classes} classes; {self.kept} of these still work "
            "on this copy."
        )


@dataclass(frozen=True, kw_only=True)
class PurificationFacts:
    """How a purified candidate compares with its parent on the hold-out.

    `replayed` holds one estimate per suspicious trigger recovered on the parent, measured on the
    child. `resampled` and `relearned` look beyond those triggers, for patches; `reactivated` does
    so for every trigger that leads to one class, and `shared` needs no trigger; `unproved` names
    what could not be measured, and why. `swapped` holds for each class how many images the parent
    classified correctly and the child does not, and the other way round; it is empty in older facts
    that did not count them. `after` names, in order, the defenses that had already repaired the
    model that this one started from, and `start` is the digest of that candidate; both are empty
    where it started from the parent. `suspects` and `moments` exist where the training set was
    sifted: the accused images that were kept for this proof, and triggers estimated from them.
    `graphs` is the proof of a text-to-graph model, whose accuracy here is the mean similarity of
    what it generates to the prompts' own molecules. `blind`: no trigger of the parent was proven;
    then `universal` is what could be tried instead. `battery` is a commitment to the secret from
    which a defense drew changes of images, 64 hex digits; None for one that drew none.
    """

    defense: str
    version: int
    parameters: Mapping[str, Any]
    parent: str
    acc_before: Accuracy
    acc_after: Accuracy
    replayed: tuple[AsrEstimate, ...]
    seconds: float
    resampled: tuple[Resampled, ...] = field(default=(), metadata=ADDED)
    relearned: tuple[Relearned, ...] = field(default=(), metadata=ADDED)
    reactivated: tuple[Reactivated, ...] = field(default=(), metadata={**called("woken"), **ADDED})
    shared: SharedRisk | None = field(default=None, metadata=ADDED)
    unproved: tuple[str, ...] = field(default=(), metadata=ADDED)
    swapped: tuple[tuple[int, int], ...] = field(default=(), metadata=ADDED)
    after: tuple[str, ...] = field(default=(), metadata=ADDED)
    start: str = field(default="", metadata=ADDED)
    suspects: tuple[OnSuspects, ...] = field(default=(), metadata=LEFT_OUT)
    moments: tuple[MomentTrigger, ...] = field(default=(), metadata=LEFT_OUT)
    graphs: GraphProof | None = field(default=None, metadata=LEFT_OUT)
    blind: bool = field(default=False, metadata=LEFT_OUT)
    universal: tuple[UniversalTransfer, ...] = field(default=(), metadata=LEFT_OUT)
    battery: str | None = field(default=None, metadata=LEFT_OUT)

    @property
    def known(self) -> tuple[AsrEstimate, ...]:
        """The child's rates for every trigger that is known.

        Accused images count only where there is no trigger, since some of them may be clean.
        """
        triggers = (*self.replayed, *(one.after for one in self.moments))
        return triggers or tuple(one.after for one in self.suspects)

    @property
    def chain(self) -> str:
        """All defenses as a phrase: `shared_distillation, then patch_unlearning`."""
        return in_turn((*self.after, self.defense))


@dataclass(frozen=True, kw_only=True)
class FreshPatches(AsrEstimate):
    """The child's ASR under fresh patches, and the number of new searches that found them."""

    searches: int = field(default=0, metadata=ADDED)


@dataclass(frozen=True, kw_only=True)
class RelearnedLead:
    """`Relearned.lead` and the lead of each draw; None where a rate could not be measured."""

    target: Target
    lead: float | None
    leads: tuple[float | None, ...] = field(default=(), metadata=ADDED)


@dataclass(frozen=True, kw_only=True)
class ReactivatedLead:
    """`Reactivated.lead` at a radius; None where a rate could not be measured."""

    target: Target
    radius: float
    lead: float | None


@dataclass(frozen=True, kw_only=True)
class RepairSummary:
    """What a signed verdict repeats of a repair: its defenses, its cost and the measurements on it.

    A number that could not be measured is None. `images` is the size of the hold-out. `blind`: no
    trigger of the parent was proven, so that nothing shows whether one is gone.
    """

    defenses: tuple[str, ...]
    replayed: tuple[AsrEstimate, ...]
    unproved: tuple[str, ...]
    version: int | None = field(default=None, metadata=ADDED)
    parameters: Mapping[str, Any] | None = field(default=None, metadata=ADDED)
    acc_before: float | None = field(default=None, metadata=ADDED)
    acc_after: float | None = field(default=None, metadata=ADDED)
    images: int | None = field(default=None, metadata=ADDED)
    resampled: tuple[FreshPatches, ...] = field(default=(), metadata=ADDED)
    relearned: tuple[RelearnedLead, ...] = field(default=(), metadata=ADDED)
    reactivated: tuple[ReactivatedLead, ...] = field(
        default=(), metadata={**called("woken"), **ADDED}
    )
    shared: SharedRisk | None = field(default=None, metadata=ADDED)
    suspects: tuple[OnSuspects, ...] = field(default=(), metadata=LEFT_OUT)
    moments: tuple[MomentTrigger, ...] = field(default=(), metadata=LEFT_OUT)
    graphs: GraphProof | None = field(default=None, metadata=LEFT_OUT)
    blind: bool = field(default=False, metadata=LEFT_OUT)
    universal: tuple[UniversalTransfer, ...] = field(default=(), metadata=LEFT_OUT)

    def __post_init__(self) -> None:
        if not self.defenses:
            raise ValueError("a repair must name its defenses")


def summary(facts: PurificationFacts) -> RepairSummary:
    """What a signed verdict repeats of `facts`."""
    return RepairSummary(
        defenses=(*facts.after, facts.defense),
        version=facts.version,
        parameters=facts.parameters,
        acc_before=_finite(facts.acc_before.overall),
        acc_after=_finite(facts.acc_after.overall),
        images=facts.acc_after.images,
        replayed=facts.replayed,
        resampled=tuple(
            FreshPatches(**{**vars(one.after), "searches": one.searches}) for one in facts.resampled
        ),
        relearned=tuple(
            RelearnedLead(
                target=one.target,
                lead=_finite(one.lead),
                leads=tuple(_finite(each) for each in one.leads),
            )
            for one in facts.relearned
        ),
        reactivated=tuple(
            ReactivatedLead(target=one.stamped.target, radius=one.radius, lead=_finite(one.lead))
            for one in facts.reactivated
        ),
        shared=facts.shared,
        unproved=facts.unproved,
        suspects=facts.suspects,
        moments=facts.moments,
        graphs=facts.graphs,
        blind=facts.blind,
        universal=facts.universal,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
