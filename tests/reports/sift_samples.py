"""Sifts as the guard makes them, with hand-made numbers: one poisoned, one of an all-to-all map."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from guard.core.evidence import AsrEstimate
from guard.core.sift import (
    FdrPoint,
    LabelMap,
    Poisoning,
    Remark,
    ScoreSummary,
    Share,
    SiftedClass,
    SiftReport,
    SiftRules,
    SiftVerdict,
    SuspectTrigger,
)
from guard.core.trainset import Suspect, TrainingSetFacts
from guard.reports.sift_page import page
from tests.reports.samples import NAMES

TRIGGER = "7" * 64
SET = TrainingSetFacts(
    uri="s3://teach/fashion/",
    digest="e" * 64,
    origin="f" * 64,
    images=3000,
    total=5000,
    channels=1,
    height=28,
    width=28,
    class_names=NAMES,
    per_class=(300,) * 10,
    skipped=2,
    overlap=3,
    duplicates=4,
    conflicts=5,
    classes_by="name",
    faults=("a.png is no image.",),
)
METHODS = (
    ScoreSummary(
        method="clean_distance",
        version=1,
        parameters={"folds": 3},
        seconds=75.0,
        null=700,
        quantiles={"median": 1.5, "q99": 7.25, "most": 31.0},
        poisoning=("all-to-all", "clean-label", "dirty-label"),
    ),
    ScoreSummary(method="fct", version=2, parameters={}, seconds=0.2, failed="It ran out of time."),
)
OBEYED = Share(successes=139, trials=150, estimate=0.927, low=0.873, high=0.959)
ASR = AsrEstimate(
    target=3, family="patch", successes=486, trials=540, estimate=0.9, low=0.872, high=0.923
)


def suspect(index: int, **fields: Any) -> Suspect:
    given: dict[str, Any] = {
        "label": 3,
        "estimated": index % 10,
        "fdr": 0.02,
        "source": f"img/{index}.png",
        "proof": index % 3 == 0,
        "numbers": {"clean_distance": 0.0014},
    }
    return Suspect(index=index, **{**given, **fields})


def classes() -> tuple[SiftedClass, ...]:
    plain = [
        SiftedClass(label=label, name=name, images=300, accused=label % 3, resolved=5)
        for label, name in enumerate(NAMES)
    ]
    plain[3] = replace(
        plain[3],
        accused=156,
        stands_out=True,
        poisoning=Poisoning.DIRTY_LABEL,
        obedience=OBEYED,
        sources=(20, 15, 14, 0, 18, 17, 16, 19, 21, 16),
        source_share=0.135,
        trigger=SuspectTrigger(digest=TRIGGER, family="patch", asr=ASR, siblings=0.11),
    )
    plain[6] = replace(
        plain[6],
        accused=40,
        stands_out=True,
        poisoning=Poisoning.DIRTY_LABEL,
        obedience=replace(OBEYED, successes=4, estimate=0.1, low=0.04, high=0.19),
        sources=(38, 2, 0, 0, 0, 0, 0, 0, 0, 0),
        source_share=0.95,
        remark=Remark.LABEL_ERRORS,
    )
    return tuple(plain)


def poisoned() -> SiftReport:
    """All 196 suspects: the first 156 labelled 3, the others 6."""
    return SiftReport(
        verdict=SiftVerdict.POISONED,
        reasons=("156 images labelled 'Dress' look like other classes, and the model obeys 93%.",),
        training_set=SET,
        cleanset="c" * 64,
        seed=11,
        rules=SiftRules(),
        methods=METHODS,
        accuracy=0.981,
        clean_accuracy=0.962,
        least_p=0.0014,
        classes=classes(),
        suspects=tuple(
            suspect(1000 - place, label=3 if place < 156 else 6, fdr=0.08 if place else 0.01)
            for place in range(196)
        ),
        curve=(FdrPoint(fdr=0.01, images=12), FdrPoint(fdr=0.1, images=156)),
        remarks=("40 images labelled 'Shirt' look like other classes: label errors.",),
        seconds=81.0,
    )


def all_to_all() -> SiftReport:
    """No class stands out; images of every class carry the label of the next one."""
    return replace(
        poisoned(),
        classes=(),
        curve=(),
        remarks=(),
        suspects=tuple(suspect(index, label=(index + 1) % 10) for index in range(90)),
        label_map=LabelMap(
            mapping=(*range(1, 9), -1, 0),
            images=90,
            share=0.91,
            mutual=0.0,
            obedience=OBEYED,
        ),
    )


def could_not_look() -> SiftReport:
    """What is known of a set that could not even be read."""
    nothing = replace(
        SET, digest="", origin="", images=0, total=0, channels=0, class_names=(), per_class=()
    )
    return SiftReport(
        verdict=SiftVerdict.COULD_NOT_LOOK,
        reasons=("The training set holds no images.",),
        training_set=replace(nothing, skipped=0, faults=()),
        cleanset="c" * 64,
        seed=0,
        rules=SiftRules(),
    )


def images(
    report: SiftReport, shape: tuple[int, int, int] = (1, 28, 28)
) -> tuple[Mapping[int, np.ndarray], Mapping[int, Sequence[np.ndarray]], Mapping[str, np.ndarray]]:
    """Noise for every suspect, ten clean images a class, and four pairs for the trigger."""
    random = np.random.default_rng(0)

    def noise(count: int) -> np.ndarray:
        return random.integers(0, 256, (count, *shape), dtype=np.uint8)

    rows = noise(len(report.suspects))
    shown = {one.index: row for one, row in zip(report.suspects, rows, strict=True)}
    names = report.training_set.class_names
    return shown, {label: list(noise(10)) for label in range(len(names))}, {TRIGGER: noise(8)}


def rendered(report: SiftReport) -> str:
    """The page with images for everything."""
    return page(report, *images(report))
