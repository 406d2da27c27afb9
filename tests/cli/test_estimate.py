"""`guard scan --estimate`: what a scan would cost, without one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.cli._estimate import print_estimate
from guard.core.planned import Speed
from guard.core.progress import left_text
from guard.offline_estimate import ScanEstimate
from guard.policy import DetectorRule, Policy
from guard.vetting.estimate import OWN, Cost, Estimate, Range
from tests.cli.conftest import Answer
from tests.cli.models import MODEL, clean_set, saved

Cli = Callable[..., Answer]
POLICY = """[policy]
name = "cheap"
[detectors.weight_statistics]
[detectors.margin]
required = false
params = {steps = 4}
[time]
budget = 1
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that knows nothing: nobody looks at what it does."""
    folder = tmp_path_factory.mktemp("estimate")
    return saved(folder / "model", steps=0), clean_set(folder / "clean.npz")


def test_it_is_json_for_scripts_and_no_verdict(
    cli: Cli, model: tuple[Path, Path], tmp_path: Path
) -> None:
    path, clean = model
    policy = tmp_path / "cheap.toml"
    policy.write_text(POLICY)
    more = ("--policy", policy, "--estimate", "--format", "json")
    answer = cli("scan", path, "--cleanset", clean, *more)
    document = json.loads(answer.out)
    margin = document["detectors"][1]

    assert answer.code == 0
    assert "verdict" not in document
    assert (document["architecture"], document["input_size"]) == (MODEL.architecture, [1, 12, 12])
    assert [one["detector"] for one in document["detectors"]] == ["weight_statistics", "margin"]
    assert margin["images_with_gradients"]["least"] > 8 * MODEL.num_classes * 4
    assert 0 < margin["seconds"]["least"] <= margin["seconds"]["usual"]
    assert document["total"]["images"]["usual"] > margin["images"]["usual"]
    assert document["budget"]["seconds"] == 1.0
    assert document["seconds_per_1000"]["search"] > 0


def test_a_report_is_no_estimate(cli: Cli, model: tuple[Path, Path], tmp_path: Path) -> None:
    path, clean = model
    asked = ("scan", path, "--cleanset", clean, "--estimate")
    for more in (("--format", "sarif"), ("--also", f"sarif={tmp_path / 'a.sarif'}")):
        answer = cli(*asked, *more)
        assert answer.code == 4
        assert "--estimate makes no report" in answer.err


def shown(
    capsys: pytest.CaptureFixture[str], budget: float | None, *costs: Cost, images: bool = True
) -> str:
    rules = {one.name: DetectorRule(required=one.name == "b") for one in costs}
    speed = Speed(forward=1.0, searched=3.0) if images else None
    print_estimate(
        ScanEstimate(
            digest="0" * 64,
            architecture="net",
            classes=10,
            input_size=(3, 8, 8) if images else (),
            cleanset="clean",
            images={},
            policy=Policy(name="p", detectors=rules, time_budget=budget),
            device="cpu",
            costs=Estimate(detectors=costs, own=Cost(name=OWN), speed=speed),
        )
    )
    return capsys.readouterr().out


def cost(name: str, usual: float, most: float) -> Cost:
    images = Range(least=1000.0, usual=2000.0, most=5000.0)
    seconds = Range(least=usual / 2, usual=usual, most=most)
    return Cost(name=name, images=images, searched=images, seconds=seconds)


def test_a_person_reads_times_the_range_and_what_a_budget_leaves_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = shown(capsys, 60.0, cost("a", 30.0, 30.0), cost("b", 90.0, 4000.0))

    assert "2 min (to 1 h 7 min)" in text
    assert "2,000 (to 5,000)" in text
    assert "In all about 2 min (1 min to 1 h 7 min) and 4,000 images" in text
    assert "leaves out b: what they look for is not covered." in text
    assert "It requires b, and clears nothing without." in text
    within = shown(capsys, 600.0, cost("a", 5.0, 5.0))
    assert "That is within the policy's time budget of 10 min." in within
    assert "has no time budget" in shown(capsys, None, cost("a", 5.0, 5.0))


def test_what_nobody_knows_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, None, Cost(name="a"), images=False)

    assert "What these cost is not known: a." in text
    assert "In all" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.2, "0 s left"),
        (59.0, "59 s left"),
        (150.0, "2 min left"),
        (3600.0, "1 h 0 min left"),
    ],
)
def test_the_time_left_is_in_units_that_people_use(seconds: float | None, text: str) -> None:
    assert left_text(seconds) == text
