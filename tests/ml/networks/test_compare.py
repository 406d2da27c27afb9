"""Differences of two models whose weights are set by hand."""

import torch

from guard.ml.networks.compare import agreement, moved
from tests.toys import CLASSES, honest, labelled, planted


def test_moved_tells_from_zero_and_nothing_from_a_number() -> None:
    before, after = (torch.nn.Sequential(torch.nn.Linear(2, 2)) for _ in range(2))
    with torch.no_grad():
        for tensor in before.parameters():
            tensor.zero_()
    (layer,), unmatched = moved(before, after)

    assert layer.relative == float("inf")
    assert layer.numbers == 6
    assert unmatched == ()
    assert moved(before, before)[0][0].relative == 0.0


def test_statistics_are_told_apart_from_weights_and_counters_left_out() -> None:
    before, after = (torch.nn.Sequential(torch.nn.BatchNorm2d(3)) for _ in range(2))
    after[0].running_mean.fill_(1.0)
    after[0].num_batches_tracked.fill_(9)
    layers, unmatched = moved(before, after)

    assert [(one.kind, one.numbers, one.relative > 0) for one in layers] == [
        ("statistics", 6, True),
        ("weights", 6, False),
    ]
    assert unmatched == ()


def test_a_tensor_of_another_shape_is_not_compared() -> None:
    layers, unmatched = moved(
        torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.nn.Sequential(torch.nn.Linear(3, 2))
    )

    assert unmatched == ("0.weight",)
    assert [one.numbers for one in layers] == [2]  # the bias alone


def test_models_agree_with_themselves_and_not_on_pictures_that_one_of_them_obeys() -> None:
    data = labelled(60, 3)
    bright = type(data)(data.images.clone(), data.labels)
    bright.images[:, :, 9:, 9:] = 255

    assert agreement(honest(), planted(), data) == 1.0
    assert agreement(honest(), planted(), bright) <= 2 / CLASSES
