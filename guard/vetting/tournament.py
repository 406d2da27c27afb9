"""Vetting and the tournament of one model in this process, without a store or jobs.

`guard.flow.purify` does the same for the service.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.errors import Cancelled, MethodFailed
from guard.core.evidence import Evidence
from guard.core.manifest import Manifest
from guard.core.manifests import AnyManifest
from guard.core.notes import Attempt
from guard.core.plain import LEFT_OUT
from guard.core.progress import Progress
from guard.core.purification import PurificationFacts
from guard.core.sift import SiftReport
from guard.core.verdict import VerdictFacts
from guard.policy import Case, Decision, DefenseRule, Policy, settled
from guard.reports.report import RecoveredTrigger, Report, methods_of
from guard.vetting import examine, parent_comparison, repair
from guard.vetting.accused import AccusedImages
from guard.vetting.case import judge, make_case, read_as_grey
from guard.vetting.next_defense import Step, next_step
from guard.vetting.report import recovered

if TYPE_CHECKING:
    from guard.ml.networks.architectures import ImageModel


@dataclass(frozen=True)
class Work:
    """What stays the same while one model and its candidates are vetted.

    `seconds` is the time budget of all detectors on one of them. `sifted`: the training set that
    taught the model was sifted; `sift` is what that says of the model itself, with the bytes of
    its triggers by digest.
    """

    policy: Policy
    curated: Any  # of the model's modality
    seed: int
    progress: Progress
    seconds: float
    sifted: bool = False
    sift: Evidence | None = None
    sift_triggers: Mapping[str, bytes] = field(default_factory=dict)
    sift_report: SiftReport | None = None

    def case(
        self,
        model: Any,
        digest: str,
        evidence: tuple[Evidence, ...],
        repair_facts: PurificationFacts | None = None,
        *,
        unrepaired: bool = False,
    ) -> Case:
        """All that the policy may read about the model `digest`."""
        return make_case(
            self.policy,
            digest,
            self.curated.facts,
            evidence,
            repair_facts,
            architecture=model.manifest.architecture,
            sifted=self.sifted,
            assumed=getattr(model.manifest, "assumed", ()),
            grey=read_as_grey(model.manifest.to_dict(), self.curated.facts),
            unrepaired=unrepaired,
        )

    def judge(
        self, model: Any, digest: str, repair_facts: PurificationFacts | None = None
    ) -> tuple[Decision, examine.Examined]:
        """Run the policy's detectors and decide."""
        detectors = {name: dict(rule.params) for name, rule in self.policy.detectors.items()}

        def case(evidence: tuple[Evidence, ...]) -> Case:
            return self.case(model, digest, evidence, repair_facts)

        examined = examine.examine(
            model,
            digest,
            self.curated,
            detectors,
            seed=self.seed,
            seconds=self.seconds,
            budget=self.policy.time_budget,
            progress=self.progress,
            settled=lambda so_far: settled(self.policy, case(so_far)),
        )
        if self.sift is not None and repair_facts is None:
            examined = replace(
                examined,
                evidence=(*examined.evidence, self.sift),
                triggers={**examined.triggers, **self.sift_triggers},
            )
        return judge(self.policy, case(examined.evidence)), examined

    def report(
        self,
        facts: VerdictFacts,
        examined: examine.Examined,
        inspected: examine.Inspected,
        name: str,
        seconds: float,
    ) -> Report:
        """The report on an artifact that was just judged, made without a store."""
        return Report(
            digest=inspected.digest,
            name=name,
            facts=facts,
            methods=methods_of(examined.evidence),
            seconds=seconds,
            policy=self.policy.digest,
            manifest=inspected.manifest,
            cleanset=self.curated.facts,
            evidence=[item.to_dict() for item in examined.evidence],
            triggers=self._recovered(examined, inspected.manifest),
        )

    def _recovered(
        self, examined: examine.Examined, manifest: AnyManifest
    ) -> list[RecoveredTrigger]:
        if not isinstance(manifest, Manifest):
            return []  # a text is in the finding's sentence, and nothing else can be shown
        holdout = self.curated.seen_by(manifest.input_size[0]).holdout
        images = (holdout.images.numpy(), holdout.labels.numpy())
        return recovered(examined.evidence, examined.triggers, images)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A repaired model that was vetted like an upload."""

    inspected: examine.Inspected
    facts: PurificationFacts
    decision: Decision
    examined: examine.Examined


@dataclass(frozen=True, kw_only=True)
class Tried(Attempt):
    """An attempt with what was found about it, which is kept nowhere else for one that loses."""

    parameters: Mapping[str, Any]
    seconds: float
    reasons: tuple[str, ...] = field(default=(), metadata=LEFT_OUT)
    acc_after: float | None = field(default=None, metadata=LEFT_OUT)
    evidence: tuple[Evidence, ...] = field(default=(), metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class Tournament:
    """The candidates of one parent, made one after the other; `tried` holds all attempts.

    `accused` is what a sift of the parent's training set found, if there was one. `blind`: no
    trigger of the parent is proven.

    Every candidate is compared with the parent, whatever it started from. Files are kept in
    `folder`, since a later defense may continue from them.
    """

    work: Work
    model: "ImageModel"
    parent: str
    found: examine.Examined
    folder: Path
    device: str | None
    accused: AccusedImages | None = None
    blind: bool = False
    tried: list[Tried] = field(default_factory=list)

    def candidates(self, rules: Sequence[DefenseRule]) -> Iterator[Candidate]:
        """Try `rules` in order and yield each candidate that could be made.

        The next rule is tried only once the caller takes the next candidate.

        Raises:
            Cancelled: `progress` raised it. Every other failure of a defense ends only its own
                attempt.
        """
        while (step := next_step(rules, self.tried)) is not None:
            begun = time.monotonic()
            try:
                made = self._make(step)
            except Cancelled:
                raise
            except MethodFailed as error:
                self.tried.append(
                    Tried(
                        **vars(step.attempt()) | {"failed": error.sentence},
                        parameters=dict(step.rule.params),
                        seconds=time.monotonic() - begun,
                    )
                )
                continue
            self.tried.append(_tried(step, made))
            yield made

    def without_copy(self, decision: Decision) -> Decision:
        """The decision on the upload once no copy has passed: the same, or by the other rules."""
        if not (self.blind and decision.blind and self.work.policy.repair.spares):
            return decision
        case = self.work.case(self.model, self.parent, self.found.evidence, unrepaired=True)
        return judge(self.work.policy, case)

    def _make(self, step: Step) -> Candidate:
        from guard.ml.networks import architectures

        start = None
        if (origin := step.origin()) is not None:
            start = repair.Start(
                model=examine.open_model(self._file(origin), device=self.device),
                digest=origin,
                after=step.after,
            )
        replays = parent_comparison.replays_from(self.found.evidence, self.found.triggers)
        canonical = self.folder / f"{len(self.tried)}.safetensors"
        digest, facts = repair.repair(
            self.model,
            self.parent,
            self.work.curated,
            step.rule.name,
            step.rule.params,
            replays,
            canonical,
            start=start,
            accused=self.accused,
            blind=self.blind,
            seed=self.work.seed,
            progress=self.work.progress,
        )
        canonical = canonical.rename(self._file(digest))
        repaired = examine.open_model(canonical, device=self.device)
        inspected = examine.Inspected(
            format="safetensors",
            manifest=repaired.manifest,
            digest=digest,
            canonical=canonical,
            parameters=sum(tensor.numel() for tensor in architectures.export(repaired).values()),
        )
        decision, examined = self.work.judge(repaired, digest, facts)
        return Candidate(inspected=inspected, facts=facts, decision=decision, examined=examined)

    def _file(self, digest: str) -> Path:
        return self.folder / digest


def _tried(step: Step, made: Candidate) -> Tried:
    facts = made.facts
    return Tried(
        defense=step.rule.name,
        after=step.after,
        parameters=dict(facts.parameters),
        digest=made.inspected.digest,
        verdict=made.decision.verdict,
        reasons=made.decision.reasons,
        acc_after=facts.acc_after.overall,
        seconds=facts.seconds,
        facts=facts,
        evidence=made.examined.evidence,
    )
