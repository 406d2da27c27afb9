"""What every detector must hold to; runs over the whole shelf."""

import copy
import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from guard.core.errors import Cancelled, MethodFailed, OutOfTime
from guard.detectors import DETECTORS
from tests import toys


@pytest.fixture(params=DETECTORS.names())
def detector(request: pytest.FixtureRequest) -> Any:
    return DETECTORS.get(request.param)()


def test_it_is_constructible_without_arguments_and_its_parameters_are_plain(detector: Any) -> None:
    assert json.loads(json.dumps(detector.parameters())) == detector.parameters()
    assert detector.version >= 1
    assert detector.families


def test_the_callers_model_is_left_as_it_was(detector: Any) -> None:
    model = toys.planted().train()
    before = copy.deepcopy(model.state_dict())

    detector(model, toys.clean_set(), seed=1)

    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_the_same_seed_gives_the_same_findings_to_the_bit(detector: Any) -> None:
    one, two = (detector(toys.planted(), toys.clean_set(), seed=3) for _ in range(2))

    assert [finding.to_dict() for finding in one] == [finding.to_dict() for finding in two]


def test_the_global_random_state_is_left_as_it_was(detector: Any) -> None:
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)  # noqa: NPY002 - the global state is what this test is about
    detector(toys.planted(), toys.clean_set(), seed=3)
    after = (float(torch.rand(1)), random.random(), float(np.random.rand()))  # noqa: NPY002

    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)  # noqa: NPY002
    assert after == (float(torch.rand(1)), random.random(), float(np.random.rand()))  # noqa: NPY002


def test_findings_survive_json(detector: Any) -> None:
    for finding in detector(toys.planted(), toys.clean_set(), seed=0):
        assert json.loads(json.dumps(finding.to_dict(), allow_nan=False)) == finding.to_dict()
        assert 0 <= finding.score <= 1


def test_an_honest_model_is_not_accused(detector: Any) -> None:
    assert not any(finding.suspicious for finding in detector(toys.honest(), toys.clean_set(), seed=0))


def test_a_model_that_is_not_finite_cannot_be_looked_at(detector: Any) -> None:
    model = toys.planted()
    model.weight.data[0, 0] = float("nan")

    with pytest.raises(MethodFailed):
        detector(model, toys.clean_set(), seed=0)


def test_it_can_be_cancelled(detector: Any) -> None:
    def stop(done: float, note: str = "") -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        detector(toys.planted(), toys.clean_set(), seed=0, progress=stop)


def test_it_ends_when_its_time_is_up(detector: Any) -> None:
    with pytest.raises(OutOfTime):
        detector(toys.planted(), toys.clean_set(), seed=0, seconds=0.0)


def test_its_progress_never_goes_back(detector: Any) -> None:
    told: list[float] = []
    detector(toys.planted(), toys.clean_set(), seed=0, progress=lambda done, note="": told.append(done))

    assert told == sorted(told)
    assert told[-1] <= 1.0
