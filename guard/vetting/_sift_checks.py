"""Whether a training set can be sifted at all with a model and a clean set."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from guard.core.errors import GuardError
from guard.core.sift import SiftReport, SiftRules

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.trainsets import TrainingSet

MOST_MEASURED = 2000  # images of the set whose predictions give its accuracy


def unfit(
    model: "ImageModel", train: "TrainingSet", curated: "CuratedSet", rules: SiftRules
) -> str | None:
    """Why this set cannot be looked at with this model and this clean set; None if it can."""
    from guard.vetting.modalities import fitted

    try:
        curated = fitted(model.manifest, curated)
    except GuardError as error:
        return error.sentence
    facts = train.facts
    have, want = (facts.channels, facts.height, facts.width), model.manifest.input_size
    if have != want:
        return (
            f"The model takes {_size(want)} images, the training set holds {_size(have)}; name the "
            "set in the size that the model was trained on."
        )
    if train.classes != model.manifest.num_classes:
        return (
            f"The model has {model.manifest.num_classes} classes, the training set "
            f"{train.classes}; name the model's own set."
        )
    missing = [facts.class_names[row] for row, count in enumerate(facts.per_class) if not count]
    if missing:
        return f"The training set has no image of class {missing[0]!r}; name the whole set."
    labels = curated.visible().together().labels.numpy()
    counts = np.bincount(labels, minlength=train.classes)
    if counts.min() < rules.least_clean:
        return (
            f"The clean set shows methods {counts.min()} images of class "
            f"{facts.class_names[int(counts.argmin())]!r}; a sift needs {rules.least_clean} of "
            "every class. Add clean images."
        )
    return None


def measured(
    model: "ImageModel", train: "TrainingSet", curated: "CuratedSet", blank: SiftReport
) -> SiftReport:
    """`blank` with both accuracies, and a reason if the set cannot be the model's own."""
    from guard.ml import measure

    clean = measure.accuracy(model, curated.holdout, curated.facts.classes).overall
    own = _accuracy(model, train, blank.seed)
    reasons = blank.reasons
    if own < clean - blank.rules.max_accuracy_gap:
        reason = (
            f"The model is right on {own:.1%} of these images and on {clean:.1%} of clean ones, so "
            "this is not the set that it learnt from; name the right one."
        )
        reasons = (reason,)
    return replace(blank, accuracy=own, clean_accuracy=clean, reasons=reasons)


def _accuracy(model: "ImageModel", train: "TrainingSet", seed: int) -> float:
    """The share of a sample of the set that the model classifies as labelled."""
    from guard.ml.sifting.shares import as_labelled, obeyed

    places = np.arange(len(train))
    if len(places) > MOST_MEASURED:
        chosen = np.random.default_rng(seed).choice(places, MOST_MEASURED, replace=False)
        places = np.sort(chosen)
    hits = sum(
        obeyed(model, as_labelled(batch.images, batch.labels)).successes
        for batch in train.batches(index=places)
    )
    return hits / len(places)


def _size(size: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in size)
