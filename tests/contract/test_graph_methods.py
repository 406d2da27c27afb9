"""What detectors and defenses of text-to-graph models must hold to; runs over both shelves."""

import copy
import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from guard.core.errors import Cancelled, MethodFailed, OutOfTime
from guard.core.evidence import Finding
from guard.core.modality import Modality
from guard.core.states import FAMILIES
from guard.defenses import DEFENSES
from guard.detectors import DETECTORS
from guard.graphs.model import GraphModel
from guard.vetting.parameters import checked
from tests import toys
from tests.graphs import methods

#: It cannot be run on a model in which no text plants anything.
NEEDS_A_BACKDOOR = "prompt_unlearning"


def made(shelf: Any, name: str) -> Any:
    method = shelf.get(name)
    return method(**method.quick())


@pytest.fixture(params=DETECTORS.of(Modality.GRAPHS), scope="module")
def detector(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=DEFENSES.of(Modality.GRAPHS), scope="module")
def defense(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def draws() -> tuple[float, float, float]:
    return float(torch.rand(1)), random.random(), float(np.random.rand())


def seed() -> None:
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)


def weights(model: GraphModel) -> dict[str, Any]:
    return copy.deepcopy(dict(model.state_dict()))


def test_detectors_have_plain_parameters_and_state_what_they_look_for(detector: str) -> None:
    method: Any = DETECTORS.get(detector)()

    assert json.loads(json.dumps(method.parameters(), allow_nan=False)) == method.parameters()
    assert checked(DETECTORS.get(detector), method.quick()) == method.quick()
    assert method.version >= 1
    assert method.paper
    assert method.families
    assert method.families <= FAMILIES[Modality.GRAPHS]


def test_a_detector_repeats_itself_reports_plainly_and_changes_nothing(detector: str) -> None:
    model, clean = methods.model(), methods.clean()
    before, seen = weights(model), []
    seed()
    expected = draws()
    seed()

    one = made(DETECTORS, detector)(
        model, clean, seed=3, progress=lambda done, note="": seen.append(done)
    )
    after = draws()
    two = made(DETECTORS, detector)(model, methods.clean(), seed=3)

    assert after == expected
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert clean == methods.clean()
    assert [finding.to_dict() for finding in one] == [finding.to_dict() for finding in two]
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    for finding in one:
        assert finding.family in made(DETECTORS, detector).families
        assert 0.0 <= finding.score <= 1.0
        assert finding.statement.endswith(".")
        assert all(math.isfinite(number) for number in finding.numbers.values())
        assert Finding.from_dict(json.loads(json.dumps(finding.to_dict()))) == finding


def test_a_detector_can_be_cancelled_and_has_a_time_budget(detector: str) -> None:
    def stop(done: float, note: str = "") -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        made(DETECTORS, detector)(methods.model(), methods.clean(), seed=1, progress=stop)
    with pytest.raises(OutOfTime):
        made(DETECTORS, detector)(methods.model(), methods.clean(), seed=1, seconds=0.0)


def test_a_detector_refuses_what_it_cannot_look_at(detector: str) -> None:
    method = made(DETECTORS, detector)

    for model, clean, code in (
        (methods.broken(), methods.clean(), "non_finite"),
        (methods.model(), methods.clean(search=3), "few_pairs"),
        (toys.planted(), toys.clean_set(), "modality"),
    ):
        with pytest.raises(MethodFailed) as caught:
            method(model, clean, seed=1)
        assert caught.value.code == code


def test_defenses_have_plain_parameters(defense: str) -> None:
    method: Any = DEFENSES.get(defense)()

    assert json.loads(json.dumps(method.parameters())) == method.parameters()
    assert method.version >= 1
    assert method.paper
    for untrained in (False, True):
        quick = method.quick(untrained=untrained)
        assert checked(DEFENSES.get(defense), quick) == quick


def test_a_defense_refuses_what_it_cannot_repair(defense: str) -> None:
    method = made(DEFENSES, defense)

    for model, clean, code in (
        (methods.broken(), methods.clean(), "non_finite"),
        (methods.model(), methods.clean(search=3), "few_pairs"),
        (toys.planted(), toys.clean_set(), "modality"),
    ):
        with pytest.raises(MethodFailed) as caught:
            method(model, clean, seed=1)
        assert caught.value.code == code


def test_a_defense_can_be_cancelled(defense: str) -> None:
    def stop(done: float, note: str = "") -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        made(DEFENSES, defense)(methods.model(), methods.clean(), seed=1, progress=stop)


def test_retraining_repeats_itself_and_leaves_the_model_and_the_text_tower(defense: str) -> None:
    if defense == NEEDS_A_BACKDOOR:
        with pytest.raises(MethodFailed) as caught:
            made(DEFENSES, defense)(methods.model(), methods.clean(), seed=1)
        assert caught.value.code == "no_text"
        return
    model = methods.model()
    before = weights(model)
    seed()
    expected = draws()
    seed()

    one = made(DEFENSES, defense)(model, methods.clean(), seed=1)
    after = draws()
    two = made(DEFENSES, defense)(model, methods.clean(), seed=1)

    assert after == expected
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
    changed = {
        key.split(".")[0] for key in before if not torch.equal(before[key], one.state_dict()[key])
    }
    assert changed == {"vae", "denoiser"}
    assert not one.training
