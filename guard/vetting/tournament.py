"""Vetting and the tournament of one model in this process: no store, no jobs.

`guard.flow.purify` is the service's.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.errors import Cancelled, MethodFailed
from guard.core.evidence import AsrEstimate, Evidence, PurificationFacts
from guard.core.progress import Progress
from guard.policy import Case, Decision, DefenseRule, Policy, decide, known_gaps, settled
from guard.reports.report import Report
from guard.vetting import examine, repair, report
from guard.vetting.case import make_case
from guard.vetting.next_defense import Step, next_step

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel


@dataclass(frozen=True)
class Work:
    """What stays the same while one model and its candidates are vetted.

    `seconds` are those of all detectors.
    """

    policy: Policy
    curated: "CuratedSet"
    seed: int
    progress: Progress
    seconds: float

    def judge(
        self, model: "ImageModel", digest: str, facts: PurificationFacts | None = None
    ) -> tuple[Decision, examine.Examined]:
        """Run the policy's detectors and decide."""
        detectors = {name: dict(rule.params) for name, rule in self.policy.detectors.items()}

        def case(evidence: tuple[Evidence, ...]) -> Case:
            return make_case(
                self.policy,
                digest,
                self.curated.facts,
                evidence,
                facts,
                architecture=model.manifest.architecture,
            )

        examined = examine.examine(
            model,
            digest,
            self.curated,
            detectors,
            seed=self.seed,
            seconds=self.seconds,
            progress=self.progress,
            settled=lambda so_far: settled(self.policy, case(so_far)),
        )
        return decide(self.policy, case(examined.evidence)), examined

    def report(
        self,
        decision: Decision,
        examined: examine.Examined,
        inspected: examine.Inspected,
        name: str,
        seconds: float,
        facts: PurificationFacts | None = None,
        tried: Sequence[dict[str, Any]] = (),
        before: Sequence[AsrEstimate] = (),
    ) -> Report:
        """The answer; `before` holds the parent's estimates of the replayed triggers."""
        holdout = self.curated.holdout
        return report.from_decision(
            decision,
            digest=inspected.digest,
            name=name,
            policy=self.policy.digest,
            manifest=inspected.manifest,
            cleanset=self.curated.facts,
            evidence=examined.evidence,
            triggers=examined.triggers,
            pictures=(holdout.images.numpy(), holdout.labels.numpy()),
            seconds=seconds,
            purification=facts,
            candidates=tried,
            replayed_before=before,
            known_gaps=known_gaps(
                self.policy, {item.method: item.version for item in examined.evidence}
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A repaired model that was vetted like an upload."""

    inspected: examine.Inspected
    facts: PurificationFacts
    decision: Decision
    examined: examine.Examined


@dataclass(frozen=True, kw_only=True)
class Tournament:
    """The candidates of one parent, one after the other; `tried` says of each what became of it.

    Everything is compared with the parent, whatever a candidate started from. Files are kept in
    `folder`, since a later defense may go on from them.
    """

    work: Work
    model: "ImageModel"
    parent: str
    found: examine.Examined
    folder: Path
    device: str | None
    tried: list[dict[str, Any]] = field(default_factory=list)

    def candidates(self, rules: Sequence[DefenseRule]) -> Iterator[Candidate]:
        """Try all `rules` in order; yields what could be made, and goes on while it is asked to.

        Raises:
            Cancelled: `progress` said so. Every other failure of a defense ends its candidate only.
        """
        while (step := next_step(rules, self.tried)) is not None:
            begun = time.monotonic()
            try:
                made = self._make(step)
            except Cancelled:
                raise
            except MethodFailed as error:
                self.tried.append(
                    {
                        **step.named(),
                        "parameters": dict(step.rule.params),
                        "failed": error.sentence,
                        "seconds": time.monotonic() - begun,
                    }
                )
                continue
            self.tried.append({**step.named(), **_told(made)})
            yield made

    def _make(self, step: Step) -> Candidate:
        start = None
        if (origin := step.origin()) is not None:
            start = repair.Start(
                model=examine.open_model(self._file(origin), device=self.device),
                digest=origin,
                after=step.after,
            )
        replays = repair.replays_from(self.found.evidence, self.found.triggers)
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
            parameters=sum(tensor.numel() for tensor in repaired.inner.state_dict().values()),
        )
        decision, examined = self.work.judge(repaired, digest, facts)
        return Candidate(inspected=inspected, facts=facts, decision=decision, examined=examined)

    def _file(self, digest: str) -> Path:
        return self.folder / digest


def _told(made: Candidate) -> dict[str, Any]:
    """A candidate in plain words and numbers.

    Nothing else keeps what was found on one that loses.
    """
    facts = made.facts
    return {
        "parameters": dict(facts.parameters),
        "digest": made.inspected.digest,
        "verdict": str(made.decision.verdict),
        "reasons": list(made.decision.reasons),
        "acc_after": facts.acc_after.overall,
        "seconds": facts.seconds,
        "facts": repair.facts_to_dict(facts),
        "evidence": [item.to_dict() for item in made.examined.evidence],
    }
