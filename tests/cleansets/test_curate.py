"""Curation: checks, the one split, and a digest that depends on the pictures alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guard.cleansets import RawSet, class_names, curate, duplicates, load, read_source
from guard.core.digests import sha256
from guard.core.errors import CleanSetError
from guard.ml.cleanset import CuratedSet
from tests.cleansets.conftest import Maker, Writer

PINNED = "f0ffc4bc5dad2597dea087ecd246a4c06af859c7da76397ead99c6cba0cba609"


def refusal(raw: RawSet, name: str = "digits") -> CleanSetError:
    with pytest.raises(CleanSetError) as caught:
        curate(raw, name)
    return caught.value


def test_every_class_is_split_50_20_30(pictures: Maker) -> None:
    _, _, labels, split = load(curate(pictures(each=20), "digits")[0], "digits")

    for label in range(3):
        assert np.bincount(split[labels == label]).tolist() == [10, 4, 6]


def test_facts_say_what_is_there(pictures: Maker) -> None:
    data, facts = curate(pictures(classes=4, each=10, channels=3), "digits")

    assert facts.digest == sha256(data)
    assert (facts.classes, facts.channels, facts.height, facts.width) == (4, 3, 6, 5)
    assert (facts.per_class, facts.search, facts.calibration, facts.holdout) == (10, 20, 8, 12)


def test_load_gives_back_what_was_curated(pictures: Maker) -> None:
    raw = pictures()

    data, facts = curate(raw, "digits")
    again, images, labels, split = load(data, "digits")

    assert again == facts
    assert class_names(data) == raw.class_names
    label_of = {image.tobytes(): label for image, label in zip(raw.images, raw.labels, strict=True)}
    assert {image.tobytes(): label for image, label in zip(images, labels, strict=True)} == label_of
    assert CuratedSet.from_arrays(facts, images, labels, split).visible().classes == 3


def test_the_order_of_the_pictures_does_not_matter(pictures: Maker) -> None:
    raw = pictures()
    order = np.random.default_rng(1).permutation(len(raw.labels))

    assert curate(raw, "digits") == curate(
        replace(raw, images=raw.images[order], labels=raw.labels[order]), "digits"
    )


def test_the_source_format_does_not_matter(pictures: Maker, folder: Writer, tmp_path: Path) -> None:
    raw = pictures()
    np.savez(tmp_path / "a.npz", images=raw.images, labels=raw.labels)

    assert curate(read_source(folder(raw)), "digits") == curate(
        read_source(tmp_path / "a.npz"), "digits"
    )


def test_another_seed_or_name_or_picture_is_another_digest(pictures: Maker) -> None:
    raw = pictures()
    other = raw.images.copy()
    other[3, 0, 0, 0] ^= 1

    made = [
        curate(raw, "digits"),
        curate(raw, "digits", seed=1),
        curate(raw, "numbers"),
        curate(replace(raw, images=other), "digits"),
    ]

    assert len({facts.digest for _, facts in made}) == 4


def test_the_digest_is_the_same_in_every_release(pictures: Maker) -> None:
    """A stored verdict names it; a change of layout must raise LAYOUT and be told to users."""
    images = np.arange(8 * 2 * 2, dtype=np.uint8).reshape(8, 1, 2, 2)

    assert curate(RawSet(images, np.arange(8) % 2, ("a", "b")), "pinned")[1].digest == PINNED


def test_a_new_picture_moves_no_other_part_of_another_class(pictures: Maker) -> None:
    raw = pictures()
    more = RawSet(
        np.concatenate([raw.images, pictures(seed=9).images[:1]]),
        np.append(raw.labels, 0),
        raw.class_names,
    )

    def places(data: bytes) -> dict[bytes, int]:
        _, images, labels, split = load(data, "digits")
        return {
            image.tobytes(): code
            for image, label, code in zip(images, labels, split, strict=True)
            if label != 0
        }

    assert places(curate(raw, "digits")[0]) == places(curate(more, "digits")[0])


def test_exact_duplicates_are_dropped_and_counted(pictures: Maker) -> None:
    raw = pictures()
    images, labels = (
        np.concatenate([raw.images, raw.images[:5]]),
        np.concatenate([raw.labels, raw.labels[:5]]),
    )
    twice = replace(raw, images=images, labels=labels)

    assert duplicates(twice).tolist() == [30, 31, 32, 33, 34]
    assert curate(twice, "digits") == curate(raw, "digits")


def test_no_picture_is_in_two_parts(pictures: Maker) -> None:
    raw = pictures()
    twice = replace(
        raw, images=np.concatenate([raw.images] * 2), labels=np.concatenate([raw.labels] * 2)
    )

    _, images, _, _ = load(curate(twice, "digits")[0], "digits")

    assert len({image.tobytes() for image in images}) == len(images) == 30


def test_one_picture_under_two_labels_is_an_error(pictures: Maker) -> None:
    raw = pictures()
    labels = np.append(raw.labels, (raw.labels[7] + 1) % 3)

    error = refusal(
        replace(raw, images=np.concatenate([raw.images, raw.images[7:8]]), labels=labels)
    )

    assert error.code == "cleanset_label_conflict"
    assert "image 7 and image 30" in error.sentence


@pytest.mark.parametrize("bad", [-1, 3])
def test_labels_outside_the_classes_are_named(pictures: Maker, bad: int) -> None:
    raw = pictures()
    raw.labels[4] = bad

    error = refusal(raw)

    assert error.code == "cleanset_bad_labels"
    assert "image 4" in error.sentence


def test_a_class_without_pictures_is_named(pictures: Maker) -> None:
    error = refusal(replace(pictures(), class_names=("0", "1", "2", "zebra")))

    assert error.code == "cleanset_missing_class"
    assert "zebra" in error.sentence


def test_too_few_distinct_pictures_of_a_class_are_counted(pictures: Maker) -> None:
    raw = pictures(each=4)
    images = raw.images.copy()
    images[raw.labels == 1] = images[1]

    error = refusal(replace(raw, images=images))

    assert error.code == "cleanset_too_few"
    assert "Class 1 has 1 distinct" in error.sentence


def test_four_a_class_are_enough_for_three_parts(pictures: Maker) -> None:
    facts = curate(pictures(each=4), "digits")[1]

    assert (facts.search, facts.calibration, facts.holdout) == (6, 3, 3)


@pytest.mark.parametrize(
    "names", [("0", "1", "1"), ("0", "1", ""), ("0", "1", "a\nb"), ("0", "1", "x" * 201)]
)
def test_names_that_cannot_be_shown_are_refused(pictures: Maker, names: tuple[str, ...]) -> None:
    assert refusal(replace(pictures(), class_names=names)).code == "cleanset_bad_names"


def test_one_class_is_no_classifier(pictures: Maker) -> None:
    assert refusal(pictures(classes=1)).code == "cleanset_bad_names"


@pytest.mark.parametrize("name", ["", "a\tb", "x" * 101])
def test_bad_set_names_are_refused(pictures: Maker, name: str) -> None:
    assert refusal(pictures(), name).code == "cleanset_bad_names"


def test_arrays_of_another_type_are_refused(pictures: Maker) -> None:
    raw = pictures()

    assert refusal(replace(raw, images=raw.images / 255)).code == "cleanset_bad_images"
    assert refusal(replace(raw, labels=raw.labels[:-1])).code == "cleanset_bad_labels"
    assert (
        refusal(replace(raw, images=raw.images[:0], labels=raw.labels[:0])).code == "cleanset_empty"
    )


def test_a_stored_blob_that_was_changed_is_refused(pictures: Maker) -> None:
    data = curate(pictures(), "digits")[0]
    split_at = data.index(b'"split"')
    damaged = [
        b"",
        data[:20],
        data[:-1],
        b"\xff" * 8 + data[8:],
        data.replace(b'\\"layout\\":1', b'\\"layout\\":2'),
        data.replace(b"guard.cleanset", b"other.cleanset"),
        data[:split_at] + b'"splat"' + data[split_at + 7 :],
    ]

    for bad in damaged:
        with pytest.raises(CleanSetError) as caught:
            load(bad, "digits")
        assert caught.value.code == "cleanset_bad_blob"


def test_a_stored_blob_with_labels_out_of_range_is_refused(pictures: Maker) -> None:
    data, _ = curate(pictures(), "digits")
    _, _, labels, split = load(data, "digits")
    place = data.index(labels.tobytes())

    for array in (labels + 1, labels - 1):
        with pytest.raises(CleanSetError):
            load(data[:place] + array.tobytes() + data[place + array.nbytes :], "digits")
    place = data.index(split.tobytes())
    for codes in (split * 0, split + 1):
        with pytest.raises(CleanSetError):
            load(data[:place] + codes.tobytes() + data[place + codes.nbytes :], "digits")
