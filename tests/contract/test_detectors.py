"""What every detector must hold to; runs over the whole shelf."""

import json
import math
import random
from collections import Counter
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import Cancelled, MethodFailed, OutOfTime
from guard.core.evidence import Finding
from guard.core.modality import Modality
from guard.core.planned import Passes, Plan, Sizes
from guard.core.states import Family
from guard.detectors import DETECTORS
from guard.ml.cleanset import CleanSet
from guard.vetting.parameters import checked
from tests import toys

FACTOR = 1.5  # between what a plan calls usual and what a run passes


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


class Counting(toys.Matcher):
    """A toy that counts the images that pass through it and all its copies."""

    passed: ClassVar[Counter[str]] = Counter()

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        self.passed["searched" if logits.requires_grad else "forward"] += len(images)
        return logits


def counted(model: toys.Matcher) -> Counting:
    own = type("Counting", (Counting,), {"passed": Counter()})(toys.prototypes())
    own.load_state_dict(model.state_dict())
    return own.eval()


def plan_of(name: str) -> Plan | None:
    clean = toys.clean_set()
    sizes = Sizes(
        classes=clean.classes, search=len(clean.search), calibration=len(clean.calibration)
    )
    found: Plan | None = made(name).plan(sizes)
    return found


@dataclass
class Run:
    """One quick run on the backdoored toy, and what stood around it before and after."""

    passed: Counter[str]
    findings: list[Finding]
    progress: list[float]
    before: dict[str, Any]
    after: dict[str, Any]


def around(model: nn.Module, clean: CleanSet) -> dict[str, Any]:
    parts = {"search": clean.search, "calibration": clean.calibration}
    return {
        **state(model),
        "clean": {key: (part.images.clone(), part.labels.clone()) for key, part in parts.items()},
        "random": (torch.get_rng_state(), random.getstate(), np.random.get_state()),
    }


def watched(name: str, *, training: bool, random_state: int) -> Run:
    model, clean = counted(toys.planted()).train(training), toys.clean_set()
    progress = list[float]()
    torch.manual_seed(random_state)
    random.seed(random_state)
    np.random.seed(random_state)
    before = around(model, clean)
    findings = made(name)(
        model, clean, seed=3, progress=lambda done, note="": progress.append(done)
    )
    return Run(model.passed, findings, progress, before, around(model, clean))


@pytest.fixture(scope="module")
def runs(name: str) -> tuple[Run, Run]:
    """Two with one seed: a model that evaluates and one that trains, other random states.

    The first also works out what is kept of a clean set, and reports more often.
    """
    return (
        watched(name, training=False, random_state=1),
        watched(name, training=True, random_state=2),
    )


def same_tensors(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return before.keys() == after.keys() and all(
        torch.equal(before[key], value) for key, value in after.items()
    )


def test_the_callers_model_is_left_as_it_was(runs: tuple[Run, Run]) -> None:
    for run in runs:
        assert same_tensors(run.before["tensors"], run.after["tensors"])
        for part in ("modes", "grads", "strides"):
            assert run.before[part] == run.after[part]


def test_the_clean_set_is_left_as_it_was(runs: tuple[Run, Run]) -> None:
    for run in runs:
        for part, (images, labels) in run.before["clean"].items():
            assert torch.equal(images, run.after["clean"][part][0])
            assert torch.equal(labels, run.after["clean"][part][1])


def test_the_same_seed_gives_the_same_findings_to_the_bit(runs: tuple[Run, Run]) -> None:
    assert said(runs[0].findings) == said(runs[1].findings)


def test_the_global_random_state_is_left_as_it_was(runs: tuple[Run, Run]) -> None:
    for run in runs:
        (own, python, array), after = run.before["random"], run.after["random"]
        assert torch.equal(own, after[0])
        assert python == after[1]
        assert str(array) == str(after[2])
        assert (array[1] == after[2][1]).all()


@pytest.fixture(scope="module")
def on_honest(name: str) -> tuple[list[Finding], Counter[str]]:
    model = counted(toys.honest())
    return made(name)(model, toys.clean_set(), seed=0), model.passed


def test_an_honest_model_is_not_accused(on_honest: tuple[list[Finding], Counter[str]]) -> None:
    assert [finding.target for finding in on_honest[0] if finding.suspicious] == []


def test_no_run_passes_more_images_than_its_plan_says(
    name: str, runs: tuple[Run, Run], on_honest: tuple[list[Finding], Counter[str]]
) -> None:
    plan = plan_of(name)
    if plan is None:
        pytest.skip("nobody knows what it costs, and an estimate says so")
    for passed in (*(run.passed for run in runs), on_honest[1]):
        assert plan.least.forward <= passed["forward"] <= plan.most.forward
        assert plan.least.searched <= passed["searched"] <= plan.most.searched


def test_on_an_honest_model_it_passes_about_what_it_usually_does(
    name: str, on_honest: tuple[list[Finding], Counter[str]]
) -> None:
    plan = plan_of(name)
    if plan is None:
        pytest.skip("nobody knows what it costs, and an estimate says so")
    passed = Passes(forward=on_honest[1]["forward"], searched=on_honest[1]["searched"])

    assert plan.usual.weighted / FACTOR <= passed.weighted <= plan.usual.weighted * FACTOR


def test_findings_are_about_its_families_plain_and_finite(name: str, runs: tuple[Run, Run]) -> None:
    for finding in runs[0].findings:
        assert finding.family in DETECTORS.get(name).families
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


def test_it_can_be_cancelled_at_any_time(name: str, runs: tuple[Run, Run]) -> None:
    seen = runs[1].progress  # with what is kept of the clean set, as these will find it
    for at in (0, len(seen) // 2, len(seen) - 1):
        calls = 0

        def stop(done: float, note: str = "", at: int = at) -> None:
            nonlocal calls
            if calls == at:
                raise Cancelled("enough")
            calls += 1

        with pytest.raises(Cancelled):
            made(name)(toys.planted(), toys.clean_set(), seed=3, progress=stop)


def test_progress_goes_up_from_nothing_to_all(runs: tuple[Run, Run]) -> None:
    for run in runs:
        seen = run.progress
        assert len(seen) >= 5
        assert seen == sorted(seen)
        assert 0.0 <= seen[0] < 0.1
        assert seen[-1] == 1.0


def test_a_time_budget_ends_it(name: str) -> None:
    with pytest.raises(OutOfTime):
        made(name)(toys.planted(), toys.clean_set(), seed=1, seconds=0.0)
