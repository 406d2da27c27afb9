"""What every detector must hold to; runs over the whole shelf."""

import json
import math
import random
from dataclasses import FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import Cancelled, MethodFailed, OutOfTime
from guard.core.evidence import Finding
from guard.core.modality import Modality
from guard.core.states import Family
from guard.detectors import DETECTORS
from guard.vetting.parameters import checked
from tests import toys


@pytest.fixture(params=DETECTORS.of(Modality.IMAGES), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(name: str) -> Any:
    detector = DETECTORS.get(name)
    return detector(**detector.quick())


def state(model: nn.Module) -> dict[str, Any]:
    tensors = {key: value.clone() for key, value in model.state_dict().items()}
    modes = {key: module.training for key, module in model.named_modules()}
    grads = {key: (value.requires_grad, value.grad) for key, value in model.named_parameters()}
    strides = {key: value.stride() for key, value in model.state_dict().items()}
    return {"tensors": tensors, "modes": modes, "grads": grads, "strides": strides}


def said(findings: list[Finding]) -> list[Any]:
    """Everything about findings, triggers included, in a form that compares to the bit."""
    tensors = [
        finding.trigger.to_tensors() if finding.trigger is not None else {} for finding in findings
    ]
    return [
        (finding.to_dict(), {key: value.numpy().tobytes() for key, value in own.items()})
        for finding, own in zip(findings, tensors, strict=True)
    ]


def test_it_is_constructible_without_arguments_and_its_parameters_are_plain(name: str) -> None:
    detector: Any = DETECTORS.get(name)()

    assert json.loads(json.dumps(detector.parameters(), allow_nan=False)) == detector.parameters()
    assert set(detector.parameters()) == {field.name for field in fields(detector)}
    assert detector.version >= 1
    assert detector.paper
    assert detector.families
    assert detector.families <= set(Family)


def test_its_quick_run_has_parameters_of_its_own(name: str) -> None:
    detector = DETECTORS.get(name)

    assert checked(detector, detector.quick()) == detector.quick()


def test_its_parameters_cannot_change_after_construction(name: str) -> None:
    detector = made(name)

    with pytest.raises(FrozenInstanceError):
        setattr(detector, fields(detector)[0].name, 1)


@pytest.mark.parametrize("training", [False, True])
def test_the_callers_model_is_left_as_it_was(name: str, training: bool) -> None:
    model = toys.planted().train(training)
    before = state(model)

    made(name)(model, toys.clean_set(), seed=1)
    after = state(model)

    assert all(
        torch.equal(before["tensors"][key], value) for key, value in after["tensors"].items()
    )
    assert {key: before[key] for key in ("modes", "grads", "strides")} == {
        key: after[key] for key in ("modes", "grads", "strides")
    }


def test_the_clean_set_is_left_as_it_was(name: str) -> None:
    clean, again = toys.clean_set(), toys.clean_set()

    made(name)(toys.honest(), clean, seed=1)

    for part in ("search", "calibration"):
        assert torch.equal(getattr(clean, part).images, getattr(again, part).images)
        assert torch.equal(getattr(clean, part).labels, getattr(again, part).labels)


def test_the_same_seed_gives_the_same_findings_to_the_bit(name: str) -> None:
    torch.manual_seed(1)
    one = made(name)(toys.planted(), toys.clean_set(), seed=3)
    torch.manual_seed(2)
    two = made(name)(toys.planted(), toys.clean_set(), seed=3)

    assert said(one) == said(two)


def test_the_global_random_state_is_left_as_it_was(name: str) -> None:
    def draws() -> tuple[float, float, float]:
        return float(torch.rand(1)), random.random(), float(np.random.rand())

    def seed() -> None:
        torch.manual_seed(11)
        random.seed(11)
        np.random.seed(11)

    seed()
    made(name)(toys.planted(), toys.clean_set(), seed=3)
    after = draws()
    seed()

    assert after == draws()


def test_an_honest_model_is_not_accused(name: str) -> None:
    findings = made(name)(toys.honest(), toys.clean_set(), seed=0)

    assert [finding.target for finding in findings if finding.suspicious] == []


def test_findings_are_about_its_families_plain_and_finite(name: str) -> None:
    detector = made(name)
    findings = detector(toys.planted(), toys.clean_set(), seed=0)

    for finding in findings:
        assert finding.family in detector.families
        assert 0.0 <= finding.score <= 1.0
        assert finding.statement.endswith(".")
        assert all(math.isfinite(number) for number in finding.numbers.values())
        assert (
            Finding.from_dict(json.loads(json.dumps(finding.to_dict(), allow_nan=False))) == finding
        )


class NotFinite(toys.Matcher):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * math.nan


def test_a_model_that_is_not_finite_is_refused(name: str) -> None:
    broken = toys.planted()
    broken.weight.data[0, 0] = float("nan")

    for model in (broken, NotFinite(toys.prototypes())):
        with pytest.raises(MethodFailed) as caught:
            made(name)(model, toys.clean_set(), seed=1)

        assert caught.value.code == "non_finite"


def test_it_can_be_cancelled_at_any_time(name: str) -> None:
    for _ in range(
        2
    ):  # the first run also does what is kept of a clean set, and reports more often
        seen: list[float] = []
        made(name)(
            toys.planted(),
            toys.clean_set(),
            seed=1,
            progress=lambda done, note="", seen=seen: seen.append(done),
        )

    for at in (0, len(seen) // 2, len(seen) - 1):
        calls = 0

        def stop(done: float, note: str = "", at: int = at) -> None:
            nonlocal calls
            if calls == at:
                raise Cancelled("enough")
            calls += 1

        with pytest.raises(Cancelled):
            made(name)(toys.planted(), toys.clean_set(), seed=1, progress=stop)


def test_progress_goes_up_from_nothing_to_all(name: str) -> None:
    seen: list[float] = []

    made(name)(
        toys.planted(), toys.clean_set(), seed=1, progress=lambda done, note="": seen.append(done)
    )

    assert len(seen) >= 5
    assert seen == sorted(seen)
    assert 0.0 <= seen[0] < 0.1
    assert seen[-1] == 1.0


def test_a_time_budget_ends_it(name: str) -> None:
    with pytest.raises(OutOfTime):
        made(name)(toys.planted(), toys.clean_set(), seed=1, seconds=0.0)
