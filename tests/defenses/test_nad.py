"""Attention maps, where they are taken, and that the student's come nearer to its teacher's."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from guard.core.errors import MethodFailed
from guard.core.evidence import Accuracy
from guard.core.manifest import Manifest
from guard.core.progress import silent
from guard.defenses.nad import Nad, attention, layers
from guard.ml.cleanset import Labelled
from guard.ml.measure import accuracy
from guard.ml.networks import architectures
from guard.ml.seeds import seeded
from tests import toys

QUICK = Nad(rounds=12, rate=0.02, tries=2)


def fresh(name: str, size: tuple[int, int, int], **args: object) -> architectures.ImageModel:
    facts = Manifest(
        architecture=name,
        num_classes=toys.CLASSES,
        input_size=size,
        mean=(0.5,) * size[0],
        std=(0.5,) * size[0],
        model_args=args,
    )
    torch.manual_seed(0)
    return architectures.wrap(facts, architectures.build(facts)).eval()


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_map_has_length_one_and_ignores_the_scale_of_features(power: float) -> None:
    features = torch.randn(5, 8, 3, 3)
    maps = attention(features, power)

    assert maps.shape == (5, 9)
    assert torch.allclose(maps.norm(dim=1), torch.ones(5))
    assert torch.allclose(maps, attention(-7 * features, power))
    assert torch.allclose(
        attention(features, 2.0) * features.square().sum(1).flatten(1).norm(dim=1, keepdim=True),
        features.square().sum(1).flatten(1),
        atol=1e-5,
    )


def test_tokens_are_places() -> None:
    assert attention(torch.randn(5, 10, 4), 2.0, -1).shape == (5, 10)


@pytest.mark.parametrize(
    ("name", "size", "args", "names", "axis"),
    [
        ("preact_resnet18", (3, 32, 32), {"width": 4}, ["layer2", "layer3", "layer4"], 1),
        ("cifar_resnet", (1, 12, 12), {"depths": [1, 1], "width": 4}, ["layer1", "layer2"], 1),
        ("test_vit", (3, 32, 32), {}, ["blocks.0", "blocks.2", "norm"], -1),
    ],
)
def test_three_depths_are_compared_and_none_with_a_single_place(
    name: str, size: tuple[int, int, int], args: dict[str, object], names: list[str], axis: int
) -> None:
    points = layers(fresh(name, size, **args), torch.rand(4, *size))

    assert names == [point.name.removeprefix("inner.") for point in points]
    assert {point.axis for point in points} == {axis}
    assert all(torch.Size(point.sides).numel() > 1 for point in points)


def test_the_students_attention_comes_nearer_to_the_teachers() -> None:
    model, clean, images = toys.network(), toys.clean_set(), toys.labelled(60, 9).floats()
    with seeded(0):
        teacher, rate = QUICK._teacher(copy.deepcopy(model), clean, 1.0, silent)
    points = layers(model, images[:4])

    def apart(student: nn.Module) -> float:
        with torch.no_grad():
            mine, theirs = (
                QUICK.maps(student, points, images)[1],
                QUICK.maps(teacher, points, images)[1],
            )
        return float(
            torch.stack(
                [mse_loss(one, other) for one, other in zip(mine, theirs, strict=True)]
            ).sum()
        )

    student = QUICK(model, clean, seed=0)

    assert rate == 0.02
    assert apart(student) < 0.5 * apart(model)
    assert accuracy(student, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


def test_where_every_rate_ruins_the_teacher_nothing_is_returned() -> None:
    told: set[str] = set()

    def listen(done: float, note: str = "") -> None:
        told.add(note.split(",")[1])

    with pytest.raises(MethodFailed) as caught:
        Nad(rounds=1, rate=200.0, tries=2)(
            toys.network(), toys.clean_set(), seed=0, progress=listen
        )

    assert caught.value.code == "accuracy_collapsed"
    assert told == {" at rate 200", " at rate 100"}


def test_where_no_rate_keeps_all_accuracy_the_one_that_keeps_most_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = iter([0.9, 0.93, 0.92])  # of 1.0 before

    def judged(model: nn.Module, data: Labelled, classes: int) -> Accuracy:
        return replace(accuracy(model, data, classes), overall=next(kept))

    monkeypatch.setattr("guard.defenses.nad.accuracy", judged)
    _, rate = Nad(rounds=1, rate=0.04, tries=3)._teacher(
        toys.network(), toys.clean_set(), 1.0, silent
    )

    assert rate == 0.02


def test_no_feature_map_is_named() -> None:
    with pytest.raises(MethodFailed) as caught:
        Nad()(toys.planted(), toys.clean_set(), seed=0)

    assert caught.value.code == "no_layers"


def test_hooks_are_gone_afterwards() -> None:
    repaired = QUICK(toys.network(), toys.clean_set(), seed=0)

    assert all(
        not module._forward_hooks and not module._forward_pre_hooks for module in repaired.modules()
    )
