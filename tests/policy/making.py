"""A policy and a case that is cleared under it; tests change one thing at a time."""

import dataclasses
from typing import Any

from guard.core.evidence import (
    Accuracy,
    AsrEstimate,
    CleanSetFacts,
    Evidence,
    Finding,
    Outcome,
)
from guard.core.purification import PurificationFacts
from guard.policy import Case, DefenseRule, DetectorRule, Policy

ARTIFACT, CLEANSET, PARENT = "d" * 64, "c" * 64, "e" * 64
FACTS = CleanSetFacts(
    name="tens",
    digest=CLEANSET,
    classes=5,
    channels=1,
    height=8,
    width=8,
    per_class=100,
    search=200,
    calibration=80,
    holdout=120,
)
POLICY = Policy(
    name="strict",
    version=4,
    detectors={"a": DetectorRule(params={"steps": 5}), "b": DetectorRule()},
    defenses=(DefenseRule(name="sau"),),
)
VERSIONS = {"a": 2, "b": 1, "c": 1}
ACCURACY = Accuracy(overall=0.95, per_class=(0.9, 0.95, 1.0, 0.9, 0.9), images=90)


def an_asr(high: float = 0.98, **fields: Any) -> AsrEstimate:
    made = AsrEstimate(
        target=1,
        family="patch",
        successes=9,
        trials=10,
        estimate=high * 0.9,
        low=high * 0.8,
        high=high,
        natural=0.0,
        budget=9.0,
    )
    return dataclasses.replace(made, **fields)


def a_finding(*, suspicious: bool = True, score: float = 0.9, **fields: Any) -> Finding:
    made = Finding(
        family="patch",
        target=1,
        suspicious=suspicious,
        score=score,
        statement="A patch leads to class 1.",
        numbers={"t": 5.0},
        asr=an_asr(),
    )
    return dataclasses.replace(made, **fields)


def an_evidence(method: str = "a", *findings: Finding, **fields: Any) -> Evidence:
    made = Evidence(
        artifact=ARTIFACT,
        method=method,
        version=VERSIONS[method],
        parameters={"steps": 5, "rate": 0.1},
        cleanset=CLEANSET,
        seed=0,
        outcome=Outcome.FINDINGS if findings else Outcome.NOTHING,
        families=("patch",) if method == "a" else ("blend",),
        findings=findings,
    )
    return dataclasses.replace(made, **fields)


def a_case(*extra: Evidence, **fields: Any) -> Case:
    """What is cleared, and more evidence."""
    mild = an_evidence("a", a_finding(suspicious=False, score=0.2, target=0))
    made = Case(
        artifact=ARTIFACT,
        cleanset=FACTS,
        evidence=(mild, an_evidence("b"), *extra),
        accuracy=ACCURACY,
        versions=VERSIONS,
    )
    return dataclasses.replace(made, **fields)


def a_purification(**fields: Any) -> PurificationFacts:
    made = PurificationFacts(
        defense="sau",
        version=1,
        parameters={},
        parent=PARENT,
        acc_before=ACCURACY,
        acc_after=Accuracy(overall=0.94, per_class=(0.9, 0.92, 1.0, 0.9, 0.9), images=90),
        replayed=(an_asr(0.05),),
        seconds=1.0,
    )
    return dataclasses.replace(made, **fields)
