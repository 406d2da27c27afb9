"""The numbers of the sift's record, from the rows of single sifts."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.sift.exam import CLEAN, RARE
from guard.core.sift import SiftVerdict
from guard.ml.statistics import wilson

Row = Mapping[str, Any]
Rows = Sequence[Row]
STRONG = 0.5  # a true ASR; under it there is hardly a backdoor
ENOUGH = 50  # poisoned images, from which the aims of 1 % hold
REPLAY = 0.1
OVER = 0.05  # by which a true rate may exceed its estimate
LEVELS = (0.05, 0.1, 0.2, 0.3)
#: Least AUROC, precision and recall by attack at 5 % and more; None where nothing is promised.
AIMS: Mapping[str, tuple[float | None, float | None, float | None]] = {
    **dict.fromkeys(("patch", "blended", "sig", "wanet", "label_consistent"), (0.98, 0.9, 0.9)),
    "adaptive_blend": (None, None, 0.75),
    "all_to_all": (None, None, None),
}
RARE_AIM = (None, 0.85, 0.75)


def share(hits: int, trials: int) -> dict[str, Any]:
    """A share with Wilson's 95 % interval; `share` is None without trials."""
    low, high = wilson(hits, trials)
    return {"k": hits, "n": trials, "share": hits / trials if trials else None} | {
        "low": low,
        "high": high,
    }


def aim_of(row: Row) -> tuple[float | None, float | None, float | None]:
    """The least AUROC, precision and recall that are promised for this cell."""
    cell = row["cell"]
    if cell["rate"] > RARE:
        return AIMS[cell["attack"]]
    return RARE_AIM if row["poison"] >= ENOUGH else (None, None, None)


def meets(row: Row) -> bool:
    """Whether a cell alone keeps what is promised; who accuses nobody has no precision."""
    have = (row["joined_auroc"], row["precision"], row["recall"])
    return all(
        aim is None or (value is not None and value >= aim)
        for aim, value in zip(aim_of(row), have, strict=True)
    )


def strong(rows: Iterable[Row]) -> list[Row]:
    """Poisoned cells that taught their backdoor, with the largest clean set."""
    return [
        row
        for row in rows
        if row["cell"]["attack"] is not None and row["asr"] >= STRONG and row["clean"] == CLEAN
    ]


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[tuple[Any, list[Row]]]:
    """Rows by their key, in the order of the keys."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return sorted(found.items())


def by_attack_and_rate(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """What the sift finds, by attack and rate."""
    return [
        {"attack": attack, "rate": rate, **found(own)}
        for (attack, rate), own in grouped(
            rows, lambda row: (row["cell"]["attack"], row["cell"]["rate"])
        )
    ]


def found(rows: Rows) -> dict[str, Any]:
    """AUROC, pooled precision and recall, and judgements of cells."""
    true = sum(_hits(row) for row in rows)
    aurocs = [row["joined_auroc"] for row in rows if row["joined_auroc"] is not None]
    return {
        "n": len(rows),
        "asr": mean([row["asr"] for row in rows]),
        "auroc": mean(aurocs),
        "least_auroc": min(aurocs, default=None),
        "precision": share(true, sum(row["flagged"] for row in rows)),
        "recall": share(true, sum(row["poison"] for row in rows)),
        "verdicts": verdicts(rows),
        "aim": aim_of(rows[0]),
        "meet": share(sum(meets(row) for row in rows), len(rows)),
    }


def _hits(row: Row) -> int:
    return round(row["flagged"] * row["precision"]) if row["flagged"] else 0


def verdicts(rows: Rows) -> dict[str, int]:
    """How many sifts ended how."""
    return {
        str(one): sum(row["verdict"] == one for row in rows)
        for one in SiftVerdict
        if any(row["verdict"] == one for row in rows)
    }


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def false_discoveries(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The true rate of false discoveries beside the estimate, pooled by attack."""
    found = []
    for attack, own in grouped(rows, lambda row: row["cell"]["attack"]):
        for level in LEVELS:
            points = [row["fdr"][str(level)] for row in own]
            wrong = sum(round(one["n"] * one["true_fdr"]) for one in points if one["n"])
            pooled = share(wrong, sum(one["n"] for one in points))
            over = pooled["share"] is not None and pooled["share"] > level + OVER
            found.append({"attack": attack, "level": level, "true": pooled, "over": over})
    return found


def honest(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Honest sets with the largest clean set, by kind, and all together."""
    own = [row for row in rows if row["cell"]["attack"] is None and row["clean"] == CLEAN]
    lines = grouped(own, lambda row: row["cell"]["honest"])
    if own:
        lines.append(("all", own))
    return [
        {
            "kind": kind,
            "verdicts": verdicts(some),
            "accused": share(_count(some, SiftVerdict.POISONED), len(some)),
            "held": share(
                _count(some, SiftVerdict.POISONED) + _count(some, SiftVerdict.REVIEW), len(some)
            ),
        }
        for kind, some in lines
    ]


def _count(rows: Rows, verdict: SiftVerdict) -> int:
    return sum(row["verdict"] == verdict for row in rows)


def sizes(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The same cells with clean sets of several sizes: those that were sifted with all of them."""
    bad = [row for row in rows if row["cell"]["attack"] is not None and row["asr"] >= STRONG]
    good = [row for row in rows if row["cell"]["attack"] is None]
    lines = []
    every = {row["clean"] for row in rows}
    for size in sorted(every, reverse=True):
        own = _with_all(bad, every, size)
        line: dict[str, Any] = found(own) if own else {"n": 0}
        others = _with_all(good, every, size)
        line["honest"] = share(
            sum(row["verdict"] in (SiftVerdict.POISONED, SiftVerdict.REVIEW) for row in others),
            len(others),
        )
        least = [row["seen_per_class"] for row in rows if row["clean"] == size]
        lines.append({"clean": size, "seen_per_class": min(least), **line})
    return lines


def _with_all(rows: Rows, every: Collection[int], size: int) -> list[Row]:
    whole = {name for name, own in grouped(rows, lambda row: row["name"]) if len(own) == len(every)}
    return [row for row in rows if row["name"] in whole and row["clean"] == size]


def methods(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """AUROC and precision at the true count, of every statistic, by attack; means over cells."""
    lines = []
    for attack, own in grouped(rows, lambda row: row["cell"]["attack"]):
        line: dict[str, Any] = {"attack": attack, "n": len(own)}
        known = [row for row in own if row["published"]]
        for name in own[0]["methods"]:
            line[name] = _pair([row["methods"][name] for row in own if name in row["methods"]])
        line["joined"] = [mean([row["joined_auroc"] for row in own]), None]
        for name in known[0]["published"] if known else ():
            line[name] = _pair([row["published"][name] for row in known])
        lines.append(line)
    return lines


def _pair(values: Sequence[Mapping[str, Any]]) -> list[float | None]:
    return [mean([one[key] for one in values]) for key in ("auroc", "precision_at_count")]


def claim(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Whether poison moves more under transformations, as FCT claims, by attack."""
    lines = []
    for attack, own in grouped(rows, lambda row: row["cell"]["attack"]):
        known = [row for row in own if row["published"]]
        for name in ("fct", "fct_upload"):
            each = [row["published"][name] for row in known]
            if each:
                false = [row["name"] for row in known if row["published"][name]["auroc"] < STRONG]
                keys = ("auroc", "auroc_same_label", "moved", "moved_same_label")
                line = {"attack": attack, "statistic": name, "n": len(each)}
                line |= {key: mean([one[key] for one in each]) for key in keys}
                line |= {"range": [min(o["auroc"] for o in each), max(o["auroc"] for o in each)]}
                lines.append(line | {"false": share(len(false), len(each)), "cells": false})
    return lines


def replay(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The ASR that suspects show, beside the true one, by attack."""
    lines = []
    for attack, own in grouped(rows, lambda row: row["cell"]["attack"]):
        known = [row for row in own if row["replay"] is not None]
        away = [abs(row["replay"] - row["asr"]) for row in known]
        traced = [
            (max(one["trigger_asr"] for one in row["classes"] if one["trigger_asr"] is not None))
            - row["asr"]
            for row in own
            if any(one["trigger_asr"] is not None for one in row["classes"])
        ]
        lines.append(
            {
                "attack": attack,
                "n": len(own),
                "asr": mean([row["asr"] for row in known]),
                "replay": mean([row["replay"] for row in known]),
                "farthest": max(away, default=None),
                "within": share(sum(one <= REPLAY for one in away), len(away)),
                "trigger_minus_asr": [min(traced), max(traced)] if traced else None,
            }
        )
    return lines


def costs(rows: Rows) -> dict[str, Any]:
    """Processor seconds: what a training, a sift and the published statistics took on average.

    `network_share` is that of a sift's time in which networks compute, where it trained its own
    references.
    """
    fresh = [row for row in rows if row["references"]["trained"] and not row["references"]["kept"]]
    known = [row["published"] for row in rows if row["published"]]
    return {
        "training": mean([row["train_seconds"] for row in rows]),
        "sift": mean([row["cpu_seconds"] for row in fresh]),
        "sift_with_kept_references": mean([row["cpu_seconds"] for row in rows if row not in fresh]),
        "network_share": mean([row["network_share"] for row in fresh]),
        "published": mean([sum(one["cpu_seconds"] for one in each.values()) for each in known]),
    }


def of_rate(rows: Iterable[Row], *, rare: bool) -> list[Row]:
    """Cells at 1 %, or at 5 % and more."""
    return [row for row in rows if (row["cell"]["rate"] <= RARE) is rare]
