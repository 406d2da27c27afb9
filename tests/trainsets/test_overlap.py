"""Copies of clean images in the training set are found, and other images are not taken for them."""

import io

import numpy as np
import pytest
from PIL import Image

from guard.core.errors import TrainingSetError
from guard.trainsets import from_arrays, overlap, with_overlap
from tests.trainsets.making import images_of, labels_of

NAMES = ("a", "b")


def scenes(count: int, *, seed: int, shape: tuple[int, int, int] = (3, 32, 32)) -> np.ndarray:
    """Smooth random images, uint8 N,C,H,W: enlarged noise, as photographs are rather than noise."""
    draw = np.random.default_rng(seed)
    channels, height, width = shape
    found = [
        np.asarray(
            Image.fromarray(
                np.clip(
                    draw.integers(0, 256, (6, 6, 1)) + draw.integers(-20, 21, (6, 6, 3)), 0, 255
                ).astype(np.uint8)
            ).resize((width, height), Image.Resampling.BICUBIC)
        ).transpose(2, 0, 1)[:channels]
        for _ in range(count)
    ]
    return np.stack(found)


def as_jpeg(image: np.ndarray, quality: int = 85) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out)).transpose(2, 0, 1)


def test_exact_copies_are_found_on_both_sides() -> None:
    clean, train = scenes(40, seed=0), scenes(100, seed=1)
    train[[3, 50]] = clean[[7, 8]]
    found = overlap(from_arrays(train, labels_of(100, 2), NAMES), clean)

    assert np.flatnonzero(found.train).tolist() == [3, 50]
    assert np.flatnonzero(found.clean).tolist() == [7, 8]
    assert found.exact == 2


@pytest.mark.parametrize(("quality", "share"), [(95, 0.98), (85, 0.9)])
def test_re_encoded_copies_are_found(quality: int, share: float) -> None:
    clean, train = scenes(200, seed=0), scenes(400, seed=1)
    train[:200] = np.stack([as_jpeg(image, quality) for image in clean])
    found = overlap(from_arrays(train, labels_of(400, 2), NAMES), clean)

    assert found.train[:200].mean() >= share
    assert found.exact == 0
    assert not found.train[200:].any()


def test_images_of_other_scenes_are_not_taken_for_copies() -> None:
    clean, train = scenes(300, seed=0), scenes(3000, seed=1)

    assert not overlap(from_arrays(train, labels_of(3000, 2), NAMES), clean).train.any()


def test_a_copy_with_a_stamp_is_another_image() -> None:
    clean = scenes(20, seed=0)
    train = clean.copy()
    train[:, :, -6:, -6:] = np.indices((6, 6)).sum(0) % 2 * 255

    assert not overlap(from_arrays(train, labels_of(20, 2), NAMES), clean).train.any()


def test_a_drawing_in_another_colour_is_another_image() -> None:
    drawing = scenes(20, seed=0, shape=(1, 32, 32))
    red, green = np.zeros((20, 3, 32, 32), np.uint8), np.zeros((20, 3, 32, 32), np.uint8)
    red[:, :1], green[:, 1:2] = drawing, drawing

    assert not overlap(from_arrays(green, labels_of(20, 2), NAMES), red).train.any()


def test_images_without_contrast_are_alike_only_if_they_are_equal() -> None:
    clean = np.full((1, 1, 6, 5), 100, np.uint8)
    train = np.stack([clean[0], clean[0] + np.uint8(1)])
    found = overlap(from_arrays(train, labels_of(2, 2), NAMES), clean)

    assert found.train.tolist() == [True, False]


def test_small_images_are_compared_too() -> None:
    clean = images_of(20, shape=(1, 4, 3))
    found = overlap(from_arrays(clean, labels_of(20, 2), NAMES), clean[:5])

    assert found.train.tolist() == [True] * 5 + [False] * 15


def test_the_count_enters_the_facts() -> None:
    images = images_of(20)
    train = from_arrays(images, labels_of(20, 2), NAMES)

    assert with_overlap(train, overlap(train, images[:3])).facts.overlap == 3


def test_clean_images_of_another_size_are_refused() -> None:
    train = from_arrays(images_of(4), labels_of(4, 2), NAMES)

    with pytest.raises(TrainingSetError, match="sets of one size"):
        overlap(train, images_of(4, shape=(1, 5, 5)))
