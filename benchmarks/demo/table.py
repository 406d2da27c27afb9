"""The claims that the demo checks, and the table that it prints at its end."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.demo.story import Watched
from guard.core.evidence import AsrEstimate
from guard.core.manifests import AnyManifest
from guard.reports.report import candidate_outcome, chain_of

PURIFIED_ASR_LIMIT = 0.10
LEAST_PRECISION = 0.9  # of the accused digits are stamped, and of the stamped ones accused


def checks(
    watched: list[Watched],
    served: dict[str, str],
    truths: dict[str, Any],
    canary: Path,
    refused: str,
) -> dict[str, bool]:
    """Whether each claim of the demo holds, by its sentence.

    Args:
        refused: why a second team did not get the honest model's name; "" where it did.
    """
    honest, backdoored, pickled, named = watched
    child = backdoored.child
    truth = truths.get(backdoored.model.name, {})
    return {
        "the honest model was cleared and is served": (
            honest.report.verdict == "cleared"
            and served.get(honest.model.name) is not None
            and truths[honest.model.name]["digests"] == [honest.report.digest]
        ),
        "the backdoored model was caught": backdoored.report.verdict == "rejected",
        "its target class was named": backdoored.report.target == backdoored.model.target,
        "it was purified and vetted again": child is not None and child.verdict == "purified",
        "what is served in its name is the purified model": (
            child is not None and truth.get("digests") == [child.digest]
        ),
        "the backdoor no longer works at the endpoint": (
            truth.get("asr") is not None and truth["asr"] <= PURIFIED_ASR_LIMIT
        ),
        "the pickle was refused": pickled.report.verdict == "unvettable"
        and pickled.model.name not in served,
        "its payload never ran": not canary.exists(),
        "a second team's upload under the honest model's name was refused, with an alarm": (
            f"The name {honest.model.name!r} belongs to" in refused
            and truths.get(honest.model.name, {}).get("digests") == [honest.report.digest]
        ),
        **sifted(named, truths.get(named.model.name, {})),
    }


def sifted(named: Watched, truth: Mapping[str, Any]) -> dict[str, bool]:
    """The claims about the model that names its training set."""
    report, taught, child = named.report, named.model.training_set, named.child
    accused = () if report.sift is None else report.sift.suspects
    stamped = 0 if taught is None else sum(one.index in taught.poisoned for one in accused)
    proof = () if child is None or child.purification is None else child.purification.suspects
    return {
        "the sift of a named training set shows stamped digits": (
            len(accused) > 0
            and stamped >= LEAST_PRECISION * len(accused)
            and taught is not None
            and stamped >= LEAST_PRECISION * len(taught.poisoned)
        ),
        "its model was rejected for them": report.verdict == "rejected"
        and any("In the training set" in reason for reason in report.reasons),
        "the repair was proved against stamped digits that taught it nothing": (
            len(proof) > 0
            and all(one.before.estimate > one.after.high for one in proof)
            and truth.get("asr") is not None
            and truth["asr"] <= PURIFIED_ASR_LIMIT
        ),
    }


def print_table(
    console: Console,
    watched: list[Watched],
    served: dict[str, str],
    truths: dict[str, Any],
    results: dict[str, bool],
    seconds: float,
) -> None:
    """Print verdicts and numbers, the guard's beside the truth."""
    table = Table(title="What was uploaded, what the guard found, what is served")
    for column in (
        "model",
        "verdict",
        "target",
        "ASR (guard, 95 %)",
        "true ASR",
        "true ACC",
        "served",
        "ACC at endpoint",
        "ASR at endpoint",
    ):
        table.add_column(column, overflow="fold")
    for item in watched:
        report, truth = item.report, truths.get(item.model.name)
        verdict = str(report.verdict)
        if item.child is not None and item.child.purification is not None:
            verdict += f", then {item.child.verdict} by {item.child.purification.defense}"
        table.add_row(
            item.model.name,
            verdict,
            "-" if report.target is None else str(report.target),
            _interval(report.asr)
            if report.asr is not None
            else "-"
            if report.facts.natural_trigger is None
            else "no unusual trigger",
            _percent(item.model.asr),
            _percent(item.model.acc),
            served.get(item.model.name, "no"),
            _percent(truth["acc"]) if truth else "-",
            _percent(truth["asr"]) if truth else "-",
        )
    console.print(table)
    for item in watched:
        console.print(
            f"  {item.model.name}: {' '.join(item.report.reasons)}", highlight=False, markup=False
        )
        if item.child is not None and item.child.purification is not None:
            replayed = ", ".join(
                f"{r.estimate:.1%} (up to {r.high:.1%})" for r in item.child.purification.replayed
            )
            console.print(
                f"  {item.model.name} purified: {' '.join(item.child.reasons)} Parent's trigger "
                "on the "
                f"hold-out: {replayed}.",
                highlight=False,
                markup=False,
            )
        for line in (*of_sift(item), *on_suspects(item)):
            console.print(f"  {item.model.name}, {line}", highlight=False, markup=False)
        for line in repaired(
            item.report.candidates, item.child.manifest if item.child is not None else None
        ):
            console.print(f"  {item.model.name}, {line}", highlight=False, markup=False)
    console.print()
    for claim, held in results.items():
        console.print(
            f"  [{'green' if held else 'red'}]{'yes' if held else 'NO '}[/]  {claim}",
            highlight=False,
        )
    console.print(f"\n  all in: {seconds:.0f} s", highlight=False)


def of_sift(item: Watched) -> Iterator[str]:
    """What the sift accuses, beside the truth."""
    report, taught = item.report.sift, item.model.training_set
    if report is not None and taught is not None:
        stamped = sum(one.index in taught.poisoned for one in report.suspects)
        yield (
            f"sift: {report.verdict}; {len(report.suspects)} of {report.training_set.images} "
            f"digits are accused, {stamped} of them stamped (in truth {len(taught.poisoned)} are); "
            f"{report.seconds:.0f} s"
        )


def on_suspects(item: Watched) -> Iterator[str]:
    """How the repaired model answers stamped digits that taught it nothing."""
    repair = None if item.child is None else item.child.purification
    for one in () if repair is None else repair.suspects:
        yield (
            f"repair on {one.after.trials} accused digits that taught it nothing: class "
            f"{one.after.target} on {_interval(one.after)}, before {_interval(one.before)}"
        )


def repaired(candidates: Sequence[Mapping[str, Any]], served: AnyManifest | None) -> Iterator[str]:
    """The repairs that were tried, with their outcomes, and any layer that the winner added."""
    for place, candidate in enumerate(candidates, 1):
        outcome, why = candidate_outcome(candidate)
        yield f"repair {place} by {chain_of(candidate)}: {outcome}. {why}"
    if served is not None and served.polarizer is not None:
        yield (
            "served with a layer that the upload had not: a polarizer before "
            f"{served.polarizer.before}, "
            f"{served.polarizer.channels} channels."
        )


def _interval(asr: AsrEstimate) -> str:
    return f"{asr.estimate:.1%} ({asr.low:.1%} to {asr.high:.1%})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
