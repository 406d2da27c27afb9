"""Make a record of a demo from its report and what it printed.

    python -m benchmarks.demo | tee transcript.txt
    python -m benchmarks.demo.summary demo-report.json transcript.txt --note "Two cores." [--name N]

The report holds all evidence of four models; the record keeps what documents quote: verdicts,
attack success rates, what was served, and whether each claim held.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import record

SCAN = (
    "digest",
    "verdict",
    "score",
    "target",
    "asr",
    "asr_upper",
    "natural_trigger",
    "accuracy",
    "coverage",
    "not_covered",
    "methods",
    "seconds",
    "reasons",
    "defense",
    "defense_version",
    "parameters",
    "acc_before",
    "acc_after",
    "replayed",
    "resampled",
    "woken",
    "shared",
    "unproved",
    "candidates",
)


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """The demo's report without evidence rows, trigger images and clean-set facts."""
    models = [
        {
            key: {name: value[name] for name in SCAN if name in value}
            if isinstance(value, dict)
            else value
            for key, value in model.items()
        }
        for model in report["models"]
    ]
    return {**report, "models": models}


def page(transcript: str, note: str) -> str:
    """The record's README: where it was run, and what it printed."""
    lines = "\n".join(line.rstrip() for line in transcript.strip("\n").splitlines())
    return f"# `make demo`, as printed\n\n{note}\n\n```\n{lines}\n```"


def main() -> None:
    """Write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("transcript", type=Path)
    parser.add_argument("--note", required=True, help="the machine, the data, what ran beside it")
    parser.add_argument("--name", default="demo")
    options = parser.parse_args()
    result = summary(json.loads(options.report.read_text()))
    print(record.write(options.name, result, page(options.transcript.read_text(), options.note)))


if __name__ == "__main__":
    main()
