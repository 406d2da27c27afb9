"""What every defense must hold to; runs over the whole shelf."""

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from guard.core.errors import Cancelled, MethodFailed
from guard.core.modality import Modality
from guard.defenses import DEFENSES
from guard.defenses._informed import InformedDefense
from guard.ml.measure import accuracy
from guard.vetting.parameters import checked
from tests import toys

#: The first that a defense can map is its own: the hand-made one has no hidden neurons, and the
#: second no layer that everything passes through.
MODELS: tuple[Callable[[], nn.Module], ...] = (toys.planted, toys.layered, toys.network)


def made(name: str) -> Any:
    defense = DEFENSES.get(name)
    # Most learn nothing from accused images; those that do get some.
    return defense(**defense.quick()).informed(toys.accused())


def planted(name: str) -> nn.Module:
    """A backdoored model that this defense can map."""
    return _fitting(name)()


@cache
def _fitting(name: str) -> Callable[[], nn.Module]:
    for model in MODELS[:-1]:
        try:
            made(name)(model(), toys.clean_set(), seed=1)
        except MethodFailed as error:
            if not error.code.startswith("no_"):  # no_layers, no_neurons, no_place
                raise
        else:
            return model
    return MODELS[-1]


@pytest.fixture(params=DEFENSES.of(Modality.IMAGES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_is_constructible_without_arguments_and_its_parameters_are_plain(name: str) -> None:
    defense: Any = DEFENSES.get(name)()

    assert json.loads(json.dumps(defense.parameters())) == defense.parameters()
    assert defense.version >= 1
    assert defense.paper


@pytest.mark.parametrize("untrained", [False, True])
def test_its_quick_run_has_parameters_of_its_own(name: str, untrained: bool) -> None:
    defense = DEFENSES.get(name)
    quick = defense.quick(untrained=untrained)

    assert checked(defense, quick) == quick


@dataclass
class Run:
    """One quick run, and what stood around it before and after."""

    model: nn.Module
    repaired: nn.Module
    before: dict[str, Any]
    after: dict[str, Any]


def around(model: nn.Module) -> dict[str, Any]:
    return {
        "tensors": copy.deepcopy(model.state_dict()),
        "random": (torch.get_rng_state(), random.getstate(), np.random.get_state()),
    }


def watched(name: str, *, random_state: int) -> Run:
    model = planted(name)
    torch.manual_seed(random_state)
    random.seed(random_state)
    np.random.seed(random_state)
    before = around(model)
    repaired = made(name)(model, toys.clean_set(), seed=1)
    return Run(model, repaired, before, around(model))


@cache
def runs(name: str) -> tuple[Run, Run]:
    """Two with one seed and other random states."""
    return watched(name, random_state=11), watched(name, random_state=12)


def same_tensors(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_the_callers_model_is_left_as_it_was(name: str) -> None:
    for run in runs(name):
        assert same_tensors(run.before["tensors"], run.after["tensors"])
        assert run.repaired is not run.model
        assert not run.repaired.training


def test_the_same_seed_gives_the_same_model_to_the_bit(name: str) -> None:
    one, two = (run.repaired.state_dict() for run in runs(name))

    assert same_tensors(one, two)


def test_the_global_random_state_is_left_as_it_was(name: str) -> None:
    for run in runs(name):
        (own, python, array), after = run.before["random"], run.after["random"]
        assert torch.equal(own, after[0])
        assert python == after[1]
        assert str(array) == str(after[2])
        assert (array[1] == after[2][1]).all()


def test_what_learns_from_accused_images_ends_without_them_and_nothing_else_does(name: str) -> None:
    defense = DEFENSES.get(name)
    quick = defense(**defense.quick())

    assert (quick.informed(toys.accused()) is not quick) == isinstance(quick, InformedDefense)
    if isinstance(quick, InformedDefense):
        with pytest.raises(MethodFailed, match="accused training images") as failed:
            quick(planted(name), toys.clean_set(), seed=1)
        assert failed.value.code == "no_suspects"


def test_clean_accuracy_is_kept(name: str) -> None:
    repaired = runs(name)[0].repaired

    assert accuracy(repaired, toys.labelled(180, 3), toys.CLASSES).overall >= 0.9


def test_too_few_images_are_named(name: str) -> None:
    with pytest.raises(MethodFailed, match="images"):
        made(name)(planted(name), toys.clean_set(search=6), seed=1)


def test_a_model_that_is_not_finite_is_refused(name: str) -> None:
    model = planted(name)
    next(model.parameters()).data.view(-1)[0] = float("nan")

    with pytest.raises(MethodFailed):
        made(name)(model, toys.clean_set(), seed=1)


def test_it_can_be_cancelled(name: str) -> None:
    def stop(done: float, note: str = "") -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        made(name)(planted(name), toys.clean_set(), seed=1, progress=stop)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_keeps_accuracy_there_and_repeats_itself_to_the_bit(name: str) -> None:
    model = planted(name).cuda()

    one, two = (made(name)(model, toys.clean_set(), seed=3) for _ in range(2))

    assert {value.device.type for value in one.state_dict().values()} == {"cuda"}
    assert accuracy(one, toys.labelled(180, 3), toys.CLASSES).overall >= 0.9
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
