"""A training set gets the classes of its model, or a sentence says why it cannot."""

from dataclasses import replace

import numpy as np
import pytest

from guard.core.errors import TrainingSetError
from guard.core.evidence import CleanSetFacts
from guard.core.manifest import Manifest
from guard.core.trainset import TrainingSetSource
from guard.trainsets import MIN_CLEAN, check_clean, for_model, from_arrays
from tests.trainsets.making import NAMES, images_of, labels_of

TRAIN = from_arrays(images_of(30), labels_of(30), NAMES)
MANIFEST = Manifest(architecture="x", num_classes=3, input_size=(1, 6, 5), mean=(0.0,), std=(1.0,))
SOURCE = TrainingSetSource(uri="ours")
CLEAN = CleanSetFacts(
    name="c", digest="d", classes=3, channels=1, height=6, width=5, per_class=20,
    search=30, calibration=12, holdout=18,
)  # fmt: skip


def named(*labels: str) -> Manifest:
    return replace(MANIFEST, label_names=labels)


def test_equal_names_are_matched_wherever_they_stand() -> None:
    fitted = for_model(TRAIN, SOURCE, named("cow", "ant", "Bee"))

    assert fitted.facts.classes_by == "name"
    assert fitted.facts.class_names == ("cow", "ant", "Bee")
    assert np.array_equal(fitted.labels[:3], [1, 2, 0])
    assert fitted.facts.per_class == (10, 10, 10)
    assert fitted.facts.digest != TRAIN.facts.digest


def test_spelling_of_spaces_and_case_is_no_difference() -> None:
    train = from_arrays(images_of(4), labels_of(4, 2), ("polar_bear", "Sea-Lion"))
    manifest = replace(MANIFEST, num_classes=2, label_names=("sea lion", "Polar Bear"))

    assert for_model(train, SOURCE, manifest).facts.classes_by == "name"


@pytest.mark.parametrize("names", [(), ("x", "y", "z"), ("0", "1", "2")])
def test_other_names_are_matched_by_order_and_that_is_said(names: tuple[str, ...]) -> None:
    fitted = for_model(TRAIN, SOURCE, named(*names))

    assert fitted.facts.classes_by == "order"
    assert fitted.facts.class_names == (names or NAMES)
    assert np.array_equal(fitted.labels, TRAIN.labels)
    assert fitted.facts.digest == TRAIN.facts.digest


def test_names_of_the_model_that_repeat_leave_the_order() -> None:
    assert for_model(TRAIN, SOURCE, named("crane", "crane", "ant")).facts.classes_by == "order"


def test_a_name_at_the_same_place_leaves_the_order() -> None:
    assert for_model(TRAIN, SOURCE, named("ant", "y", "z")).facts.classes_by == "order"


def test_names_given_with_the_set_go_before_its_own() -> None:
    source = TrainingSetSource(uri="ours", class_names=("z", "y", "x"))
    fitted = for_model(TRAIN, source, named("x", "y", "z"))

    assert np.array_equal(fitted.labels[:3], [2, 1, 0])


def test_the_digest_that_is_named_is_that_of_the_set_whatever_the_model_calls_its_classes() -> None:
    source = replace(SOURCE, digest=TRAIN.facts.digest)

    assert for_model(TRAIN, source, named("cow", "ant", "bee")).facts.classes_by == "name"


@pytest.mark.parametrize(
    ("source", "manifest", "code"),
    [
        (replace(SOURCE, digest="0" * 64), MANIFEST, "other_digest"),
        (replace(SOURCE, class_names=("a", "b")), MANIFEST, "bad_names"),
        (SOURCE, named("x", "ant", "bee"), "bad_names"),
        (SOURCE, replace(MANIFEST, num_classes=4), "wrong_classes"),
        (SOURCE, replace(MANIFEST, num_classes=2), "wrong_classes"),
        (SOURCE, replace(MANIFEST, input_size=(3, 6, 5)), "wrong_size"),
        (SOURCE, replace(MANIFEST, input_size=(1, 5, 6)), "wrong_size"),
    ],
)
def test_a_set_that_is_not_this_models_is_refused(
    source: TrainingSetSource, manifest: Manifest, code: str
) -> None:
    with pytest.raises(TrainingSetError) as found:
        for_model(TRAIN, source, manifest)

    assert found.value.code == f"trainset_{code}"


def test_a_clean_set_of_twenty_images_a_class_passes() -> None:
    assert CLEAN.per_class == MIN_CLEAN
    check_clean(TRAIN, CLEAN)


@pytest.mark.parametrize(
    ("clean", "code"),
    [
        (replace(CLEAN, per_class=19), "few_clean"),
        (replace(CLEAN, classes=4), "wrong_classes"),
        (replace(CLEAN, height=7), "wrong_size"),
    ],
)
def test_a_clean_set_that_a_sift_cannot_use_is_refused(clean: CleanSetFacts, code: str) -> None:
    with pytest.raises(TrainingSetError) as found:
        check_clean(TRAIN, clean)

    assert found.value.code == f"trainset_{code}"
