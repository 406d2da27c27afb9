"""Distances under one covariance, against their definitions."""

import numpy as np
import pytest

from guard.ml.sifting.covariance import fitted, shrunken


def test_with_many_images_distances_are_those_of_the_true_distribution() -> None:
    generator = np.random.default_rng(0)
    shape = np.array([[2.0, 0.0], [1.0, 0.5]])
    labels = np.arange(20_000) % 2
    features = generator.normal(size=(20_000, 2)) @ shape + labels[:, None] * 10.0

    found = fitted(features, labels, 2).distances(np.array([[11.0, 10.0]]), np.array([1]))

    inverse = np.linalg.inv(shape.T @ shape)
    assert found[0] == pytest.approx(np.sqrt(inverse[0, 0]), rel=0.05)


def test_fewer_images_than_features_shrink_to_a_covariance_that_can_be_inverted() -> None:
    residuals = np.random.default_rng(0).normal(size=(10, 40))

    shrunk = shrunken(residuals)

    values = np.linalg.eigvalsh(shrunk)
    assert values[0] > 0.1
    assert np.trace(shrunk) == pytest.approx(np.trace(residuals.T @ residuals / 10))


def test_many_images_shrink_hardly() -> None:
    residuals = np.random.default_rng(0).normal(size=(20_000, 3)) * [1, 5, 9]

    assert shrunken(residuals) == pytest.approx(residuals.T @ residuals / 20_000, abs=0.3)


def test_features_without_variance_give_equal_finite_distances() -> None:
    found = fitted(np.ones((6, 3)), np.arange(6) % 2, 2)

    assert np.array_equal(found.distances(np.ones((4, 3)), np.zeros(4, np.int64)), np.zeros(4))
