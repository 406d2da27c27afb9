"""Sift one trained cell, run the published statistics on it, and compare both with the truth."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data import curated
from benchmarks.sift.cell import Made, at_count, auroc, evaluate, network_time
from benchmarks.sift.exam import Exam
from benchmarks.sift.folder import Truth, Upload, opened, truth
from benchmarks.sift.references import kept
from benchmarks.sift.splits import first
from guard.sifters import SIFTERS
from guard.sifters.fct import Fct
from guard.vetting.sift import DEFAULT_METHODS, sift

METHODS = DEFAULT_METHODS
#: The published statistics: a line's name, the sifter, its parameters. `fct` is as its paper has
#: it; `fct_upload` takes the features of the uploaded model.
PUBLISHED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "fct": ("fct", {}),
    "fct_upload": ("fct", {"upload": True}),
    "spectral": ("spectral", {}),
    "activation_clustering": ("activation_clustering", {}),
    "early_loss": ("early_loss", {}),
}
REFERENCES = "references"


def sifted(exam: Exam, place: Path, size: int) -> dict[str, Any]:
    """The row of one sift with `size` clean images over all classes."""
    upload = opened(place)
    classes = upload.train.classes
    clean = curated(first(upload.clean, classes, size), classes, exam.cell.data, exam.cell.seed)
    begun, wall = time.process_time(), time.perf_counter()
    with kept(place.parent / REFERENCES) as counts, network_time() as spent:
        found = sift(upload.model, upload.train, clean, METHODS, seed=exam.cell.seed)
    seconds, wall = time.process_time() - begun, time.perf_counter() - wall
    row = evaluate(_made(exam, upload, truth(place), clean), found)
    least = clean.visible().together().labels
    return row | {
        "name": exam.name,
        "network": exam.network,
        "clean": size,
        "seen_per_class": int(torch.bincount(least, minlength=classes).min()),
        "cpu_seconds": seconds,
        "wall_seconds": wall,
        "network_share": spent[0] / wall,
        "references": {"kept": counts[0], "trained": counts[1]},
    }


def _made(exam: Exam, upload: Upload, known: Truth, clean: Any) -> Made:
    return Made(
        cell=replace(exam.cell, clean=len(upload.clean)),
        train=upload.train,
        model=upload.model,
        curated=clean,
        poisoned=known.poisoned,
        sources=known.sources,
        acc=known.facts["acc"],
        asr=known.facts["asr"],
        asr_planted=known.facts["asr_planted"],
    )


def compared(exam: Exam, place: Path) -> dict[str, Any]:
    """The published statistics of one poisoned cell against the truth; `scores.npz` keeps them."""
    upload = opened(place)
    classes = upload.train.classes
    clean = curated(upload.clean, classes, exam.cell.data, exam.cell.seed).visible()
    known = truth(place)
    rows: dict[str, Any] = {}
    scores: dict[str, np.ndarray] = {}
    for name, (method, parameters) in PUBLISHED.items():
        begun = time.process_time()
        found = SIFTERS.get(method)(**parameters)(
            upload.model, upload.train, clean, seed=exam.cell.seed
        )
        scores[name] = found.train
        rows[name] = against(found.train, known.poisoned, upload.train.labels) | {
            "cpu_seconds": time.process_time() - begun
        }
    rows["fct"]["split"] = split_of(scores["fct"], known.poisoned)
    np.savez_compressed(place / "scores.npz", **scores)  # type: ignore[arg-type]
    return rows


def against(scores: np.ndarray, poisoned: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """A statistic, float64 N, against the truth bool N; labels int64 N.

    `moved` is the share of poison above the median of the clean images: of all, and of those with
    the same label. Half of it would be there if poison were like clean images.
    """
    same = np.isin(labels, labels[poisoned])
    own = same if same.any() else ~poisoned
    return {
        "auroc": auroc(scores, poisoned),
        "auroc_same_label": auroc(scores[own], poisoned[own]),
        "precision_at_count": at_count(scores, poisoned),
        "moved": _above(scores, poisoned, ~poisoned),
        "moved_same_label": _above(scores, poisoned, ~poisoned & own),
    }


def _above(scores: np.ndarray, poisoned: np.ndarray, clean: np.ndarray) -> float | None:
    if not poisoned.any() or not clean.any():
        return None
    return float((scores[poisoned] > np.median(scores[clean])).mean())


def split_of(scores: np.ndarray, poisoned: np.ndarray) -> dict[str, float]:
    """FCT's published sets, 20 % clean and 5 % poisoned, against the truth bool N."""
    found = Fct().split(scores)
    return {
        "poisoned_precision": float(poisoned[found.poisoned].mean()),
        "poisoned_recall": float(np.isin(np.flatnonzero(poisoned), found.poisoned).mean()),
        "poison_in_clean": float(poisoned[found.clean].mean()),
        "clean_share": len(found.clean) / len(scores),
    }
