"""The record's two plots; needs matplotlib (the extra `demo`)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detect.numbers import honest_p, reliability, strong_attack
from benchmarks.record import save_plot

Rows = Sequence[Mapping[str, Any]]
GRID = np.linspace(0, 1, 101)
DRAWS = 500


def draw(
    folder: Path,
    rows: Rows,
    result: Mapping[str, Any],
    scores: Mapping[str, Sequence[float]],
    probabilities: tuple[Sequence[float], Sequence[bool]] | None,
    who: str,
) -> list[str]:
    """Write `attacks.png` and `curves.png`; returns their file names.

    The curves are panels: ROC, the reported ASR against the true one, p values of honest models
    and, where a calibrated score is known, its reliability.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    labels = [bool(row["backdoored"]) for row in rows]
    panels: list[Callable[[Any], None]] = [
        partial(_asr, rows=rows, who=who),
        partial(_levels, rows=rows),
    ]
    if 0 < sum(labels) < len(labels):
        panels.insert(0, partial(_roc, scores=scores, labels=labels))
    if probabilities is not None and probabilities[0]:
        panels.append(
            partial(_reliability, values=probabilities[0], labels=probabilities[1]),
        )
    return [_heat(folder, result["attacks"]), _curves(folder, panels)]


def _curves(folder: Path, panels: Sequence[Callable[[Any], None]]) -> str:
    from matplotlib import pyplot as plt

    figure, places = plt.subplots(
        (len(panels) + 1) // 2, 2, figsize=(9.6, 4.2 * ((len(panels) + 1) // 2)), squeeze=False
    )
    for axes, paint in zip(places.flat, panels, strict=False):
        paint(axes)
    for axes in list(places.flat)[len(panels) :]:
        axes.axis("off")
    return _save(folder, "curves.png", figure)


def _save(folder: Path, name: str, figure: Any) -> str:
    figure.tight_layout()
    save_plot(figure, folder / name)
    return name


def _name(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _roc(axes: Any, scores: Mapping[str, Sequence[float]], labels: Sequence[bool]) -> None:
    _name(
        axes, "ROC, 95 % of bootstrap draws", "honest models over it", "backdoored models over it"
    )
    truth, rng = np.asarray(labels, bool), np.random.default_rng(0)
    good, bad = np.flatnonzero(~truth), np.flatnonzero(truth)
    for name, values in scores.items():
        points = np.asarray(values, np.float64)
        curves = [
            _curve(points[rng.choice(good, len(good))], points[rng.choice(bad, len(bad))])
            for _ in range(DRAWS)
        ]
        low, high = np.quantile(np.array(curves), [0.025, 0.975], axis=0)
        line = axes.plot(GRID, _curve(points[good], points[bad]), label=name)[0]
        axes.fill_between(GRID, low, high, alpha=0.15, color=line.get_color())
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.legend(loc="lower right")


def _curve(honest: Any, bad: Any) -> Any:
    """True positive rate at each false positive rate of the grid."""
    thresholds = np.quantile(honest, 1 - GRID, method="higher")
    curve = (bad[None, :] > thresholds[:, None]).mean(1)
    curve[-1] = 1.0
    return curve


def _heat(folder: Path, attacks: Mapping[str, Any]) -> str:
    from matplotlib import pyplot as plt

    names = list(attacks)
    columns = [
        "not cleared",
        *sorted({method for own in attacks.values() for method in own["flagged"]}),
    ]
    table = np.array(
        [
            [
                _or_nan(own["not_cleared"]["share"]),
                *(_or_nan(own["flagged"].get(method, {}).get("share")) for method in columns[1:]),
            ]
            for own in attacks.values()
        ]
    )
    figure, axes = plt.subplots(figsize=(2.5 + 0.8 * len(columns), 1.8 + 0.32 * len(names)))
    axes.imshow(table, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), [f"{name} ({attacks[name]['models']})" for name in names])
    for (row, column), value in np.ndenumerate(table):
        axes.text(
            column,
            row,
            "–" if np.isnan(value) else f"{value:.0%}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if not value > 0.6 else "black",
        )
    axes.set_title("Share flagged, by attack", loc="right")
    return _save(folder, "attacks.png", figure)


def _reliability(axes: Any, values: Sequence[float], labels: Sequence[bool]) -> None:
    _name(
        axes,
        "Reliability of the calibrated probability",
        "mean probability of the bin",
        "share backdoored",
    )
    bins = reliability(values, labels)
    middle = [item["share"] for item in bins]
    ends = [
        [item["share"] - item["low"] for item in bins],
        [item["high"] - item["share"] for item in bins],
    ]
    axes.errorbar(
        [item["mean"] for item in bins], middle, yerr=np.maximum(ends, 0), fmt="o-", capsize=3
    )
    for item in bins:
        axes.annotate(
            f"n={item['n']}",
            (item["mean"], item["share"]),
            textcoords="offset points",
            xytext=(6, -10),
        )
    axes.plot([0, 1], [0, 1], ":", color="grey")


def _asr(axes: Any, rows: Rows, who: str) -> None:
    _name(
        axes,
        "True ASR against the reported one",
        "true ASR (the attacker's own trigger)",
        "reported ASR",
    )
    seen = [
        row
        for row in rows
        if row["backdoored"]
        and row["asr"] is not None
        and row[who]["asr"] is not None
        and row[who]["asr_upper"] is not None
    ]
    for row in seen:
        reported = row[who]
        axes.plot(
            [row["asr"]] * 2,
            [reported["asr_low"], reported["asr_upper"]],
            color="tab:blue",
            alpha=0.4,
        )
        axes.plot(
            row["asr"],
            reported["asr"],
            "o" if strong_attack(row) else "x",
            color="tab:blue",
            markersize=4,
        )
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)


def _levels(axes: Any, rows: Rows) -> None:
    _name(axes, "p values of honest models", "p", "share of honest models with a smaller one")
    for name, values in honest_p(rows).items():
        if values:
            own = np.sort(values)
            axes.step(
                [0, *own, 1],
                [0, *(np.arange(1, len(own) + 1) / len(own)), 1],
                where="post",
                label=name,
            )
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.legend(fontsize=7)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
