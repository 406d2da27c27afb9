"""What a report shows of a network that was trained anew: a table and sentences."""

from collections.abc import Iterator

from guard.core.evidence import AsrEstimate
from guard.core.retraining import RetrainingFacts
from guard.reports.charts import label_of, number, percent
from guard.reports.report import Report, parameters_text


def before_and_after(report: Report, facts: RetrainingFacts) -> list[tuple[str, str, str]]:
    """What was measured, and its value for the network that is replaced and for the new one."""
    before = None if facts.acc_before is None else facts.acc_before.overall
    rows = [("clean accuracy", percent(before), percent(facts.acc_after.overall))]
    rows += [
        (
            f"accused images of class {label_of(report, one.after.target)}",
            _rate(one.before),
            _rate(one.after),
        )
        for one in facts.on_proof
    ]
    return rows


def sentences(facts: RetrainingFacts) -> Iterator[str]:
    """On what the network was trained, and the numbers of the method."""
    yield (
        f"trained on a set of {facts.images} images, of which the sift accused "
        f"{facts.suspects + facts.proof} ({facts.proof} of them kept for the proof) and trusted "
        f"{facts.trusted}"
    )
    if facts.numbers:
        yield ", ".join(f"{name} {number(value)}" for name, value in sorted(facts.numbers.items()))
    for sentence in facts.unproved:
        yield f"not measured: {sentence}"
    if facts.parameters:
        yield f"version {facts.version} with {parameters_text(facts.parameters)}"
    yield f"training set {facts.training_set}"


def _rate(estimate: AsrEstimate) -> str:
    low, high = percent(estimate.low), percent(estimate.high)
    return f"{percent(estimate.estimate)} ({low} to {high})"
