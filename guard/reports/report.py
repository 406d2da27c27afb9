"""All that a reader may want to know about one scan or purification, as one frozen value."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import Any

from guard.core.evidence import AsrEstimate, CleanSetFacts, Evidence, Outcome, Target
from guard.core.manifest import Manifest
from guard.core.plain import to_plain
from guard.core.purification import PurificationFacts
from guard.core.states import EXIT_CODES, Verdict, not_covered
from guard.core.text import in_turn
from guard.core.verdict import VerdictFacts

#: Names the form of the JSON document; published in `docs/schemas/report.schema.json`.
SCHEMA = "https://registry-guard.dev/schemas/report/v1"


@dataclass(frozen=True, kw_only=True, eq=False)
class RecoveredTrigger:
    """A trigger as something to look at.

    `mask` is an H,W array in [0, 1]; `pattern` C,H,W in [0, 1]; `picture` a clean image with the
    trigger stamped on it, C,H,W in [0, 1], or None. Of a family other than patches, mask and
    pattern are its effect on that picture. Anything that `numpy.asarray` takes will do.
    """

    family: str
    target: Target
    digest: str | None
    mask: Any
    pattern: Any
    picture: Any = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready.

        The pixels stay behind, they are in the blob called `digest` and on the HTML page.
        """
        return {"family": self.family, "target": self.target, "digest": self.digest}


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """A hold-out image with a trigger on it, and the classes that parent and artifact answer.

    `picture` is C,H,W in [0, 1]; `label` its true class, `wanted` the one that the trigger is meant
    to lead to; `before` is the parent's answer, `after` the artifact's.
    """

    picture: Any
    label: int
    wanted: int
    before: int
    after: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Demonstration:
    """One of the parent's triggers at work, on images, for the HTML page.

    `before` and `after` are its ASR on parent and artifact; None where it was not measured.
    """

    family: str
    target: Target
    before: AsrEstimate | None
    after: AsrEstimate | None
    pictures: Sequence[Answered] = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """What `guard scan` and `guard purify` answer: the facts of the verdict, and all beside them.

    Attributes:
        facts: the verdict and what it rests on.
        policy: digest of the policy that decided.
        evidence: `Evidence.to_dict()` values; `methods` is their short form.
        purification: how the artifact was repaired; None for an upload.
        replayed_before: the triggers of `purification.replayed`, measured on the parent.
        demonstrations: some of them on images.
        candidates: one mapping for each that was tried: `defense`, `after` where it repaired
            another candidate further, then `verdict` (None while it has none) and `reasons`, or
            `failed`.
    """

    digest: str
    name: str
    facts: VerdictFacts
    methods: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    policy: str = ""
    manifest: Manifest | None = None
    cleanset: CleanSetFacts | None = None
    evidence: Sequence[Mapping[str, Any]] = ()
    triggers: Sequence[RecoveredTrigger] = field(default=(), repr=False)
    purification: PurificationFacts | None = None
    replayed_before: Sequence[AsrEstimate] = ()
    demonstrations: Sequence[Demonstration] = field(default=(), repr=False)
    candidates: Sequence[Mapping[str, Any]] = ()
    scan_id: str | None = None
    verdict_id: str | None = None
    issued_at: str | None = None
    expires_at: str | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict itself."""
        return self.facts.verdict

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence a reason."""
        return self.facts.reasons

    @property
    def score(self) -> float:
        """How suspicious, 0..1.

        A verdict that needed no score (unvettable, inconclusive), and a score that is not finite,
        are no sign of innocence: 1.
        """
        score = self.facts.score
        return min(1.0, max(0.0, score)) if score is not None and math.isfinite(score) else 1.0

    @property
    def target(self) -> Target:
        """The accused class."""
        return self.facts.target

    @property
    def asr(self) -> AsrEstimate | None:
        """The attack success rate that a reader should see first."""
        return self.facts.asr

    @property
    def exit_code(self) -> int:
        """The number with which `guard` ends; blocked means blocked for scripts too."""
        return EXIT_CODES[self.verdict]

    @property
    def natural_only(self) -> bool:
        """Whether `asr` is that of a trigger that siblings need as little for.

        Every model has one.
        """
        return (
            self.asr is not None and self.target is None and self.asr.natural == self.asr.estimate
        )

    @property
    def replays(self) -> list[tuple[AsrEstimate | None, AsrEstimate]]:
        """Each replayed trigger before (None: not measured) and after.

        A class may have several of one family.
        """
        before = list(self.replayed_before)
        pairs: list[tuple[AsrEstimate | None, AsrEstimate]] = []
        for after in () if self.purification is None else self.purification.replayed:
            place = next(
                (
                    index
                    for index, one in enumerate(before)
                    if (one.target, one.family) == (after.target, after.family)
                ),
                None,
            )
            pairs.append((None if place is None else before.pop(place), after))
        return pairs

    @property
    def chain(self) -> str:
        """The defenses that made this artifact, for people; empty where none did."""
        return "" if self.purification is None else self.purification.chain

    @property
    def not_covered(self) -> list[str]:
        """Trigger families that no method of this scan spoke about."""
        return not_covered(self.facts.coverage)

    @property
    def accuracy(self) -> float | None:
        """Clean accuracy of this artifact on the hold-out, 0..1; None where it was not measured."""
        if self.purification is not None:
            return self.purification.acc_after.overall
        measured = (item.get("accuracy") for item in self.evidence)
        return next((float(found["overall"]) for found in measured if found), None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document that `schema` names.

        Every number in it is finite; `asr` always has its three keys, null if unmeasured.
        """
        facts = to_plain(self.facts)
        for shown_in_full in ("evidence", "parent", "purification"):
            del facts[shown_in_full]
        data: dict[str, Any] = {
            "schema": SCHEMA,
            "digest": self.digest,
            "name": self.name,
            **facts,
            "score": self.score,
            "asr": asdict(self.asr) if self.asr else {"estimate": None, "low": None, "high": None},
            "accuracy": self.accuracy,
            "not_covered": self.not_covered,
            "methods": [dict(method) for method in self.methods],
            "seconds": self.seconds,
            "policy": self.policy,
            "manifest": self.manifest.to_dict() if self.manifest else None,
            "cleanset": asdict(self.cleanset) if self.cleanset else None,
            "evidence": [dict(item) for item in self.evidence],
            "triggers": [trigger.to_dict() for trigger in self.triggers],
        }
        if self.purification is not None:
            data.update(_about(self.purification))
            data["replayed_before"] = [asdict(estimate) for estimate in self.replayed_before]
        if self.candidates:
            data["candidates"] = [to_plain(candidate) for candidate in self.candidates]
        for key in ("scan_id", "verdict_id", "issued_at", "expires_at"):
            if (value := getattr(self, key)) is not None:
                data[key] = value
        finite: dict[str, Any] = _finite(data)
        return finite


def _about(repair: PurificationFacts) -> dict[str, Any]:
    """The part of the document that only a repaired model has."""
    facts = to_plain(repair)
    before, after = facts.pop("acc_before"), facts.pop("acc_after")
    for taught, one in zip(facts["relearned"], repair.relearned, strict=True):
        taught["lead"] = one.lead
    for waking, found in zip(facts["woken"], repair.reactivated, strict=True):
        waking["lead"] = found.lead
    version = facts.pop("version")
    del facts["seconds"], facts["swapped"], facts["start"]
    return {
        **facts,
        "defense_version": version,
        "acc_before": before["overall"],
        "acc_after": after["overall"],
        "acc_before_per_class": before["per_class"],
        "acc_after_per_class": after["per_class"],
    }


def methods_of(evidence: Iterable[Evidence]) -> list[dict[str, Any]]:
    """The `methods` of a report, one entry a piece of evidence, in its order."""
    return [
        {
            "name": item.method,
            "version": item.version,
            "seconds": item.seconds,
            "outcome": str(item.outcome),
        }
        for item in evidence
    ]


def told(parameters: Mapping[str, Any]) -> str:
    """`rho=0.1, rounds=20`, by name."""
    return ", ".join(f"{name}={value}" for name, value in sorted(parameters.items()))


def chain_of(candidate: Mapping[str, Any]) -> str:
    """The defenses of one of a report's candidates, in words."""
    return in_turn((*candidate.get("after", ()), candidate.get("defense", "")))


def candidate_words(candidate: Mapping[str, Any]) -> tuple[str, str]:
    """What became of one candidate of a tournament, and the first reason."""
    if "failed" in candidate:
        return "failed", str(candidate["failed"])
    first, *more = candidate.get("reasons") or [""]
    return str(
        candidate.get("verdict") or "not judged yet"
    ), f"{first} (and {len(more)} more)" if more else str(first)


def outcome_words(item: Mapping[str, Any]) -> str:
    """What one piece of evidence (`Evidence.to_dict()`) amounts to, for people."""
    if item["outcome"] == Outcome.COULD_NOT_LOOK:
        return "could not look"
    if any(finding.get("suspicious") for finding in item.get("findings", ())):
        return "suspicious"
    return "measured" if item["outcome"] == Outcome.MEASURED else "nothing suspicious"


def _finite(value: Any) -> Any:
    # JSON has no NaN, and a reader's comparison with one is always false: better no number than
    # such a number. Numbers of other libraries (numpy.float32) become plain ones: an hour's answer
    # must not end in a type error.
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
