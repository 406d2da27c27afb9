"""Two versions are compared model by model, by images and by verdicts."""

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import bench_passes
from benchmarks.bench_passes import compared, counting, page


def row(name: str, verdict: str, count: int, *, works: bool | None, p: float = 0.5) -> Any:
    return {
        "name": name,
        "truth": {"backdoored": works is not None, "works": works, "target": 3},
        "verdict": verdict,
        "target": 3 if verdict == "rejected" else None,
        "accord": [3, p],
        "total": {"forward": count // 2, "searched": count - count // 2, "cpu": count / 100},
        "patch": [{"p_class": p, "searches": 5.0}, {"searches": 3.0}, {"searches": 3.0}],
    }


def rows(*found: Any) -> dict[str, Any]:
    return {one["name"]: one for one in found}


OLD = rows(
    row("a", "rejected", 400, works=True),
    row("b", "cleared", 200, works=None),
    row("c", "held", 100, works=None),
    {"name": "clean set x of y", "searched": 80, "forward": 1, "cpu": 2.0},
)
NEW = rows(
    row("a", "held", 100, works=True, p=0.01),
    row("b", "cleared", 50, works=None, p=0.02),
    {"name": "clean set x of y", "searched": 24, "forward": 1, "cpu": 1.0},
)


def test_only_models_that_both_have_are_compared_each_kind_by_itself() -> None:
    found = compared(OLD, NEW)

    assert [one["name"] for one in found["models"]] == ["a", "b"]
    assert found["kinds"]["all"]["times_fewer"] == pytest.approx(4.0)
    assert found["kinds"]["all"]["same_verdict"] == 1
    assert found["kinds"]["honest"]["n"] == found["kinds"]["honest"]["same_verdict"] == 1
    assert found["honest_p"] == {"classes": 1, "0.01": 0.0, "0.03": 1.0, "0.1": 1.0, "0.2": 1.0}
    assert [one["new"]["searched"] for one in found["prepared"]] == [24]


def test_the_page_shows_a_verdict_that_changed() -> None:
    shown = page(compared(OLD, NEW) | {"note": "n"})

    assert "| a | working backdoor | rejected 3 | held | 0.5 | 0.01 | 4.00 | 1 |" in shown
    assert "| all | 2 | 300 | 75 | 4.00 | 3.0 | 0.8 | 1/2 |" in shown


def test_images_count_once_for_each_network_however_deep_it_is() -> None:
    model = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), nn.ReLU())
    images = torch.rand(5, 1, 2, 2)

    with counting() as count:
        with torch.no_grad():
            model(images)
        model(images.clone().requires_grad_())
        start = bench_passes.begun(count)
        model(images)
    model(images)

    assert count == {"forward": 10, "searched": 5}
    assert bench_passes.since(count, start)["forward"] == 5
