"""All that a reader may want to know about one scan or purification, as one frozen value."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import Any

from guard.core.evidence import (
    Accuracy,
    AsrEstimate,
    CleanSetFacts,
    Evidence,
    Outcome,
    Relearned,
    Resampled,
    SharedRisk,
    Target,
    Woken,
)
from guard.core.manifest import Manifest
from guard.core.states import EXIT_CODES, Verdict, not_covered
from guard.core.text import in_turn

#: The family under which the guard stores its own measurement of clean accuracy.
ACCURACY = "accuracy"


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
    """A hold-out picture with a trigger on it (C,H,W in [0, 1]).

    And what the parent and the artifact say of it.

    `label` is its true class, `wanted` the one that the trigger is meant to send it to.
    """

    picture: Any
    label: int
    wanted: int
    before: int
    after: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Demonstration:
    """One of the parent's triggers at work, for the HTML page: its ASR on both (None.

    Not measured), and pictures.
    """

    family: str
    target: Target
    before: AsrEstimate | None
    after: AsrEstimate | None
    pictures: Sequence[Answered] = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """What `guard scan` and `guard purify` answer.

    `score` is in 0..1, higher is more suspicious. `asr_upper` bounds the rates of all accused
    triggers at once; `calibration` is the digest of the calibration file that the score comes from,
    if it does. `known_gaps` is what was measured for the policy (`guard.policy.known_gaps`); None
    where no method looked, and in verdicts from before it.

    `policy` is the digest of the policy that decided. `evidence` holds `Evidence.to_dict()` values,
    `methods` one `{name, version, seconds, outcome}` a method that ran. The fields from `parent` on
    speak about a purification: `parameters` are all of the defense's, `acc_before` is the parent's
    accuracy, `replayed` the triggers recovered on the parent and measured on this artifact,
    `replayed_before` the same triggers on the parent, in the same order, `demonstrations` some of
    them on pictures, `after` and `resampled` to `unproved` as in `PurificationFacts`, `candidates`
    one mapping (`defense`, `after` where it repaired another candidate further, then `verdict`,
    None while it has none, and `reasons`, or `failed`) for each that was tried.
    """

    digest: str
    name: str
    verdict: Verdict
    score: float
    target: Target = None
    asr: AsrEstimate | None = None
    asr_upper: float | None = None
    calibration: str | None = None
    coverage: Sequence[str] = ()
    known_gaps: Mapping[str, Any] | None = None
    methods: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    policy: str = ""
    reasons: Sequence[str] = ()
    manifest: Manifest | None = None
    cleanset: CleanSetFacts | None = None
    evidence: Sequence[Mapping[str, Any]] = ()
    triggers: Sequence[RecoveredTrigger] = field(default=(), repr=False)
    parent: str | None = None
    defense: str | None = None
    after: Sequence[str] = ()
    defense_version: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    acc_before: Accuracy | None = None
    acc_after: Accuracy | None = None
    replayed: Sequence[AsrEstimate] = ()
    replayed_before: Sequence[AsrEstimate] = ()
    demonstrations: Sequence[Demonstration] = field(default=(), repr=False)
    resampled: Sequence[Resampled] = ()
    relearned: Sequence[Relearned] = ()
    woken: Sequence[Woken] = ()
    shared: SharedRisk | None = None
    unproved: Sequence[str] = ()
    candidates: Sequence[Mapping[str, Any]] = ()
    scan_id: str | None = None
    verdict_id: str | None = None
    issued_at: str | None = None
    expires_at: str | None = None

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
        for after in self.replayed:
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
        """The defenses that made this artifact, in words; empty where none did."""
        return "" if self.defense is None else in_turn((*self.after, self.defense))

    @property
    def not_covered(self) -> list[str]:
        """Trigger families that no method of this scan spoke about."""
        return not_covered(self.coverage)

    @property
    def accuracy(self) -> float | None:
        """Clean accuracy of this artifact on the hold-out, 0..1; None where it was not measured."""
        if self.acc_after is not None:
            return self.acc_after.overall
        return next(
            (
                float(found["numbers"]["overall"])
                for item in self.evidence
                for found in item.get("findings", ())
                if found.get("family") == ACCURACY and "overall" in found["numbers"]
            ),
            None,
        )

    def to_dict(self) -> dict[str, Any]:
        """The agreed JSON document.

        Every number in it is finite; `asr` always has its three keys, null if unmeasured.

        A score that is not finite reads 1.0: whatever could not be judged counts as suspicious.
        """
        data: dict[str, Any] = {
            "digest": self.digest,
            "name": self.name,
            "verdict": str(self.verdict),
            "score": min(1.0, max(0.0, self.score)) if math.isfinite(self.score) else 1.0,
            "target": self.target,
            "asr": asdict(self.asr) if self.asr else {"estimate": None, "low": None, "high": None},
            "asr_upper": self.asr_upper,
            "accuracy": self.accuracy,
            "coverage": list(self.coverage),
            "not_covered": self.not_covered,
            "known_gaps": None if self.known_gaps is None else dict(self.known_gaps),
            "methods": [dict(method) for method in self.methods],
            "seconds": self.seconds,
            "policy": self.policy,
            "calibration": self.calibration,
            "reasons": list(self.reasons),
            "manifest": self.manifest.to_dict() if self.manifest else None,
            "cleanset": asdict(self.cleanset) if self.cleanset else None,
            "evidence": [dict(item) for item in self.evidence],
            "triggers": [trigger.to_dict() for trigger in self.triggers],
        }
        data.update(self._about_purification())
        for key in ("scan_id", "verdict_id", "issued_at", "expires_at"):
            if (value := getattr(self, key)) is not None:
                data[key] = value
        finite: dict[str, Any] = _finite(data)
        return finite

    def _about_purification(self) -> dict[str, Any]:
        data: dict[str, Any] = {}
        if self.parent is not None or self.defense is not None:
            before, after = self.acc_before, self.acc_after
            data = {
                "parent": self.parent,
                "defense": self.defense,
                "after": list(self.after),
                "defense_version": self.defense_version,
                "parameters": dict(self.parameters),
                "acc_before": before.overall if before else None,
                "acc_after": after.overall if after else None,
                "acc_before_per_class": list(before.per_class) if before else None,
                "acc_after_per_class": list(after.per_class) if after else None,
                "replayed": [asdict(estimate) for estimate in self.replayed],
                "replayed_before": [asdict(estimate) for estimate in self.replayed_before],
                "resampled": [asdict(sample) for sample in self.resampled],
                "relearned": [{**asdict(taught), "lead": taught.lead} for taught in self.relearned],
                "woken": [{**asdict(one), "lead": one.lead} for one in self.woken],
                "shared": None if self.shared is None else asdict(self.shared),
                "unproved": list(self.unproved),
            }
        if self.candidates:
            data["candidates"] = [dict(candidate) for candidate in self.candidates]
        return data


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
    findings = item.get("findings", ())
    if any(finding.get("suspicious") for finding in findings):
        return "suspicious"
    measured = findings and all(finding.get("family") == ACCURACY for finding in findings)
    return "measured" if measured else "nothing suspicious"


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
