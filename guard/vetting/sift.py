"""Sift the training set of one model: a model and a set in, accused images and a judgement out.

Steps:
    1. refuse a set that does not fit the model, or too few clean images; measure the accuracy on
       the set
    2. run the methods; those with clean scores are joined into one score an image
    3. estimate false discovery rates, find the classes that stand out and a map of classes
    4. describe them: what the model does with the suspects, and the trigger that they share
    5. judge (`guard.policy.training_set`)

A sift may accuse a model. It never clears one and adds no coverage: the uploader may have named an
innocent set.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.core.errors import Cancelled, MethodFailed, OutOfTime
from guard.core.progress import Progress, part, silent
from guard.core.sift import (
    FdrPoint,
    Poisoning,
    Share,
    SiftReport,
    SiftRules,
    SiftVerdict,
)
from guard.policy.training_set import judge_sift
from guard.vetting import _sifted_classes as describe
from guard.vetting import carried_rates
from guard.vetting._sift_checks import measured, unfit
from guard.vetting._sift_scores import discoveries, joined, scored

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.sifting.conformal import Null
    from guard.sifters._base import Scores
    from guard.trainsets import Sifted, TrainingSet

DEFAULT_METHODS: Mapping[str, Mapping[str, Any]] = {"clean_distance": {}, "label_gap": {}}
JOINED = "joined"  # beside the names of methods
NO_NULL = "No method with clean scores could look at the set, so nothing can be estimated."
CURVE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
METHODS_END = 0.9  # of the progress


@dataclass(frozen=True, kw_only=True)
class Sift:
    """What was found, and what later steps need of it.

    Attributes:
        report: JSON-ready.
        triggers: the safetensors bytes of the triggers that the report names, by digest.
        trusted: places int64 of the least conspicuous images of each class.
        scores: each method's scores, float64 N, by name; under `JOINED` those of the deciding
            methods as one.
        rates: the estimated false discovery rates, float64 N; empty where nothing was estimated.
    """

    report: SiftReport
    triggers: Mapping[str, bytes] = field(default_factory=dict)
    trusted: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    rates: np.ndarray = field(default_factory=lambda: np.empty(0))

    def sifted(self) -> "Sifted":
        """The suspects as places, in the form in which those who train take them."""
        from guard.trainsets import Sifted

        teach = [one for one in self.report.suspects if not one.proof]
        return Sifted(
            suspects=np.array([one.index for one in teach], np.int64),
            proof=np.array([one.index for one in self.report.suspects if one.proof], np.int64),
            trusted=self.trusted,
            relabelled=np.array(
                [-1 if one.estimated is None else one.estimated for one in teach], np.int64
            ),
        )


def sift(
    model: "ImageModel",
    train: "TrainingSet",
    curated: "CuratedSet",
    methods: Mapping[str, Mapping[str, Any]] = DEFAULT_METHODS,
    *,
    rules: SiftRules | None = None,
    seed: int = 0,
    seconds: float = math.inf,
    progress: Progress = silent,
) -> Sift:
    """Look for poison in the training set that a model is claimed to come from.

    Args:
        model: what the set is claimed to have taught.
        train: read in batches, once or twice by each method.
        curated: the methods see its search and calibration parts; triggers are measured on the
            hold-out.
        methods: parameters by sifter's name.
        seconds: time budget of all methods together, and of the remarks on the trigger.

    Raises:
        Cancelled: `progress` raised it. Every other failure of a method or of the model becomes
            part of the report.
        InputError, IntegrityMismatch, Unavailable: the set cannot be read.
    """
    rules, begun = rules or SiftRules(), time.monotonic()
    blank = _blank(train, curated, rules, seed)
    refusal = unfit(model, train, curated, rules)
    if refusal is not None:
        return Sift(report=replace(blank, reasons=(refusal,)))
    try:
        blank = measured(model, train, curated, blank)
        if blank.reasons:
            return Sift(report=blank)
        end = time.monotonic() + seconds
        looking = part(progress, 0.0, METHODS_END)
        found, summaries = scored(model, train, curated, methods, seed, end, looking)
        blank = replace(blank, methods=summaries)
        done = _remarked(
            model, train, curated, _decided(model, train, curated, found, blank), end, progress
        )
    except Cancelled:
        raise
    except MethodFailed as error:  # the model gives numbers that are not finite
        return Sift(report=replace(blank, reasons=(error.sentence,)))
    progress(1.0, "done")
    report = replace(done.report, seconds=time.monotonic() - begun)
    kept = {name: scores.train for name, scores in found.items()}
    return replace(done, report=report, scores={**kept, **done.scores})


def _blank(train: "TrainingSet", curated: "CuratedSet", rules: SiftRules, seed: int) -> SiftReport:
    return SiftReport(
        verdict=SiftVerdict.COULD_NOT_LOOK,
        reasons=(),
        training_set=train.facts,
        cleanset=curated.facts.digest,
        seed=seed,
        rules=rules,
    )


def _remarked(
    model: "ImageModel",
    train: "TrainingSet",
    curated: "CuratedSet",
    done: Sift,
    end: float,
    progress: Progress,
) -> Sift:
    """The sift with what the trigger of its suspects does, as far as the time reaches."""
    rest = _until(end, part(progress, METHODS_END, 1.0, "the trigger of accused images"))
    more = carried_rates.remarks(model, train, done.report, curated, rest)
    return replace(done, report=replace(done.report, remarks=(*done.report.remarks, *more)))


def _decided(
    model: "ImageModel",
    train: "TrainingSet",
    curated: "CuratedSet",
    found: Mapping[str, "Scores"],
    blank: SiftReport,
) -> Sift:
    """Everything that follows from the scores that have clean ones beside them."""
    rules = blank.rules
    failed = [f"{one.method}: {one.failed}" for one in blank.methods if one.failed is not None]
    deciding = {
        name: scores
        for name, scores in found.items()
        if scores.null is not None and scores.null_labels is not None
    }
    if not deciding:
        return Sift(report=replace(blank, reasons=(NO_NULL, *failed)))
    score, null, single = joined(deciding, train)
    rates = discoveries((score, null), list(single.values()), train, rules)
    view = describe.View(
        model=model,
        train=train,
        curated=curated,
        rules=rules,
        seed=blank.seed,
        score=score,
        rates=rates,
        least_p=null.least,
        estimated=next(
            (one.estimated for one in deciding.values() if one.estimated is not None), None
        ),
    )
    return _judged(view, single, blank, failed)


def _judged(
    view: describe.View,
    single: Mapping[str, tuple[np.ndarray, "Null"]],
    blank: SiftReport,
    failed: Sequence[str],
) -> Sift:
    """The accused images, what is known of them, and the judgement; `failed` names methods."""
    rules, rates, labels = view.rules, view.rates, view.train.labels
    classes, triggers = describe.classes(view)
    standing = np.array([one.label for one in classes if one.stands_out], np.int64)
    inside = np.isin(labels, standing)
    label_map, members = describe.label_map(view)
    accused = inside & (rates.rates <= rules.max_fdr)
    accused[members] = True
    judged = judge_sift(classes, label_map, rules)
    verdict, reasons = judged.verdict, (*judged.reasons, *failed)
    if verdict is SiftVerdict.NOTHING and failed:
        # Less was looked at than was asked for.
        verdict, reasons = SiftVerdict.COULD_NOT_LOOK, (*failed,)
    places = np.flatnonzero(accused)
    report = replace(
        blank,
        verdict=verdict,
        reasons=reasons,
        least_p=view.least_p,
        classes=judged.classes,
        suspects=describe.suspects(
            view,
            places[np.argsort(-view.score[places], kind="stable")],
            np.where(inside, rates.rates, rates.alone),
            {name: clean.p_values(seen, labels) for name, (seen, clean) in single.items()},
        ),
        label_map=label_map,
        curve=tuple(
            FdrPoint(fdr=level, images=int((inside & (rates.rates <= level)).sum()))
            for level in CURVE
        ),
        remarks=judged.remarks,
    )
    kept = _trusted(view.score, labels, accused, rules.trusted)
    both = {JOINED: view.score}
    return Sift(report=report, triggers=triggers, trusted=kept, scores=both, rates=rates.rates)


def _until(end: float, progress: Progress) -> Progress:
    """The same progress, which ends the work once the monotonic time is over `end`."""

    def step(done: float, note: str = "") -> None:
        progress(done, note)
        if time.monotonic() > end:
            raise OutOfTime("The time for the sift was used up.")

    return step


def _trusted(
    score: np.ndarray, labels: np.ndarray, accused: np.ndarray, share: float
) -> np.ndarray:
    """The places of the lowest `share` of each class's scores; nobody accused is among them."""
    found = []
    for row in np.unique(labels):
        own = np.flatnonzero((labels == row) & ~accused)
        count = math.ceil(share * int((labels == row).sum()))
        found.append(own[np.argsort(score[own], kind="stable")[:count]])
    return np.sort(np.concatenate(found))


def replayed(model: "ImageModel", train: "TrainingSet", report: SiftReport) -> Share | None:
    """The share of mislabelled suspects of the proof part that a model still obeys.

    They are images with the exact trigger, whatever its family, and taught no repair anything. Of
    the uploaded model, which learnt them by heart, the share reads high: what its trigger does to
    other images is in `guard.vetting.carried_rates`.

    Returns:
        None where there are none.
    """
    from guard.ml.sifting.shares import as_labelled, obeyed, share

    places = np.array(
        [
            one.index
            for one in report.suspects
            if one.proof
            and one.estimated not in (None, one.label)
            and report.classes[one.label].poisoning is not Poisoning.CLEAN_LABEL
        ],
        np.int64,
    )
    hits = sum(
        obeyed(model, as_labelled(batch.images, batch.labels)).successes
        for batch in train.batches(index=places)
    )
    return share(hits, len(places)) if len(places) else None
