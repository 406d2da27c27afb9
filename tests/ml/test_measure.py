"""Counting: predictions, accuracy and ASR, against models whose answers are known."""

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import InputError, MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.measure import accuracy, asr, device_of, evaluating, predict, swapped
from guard.ml.statistics import wilson
from guard.ml.triggers import MappedTrigger, PatchTrigger


class Reads(nn.Module):
    """Says the class that the first pixel holds, in steps of 0.1.

    Buffers as real models have them.
    """

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        self.norm(images)
        wanted = (images[:, 0, 0, 0] * 10).round().long() % self.classes
        return nn.functional.one_hot(wanted, self.classes).float()


class NotFinite(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 4), float("nan"))


def written(values: list[int], labels: list[int]) -> Labelled:
    images = torch.zeros(len(values), 1, 3, 3, dtype=torch.uint8)
    images[:, 0, 0, 0] = (torch.tensor(values) * 25.5).round().to(torch.uint8)
    return Labelled(images, torch.tensor(labels))


def to_class(target: int) -> PatchTrigger:
    mask = torch.zeros(1, 3, 3)
    mask[0, 0, 0] = 1.0
    return PatchTrigger(mask, torch.full((1, 3, 3), target / 10))


def test_predictions_do_not_depend_on_the_batch_size() -> None:
    data = written([0, 1, 2, 3, 3, 2, 1], [0] * 7)

    for batch in (1, 3, 100):
        assert predict(Reads(), data, batch).tolist() == [0, 1, 2, 3, 3, 2, 1]
    assert predict(Reads(), data.images[:0]).tolist() == []


def test_a_trigger_is_stamped_before_the_model_looks() -> None:
    assert predict(Reads(), written([0, 1, 2], [0, 1, 2]), trigger=to_class(3)).tolist() == [
        3,
        3,
        3,
    ]


def test_measuring_changes_neither_modes_nor_buffers() -> None:
    model = Reads().train()
    model.norm.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}

    predict(model, written([0, 1], [0, 1]))

    assert (model.training, model.norm.training) == (True, False)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_modes_come_back_after_an_error() -> None:
    model = Reads().train()

    with pytest.raises(ZeroDivisionError), evaluating(model):
        1 / int(model.norm.training)  # eval mode inside: a division by zero

    assert model.norm.training


def test_accuracy_is_overall_and_per_class() -> None:
    found = accuracy(Reads(), written([0, 0, 1, 2, 2], [0, 0, 0, 2, 1]), 4)

    assert found.overall == pytest.approx(3 / 5)
    assert found.per_class == pytest.approx((2 / 3, 0.0, 1.0, 0.0))
    assert found.images == 5
    with pytest.raises(InputError, match="at least one"):
        accuracy(Reads(), written([], []), 4)


class Zero(Reads):
    """Always says class 0."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * 0)


def test_swaps_are_counted_by_class_and_direction() -> None:
    data = written([0, 1, 0, 2, 2, 1], [0, 0, 0, 2, 2, 2])

    assert swapped(Reads(), Zero(), data, 4) == ((0, 1), (0, 0), (2, 0), (0, 0))
    assert swapped(Zero(), Reads(), data, 4) == ((1, 0), (0, 0), (0, 2), (0, 0))
    assert swapped(Reads(), Reads(), data, 4) == ((0, 0),) * 4


def test_asr_counts_only_pictures_of_other_classes() -> None:
    # Six pictures, two of the target class; the trigger always works.
    data = written([0, 1, 2, 3, 3, 0], [0, 1, 2, 3, 3, 0])

    found = asr(Reads(), data, to_class(3), 3, "patch", natural=0.2, budget=1.0)

    assert (found.successes, found.trials, found.estimate) == (4, 4, 1.0)
    assert (found.low, found.high) == wilson(4, 4)
    assert (found.target, found.family, found.natural, found.budget) == (3, "patch", 0.2, 1.0)


def test_a_trigger_to_another_class_has_no_success() -> None:
    data = written([0, 1, 2], [0, 1, 2])

    assert asr(Reads(), data, to_class(1), 3, "patch").successes == 0


@pytest.mark.parametrize("target", ["all-to-all", None])
def test_asr_needs_a_target_or_a_mapping(target: str | None) -> None:
    with pytest.raises(InputError, match="class index"):
        asr(Reads(), written([0], [0]), to_class(1), target, "patch")


def test_asr_of_a_mapping_counts_each_class_towards_its_own_image() -> None:
    # The trigger says 3 to everything: right for class 2 alone, and no picture is left out.
    data, mapping = written([0, 1, 2, 3, 2], [0, 1, 2, 3, 2]), torch.tensor([1, 2, 3, 0])

    found = asr(
        Reads(), data, MappedTrigger(to_class(3), mapping), "all-to-all", "all-to-all", natural=0.1
    )

    assert (found.successes, found.trials, found.target, found.family) == (
        2,
        5,
        "all-to-all",
        "all-to-all",
    )
    assert (found.low, found.high, found.natural) == (*wilson(2, 5), 0.1)


def test_asr_takes_the_wanted_classes_of_a_trigger_without_a_mapping() -> None:
    # It turns all into 3, which two should get; who has the wanted class already is left out.
    data, wanted = written([0, 1, 2, 3], [0, 1, 2, 3]), torch.tensor([3, 3, 0, 3])

    found = asr(Reads(), data, to_class(3), "all-to-all", "patch", wanted=wanted)

    assert (found.successes, found.trials, found.target, found.family) == (
        2,
        3,
        "all-to-all",
        "patch",
    )
    assert (found.low, found.high) == wilson(2, 3)


def test_a_mapping_that_does_not_know_a_class_is_refused() -> None:
    with pytest.raises(InputError, match="class 3"):
        asr(
            Reads(),
            written([3], [3]),
            MappedTrigger(to_class(3), torch.tensor([1, 0])),
            "all-to-all",
            "all-to-all",
        )


def test_asr_needs_pictures_of_other_classes() -> None:
    with pytest.raises(InputError, match="other classes"):
        asr(Reads(), written([1, 1], [1, 1]), to_class(1), 1, "patch")


def test_numbers_that_are_not_finite_are_no_measurement() -> None:
    with pytest.raises(MethodFailed) as caught:
        predict(NotFinite(), written([0], [0]))

    assert caught.value.code == "non_finite"


def test_a_model_without_tensors_is_on_the_cpu() -> None:
    assert device_of(NotFinite()) == torch.device("cpu")
