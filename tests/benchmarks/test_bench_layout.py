"""Layouts and precisions are compared model by model."""

from importlib import import_module

import pytest

from benchmarks import bench_layout
from benchmarks.bench_layout import FLOAT32, NCHW, SHIPPED
from benchmarks.speed_tables import layouts


def row(
    model: str, way: str, verdict: str, flagged: list[str], seconds: float
) -> dict[str, object]:
    return {
        "model": model,
        "way": way,
        "verdict": verdict,
        "flagged": {"margin": flagged},
        "cpu_seconds": seconds,
    }


ROWS = [
    row("a", SHIPPED, "cleared", [], 2.0),
    row("a", NCHW, "cleared", [], 3.0),
    row("a", FLOAT32, "held", ["1"], 4.0),
    row("b", SHIPPED, "rejected", ["3"], 2.0),
    row("b", NCHW, "rejected", ["3"], 3.0),
    row("b", FLOAT32, "rejected", ["2"], 5.0),
]


def test_verdicts_flags_and_times_stand_beside_those_of_the_shipped_way() -> None:
    plain, precise = bench_layout.compared(ROWS, NCHW), bench_layout.compared(ROWS, FLOAT32)

    assert (plain["same_verdict"], plain["same_flags"], plain["models"]) == (2, 2, 2)
    assert plain["time_ratio"] == pytest.approx(1.5)
    assert (precise["same_verdict"], precise["same_flags"]) == (1, 0)
    page = layouts({"policy": "default", "zoo": "z", "layouts": {NCHW: plain, FLOAT32: precise}})
    assert "| NCHW | 2/2 | 2/2 | 1.50 |" in page


def test_every_place_that_changes_the_layout_is_known() -> None:
    """What a detector does not import cannot be switched off; then both ways would be the same."""
    places = [name for name in bench_layout.PLACES if hasattr(import_module(name), "channels_last")]

    assert {
        "guard.detectors.patch_inversion",
        "guard.detectors.margin",
        "guard.ml.training.small_network",
    } <= set(places)
