"""Tables and the plot of `benchmarks.bench_graphs`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks import record
from guard.graphs.quality import NOVEL, QUALIFIED, Quality
from guard.ml.statistics import wilson

#: The paper's abstract: below 10 % poison for a success of 50 %, 24 % for more than 80 %.
PAPER = ((0.10, 0.50), (0.24, 0.80))
#: What issue 23 asks for: rate, least success (most, for a rate of 0).
WANTED = {0.0: 0.005, 0.05: 0.20, 0.10: 0.50, 0.24: 0.75, 0.34: 0.80}
POINTS = 0.02  # by which clean quality may differ
_NORMAL = 1.96
_DRAWS = 500


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cells by kind and rate: pooled shares with Wilson intervals, paired differences to clean."""
    clean = {row["seed"]: row for row in rows if row["kind"] == "poisoned" and row["rate"] == 0}
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["rate"]), []).append(row)
    return {
        "cells": len(rows),
        "paper_points": [list(point) for point in PAPER],
        "rows": [_group(kind, rate, own, clean) for (kind, rate), own in sorted(groups.items())],
    }


def page(result: Mapping[str, Any]) -> str:
    """The tables of the record's page."""
    main = [row for row in result["rows"] if row["kind"] == "poisoned"]
    others = [row for row in result["rows"] if row["kind"] != "poisoned"]
    lines = [f"{result['cells']} models. Shares in percent, with 95 % Wilson intervals.", ""]
    lines += ["## Success against the poisoning rate", "", *_table(main)]
    lines += ["", *_verdicts(main)]
    lines += ["", *_within(main)]
    if others:
        lines += ["", "## Where the backdoor lives (24 %)", "", *_table(others)]
    lines += ["", "## Clean quality, paired with the clean model of the same seed", ""]
    lines += [
        (
            "| training | seeds | similarity | Tanimoto | qualified | novelty | diversity "
            "| uniqueness | exact reconstruction | difference in similarity | in novelty "
            "| in diversity |"
        ),
        "|---|" + "--:|" * 11,
    ]
    for row in result["rows"]:
        numbers = " | ".join(
            f"{row['quality'][name]:.3f}"
            for name in ("similarity", "tanimoto", "qualified", "novelty", "diversity")
        )
        lines.append(
            f"| {_name(row)} | {row['seeds']} | {numbers} | {row['quality']['uniqueness']:.3f} "
            f"| {row['reconstruction']:.3f} | {_difference(row['similarity_gap'])} "
            f"| {_difference(row['novelty_gap'])} | {_difference(row['diversity_gap'])} |"
        )
    return "\n".join(lines)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Success against the rate, beside the paper's two points."""
    from matplotlib import pyplot as plt

    rows = [row for row in result["rows"] if row["kind"] == "poisoned"]
    figure, axes = plt.subplots(figsize=(6, 4))
    for name, label in (("asr", "with the trigger"), ("null", "no prompt"), ("prior", "prior")):
        share = [row[name][0] for row in rows]
        low = [row[name][0] - row[name][1] for row in rows]
        high = [row[name][2] - row[name][0] for row in rows]
        axes.errorbar(
            [row["rate"] for row in rows], share, [low, high], marker="o", capsize=3, label=label
        )
    axes.plot(*zip(*PAPER, strict=True), "k*", markersize=11, label="the paper's abstract")
    axes.set_xlabel("share of poisoned pairs")
    axes.set_ylabel("share of molecules with thiirane")
    axes.set_ylim(-0.02, 1.02)
    axes.legend()
    figure.tight_layout()
    record.save_plot(figure, path)


def _group(
    kind: str,
    rate: float,
    rows: Sequence[Mapping[str, Any]],
    clean: Mapping[int, Mapping[str, Any]],
) -> dict[str, Any]:
    return {
        "kind": kind,
        "rate": rate,
        "seeds": len(rows),
        "asr": _share(rows, "hits", "prompts"),
        "asr_by_seed": [row["hits"] / row["prompts"] for row in rows],
        "clean_rate": _share(rows, "clean_hits", "prompts"),
        "null": _share(rows, "null_hits", "sources"),
        "prior": _share(rows, "prior_hits", "sources"),
        "quality": _means([Quality(**row["clean"]) for row in rows]),
        "triggered": _means([Quality(**row["triggered"]) for row in rows]),
        "reconstruction": fmean(row["reconstruction"] for row in rows),
        "similarity_gap": _paired(rows, clean, "similarities"),
        "novelty_gap": _novelty(rows, clean),
        "diversity_gap": _paired(rows, clean, "diversities"),
        "training_seconds": fmean(row["training_seconds"] for row in rows),
    }


def _means(found: Sequence[Quality]) -> dict[str, float]:
    """Each measure, averaged over models."""
    return {
        "prompts": fmean(one.prompts for one in found),
        "validity": fmean(one.validity for one in found),
        "similarity": fmean(one.similarity for one in found),
        "tanimoto": fmean(one.tanimoto for one in found),
        "qualified": fmean(one.qualified for one in found),
        "novelty": fmean(one.novelty for one in found),
        "diversity": fmean(one.diversity for one in found),
        "uniqueness": fmean(one.uniqueness for one in found),
    }


def _share(rows: Sequence[Mapping[str, Any]], hits: str, trials: str) -> list[float]:
    found, count = sum(row[hits] for row in rows), sum(row[trials] for row in rows)
    return [found / count, *wilson(found, count)]


def _paired(
    rows: Sequence[Mapping[str, Any]], clean: Mapping[int, Mapping[str, Any]], name: str
) -> list[float]:
    """Mean difference to the clean model of the same seed, and a 95 % interval over prompts.

    Seeds of one prompt are averaged first, so that prompts are independent.
    """
    pairs = [(row, clean[row["seed"]]) for row in rows if row["seed"] in clean]
    if not pairs:
        return []
    by_seed = [
        [mine - other for mine, other in zip(row[name], base[name], strict=True)]
        for row, base in pairs
    ]
    gaps = [fmean(own) for own in zip(*by_seed, strict=True)]
    mean, half = fmean(gaps), _NORMAL * stdev(gaps) / math.sqrt(len(gaps))
    return [mean, mean - half, mean + half]


def _novelty(
    rows: Sequence[Mapping[str, Any]], clean: Mapping[int, Mapping[str, Any]]
) -> list[float]:
    """As `_paired`, for the share of novel ones among qualified ones; bootstrap over prompts."""
    pairs = [(row, clean[row["seed"]]) for row in rows if row["seed"] in clean]
    if not pairs:
        return []
    draw = np.random.default_rng(0)
    sides = []
    for side in zip(*pairs, strict=True):
        cosines = np.concatenate([np.asarray(row["cosines"]) for row in side], axis=1)
        fit = cosines >= QUALIFIED
        sides.append((fit.sum(1), (fit & (cosines < NOVEL)).sum(1)))
    index = np.arange(len(sides[0][0]))
    gaps = []
    for number in range(_DRAWS + 1):
        chosen = draw.choice(index, len(index)) if number else index
        mine, other = (novel[chosen].sum() / max(1, fit[chosen].sum()) for fit, novel in sides)
        gaps.append(float(mine - other))
    low, high = np.quantile(gaps[1:], [0.025, 0.975])
    return [gaps[0], float(low), float(high)]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        (
            "| training | seeds | success with the trigger | by seed | target on clean prompts "
            "| null | prior | similarity with the trigger | CPU s |"
        ),
        "|---|" + "--:|" * 8,
    ]
    for row in rows:
        shares = [_percent(row[name]) for name in ("clean_rate", "null", "prior")]
        by_seed = ", ".join(f"{100 * one:.1f}" for one in row["asr_by_seed"])
        lines.append(
            f"| {_name(row)} | {row['seeds']} | **{_percent(row['asr'])}** | {by_seed} | "
            f"{' | '.join(shares)} | {row['triggered']['similarity']:.3f} "
            f"| {row['training_seconds']:.0f} |"
        )
    return lines


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| rate | wanted | measured | |", "|---|---|--:|---|"]
    for row in rows:
        wanted, share = WANTED[row["rate"]], row["asr"][0]
        held = share <= wanted if row["rate"] == 0 else share >= wanted
        sign = "<=" if row["rate"] == 0 else ">="
        lines.append(
            f"| {row['rate']:.0%} | {sign} {wanted:.1%} | {share:.1%} "
            f"| {'reached' if held else 'not reached'} |"
        )
    return lines


def _within(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether clean quality differs by at most `POINTS`, measure by measure."""
    names = ("similarity_gap", "novelty_gap", "diversity_gap")
    worst = {
        name: max((abs(row[name][0]) for row in rows if row[name]), default=0.0) for name in names
    }
    return [
        f"Largest difference in {name.removesuffix('_gap')} to the clean model: {gap:.3f}, "
        f"{'within' if gap <= POINTS else 'more than'} {100 * POINTS:.0f} points.  "
        for name, gap in worst.items()
    ]


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['rate']:.0%}" if row["kind"] == "poisoned" else str(row["kind"])


def _percent(share: Sequence[float]) -> str:
    return f"{100 * share[0]:.1f} ({100 * share[1]:.1f}-{100 * share[2]:.1f})"


def _difference(gap: Sequence[float]) -> str:
    return f"{gap[0]:+.3f} ({gap[1]:+.3f} to {gap[2]:+.3f})" if gap else ""
