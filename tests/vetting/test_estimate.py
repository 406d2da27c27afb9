"""What a scan costs before it runs, the time left of one that runs, and the budget of a policy."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

from guard import offline
from guard.core.evidence import Evidence, Outcome
from guard.core.modality import Modality
from guard.core.planned import Passes, Plan, Sizes, Speed
from guard.core.progress import Progress, seconds_left
from guard.core.states import Verdict
from guard.detectors import DETECTORS
from guard.detectors._base import Detector
from guard.policy import DetectorRule, load_policy
from guard.vetting import canary_trial, examine
from guard.vetting.estimate import OWN, Cost, Estimate, Forecast, Range, estimated
from guard.vetting.time_budget import TimeBudget

BAD = canary_trial.KIT / "patch.safetensors"
CHEAP = {"weight_statistics": {}, "margin": {"steps": 4}}


def seconds(usual: float) -> Range:
    return Range(least=usual / 2, usual=usual, most=usual * 4)


def costs(*usual: float | None) -> Estimate:
    return Estimate(
        detectors=tuple(
            Cost(name=f"d{row}", seconds=None if one is None else seconds(one))
            for row, one in enumerate(usual)
        ),
        own=Cost(name=OWN, seconds=seconds(2.0)),
    )


class Clock:
    """A clock that stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Seen:
    """A progress that remembers what it was told, with the time left then."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str, float | None]] = []

    def __call__(self, done: float, note: str = "") -> None:
        left = seconds_left()
        self.calls.append((round(done, 3), note, None if left is None else round(left, 1)))


def test_progress_and_time_left_follow_planned_seconds_and_the_speed_so_far() -> None:
    clock, seen = Clock(), Seen()
    forecast = Forecast(costs(10.0, 90.0), seen, clock)
    first = forecast.step(0, "d0")
    first(0.0)
    clock.now += 10.0
    first(0.5, "half")  # as slow as two planned seconds a second
    clock.now += 10.0
    first(1.0)
    forecast.ended(0)
    forecast.step(1, "d1")(0.0)

    assert [call[:2] for call in seen.calls] == [
        (0.0, "d0"),
        (0.05, "d0 half"),
        (0.1, "d0"),
        (0.1, "d1"),
    ]
    assert seen.calls[0][2] == 100.0
    assert 95.0 < (seen.calls[1][2] or 0) < 190.0  # not yet sure that it stays so slow
    assert 160.0 < (seen.calls[3][2] or 0) < 180.0
    assert seconds_left() is None  # outside


def test_nobody_knows_the_time_left_where_a_detector_has_no_plan() -> None:
    seen = Seen()
    forecast = Forecast(costs(10.0, None), seen, Clock())

    assert forecast.needs(0) == pytest.approx(10.0)
    assert forecast.needs(1) is None
    forecast.step(0, "d0")(0.5)
    assert seen.calls == [(0.25, "d0", None)]
    assert Forecast(costs(None), seen, Clock()).needs(0) is None


def test_a_budget_leaves_out_what_does_not_fit_in_the_policys_order() -> None:
    assert costs(10.0, 50.0, 5.0).left_out(20.0) == ("d1",)
    assert costs(10.0, 50.0, 5.0).left_out(1.0) == ("d0", "d1", "d2")
    assert costs(10.0, None).left_out(12.0) == ()
    assert costs(10.0, None).unknown == ("d1",)
    assert costs(10.0, 20.0).total(lambda one: one.seconds) == Range(
        least=16.0, usual=32.0, most=128.0
    )
    assert Cost(name="d").numbers(None) == {}


def blank() -> Evidence:
    return Evidence(
        artifact="a" * 64,
        method="margin",
        version=1,
        parameters={},
        cleanset="b" * 64,
        seed=0,
        outcome=Outcome.COULD_NOT_LOOK,
        families=("patch",),
    )


def test_a_detector_is_spared_exactly_where_it_does_not_fit() -> None:
    clock = Clock()
    limits = TimeBudget(budget=60.0, limit=100.0, clock=clock, started=100.0)
    fits, unknown = limits.spared(blank(), 59.0), limits.spared(blank(), None)
    clock.now += 50.0
    spared = limits.spared(blank(), 11.0)

    assert (fits, unknown) == (None, None)
    assert spared is not None
    assert "Skipped: over budget. margin takes about 11 s, and 10 s of" in spared.reason
    assert (spared.outcome, spared.over_budget) == (Outcome.COULD_NOT_LOOK, 60.0)
    assert limits.left == 10.0
    assert limits.ended(blank(), "Too long.").reason == "Too long."
    clock.now += 10.0
    assert limits.left == 0.0
    assert limits.spared(blank(), None) is not None
    assert "Ended: over budget." in limits.ended(blank(), "Too long.").reason
    assert TimeBudget(started=0.0, clock=clock).spared(blank(), 1e9) is None


def test_another_budget_is_another_run() -> None:
    one, other = (replace(blank(), over_budget=budget) for budget in (60.0, 120.0))

    assert len({blank().key, one.key, other.key}) == 3
    assert Evidence.from_dict(one.to_dict()) == one
    assert "over_budget" not in blank().to_dict()


def looked(budget: float | None) -> tuple[list[Evidence], Seen]:
    seen = Seen()
    found = examine.examine(
        examine.open_model(BAD, device="cpu"),
        "a" * 64,
        canary_trial.clean_set(),
        CHEAP,
        seed=3,
        budget=budget,
        progress=seen,
    )
    return [item for item in found.evidence if item.method in CHEAP], seen


def test_within_its_budget_a_scan_finds_the_same_and_says_what_it_reckoned_with() -> None:
    (free, _), (within, seen) = looked(None), looked(1e6)

    assert [replace(item, seconds=0.0) for item in free] == [
        replace(item, seconds=0.0) for item in within
    ]
    assert all(item.outcome is not Outcome.COULD_NOT_LOOK for item in within)
    for item in within:
        assert item.cost["images"] > 0
        assert item.cost["seconds"] > 0
        assert item.cost["search_seconds_per_1000"] > 0
        assert Evidence.from_dict(item.to_dict()).cost == item.cost
    assert all(left is not None and left >= 0 for _, _, left in seen.calls)
    assert [done for done, _, _ in seen.calls] == sorted(done for done, _, _ in seen.calls)


@pytest.mark.parametrize("required", [True, False])
def test_over_its_budget_nothing_is_covered_and_nothing_cleared(*, required: bool) -> None:
    policy = replace(
        load_policy(),
        detectors={
            "weight_statistics": DetectorRule(required=True),
            "margin": DetectorRule(required=required),
        },
        time_budget=1e-6,
    )
    report = offline.scan(BAD, cleanset=canary_trial.clean_set(), policy=policy, device="cpu")

    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.facts.coverage == ()
    assert any("weight_statistics could not look: Skipped" in one for one in report.reasons)
    named = any(one.startswith("Not looked at within the policy's") for one in report.reasons)
    assert named is not required


@dataclass(frozen=True, kw_only=True)
class Endless(Detector):
    """A plug-in without a plan that never ends by itself."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none"
    families: ClassVar[frozenset[str]] = frozenset({"patch"})

    def examine(self, model: Any, clean: Any, *, progress: Progress) -> list[Any]:
        while True:
            progress(0.5)


@dataclass(frozen=True, kw_only=True)
class Broken(Endless):
    """One whose plan fails."""

    def planned(self, sizes: Sizes) -> Plan:
        raise ZeroDivisionError


def test_a_detector_without_a_plan_is_ended_by_the_budget() -> None:
    model, clean = examine.open_model(BAD, device="cpu"), canary_trial.clean_set()
    limits = TimeBudget.begun(1e6, 0.2)
    run = examine._Run(Endless(), blank())
    item = run.look(model, clean, seed=0, limits=limits, progress=Seen())

    assert item.over_budget == 0.2
    assert "Ended: over budget" in item.reason


def test_what_has_no_plan_or_a_broken_one_costs_nobody_knows_what() -> None:
    model, clean = examine.open_model(BAD, device="cpu"), canary_trial.clean_set()
    found = estimated(model, clean, {"endless": Endless(), "broken": Broken()})

    assert found.unknown == ("endless", "broken")
    assert found.speed is None
    assert found.total(lambda one: one.seconds) == Range(least=0.0, usual=0.0, most=0.0)


def test_a_network_that_fails_in_the_probe_costs_nobody_knows_what() -> None:
    def full(_module: torch.nn.Module, _images: object) -> None:
        raise torch.OutOfMemoryError("no memory is left")

    model, clean = examine.open_model(BAD, device="cpu"), canary_trial.clean_set()
    model.register_forward_pre_hook(full)
    found = estimated(model, clean, {"margin": DETECTORS.get("margin")()})

    assert found.unknown == ("margin",)


def test_every_packaged_detector_of_images_has_a_plan_also_for_many_classes() -> None:
    for classes in (10, 200):
        sizes = Sizes(classes=classes, search=2000, calibration=1000, device="cuda")
        for name in DETECTORS.of(Modality.IMAGES):
            plan = DETECTORS.get(name)().plan(sizes)
            assert plan is not None, name
            assert plan.least.weighted <= plan.usual.weighted <= plan.most.weighted


def test_references_that_are_kept_cost_nothing_again() -> None:
    model, clean = examine.open_model(BAD, device="cpu"), canary_trial.clean_set()
    visible, device = clean.visible(), torch.device("cpu")
    quick = {"steps": 2, "again": 0, "reference_rounds": 1}
    attractor: Any = DETECTORS.get("attractor")
    detectors = {
        "patch_inversion": DETECTORS.get("patch_inversion")(**quick),
        "attractor": attractor(batteries=1, references=1, rounds=1),
    }
    before = estimated(model, clean, detectors)
    for one in detectors.values():
        one.prepare(visible, device)
    after = estimated(model, clean, detectors)

    assert all(one.reference > 0 for one in before.detectors)
    assert before.reference is not None
    assert [one.reference for one in after.detectors] == [0.0, 0.0]
    assert after.reference is None


def test_images_and_seconds_add_up() -> None:
    passes = Passes(forward=10, searched=5) + Passes(forward=1) * 2

    assert (passes.images, passes.weighted) == (17.0, 22.0)
    assert Speed(forward=1.0, searched=3.0).seconds(passes) == pytest.approx(0.027)
    assert Plan.exactly(passes, triggers=2) + Plan.exactly(passes) == Plan.exactly(
        passes * 2, triggers=2
    )
