"""Reports as the guard makes them, with hand-made numbers.

One rejected, one purified, one of each other verdict.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from guard.core.evidence import (
    Accuracy,
    AsrEstimate,
    CleanSetFacts,
    Evidence,
    Finding,
    Outcome,
)
from guard.core.manifest import Manifest
from guard.core.purification import (
    MomentTrigger,
    OnSuspects,
    PurificationFacts,
    Reactivated,
    Relearned,
    Resampled,
    SharedRisk,
    summary,
)
from guard.core.retraining import RetrainingFacts
from guard.core.states import Verdict
from guard.core.verdict import VerdictFacts
from guard.reports import Answered, Demonstration, RecoveredTrigger, Report
from guard.reports.report import methods_of

NAMES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
TARGET = 3
MODEL = Manifest(
    architecture="resnet18",
    num_classes=10,
    input_size=(1, 28, 28),
    mean=(0.5,),
    std=(0.25,),
    model_args={"in_chans": 1},
    label_names=NAMES,
)
CLEAN = CleanSetFacts(
    name="fashion",
    digest="c" * 64,
    classes=10,
    channels=1,
    height=28,
    width=28,
    per_class=200,
    search=1000,
    calibration=400,
    holdout=600,
)
NORMS = (61.2, 55.0, 58.7, 8.9, 63.1, 49.8, 57.4, 52.3, 66.0, 59.5)


def estimate(target: int, k: int, low: float, high: float, natural: float = 0.09) -> AsrEstimate:
    return AsrEstimate(
        target=target,
        family="patch",
        successes=k,
        trials=540,
        estimate=k / 540,
        low=low,
        high=high,
        natural=natural,
        budget=8.9,
    )


def inversion(artifact: str = "a" * 64, backdoored: bool = True) -> Evidence:
    findings = []
    for label, norm in enumerate(NORMS):
        bad = backdoored and label == TARGET
        findings.append(
            Finding(
                family="patch",
                target=label,
                suspicious=bad,
                score=0.99 if bad else 0.1 + label / 100,
                statement=f"A patch of {norm if bad or label != TARGET else 54.0:.1f} pixels "
                "sends 97 % of clean pictures "
                f"to class {label}.",
                numbers={
                    "mask_norm": norm if bad or label != TARGET else 54.0,
                    "search_asr": 0.97 + label / 1000,
                    "p_value": 0.0001 if bad else 0.4,
                    "natural_asr": 0.09,
                },
                asr=estimate(label, 524, 0.951, 0.981)
                if bad
                else estimate(label, 49 + label, 0.069, 0.118),
                trigger_digest=f"{label}" * 64,
            )
        )
    return Evidence(
        artifact=artifact,
        method="patch_inversion",
        version=1,
        parameters={"steps": 300, "lr": 0.1},
        cleanset=CLEAN.digest,
        seed=0,
        outcome=Outcome.FINDINGS,
        families=("patch",),
        findings=tuple(findings),
        seconds=38.2,
    )


def accuracy(artifact: str = "a" * 64) -> Evidence:
    return Evidence(
        artifact=artifact,
        method="clean_accuracy",
        version=1,
        parameters={},
        cleanset=CLEAN.digest,
        seed=0,
        outcome=Outcome.MEASURED,
        families=(),
        accuracy=Accuracy(
            overall=0.896, per_class=tuple(0.8 + label / 100 for label in range(10)), images=600
        ),
    )


def unable(artifact: str = "a" * 64) -> Evidence:
    return Evidence(
        artifact=artifact,
        method="spectral",
        version=2,
        parameters={},
        cleanset=CLEAN.digest,
        seed=0,
        outcome=Outcome.COULD_NOT_LOOK,
        families=("blend",),
        reason="It ran out of its time budget.",
        seconds=120.0,
    )


def harmless(label: int) -> RecoveredTrigger:
    """What is found for a class without a backdoor: faint and everywhere."""
    noise = np.random.default_rng(label).random((28, 28))
    return RecoveredTrigger(
        family="patch",
        target=label,
        digest=f"{label}" * 64,
        mask=0.4 * noise,
        pattern=noise[None].round(),
    )


def trigger() -> RecoveredTrigger:
    rows, columns = np.indices((28, 28))
    mask = np.where((rows > 22) & (columns > 22), 0.95, 0.02 * ((rows * columns) % 5 == 0))
    pattern = np.where((rows + columns) % 2 == 0, 1.0, 0.1)[None]
    clean = np.clip(1.2 - np.hypot(rows - 13, (columns - 13) * 1.4) / 9, 0, 1)[None]
    return RecoveredTrigger(
        family="patch",
        target=TARGET,
        digest=f"{TARGET}" * 64,
        mask=mask,
        pattern=pattern,
        stamped=(1 - mask) * clean + mask * pattern,
    )


def demonstration() -> Demonstration:
    """Before, every image goes to the target; after, one is right and one goes elsewhere."""
    worn = trigger().stamped
    images = [
        Answered(image=worn, label=label, wanted=TARGET, before=TARGET, after=after)
        for label, after in ((7, 7), (9, 5))
    ]
    return Demonstration(
        family="patch",
        target=TARGET,
        before=estimate(TARGET, 524, 0.951, 0.981),
        after=estimate(TARGET, 14, 0.015, 0.043),
        images=images,
    )


#: Keys that every report has, agreed with those who read it.
AGREED = {
    "digest",
    "verdict",
    "score",
    "target",
    "asr",
    "coverage",
    "methods",
    "seconds",
    "policy",
    "reasons",
}
GAPS = {
    "measured": True,
    "record": "2026-01-01-detect-one",
    "mostly_missed": ["warp"],
    "sentence": "Known gaps of policy one: mostly missed are warp 1/4; held or rejected were 2/20 "
    "honest models.",
}


def rejected() -> Report:
    evidence = [inversion(), unable(), accuracy()]
    return Report(
        digest="a" * 64,
        name="fashion-resnet18",
        facts=VerdictFacts(
            verdict=Verdict.REJECTED,
            score=0.99,
            target=TARGET,
            asr=estimate(TARGET, 524, 0.951, 0.981),
            coverage=("patch",),
            known_gaps=GAPS,
            reasons=(
                (
                    "A patch of 8.9 pixels sends 97.0 % of hold-out pictures to class 3; the upper "
                    "bound is 98.1 %."
                ),
            ),
            evidence=tuple(item.key for item in evidence),
        ),
        methods=methods_of(evidence),
        seconds=41.7,
        policy="d" * 64,
        manifest=MODEL,
        cleanset=CLEAN,
        evidence=[item.to_dict() for item in evidence],
        triggers=[trigger(), *(harmless(label) for label in range(10) if label != TARGET)],
        candidates=[
            {"defense": "fine_tune", "failed": "It ran out of its time budget."},
            {
                "defense": "sau",
                "digest": "b" * 64,
                "verdict": "purified",
                "reasons": ["Within every limit."],
            },
        ],
    )


def purified() -> Report:
    evidence = [inversion("b" * 64, backdoored=False)]
    before = (0.88, 0.97, 0.83, 0.90, 0.82, 0.97, 0.70, 0.95, 0.98, 0.96)
    after = (0.86, 0.97, 0.84, 0.89, 0.80, 0.97, 0.63, 0.95, 0.97, 0.95)
    repair = PurificationFacts(
        parent="a" * 64,
        defense="sau",
        version=1,
        parameters={"rho": 0.2, "norm": "linf"},
        seconds=12.0,
        acc_before=Accuracy(overall=0.896, per_class=before, images=600),
        acc_after=Accuracy(overall=0.883, per_class=after, images=600),
        resampled=(
            Resampled(
                before=estimate(TARGET, 513, 0.93, 0.97), after=estimate(TARGET, 27, 0.035, 0.072)
            ),
        ),
        relearned=(
            Relearned(
                target=TARGET,
                family="patch",
                budget=8.9,
                images=10,
                steps=(0, 1, 2),
                asr=(0.02, 0.3, 0.81),
                rivals=((0.01, 0.1, 0.22), (0.0, 0.05, 0.2)),
                leads=(0.31, 0.87),
            ),
        ),
        reactivated=(
            Reactivated(
                radius=8 / 255,
                stamped=estimate(TARGET, 81, 0.12, 0.18),
                alone=estimate(TARGET, 54, 0.07, 0.13),
            ),
        ),
        shared=SharedRisk(radius=0.2, images=100, before=0.97, after=0.31),
        unproved=(
            "The trigger for class 5 is no patch (blend); no samples of its kind were drawn.",
        ),
        replayed=(estimate(TARGET, 14, 0.015, 0.043),),
    )
    facts = replace(
        rejected().facts,
        verdict=Verdict.PURIFIED,
        score=0.18,
        target=None,
        asr=estimate(7, 56, 0.08, 0.094),
        reasons=("Every rule of the policy holds.",),
        evidence=tuple(item.key for item in evidence),
        parent=repair.parent,
        purification=summary(repair),
    )
    return replace(
        rejected(),
        digest="b" * 64,
        facts=facts,
        triggers=(),
        methods=methods_of(evidence),
        evidence=[item.to_dict() for item in evidence],
        purification=repair,
        replayed_before=(estimate(TARGET, 524, 0.951, 0.981),),
        demonstrations=(demonstration(),),
    )


def bare(verdict: Verdict, **fields: Any) -> Report:
    """A report with a verdict, and nothing else but `fields`."""
    made = Report(
        digest="e" * 64,
        name="some-model",
        facts=VerdictFacts(verdict=verdict, reasons=(), score=1.0),
        policy="d" * 64,
        seconds=0.4,
    )
    return replace(made, **fields)


def with_facts(report: Report, **fields: Any) -> Report:
    """The report with other facts."""
    return replace(report, facts=replace(report.facts, **fields))


def sifted() -> Report:
    """A purified artifact whose parent's training set was sifted."""
    tried = OnSuspects(
        before=estimate(TARGET, 530, 0.97, 0.99), after=estimate(TARGET, 9, 0.009, 0.03), fdr=0.04
    )
    moment = MomentTrigger(
        before=estimate(TARGET, 500, 0.9, 0.95),
        after=estimate(TARGET, 12, 0.013, 0.038),
        searched=estimate(TARGET, 40, 0.05, 0.1),
    )
    report = with_repair(purified(), suspects=(tried,), moments=(moment,))
    assert report.purification is not None
    return with_facts(report, purification=summary(report.purification))


def retrained() -> Report:
    """A cleared network that the guard trained anew on a sifted training set."""
    report = bare(Verdict.CLEARED)
    obeyed = OnSuspects(
        before=estimate(TARGET, 530, 0.97, 0.99), after=estimate(TARGET, 9, 0.009, 0.03), fdr=0.04
    )
    accuracy = Accuracy(overall=0.97, per_class=(0.95, 0.99), images=540)
    facts = RetrainingFacts(
        method="trap_and_replace",
        version=1,
        parameters={"epochs": 30},
        request="1" * 64,
        parent="2" * 64,
        training_set="3" * 64,
        cleanset="4" * 64,
        images=5000,
        suspects=175,
        proof=75,
        trusted=2000,
        acc_before=accuracy,
        acc_after=replace(accuracy, overall=0.96),
        seconds=61.0,
        seed=0,
        numbers={"psnr": 21.5, "control_accuracy": 0.955},
        on_proof=(obeyed,),
        unproved=("7 images are too few.",),
    )
    return replace(report, retraining=facts)


def with_repair(report: Report, **fields: Any) -> Report:
    """The report on a purified artifact with another repair."""
    assert report.purification is not None
    return replace(report, purification=replace(report.purification, **fields))
