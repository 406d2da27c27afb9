"""Synthetic evidence of two methods on a model of ten classes.

Honest, or with one class that stands out.
"""

import math
import random
from typing import Any

from guard.core.evidence import Accuracy, AsrEstimate, CleanSetFacts, Evidence, Finding, Outcome
from guard.policy import Calibration, CalibrationRule, Case, DetectorRule, Policy
from guard.policy.calibration import Weight

CLEANSET = "c" * 64
FACTS = CleanSetFacts(
    name="tens",
    digest=CLEANSET,
    classes=10,
    channels=1,
    height=8,
    width=8,
    per_class=100,
    search=500,
    calibration=200,
    holdout=300,
)
ACCURACY = Accuracy(overall=0.95, per_class=(0.95,) * 10, images=300)
METHODS = {"patches": ("patch",), "blends": ("blend", "warp")}
VERSIONS = dict.fromkeys(METHODS, 1)
PARAMETERS: dict[str, dict[str, Any]] = {"patches": {"steps": 5}, "blends": {"sizes": [1, 2]}}
POLICY = Policy(
    name="two", detectors={name: DetectorRule(params=PARAMETERS[name]) for name in METHODS}
)


def finding(
    family: str,
    p: float,
    *,
    target: int = 1,
    hits: int = 20,
    suspicious: bool | None = None,
    natural: float = 0.0,
    **numbers: float,
) -> Finding:
    """A finding on 270 hold-out pictures; suspicious where p is at most 1 %, unless it is said."""
    spread = 1.96 * math.sqrt(max(hits * (270 - hits), 1) / 270**3)
    share = hits / 270
    asr = AsrEstimate(
        target=target,
        family=family,
        successes=hits,
        trials=270,
        estimate=share,
        low=max(0.0, share - spread),
        high=min(1.0, share + spread),
        natural=natural,
        budget=9.0,
    )
    flagged = p <= 0.01 if suspicious is None else suspicious
    score = min(1.0, max(0.0, -math.log10(max(p, 1e-12)) / 4))
    return Finding(
        family=family,
        target=target,
        suspicious=flagged,
        score=score,
        asr=asr,
        statement=f"A {family} leads to class {target}.",
        numbers={"p_value": p, **numbers},
    )


def evidence(method: str, *findings: Finding, artifact: str = "d" * 64, **fields: Any) -> Evidence:
    made: dict[str, Any] = {
        "artifact": artifact,
        "method": method,
        "version": 1,
        "parameters": PARAMETERS[method],
        "cleanset": CLEANSET,
        "seed": 0,
        "outcome": Outcome.FINDINGS if findings else Outcome.NOTHING,
        "families": METHODS[method],
        "findings": findings,
    }
    return Evidence(**{**made, **fields})


def model(
    rng: random.Random, *, bad: bool = False, artifact: str = "d" * 64
) -> tuple[Evidence, ...]:
    """Uniform p values with little effect, or a small one with a large effect in one family."""
    chosen = rng.choice(["patch", "blend", "warp"]) if bad else ""
    found = {}
    for family in ("patch", "blend", "warp"):
        bump = family == chosen
        p = 10 ** -rng.uniform(1, 6) if bump else rng.random()
        fold = math.exp(rng.uniform(0.5, 2.5) if bump else rng.gauss(0.3, 0.25))
        hits = round(270 * (rng.uniform(0.6, 1.0) if bump else rng.uniform(0.0, 0.5)))
        found[family] = finding(family, p, hits=hits, suspicious=p <= 0.01 and fold >= 2, fold=fold)
    return (
        evidence("patches", found["patch"], artifact=artifact),
        evidence("blends", found["blend"], found["warp"], artifact=artifact),
    )


def case(*items: Evidence, **fields: Any) -> Case:
    made: dict[str, Any] = {
        "artifact": "d" * 64,
        "cleanset": FACTS,
        "evidence": items,
        "accuracy": ACCURACY,
        "versions": VERSIONS,
        "parameters": PARAMETERS,
        "architecture": "cifar_resnet",
    }
    return Case(**{**made, **fields})


def a_calibration(**fields: Any) -> Calibration:
    """By hand: the combined p and one effect count; honest log odds are -1 and lower."""
    made: dict[str, Any] = {
        "digest": "e" * 64,
        "methods": {name: (1, PARAMETERS[name]) for name in METHODS},
        "covers": frozenset({("cifar_resnet", CLEANSET)}),
        "intercept": -4.0,
        "slope": 1.0,
        "offset": 0.0,
        "weights": (Weight("all.p", 0.5, 0.5, 0.5), Weight("patches.fold", 0.5, 0.5, 0.5)),
        "honest": tuple(-1 - (40 - index) / 10 for index in range(1, 41)),
    }
    return Calibration(**{**made, **fields})


def calibrated(calibration: Calibration | None = None, max_fpr: float = 0.05) -> Policy:
    rule = CalibrationRule(calibration=calibration or a_calibration(), max_fpr=max_fpr)
    return Policy(name="two", detectors=POLICY.detectors, calibration=rule)
