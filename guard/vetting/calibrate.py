"""Fit how the policy's methods count together, on reference models whose truth is known.

Steps:
    1. compute the features of each scanned model (`guard.policy.features`), and keep those that at
       least half of the models have
    2. compute out-of-fold log odds: the fit that scores a model saw neither it nor another model of
       its attack
    3. scale these by Platt's method, fit once on all models, and keep the honest models'
       out-of-fold scores as conformal reference
    4. keep the honest models' least p of each method that ranks classes, as conformal reference
    5. take the conformal 95 % quantile of how far the true ASR exceeds the bound on the recovered
       trigger

The conformal rate holds for honest models that are exchangeable with the reference ones. New models
are scored by the fit on all models, the reference ones by fits on a part. The rate holds in our
simulations (tests), but this step is an approximation that only a separate reference set would
avoid.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from guard.core.digests import json_digest
from guard.core.errors import InputError
from guard.core.evidence import Evidence, Outcome
from guard.policy import asr_bounds
from guard.policy.calibration import (
    KIND,
    LAYOUT,
    RANKINGS,
    Calibration,
    architecture_family,
    plain,
)
from guard.policy.features import features, rankings
from guard.vetting.population import Scanned

LEAST_OF_EACH = 8  # fewer honest or backdoored models fit noise
STRENGTH = 0.3
FOLDS = 5
COVERAGE = 0.95
LEAST_SHARE = 0.5  # of the models must have a feature; else it is left out
DIGITS = 12


def fit(scanned: Sequence[Scanned], *, seed: int = 0, about: str = "") -> dict[str, Any]:
    """The calibration as a JSON-ready document with its digest.

    Raises:
        InputError: too few models, or methods that did not look at all of them alike.
    """
    import numpy as np

    from guard.vetting import _logistic

    usable = [item for item in scanned if not _blind(item)]
    labels = np.array([item.member.backdoored for item in usable], np.float64)
    _enough(labels)
    methods = _methods(usable)
    rows = [features(detector_evidence(item)) for item in usable]
    names = _names(rows)
    table = np.array([[row.get(name, np.nan) for name in names] for row in rows])
    where = _folds(usable, labels, seed)
    odds = _logistic.out_of_fold(table, labels, where, STRENGTH)
    slope, offset = _logistic.platt(odds, labels)
    final = _logistic.fit(table, labels, STRENGTH)
    scores = slope * odds + offset
    document = {
        "kind": KIND,
        "layout": LAYOUT,
        "methods": {
            name: {"version": version, "parameters": plain(params)}
            for name, (version, params) in sorted(methods.items())
        },
        "covers": [
            {"architecture": family, "cleanset": cleanset} for family, cleanset in _covers(usable)
        ],
        "features": [
            {"name": name, "mean": _short(mean), "scale": _short(scale), "weight": _short(weight)}
            for name, mean, scale, weight in zip(
                names, final.means, final.scales, final.weights, strict=True
            )
        ],
        "intercept": _short(final.intercept),
        "slope": _short(slope),
        "offset": _short(offset),
        "honest_log_odds": sorted(_short(score) for score in scores[labels == 0]),
        "asr_margin": _margin(usable),
        **_rankings(usable),
        "population": {
            "about": about,
            "seed": seed,
            "folds": int(where.max()) + 1,
            "strength": STRENGTH,
            "left_out": sorted(item.member.name for item in scanned if _blind(item)),
            **_population(usable, where, scores),
        },
    }
    return {**document, "digest": json_digest(document)}


def _enough(labels: Any) -> None:
    """Raises InputError where there are too few honest or backdoored models."""
    for kind, count in (
        ("honest", int((labels == 0).sum())),
        ("backdoored", int((labels == 1).sum())),
    ):
        if count < LEAST_OF_EACH:
            raise InputError(
                f"A calibration needs {LEAST_OF_EACH} {kind} models that all methods could look "
                f"at; there are {count}.",
                code="few_models",
            )


def _folds(usable: Sequence[Scanned], labels: Any, seed: int) -> Any:
    """Each model's fold: whole attacks where there are several, else single models."""
    from guard.vetting import _logistic

    groups = [item.member.group for item in usable]
    attacks = len({group for group, label in zip(groups, labels, strict=True) if label})
    if attacks > 1:
        return _logistic.folds(groups, labels, min(FOLDS, max(2, attacks)), seed)
    return _logistic.folds([item.member.name for item in usable], labels, FOLDS, seed)


def _population(usable: Sequence[Scanned], where: Any, scores: Any) -> dict[str, Any]:
    """The reference models, and how many each attack has."""
    attacks = Counter(str(item.member.truth.get("attack")) for item in usable)
    return {
        "attacks": dict(sorted(attacks.items())),
        "models": [
            {
                "name": item.member.name,
                "digest": item.digest,
                "backdoored": item.member.backdoored,
                "fold": int(fold),
                "log_odds": _short(score),
            }
            for item, fold, score in zip(usable, where, scores, strict=True)
        ],
    }


def detector_evidence(item: Scanned) -> list[Evidence]:
    """The usable evidence of a model's detectors."""
    return [
        one for one in item.evidence if one.families and one.outcome is not Outcome.COULD_NOT_LOOK
    ]


def summary(calibration: Calibration) -> dict[str, Any]:
    """What a person should know about a calibration."""
    return {
        "digest": calibration.digest,
        "methods": sorted(calibration.methods),
        "honest": len(calibration.honest),
        "models": len(calibration.population.get("models", ())),
        "smallest_fpr": calibration.least_fpr,
        "covers": sorted(f"{family} on {cleanset[:12]}" for family, cleanset in calibration.covers),
        "weights": {item.name: item.weight for item in calibration.weights if item.weight > 0},
        "asr_margin": calibration.asr_margin,
        "rankings": {
            name: {"honest": len(honest), "smallest_p": 1 / (len(honest) + 1)}
            for name, honest in sorted(calibration.rankings.items())
        },
    }


def _rankings(usable: Sequence[Scanned]) -> dict[str, Any]:
    """The least p of each honest model by each method that ranks classes; empty without any.

    No part of the fit enters it, so that the p value that it gives is exactly conformal.
    """
    found = defaultdict[str, list[float]](list)
    for item in usable:
        if not item.member.backdoored:
            for method, p in rankings(detector_evidence(item)).items():
                found[method].append(_short(p))
    return {RANKINGS: {name: sorted(found[name]) for name in sorted(found)}} if found else {}


def _blind(item: Scanned) -> bool:
    """Whether a method could not look at this model, which is then no reference."""
    return any(one.outcome is Outcome.COULD_NOT_LOOK for one in item.evidence)


def _methods(usable: Sequence[Scanned]) -> dict[str, tuple[int, dict[str, Any]]]:
    seen = [
        {one.method: (one.version, plain(one.parameters)) for one in item.evidence if one.families}
        for item in usable
    ]
    for item, other in zip(usable, seen, strict=True):
        if other != seen[0]:
            raise InputError(
                f"{item.member.name} was scanned by other methods, versions or parameters than "
                f"{usable[0].member.name}; remove its scan files and run again.",
                code="mixed_scans",
            )
    return seen[0]


def _names(rows: Sequence[dict[str, float]]) -> list[str]:
    counts = Counter(name for row in rows for name in row)
    return sorted(name for name, count in counts.items() if count >= LEAST_SHARE * len(rows))


def _covers(usable: Sequence[Scanned]) -> list[tuple[str, str]]:
    """Pairs with honest models in the population: only for these is the false-alarm rate known."""
    return sorted(
        {
            (architecture_family(item.architecture), item.evidence[0].cleanset)
            for item in usable
            if not item.member.backdoored
        }
    )


def _margin(usable: Sequence[Scanned]) -> float | None:
    """The conformal quantile of the true ASR less the bound on the recovered trigger.

    It is taken over backdoored models with an accused trigger; None where these are too few.
    """
    excess = []
    for item in usable:
        true = item.member.truth.get("asr")
        if item.member.backdoored and isinstance(true, (int, float)) and math.isfinite(true):
            accused = [
                finding
                for one in detector_evidence(item)
                for finding in one.findings
                if finding.suspicious
            ]
            bound = asr_bounds.of_suspects(detector_evidence(item), accused, 0.0)
            if bound is not None:
                excess.append(max(0.0, true - bound))
    rank = math.ceil((len(excess) + 1) * COVERAGE - 1e-9)
    return _short(min(1.0, sorted(excess)[rank - 1])) if rank <= len(excess) else None


def _short(value: Any) -> float:
    """`value` rounded, so that the file holds no digits that another machine would not repeat."""
    return round(float(value), DIGITS)
