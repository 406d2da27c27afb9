"""The record's two plots; needs matplotlib (the extra `demo`)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.purify.numbers import attacks, repaired
from benchmarks.record import save_plot

Rows = Sequence[Mapping[str, Any]]
COLOURS = 10  # of matplotlib's cycle
MARKERS = "os^vD<>pPX*"  # one for each so many defenses
LIGHT = 0.6  # of the colour map, over which black text is read better than white


def draw(folder: Path, rows: Rows) -> list[str]:
    """Write both plots if the rows allow, a panel for each clean fraction.

    Returns their file names.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    fractions = sorted({row["fraction"] for row in rows if row["backdoored"] and repaired(row)})
    if not fractions:
        return []
    defenses = sorted({row["defense"] for row in rows})  # a defense has one colour in all panels
    return [
        _panels(folder, "attacks.png", "Mean ASR after the repair", rows, fractions, _heat),
        _panels(
            folder,
            "losses.png",
            "Accuracy lost against ASR left",
            rows,
            fractions,
            partial(_losses, defenses=defenses),
        ),
    ]


def _panels(
    folder: Path,
    name: str,
    title: str,
    rows: Rows,
    fractions: Sequence[float],
    paint: Callable[[Any, Rows], tuple[float, float]],
) -> str:
    """One below the other; `paint` says how large, in inches, its panel should be."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(len(fractions), squeeze=False)
    sizes = []
    for axes, fraction in zip(panels[:, 0], fractions, strict=True):
        sizes.append(paint(axes, [row for row in rows if row["fraction"] == fraction]))
        axes.set_title(f"{title}, {fraction:.0%} clean images", loc="right")
    figure.set_size_inches(max(width for width, _ in sizes), sum(height for _, height in sizes))
    figure.tight_layout()
    save_plot(figure, folder / name)
    return name


def _heat(axes: Any, rows: Rows) -> tuple[float, float]:
    """Mean ASR after the repair, attack by defense; `k/n` where only k of n runs were repaired."""
    lines = attacks(rows)
    names = sorted({name for line in lines for name in line["n"]})
    table = np.array([[line["asr"].get(name, np.nan) for line in lines] for name in names])
    axes.imshow(table, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(lines)), [line["defense"] for line in lines], rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(table):
        done, all_runs = lines[column]["n"].get(names[row], (0, 0))
        text = "–" if np.isnan(value) else f"{value:.0%}"
        axes.text(
            column,
            row,
            text if done == all_runs else f"{text}\n{done}/{all_runs}",
            ha="center",
            va="center",
            fontsize=7,
            color="black" if np.isnan(value) or value > LIGHT else "white",
        )
    return 2.6 + 0.72 * len(lines), 1.8 + 0.4 * len(names)


def _losses(axes: Any, rows: Rows, defenses: Sequence[str]) -> tuple[float, float]:
    """ACC loss against ASR after the repair, a point for each backdoored model and seed."""
    for place, name in enumerate(defenses):
        done = [
            row for row in rows if row["defense"] == name and row["backdoored"] and repaired(row)
        ]
        if done:
            axes.plot(
                [row["after"]["asr"] for row in done],
                [row["loss"] for row in done],
                linestyle="none",
                marker=MARKERS[place // COLOURS % len(MARKERS)],
                color=f"C{place % COLOURS}",
                markersize=5,
                alpha=0.75,
                label=f"{name} ({len(done)})",
            )
    axes.axhline(0, color="grey", linewidth=0.7)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("true ASR after the repair")
    axes.set_ylabel("loss of accuracy")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return 7.2, 4.4
