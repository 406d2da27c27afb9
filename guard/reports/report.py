"""The report on one scan or purification, as one frozen value."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import Any

from guard.core.evidence import AnyCleanSet, AsrEstimate, Evidence, Outcome, Target
from guard.core.manifests import AnyManifest
from guard.core.plain import to_plain
from guard.core.purification import PurificationFacts
from guard.core.retraining import RetrainingFacts
from guard.core.sift import SiftReport
from guard.core.states import Verdict, exit_code, not_covered
from guard.core.text import in_turn
from guard.core.verdict import VerdictFacts

#: The format of the JSON document, published in `docs/schemas/report.schema.json`.
SCHEMA = "https://registry-guard.dev/schemas/report/v2"


@dataclass(frozen=True, kw_only=True, eq=False)
class RecoveredTrigger:
    """A recovered trigger in a form that can be shown.

    `mask` is an H,W array in [0, 1]; `pattern` is C,H,W in [0, 1]; `stamped` is a clean image with
    the trigger stamped on it, C,H,W in [0, 1], or None. For a family other than patches, mask and
    pattern show the effect on that image. Anything that `numpy.asarray` accepts is allowed.
    """

    family: str
    target: Target
    digest: str | None
    mask: Any
    pattern: Any
    stamped: Any = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form without pixels, which are in the blob `digest` and on the HTML page."""
        return {"family": self.family, "target": self.target, "digest": self.digest}


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """A hold-out image with a trigger on it, and the classes that parent and artifact predict.

    `image` is C,H,W in [0, 1]; `label` is its true class, `wanted` the trigger's target class;
    `before` is the parent's prediction, `after` the artifact's.
    """

    image: Any
    label: int
    wanted: int
    before: int
    after: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Demonstration:
    """The effect of one of the parent's triggers on images, for the HTML page.

    `before` and `after` are its ASR on parent and artifact, or None where not measured.
    """

    family: str
    target: Target
    before: AsrEstimate | None
    after: AsrEstimate | None
    images: Sequence[Answered] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TrainingImage:
    """An image of the training set, uint8 C,H,W, for the HTML page.

    `looks` is the class that an accused image looks like, None where that is unsure; images that
    are not accused stand beside for comparison.
    """

    image: Any = field(repr=False)
    label: int
    accused: bool
    looks: int | None = None


@dataclass(frozen=True)
class Shot:
    """What one model generated: an SVG document, or None where no molecule came out."""

    caption: str
    drawing: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ShownPrompt:
    """A hold-out prompt and what came of it, all with the same noise."""

    prompt: str
    shots: tuple[Shot, ...]


@dataclass(frozen=True, kw_only=True)
class ShownText:
    """A recovered text of a text-to-graph model, and what it does to a few prompts.

    `position` is where in a prompt it stands; `fragment` is the SMILES that it plants.
    """

    text: str
    position: str
    fragment: str
    prompts: tuple[ShownPrompt, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """The result of `guard scan` and `guard purify`: the facts of the verdict and their context.

    Attributes:
        facts: the verdict and its grounds.
        policy: digest of the policy that decided.
        evidence: `Evidence.to_dict()` values; `methods` is their short form.
        purification: how the artifact was repaired; None for an upload.
        retraining: how the artifact was trained anew, if the guard has done that.
        replayed_before: the triggers of `purification.replayed`, measured on the parent.
        demonstrations: some of them on images.
        molecules: for the HTML page, what recovered texts do to a text-to-graph model; empty where
            `not_drawn` gives the reason.
        candidates: one mapping for each that was tried: `defense`, `after` where it repaired
            another candidate further, then `verdict` (None while it has none) and `reasons`, or
            `failed`.
        sift: that of the training set which the model names, for the HTML page; the JSON document
            has it as evidence.
        training_images: some that the sift accuses, and others of the same labels.
        expired: whether the verdict had ended when the report was made.
        source: where the model came from, to the commit, where its path does not say that.
    """

    digest: str
    name: str
    facts: VerdictFacts
    methods: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    policy: str = ""
    manifest: AnyManifest | None = None
    cleanset: AnyCleanSet | None = None
    evidence: Sequence[Mapping[str, Any]] = ()
    triggers: Sequence[RecoveredTrigger] = field(default=(), repr=False)
    purification: PurificationFacts | None = None
    retraining: RetrainingFacts | None = None
    replayed_before: Sequence[AsrEstimate] = ()
    demonstrations: Sequence[Demonstration] = field(default=(), repr=False)
    molecules: Sequence[ShownText] = field(default=(), repr=False)
    not_drawn: str = ""
    candidates: Sequence[Mapping[str, Any]] = ()
    sift: SiftReport | None = field(default=None, repr=False)
    training_images: Sequence[TrainingImage] = field(default=(), repr=False)
    scan_id: str | None = None
    verdict_id: str | None = None
    issued_at: str | None = None
    expires_at: str | None = None
    expired: bool = False
    source: str | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict itself."""
        return self.facts.verdict

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of the verdict, one sentence each."""
        return self.facts.reasons

    @property
    def score(self) -> float:
        """How suspicious the artifact is, 0..1.

        It is 1 for a verdict without a score (unvettable, inconclusive) and for a score that is not
        finite, since neither is a sign of innocence.
        """
        score = self.facts.score
        return min(1.0, max(0.0, score)) if score is not None and math.isfinite(score) else 1.0

    @property
    def target(self) -> Target:
        """The accused class."""
        return self.facts.target

    @property
    def asr(self) -> AsrEstimate | None:
        """The attack success rate that a reader should see first; None where nothing is accused."""
        return self.facts.asr

    @property
    def exit_code(self) -> int:
        """The number with which `guard` ends; blocked means blocked for scripts too."""
        return exit_code(self.verdict, expired=self.expired)

    @property
    def replays(self) -> list[tuple[AsrEstimate | None, AsrEstimate]]:
        """Each replayed trigger's ASR before (None where not measured) and after the repair.

        A class may have several triggers of one family.
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
        """The defenses that made this artifact, as readable text; empty where none did."""
        return "" if self.purification is None else self.purification.chain

    @property
    def not_covered(self) -> list[str]:
        """The trigger families that no method of this scan covers."""
        return not_covered(self.facts.coverage, self.facts.modality)

    @property
    def accuracy(self) -> float | None:
        """Clean accuracy of this artifact on the hold-out, 0..1; None where not measured."""
        if self.purification is not None:
            return self.purification.acc_after.overall
        measured = (item.get("accuracy") for item in self.evidence)
        return next((float(found["overall"]) for found in measured if found), None)

    @property
    def similarity(self) -> float | None:
        """How like the prompts' own molecules the generated ones are, 0..1; None for images."""
        measured = (item.get("quality") for item in self.evidence)
        return next((float(found["similarity"]) for found in measured if found), None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document in the format that its `schema` names.

        Every number in it is finite; `asr` is null where nothing is accused or nothing measured.
        """
        facts = to_plain(self.facts)
        for shown_in_full in ("evidence", "parent", "purification"):
            del facts[shown_in_full]
        data: dict[str, Any] = {
            "schema": SCHEMA,
            "digest": self.digest,
            "name": self.name,
            **facts,
            "waivers": to_plain(self.facts.waivers),
            "score": self.score,
            "accuracy": self.accuracy,
            "not_covered": self.not_covered,
            "methods": [dict(method) for method in self.methods],
            "seconds": self.seconds,
            "policy": self.policy,
            "manifest": self.manifest.to_dict() if self.manifest else None,
            "cleanset": to_plain(self.cleanset) if self.cleanset else None,
            "evidence": [dict(item) for item in self.evidence],
            "triggers": [trigger.to_dict() for trigger in self.triggers],
        }
        if self.purification is not None:
            data.update(_about(self.purification))
            data["replayed_before"] = [asdict(estimate) for estimate in self.replayed_before]
        if self.retraining is not None:
            data["retraining"] = to_plain(self.retraining)
        if self.candidates:
            data["candidates"] = [to_plain(candidate) for candidate in self.candidates]
        for key in ("source", "scan_id", "verdict_id", "issued_at", "expires_at"):
            if (value := getattr(self, key)) is not None:
                data[key] = value
        if self.expires_at is not None:
            data["expired"] = self.expired
        found: dict[str, Any] = finite(data)
        return found


def _about(repair: PurificationFacts) -> dict[str, Any]:
    """The part of the document that exists only for a repaired model."""
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
    """The `methods` of a report: one entry for each piece of evidence, in the same order."""
    return [
        {
            "name": item.method,
            "version": item.version,
            "seconds": item.seconds,
            "outcome": str(item.outcome),
        }
        for item in evidence
    ]


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """The parameters as text, sorted by name, such as `rho=0.1, rounds=20`."""
    return ", ".join(f"{name}={value}" for name, value in sorted(parameters.items()))


def chain_of(candidate: Mapping[str, Any]) -> str:
    """The defenses of one candidate of a report, as readable text."""
    return in_turn((*candidate.get("after", ()), candidate.get("defense", "")))


def candidate_outcome(candidate: Mapping[str, Any]) -> tuple[str, str]:
    """The outcome of one candidate of a tournament, and its first reason."""
    if "failed" in candidate:
        return "failed", str(candidate["failed"])
    first, *more = candidate.get("reasons") or [""]
    return str(
        candidate.get("verdict") or "not judged yet"
    ), f"{first} (and {len(more)} more)" if more else str(first)


def outcome_text(item: Mapping[str, Any]) -> str:
    """The outcome of one piece of evidence (`Evidence.to_dict()`), as readable text."""
    if item["outcome"] == Outcome.COULD_NOT_LOOK:
        return "could not look"
    if any(finding.get("suspicious") for finding in item.get("findings", ())):
        return "suspicious"
    return "measured" if item["outcome"] == Outcome.MEASURED else "nothing suspicious"


def finite(value: Any) -> Any:
    """A JSON-ready form of a value, in which a number that is not finite is null.

    JSON has no NaN, and a comparison with one is always false, so a reader is better served by no
    number. Numbers of other libraries (numpy.float32) become plain ones, so that an hour's work
    does not end in a type error.
    """
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
