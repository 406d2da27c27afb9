"""The record's two plots; needs matplotlib (the extra `demo`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import save_plot
from benchmarks.sift import numbers
from benchmarks.sift.tables import NAMES


def draw(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write `statistics.png` and `replay.png`; returns their file names."""
    import matplotlib as mpl

    mpl.use("Agg")
    strong = numbers.strong(rows)
    return [_statistics(folder, strong), _replay(folder, strong)] if strong else []


def _statistics(folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """A point a cell: the AUROC of every statistic, by attack."""
    from matplotlib import pyplot as plt

    groups = numbers.grouped(rows, lambda row: row["cell"]["attack"])
    figure, axes = plt.subplots(figsize=(9.6, 4.2))
    for place, name in enumerate(NAMES):
        points = [
            (index + (place - 3.5) * 0.1, value)
            for index, (_, own) in enumerate(groups)
            for value in (_auroc(row, name) for row in own)
            if value is not None
        ]
        axes.plot(*zip(*points, strict=True), "o", ms=3, label=NAMES[name]) if points else None
    axes.axhline(0.5, color="grey", lw=0.8)
    axes.set_xticks(range(len(groups)), [attack for attack, _ in groups], fontsize=8)
    axes.set_ylabel("AUROC against the true poison")
    axes.set_title("Every statistic by attack; a point is a cell (true ASR 50 % or more)")
    axes.legend(fontsize=7, ncols=4)
    figure.tight_layout()
    save_plot(figure, folder / "statistics.png")
    return "statistics.png"


def _auroc(row: Mapping[str, Any], name: str) -> float | None:
    if name == "joined":
        return row["joined_auroc"]
    return ({**row["methods"], **(row["published"] or {})}.get(name) or {}).get("auroc")


def _replay(folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """A point a cell: the true ASR, and the one that proof suspects show."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(4.8, 4.2))
    for attack, own in numbers.grouped(rows, lambda row: row["cell"]["attack"]):
        known = [(row["asr"], row["replay"]) for row in own if row["replay"] is not None]
        if known:
            axes.plot(*zip(*known, strict=True), "o", ms=4, label=attack)
    axes.plot([0.4, 1], [0.4, 1], color="grey", lw=0.8)
    axes.set_xlabel("true ASR")
    axes.set_ylabel("share of proof suspects that still go to their label")
    axes.legend(fontsize=7)
    figure.tight_layout()
    save_plot(figure, folder / "replay.png")
    return "replay.png"
