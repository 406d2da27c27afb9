"""What is known of a training set before it is sifted, and the sift of the set that a model names.

An unfit set is no error here: the sift could not look, and the report gives the sentence.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.core.errors import TrainingSetError
from guard.core.evidence import CleanSetFacts, Evidence
from guard.core.manifest import Manifest
from guard.core.progress import Progress, silent
from guard.core.sift import SiftReport, SiftVerdict
from guard.core.trainset import TrainingSetFacts, TrainingSetSource
from guard.policy.rules import TrainingSetRule
from guard.policy.training_set import sift_rules
from guard.sifters import SIFTERS
from guard.trainsets import TrainingSet, check_clean, check_digest, for_model, overlap, with_overlap
from guard.vetting.accused import AccusedImages, gathered
from guard.vetting.moments import replays_of_proof
from guard.vetting.sift import DEFAULT_METHODS, Sift, sift
from guard.vetting.sift_evidence import could_not_look, evidence_of, parameters_of

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel


@dataclass(frozen=True)
class Examined:
    """The facts of a set, overlap included, and counts for people."""

    facts: TrainingSetFacts
    counts: Mapping[str, int]


def examine(
    train: TrainingSet,
    source: TrainingSetSource,
    clean: CleanSetFacts,
    images: np.ndarray,
    manifest: Manifest | None = None,
) -> Examined:
    """Compare a set with its clean set (images uint8 M,C,H,W), and with a model where one is given.

    Raises:
        TrainingSetError: it is not this model's, or a sift could not use this clean set.
    """
    check_digest(train, source)
    if manifest is not None:
        train = for_model(train, source, manifest)
    check_clean(train, clean)
    found = overlap(train, images)
    counts = {"overlap_exact": found.exact, "overlap_clean": int(found.clean.sum())}
    return Examined(with_overlap(train, found).facts, counts)


@dataclass(frozen=True, kw_only=True)
class Sifted:
    """A model, its training set in the model's own classes, and what a sift of that found.

    The images of `train` are read from disk when they are asked for. `uri` is where the set lies,
    as it was named, and `methods` holds version and parameters of those that were asked for.
    """

    model: "ImageModel"
    train: TrainingSet
    curated: "CuratedSet"
    found: Sift
    uri: str
    methods: Mapping[str, Mapping[str, Any]]

    @property
    def report(self) -> SiftReport:
        """What was found, as plain data."""
        return self.found.report

    def evidence(self, artifact: str, blobs: Mapping[str, str] | None = None) -> Evidence:
        """The sift as evidence about the artifact `artifact`, with the digests of stored blobs."""
        return evidence_of(
            self.report, artifact, uri=self.uri, methods=self.methods, blobs=blobs or {}
        )

    def accused(self, rule: TrainingSetRule) -> AccusedImages | None:
        """The images that repairs learn from and are tried on; None where they are too few."""
        suspects = self.report.suspects
        if len(suspects) < rule.min_images:
            return None
        moments = replays_of_proof(self.model, self.train, suspects, self.curated)
        return gathered(rule, self.train, suspects, self.found.trusted.tolist(), moments)


def sift_named(
    model: "ImageModel",
    train: TrainingSet,
    source: TrainingSetSource,
    curated: "CuratedSet",
    rule: TrainingSetRule,
    *,
    methods: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    seconds: float = math.inf,
    progress: Progress = silent,
) -> Sifted:
    """Bring a set into the model's classes, compare it with the clean set, and sift it.

    Args:
        train: as it was read.
        source: the digest and the class names that were given for it.
        methods: parameters by sifter's name; None for those that decide by default.

    Raises:
        Cancelled: `progress` raised it.
    """
    rules = sift_rules(rule)
    curated = curated.seen_by(model.manifest.input_size[0])
    # Where it lies on this machine is nobody else's business.
    train = replace(train, facts=replace(train.facts, uri=source.uri))
    chosen = DEFAULT_METHODS if methods is None else methods
    named: dict[str, Any] = {"uri": source.uri, "methods": described(chosen)}
    try:
        own = for_model(train, source, model.manifest)
        if _shape(own.facts) == _shape(curated.facts):
            own = with_overlap(own, overlap(own, _pixels(curated)))  # otherwise the sift refuses
    except TrainingSetError as error:
        report = SiftReport(
            verdict=SiftVerdict.COULD_NOT_LOOK,
            reasons=(error.sentence,),
            training_set=train.facts,
            cleanset=curated.facts.digest,
            seed=seed,
            rules=rules,
        )
        unfit = Sift(report=report)
        return Sifted(model=model, train=train, curated=curated, found=unfit, **named)
    found = sift(
        model,
        own,
        curated,
        chosen,
        rules=rules,
        seed=seed,
        seconds=seconds,
        progress=progress,
    )
    return Sifted(model=model, train=own, curated=curated, found=found, **named)


def sift_key(
    artifact: str,
    manifest: Manifest,
    train: TrainingSet,
    source: TrainingSetSource,
    clean: CleanSetFacts,
    rule: TrainingSetRule,
    seed: int,
) -> str | None:
    """The key of the evidence that `sift_named` would give by default; None for an unfit set."""
    try:
        digest = for_model(train, source, manifest).facts.digest
    except TrainingSetError:
        return None
    blank = could_not_look(artifact, clean.digest, source.uri, sift_rules(rule), "", seed=seed)
    methods = described(DEFAULT_METHODS)
    given = parameters_of(source.uri, digest, sift_rules(rule), methods)
    return replace(blank, parameters=given).key


def described(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Version and all parameters of each sifter, by its name.

    Raises:
        UnknownMethod: one is not there.
    """
    made = {name: SIFTERS.get(name)(**given) for name, given in methods.items()}
    return {name: {"version": one.version, **one.parameters()} for name, one in made.items()}


def _pixels(curated: "CuratedSet") -> np.ndarray:
    """All images uint8 M,C,H,W of a clean set."""
    parts = (curated.search, curated.calibration, curated.holdout)
    return np.concatenate([part.images.numpy() for part in parts])


def _shape(facts: TrainingSetFacts | CleanSetFacts) -> tuple[int, int, int]:
    return facts.channels, facts.height, facts.width
