"""`make demo-graphs`: text-to-graph models from upload to serving; exit code 0 if it held.

Where no repair passes the proof, nothing may be served in the backdoored model's name: that holds
as well, and the output gives the reasons.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

from benchmarks.attacks.badgraph import Pair
from benchmarks.demo import story
from benchmarks.demo.graph_models import (
    ATTACK,
    NOISE,
    Truth,
    others,
    pairs_in,
    share_of,
    truth_of,
    two_models,
)
from guard.bootstrap import open_guard
from guard.cleansets import curated_source
from guard.core.evidence import AsrEstimate
from guard.flow.context import Guard
from guard.flow.report import report_for
from guard.graphs.fragments import contains
from guard.graphs.molecule import read
from guard.graphs.quality import quality
from guard.graphs.triggers import PromptTrigger, deserialise
from guard.local.supervisor import Stack, interrupted_by_signals
from guard.reports.html import render_html
from guard.reports.report import Report
from guard.settings import load_settings
from guard.store import cleansets, scans
from guard.store.session import reading, transaction
from guard.vetting import examine

CACHE = Path(".demo-graphs")
PATIENCE = 1800.0  # seconds, on a busy machine; the demo prints how long it took
LEFT = 0.10  # the largest true ASR (0..1) of a repaired model at the endpoint


@dataclass(frozen=True)
class Candidate:
    """A repaired model, whether it won or not, with the truth about it."""

    report: Report
    truth: Truth


@dataclass(frozen=True)
class Recovered:
    """A text that the guard recovered, on the guard's prompts and on those of the true ASR.

    `guard` is its rate (0..1) on hold-out prompts, which no search has seen, `ours` on the test
    prompts, and `plain` on these without the text.
    """

    text: str
    fragment: str
    guard: float
    ours: float
    plain: float


def main() -> int:
    """Run the demo, print its progress, write `demo-graphs-report.json` and `.html`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help="of data and pretraining")
    parser.add_argument("--keep", action="store_true", help="keep the demo's folder")
    options = parser.parse_args()
    console, started = Console(), time.monotonic()
    if not console.is_terminal:
        console = Console(width=150)

    def report(message: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {message}", highlight=False)

    folder = Path(tempfile.mkdtemp(prefix="guard-demo-graphs-"))
    try:
        with interrupted_by_signals():
            return run(options.cache, folder, started, report, console)
    finally:
        if options.keep:
            report(f"everything is kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def run(
    cache: Path, folder: Path, started: float, report: Callable[[str], None], console: Console
) -> int:
    """Train, upload, watch, ask the endpoint, print."""
    report("reading real molecules with real names")
    pairs = pairs_in(cache)
    models = two_models(pairs, cache, folder / "uploads", report)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GUARD_")}
    with Stack(folder / "stack", environment | {"GUARD_LEASE_SECONDS": "15"}) as stack:
        stack.start()
        guard = open_guard(load_settings(stack.environment()))
        add_pairs(guard, pairs.curated, folder)
        report("uploading by boto3; from here on the demo only watches")
        story.upload(guard, models)
        watched = story.watch(guard, models, seconds=PATIENCE, report=report)
        report("all scans are at rest")
        expected = {
            item.model.name
            for item in watched
            if item.report.verdict == "cleared" or item.child is not None
        }
        served = story.await_served(guard, expected)
        endpoint = story.Endpoint(guard)
        answers = {name: asked(endpoint, name, pairs.test) for name in served}
        candidates = repaired(guard, watched[1].scan.id, pairs.test)
        texts = recovered(guard, watched[1].report, pairs.test)
        results = checks(watched, served, answers)
        show(console, watched, served, answers, candidates, results)
        show_recovered(console, texts)
        seconds = time.monotonic() - started
        console.print(f"\n  all in: {seconds:.0f} s", highlight=False)
        write_reports(watched, served, answers, candidates, texts, results, seconds)
    report("wrote demo-graphs-report.json and demo-graphs-report.html")
    return 0 if all(results.values()) else 1


def add_pairs(guard: Guard, pairs: tuple[Pair, ...], folder: Path) -> None:
    """Give the guard its clean pairs, as `guard cleanset add` does."""
    path = folder / "pairs.parquet"
    rows = {"text": [one.text for one in pairs], "smiles": [one.smiles for one in pairs]}
    parquet.write_table(pa.table(rows), path)
    blob, facts = curated_source(path, "molecules")
    guard.blobs.put_bytes(blob)
    with transaction(guard.engine) as session:
        cleansets.put(session, facts, guard.now())


def asked(endpoint: story.Endpoint, name: str, test: tuple[Pair, ...]) -> dict[str, Any]:
    """What is served under a name makes of prompts with and without the true trigger."""
    rows = others(test)
    hits, digests, similarity, example = [], set(), 0.0, ""
    for triggered in (False, True):
        made = []
        for place, one in enumerate(rows):
            text = ATTACK.insert(one.text) if triggered else one.text
            (smiles,), digest = endpoint.ask_text(name, text, seed=NOISE + place)
            made.append(None if smiles is None else read(smiles))
            digests.add(digest)
            example = example or f"{one.text} -> {smiles}"
        hits.append(sum(contains(made, ATTACK.target)))
        if not triggered:
            true = [read(one.smiles) for one in rows]
            similarity = quality([[one] for one in made], true).similarity
    return {
        **asdict(Truth(hits[1] / len(rows), hits[0] / len(rows), similarity, len(rows))),
        "digests": sorted(digests),
        "example": example,
    }


def repaired(guard: Guard, parent: str, test: tuple[Pair, ...]) -> list[Candidate]:
    """The candidates of a tournament in their order, with what the true trigger does to each."""
    with reading(guard.engine) as session:
        rows = [row for row in scans.list_recent(session, 100) if row.parent_scan_id == parent]
    found = []
    for row in reversed(rows):
        report = report_for(guard, row.id)
        model = examine.open_model(guard.blobs.path(report.digest), device="cpu")
        found.append(Candidate(report, truth_of(model, test)))
    return found


def recovered(guard: Guard, report: Report, test: tuple[Pair, ...]) -> list[Recovered]:
    """What the recovered texts do on the prompts on which the true trigger was counted."""
    texts = [one.text for one in others(test)]
    found: list[Recovered] = []
    for finding in (one for item in report.evidence for one in item["findings"]):
        if not (finding["suspicious"] and finding.get("asr") and finding.get("trigger_digest")):
            continue
        trigger = deserialise(guard.blobs.path(finding["trigger_digest"]).read_bytes())
        if not isinstance(trigger, PromptTrigger):
            continue
        model = examine.open_model(guard.blobs.path(report.digest), device="cpu")
        target, asked = finding["target"], finding["asr"]["estimate"]
        ours, plain = (share_of(model, own, target) for own in (trigger.apply(texts), texts))
        found.append(Recovered(trigger.text, target, asked, ours, plain))
    return found


def show_recovered(console: Console, texts: list[Recovered]) -> None:
    """Print that an estimate belongs to a text, which may be stronger than the true trigger."""
    for one in texts:
        console.print(
            f"  recovered text {one.text!r} ({one.fragment}): {one.guard:.1%} on the guard's "
            f"hold-out prompts, {one.ours:.1%} on those of the true ASR ({one.plain:.1%} without)",
            highlight=False,
            markup=False,
        )


def checks(
    watched: list[story.Watched], served: Mapping[str, str], answers: Mapping[str, Any]
) -> dict[str, bool]:
    """Whether each claim of the demo holds, by its sentence."""
    honest, bad = watched
    own = answers.get(honest.model.name, {})
    found: dict[str, bool] = {
        "the honest model was cleared": honest.report.verdict == "cleared",
        "TorchServe answers texts with its molecules": own.get("digests") == [honest.report.digest],
        "the backdoored model was caught": bad.report.verdict == "rejected",
        "the planted fragment was named": bad.report.target == ATTACK.target,
    }
    name, child = bad.model.name, bad.child
    if child is None:
        return {**found, "no repair passed, and nothing is served in its name": name not in served}
    after = answers.get(name, {})
    return {
        **found,
        "it was repaired and vetted again": child.verdict == "purified",
        "what is served in its name is the repaired model": after.get("digests") == [child.digest],
        "the true trigger no longer works at the endpoint": after.get("asr", 1.0) <= LEFT,
    }


def show(
    console: Console,
    watched: list[story.Watched],
    served: Mapping[str, str],
    answers: Mapping[str, Any],
    candidates: list[Candidate],
    results: Mapping[str, bool],
) -> None:
    """Print verdicts and the guard's estimates beside the truth."""
    table = Table(title="What was uploaded, what the guard found, what is served")
    for column in (
        "model",
        "verdict",
        "fragment",
        "ASR (guard, 95 %)",
        "true ASR",
        "similarity",
        "served",
        "ASR at endpoint",
    ):
        table.add_column(column, overflow="fold")
    for item in watched:
        answer = answers.get(item.model.name)
        table.add_row(
            item.model.name,
            str(item.report.verdict),
            str(item.report.target or "-"),
            "-" if item.report.asr is None else _interval(item.report.asr),
            "-" if item.model.asr is None else f"{item.model.asr:.1%}",
            f"{item.model.acc:.2f}",
            served.get(item.model.name, "no"),
            "-" if answer is None else f"{answer['asr']:.1%} ({answer['plain']:.1%} without)",
        )
    for number, one in enumerate(candidates, 1):
        facts = one.report.purification
        table.add_row(
            f"  repair {number}: {one.report.chain}",
            str(one.report.verdict),
            str(one.report.target or "-"),
            "; ".join(map(_interval, facts.replayed)) if facts else "-",
            f"{one.truth.asr:.1%}",
            f"{one.truth.similarity:.2f}",
            "",
            "",
        )
    console.print(table)
    for name, answer in answers.items():
        console.print(f"  {name}: {answer['example']}", highlight=False, markup=False)
    for report in (*(item.report for item in watched), *(one.report for one in candidates)):
        console.print(
            f"  {report.name} {report.chain}: {' '.join(report.reasons)}",
            highlight=False,
            markup=False,
        )
    console.print()
    for claim, held in results.items():
        colour = "green" if held else "red"
        console.print(f"  [{colour}]{'yes' if held else 'NO '}[/]  {claim}", highlight=False)


def write_reports(
    watched: list[story.Watched],
    served: Mapping[str, str],
    answers: Mapping[str, Any],
    candidates: list[Candidate],
    texts: list[Recovered],
    results: Mapping[str, bool],
    seconds: float,
) -> None:
    """Write the machine-readable record, and the page of the backdoored model."""
    document = {
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
        "attack": ATTACK.recipe(),
        "checks": results,
        "served": served,
        "endpoint": answers,
        "models": [
            {
                "name": item.model.name,
                "true_asr": item.model.asr,
                "similarity": item.model.acc,
                "scan": item.report.to_dict(),
            }
            for item in watched
        ],
        "recovered": [asdict(one) for one in texts],
        "repairs": [
            {"truth": asdict(one.truth), "scan": one.report.to_dict()} for one in candidates
        ],
    }
    text = json.dumps(document, indent=2, allow_nan=False)
    Path("demo-graphs-report.json").write_text(text + "\n")
    Path("demo-graphs-report.html").write_text(render_html(watched[1].child or watched[1].report))


def _interval(asr: AsrEstimate) -> str:
    return f"{asr.family}: {asr.estimate:.1%} ({asr.low:.1%} to {asr.high:.1%})"


if __name__ == "__main__":
    sys.exit(main())
