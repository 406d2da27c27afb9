"""One row per model: its truth beside the results of the policy and of each detector."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from guard.core.evidence import CleanSetFacts, Outcome
from guard.core.pvalues import sidak
from guard.core.states import Verdict
from guard.policy import Calibration, CalibrationRule, Decision, Policy, decide
from guard.policy.calibration import architecture_family
from guard.policy.combine import combine
from guard.policy.features import features, p_values
from guard.vetting import _logistic
from guard.vetting.calibrate import detector_evidence, fit
from guard.vetting.case import make_case
from guard.vetting.population import Scanned

#: Order of verdicts as a score; an abstention is no pass, so it stands with `held`.
LEVEL = {Verdict.CLEARED: 0, Verdict.HELD: 1, Verdict.INCONCLUSIVE: 1, Verdict.REJECTED: 2}
TRUTH = (
    "data",
    "architecture",
    "attack",
    "family",
    "target",
    "rate",
    "acc",
    "asr",
    "ra",
    "hardness",
    "backdoored",
    "works",
    "part",
    "seed",
)


def rows_of(
    scanned: Sequence[Scanned],
    policy: Policy,
    facts: Mapping[str, CleanSetFacts],
    calibration: Calibration | None,
    max_fpr: float,
) -> list[dict[str, Any]]:
    """Rows in the order of `scanned`; `facts` by name of the data."""
    calibrated = policy
    if calibration is not None:
        calibrated = replace(
            policy, calibration=CalibrationRule(calibration=calibration, max_fpr=max_fpr)
        )
    return [_row(item, policy, calibrated, facts[item.member.truth["data"]]) for item in scanned]


def _row(item: Scanned, policy: Policy, calibrated: Policy, facts: CleanSetFacts) -> dict[str, Any]:
    truth, evidence = item.member.truth, detector_evidence(item)
    rules = decide(
        policy, make_case(policy, item.digest, facts, item.evidence, None, item.architecture)
    )
    row: dict[str, Any] = {key: truth.get(key) for key in TRUTH}
    row |= {
        "name": item.member.name,
        "digest": item.digest,
        "architecture": architecture_family(item.architecture),
        "rules": _decided(rules),
        "detectors": {one.method: _detector(one) for one in item.evidence if one.families},
    }
    combined = combine(evidence)
    values = features(evidence)
    row["combined_p"] = (
        combined.p if combined.p is not None else min(p_values(evidence).values(), default=None)
    )
    row["class_p"] = None if combined.accord is None else combined.accord.p
    row["rules_score"] = (
        LEVEL[rules.verdict] + max(values.get("all.p", 0.0), values.get("class.p", 0.0)) / 24
    )
    if calibrated.calibration is not None:
        case = make_case(calibrated, item.digest, facts, item.evidence, None, item.architecture)
        row["calibrated"] = _decided(decide(calibrated, case))
        row["log_odds"] = calibrated.calibration.calibration.log_odds(values)
    return row


def _decided(decision: Decision) -> dict[str, Any]:
    facts = decision.facts
    asr = facts.asr
    return {
        "verdict": str(decision.verdict),
        "score": facts.score,
        "target": facts.target,
        "asr_upper": facts.asr_upper,
        "asr": None if asr is None else asr.estimate,
        "asr_low": None if asr is None else asr.low,
        "reasons": list(decision.reasons),
        "applied": facts.calibration is not None,
    }


def _detector(item: Any) -> dict[str, Any]:
    """A detector's own result: its flag, its score, and p if it gives one.

    A detector with several families gives a p for each. The smallest is corrected for their number,
    since a plain minimum would be small by chance alone.
    """
    if item.outcome is Outcome.COULD_NOT_LOOK:
        return {
            "flag": None,
            "score": None,
            "p": None,
            "seconds": item.seconds,
            "reason": item.reason,
        }
    p = p_values([item]).values()
    best = max(item.findings, key=lambda one: one.score, default=None)
    return {
        "flag": any(one.suspicious for one in item.findings),
        "score": best.score if best else 0.0,
        "target": best.target if best else None,
        "p": sidak(min(p), len(p)) if p else None,
        "families": sorted({one.family for one in item.findings if one.suspicious}),
        "seconds": item.seconds,
    }


def held_out(scanned: Sequence[Scanned], key: str, seed: int) -> dict[str, dict[str, float]]:
    """Log odds, per left-out value and model, by fits that never saw that attack or architecture.

    A fit without an attack sees all other attacks and all honest models except one fold, and scores
    that attack and that fold. A fit without an architecture sees none of its models and scores all
    of them.
    """
    usable = [
        item
        for item in scanned
        if all(one.outcome is not Outcome.COULD_NOT_LOOK for one in item.evidence)
    ]
    table, labels = _table(usable)
    if key == "attack":
        values = [
            str(item.member.truth["attack"]) if item.member.backdoored else "" for item in usable
        ]
    else:
        values = [architecture_family(item.architecture) for item in usable]
    names = sorted(set(values) - {""})
    honest = np.random.default_rng(seed).permutation(int((labels == 0).sum()))
    found: dict[str, dict[str, float]] = {}
    for place, name in enumerate(names):
        out = np.array([value == name for value in values])
        if key == "attack":
            out[np.flatnonzero(labels == 0)[honest % max(2, len(names)) == place]] = True
        if min(np.bincount(labels[~out].astype(int), minlength=2)) < 3:
            continue
        odds = _logistic.fit(table[~out], labels[~out]).log_odds(table[out])
        found[name] = {
            usable[row].member.name: float(score)
            for row, score in zip(np.flatnonzero(out), odds, strict=True)
        }
    return found


def out_of_fold(scanned: Sequence[Scanned], seed: int) -> dict[str, float]:
    """Log odds of every usable model, by a fit that did not see its attack."""
    return {row["name"]: row["log_odds"] for row in fit(scanned, seed=seed)["population"]["models"]}


def _table(usable: Sequence[Scanned]) -> tuple[Any, Any]:
    rows = [features(detector_evidence(item)) for item in usable]
    names = sorted({name for row in rows for name in row})
    table = np.array([[row.get(name, math.nan) for name in names] for row in rows])
    return table, np.array([item.member.backdoored for item in usable], np.float64)
