"""Whether a training set can be this model's, and which of its classes is which of the model's."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from guard.core.digests import json_digest
from guard.core.evidence import CleanSetFacts
from guard.core.manifest import Manifest
from guard.core.trainset import TrainingSetSource
from guard.trainsets._set import TrainingSet
from guard.trainsets._source import refuse

#: Fewer clean images a class, and a sift accuses honest images (measured: decision 0034).
MIN_CLEAN = 20


def for_model(train: TrainingSet, source: TrainingSetSource, manifest: Manifest) -> TrainingSet:
    """The set with the model's classes, in the model's order.

    Classes are matched by their names where the set (or `source`) and the model name the same
    ones; otherwise by their order, which `facts.classes_by` says. Where the order changes, so does
    the digest, since the labels do.

    Raises:
        TrainingSetError: the set is not the one with the given digest, its images are not of the
            model's size, or its classes are not the model's.
    """
    facts = train.facts
    check_digest(train, source)
    own = source.class_names or facts.class_names
    if len(own) != len(facts.class_names):
        raise refuse(
            "bad_names",
            f"{len(own)} class names were given for a training set of {len(facts.class_names)} "
            "classes; give one a class.",
        )
    _check_shape("model", (facts.channels, facts.height, facts.width), manifest.input_size)
    places, classes_by = _places(own, manifest.label_names, manifest.num_classes)
    labels = train.labels
    digest, per_class = facts.digest, facts.per_class
    if places != tuple(range(len(own))):
        labels = np.array(places, np.int64)[labels]
        digest = json_digest([digest, places])
        per_class = tuple(np.bincount(labels, minlength=len(own)).tolist())
    named = manifest.label_names or tuple(own)
    return replace(
        train,
        labels=labels,
        facts=replace(
            facts, digest=digest, class_names=named, per_class=per_class, classes_by=classes_by
        ),
    )


def check_digest(train: TrainingSet, source: TrainingSetSource) -> None:
    """Whether the set is the one that was named.

    Raises:
        TrainingSetError: a digest was named, and the set has another.
    """
    own = train.facts.origin or train.facts.digest
    if source.digest not in (None, own):
        raise refuse(
            "other_digest",
            f"The training set has the digest {own[:16]}..., not {source.digest:.16}...; it is not "
            "the set that was named, or changed since.",
        )


def check_clean(train: TrainingSet, clean: CleanSetFacts) -> None:
    """Whether a sift may compare these images with that clean set.

    Raises:
        TrainingSetError: the clean set has another image size, other classes, or too few images of
            a class.
    """
    facts = train.facts
    _check_shape(
        "clean set",
        (facts.channels, facts.height, facts.width),
        (clean.channels, clean.height, clean.width),
    )
    if train.classes != clean.classes:
        raise refuse(
            "wrong_classes",
            f"The training set has {train.classes} classes and the clean set {clean.classes}; "
            "name sets of one model.",
        )
    if clean.per_class < MIN_CLEAN:
        raise refuse(
            "few_clean",
            f"The clean set has {clean.per_class} images of its rarest class; a sift needs "
            f"{MIN_CLEAN} of each.",
        )


def _check_shape(whose: str, own: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if own != wanted:
        one, other = ("x".join(map(str, shape)) for shape in (own, wanted))
        raise refuse(
            "wrong_size",
            f"The training set's images are {one} (channels, height, width), those of the {whose} "
            f"{other}; bring them to that size as was done for training.",
        )


def _places(own: Sequence[str], model: Sequence[str], classes: int) -> tuple[tuple[int, ...], str]:
    """The model's class of each class of the set, and by what it was found."""
    if len(own) != classes:
        raise refuse(
            "wrong_classes",
            f"The training set has {len(own)} classes and the model {classes}; name the set that "
            "taught it.",
        )
    mine, theirs = list(map(_plain, own)), list(map(_plain, model))
    unique = len(set(mine)) == len(mine) and len(set(theirs)) == len(theirs)
    if unique and set(mine) == set(theirs):
        return tuple(theirs.index(name) for name in mine), "name"
    at = {name: place for place, name in enumerate(theirs)}
    moved = [name for place, name in enumerate(mine) if at.get(name, place) != place]
    if unique and moved:
        raise refuse(
            "bad_names",
            f"The training set and the model both name {moved[0]!r:.100}, at different places, "
            "but not all classes alike; give the set's class_names in the model's order.",
        )
    return tuple(range(len(own))), "order"


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())
