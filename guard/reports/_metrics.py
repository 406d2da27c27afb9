"""What was measured on a model, as one list with 95 % intervals, for open formats."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from guard.core.evidence import AsrEstimate
from guard.core.text import printable
from guard.reports._methods import class_name
from guard.reports.report import Report

_Z = 1.959963984540054  # the standard normal distribution's 97.5 % point
ACCURACY, ASR, BOUND = "accuracy", "attack success rate", "attack success rate, upper bound"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number in 0..1 with its interval where it has one; `slice` is what it was measured on."""

    kind: str
    value: float
    slice: str
    low: float | None = None
    high: float | None = None
    samples: int | None = None


def metrics(report: Report) -> list[Metric]:
    """The clean accuracy, the ASR of what is accused or left, and the bound on them all."""
    found = [*_accuracy(report), *_rates(report)]
    if (upper := report.facts.asr_upper) is not None:
        found.append(Metric(kind=BOUND, value=upper, slice="all accused triggers at once"))
    return [one for one in found if math.isfinite(one.value)]


def _accuracy(report: Report) -> Iterator[Metric]:
    if (value := report.accuracy) is None or not 0 <= value <= 1:
        return
    samples = _samples(report)
    low, high = wilson(value, samples) if samples else (None, None)
    yield Metric(
        kind=ACCURACY, value=value, slice="clean hold-out", low=low, high=high, samples=samples
    )


def _samples(report: Report) -> int | None:
    if report.purification is not None:
        return report.purification.acc_after.images
    measured = (item.get("accuracy") for item in report.evidence)
    return next((int(found["images"]) for found in measured if found), None)


def _rates(report: Report) -> Iterator[Metric]:
    if report.purification is not None:
        for before, after in report.replays:
            if before is not None:
                yield _rate(report, before, "of the upload")
            yield _rate(report, after, "of the repaired model")
    elif report.asr is not None:
        yield _rate(report, report.asr, "")


def _rate(report: Report, asr: AsrEstimate, of: str) -> Metric:
    target = printable(class_name(report, asr.target))
    return Metric(
        kind=ASR,
        value=asr.estimate,
        slice=" ".join(filter(None, (f"{asr.family} trigger to class {target}", of))),
        low=asr.low,
        high=asr.high,
        samples=asr.trials,
    )


def wilson(share: float, trials: int) -> tuple[float, float]:
    """The Wilson 95 % interval of a share (0..1) of `trials` (1 or more)."""
    middle = (share + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    spread = math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    half = _Z * spread / (1 + _Z**2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def limitations(report: Report) -> list[str]:
    """What a reader must know before relying on the verdict, one sentence each."""
    gaps = report.facts.known_gaps
    found = [str(gaps["sentence"])] if gaps else []
    if missing := report.not_covered:
        found.append(f"No method looked for triggers of: {', '.join(missing)}.")
    if report.purification is not None:
        found += report.purification.unproved
    found += [waiver.sentence for waiver in report.facts.waivers]
    if report.facts.gate is not None:
        found.append(report.facts.gate.sentence)
    return [printable(one) for one in found]
