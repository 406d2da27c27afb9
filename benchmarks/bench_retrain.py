"""Repairs that learn from a sift, and retrainers, on poisoned sets: before, after and an oracle.

    python -m benchmarks.bench_retrain --out DIR [--minutes N] [--record]
        [--part exam|development] [--only TEXT ...] [--methods NAME ...] [--while-absent FILE]
        [--note TEXT]

A cell is an attack, data, a network and a seed. The network is trained on the poisoned set without
augmentation, and the guard sifts that set: what methods get is what the guard found, errors and
all. Then each method is tried: relabelling, D-BR (bounded, and as published), retraining without
the accused images, D-ST, and Trap and Replace, each with its default parameters. Beside them stand
plain fine-tuning on the clean set, the oracle (the same retraining without exactly the true poison)
and Trap and Replace's control (the same without a decoder). ACC and ASR are of test images that no
method sees.

Uploads, sifts and results are kept in DIR, a method's under its parameters and version. So a run
that was stopped goes on with the next run, a retrainer's within its training. Times are seconds of
one processor core, with one thread; `--while-absent FILE` waits while FILE exists.

Exam cells have Fashion-MNIST images and seeds that no parameter was chosen on; MNIST has too few
images for that: development has a third cell with training images of the exam, other seeds, and no
image that the exam is measured on. `--part development` writes no record.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from benchmarks.retrain import cells
from benchmarks.retrain.cells import DEVELOPMENT, EXAM, Cell, ground, upload
from benchmarks.retrain.methods import METHODS, tried
from benchmarks.retrain.tables import page, rate, summary
from guard.core.progress import Progress, silent

_ROWS, _STATE = "rows", "state"
_LOOK_EVERY = 1.0  # seconds


def waiting(file: Path | None) -> Progress:
    """A progress that returns once `file` is absent; without a file, at once."""
    if file is None:
        return silent

    def wait(done: float, note: str = "") -> None:
        del done, note
        while file.exists():
            time.sleep(_LOOK_EVERY)

    return wait


def place_of(out: Path, cell: Cell, label: str) -> Path:
    """Where a method's rows of a cell are kept."""
    slug = "-".join("".join(c if c.isalnum() else " " for c in label.lower()).split())
    return out / cell.name / _ROWS / f"{slug}-{METHODS[label].key}.json"


def work(
    out: Path, planned: Sequence[Cell], methods: Sequence[str], *, end: float, wait: Progress
) -> Iterator[str]:
    """Do what is missing, one line for each result, until the clock (monotonic) is at `end`."""
    for cell in planned:
        missing = [label for label in methods if not place_of(out, cell, label).exists()]
        if not missing or time.monotonic() > end:
            continue
        wait(0.0)
        given = upload(ground(cell), out / cell.name, wait)
        yield f"{cell.name}: {_line({'method': 'before', **given.row['before']})}"
        for label in missing:
            if time.monotonic() > end:
                return
            wait(0.0)
            rows = tried(label, given, out / _STATE, wait)
            path = place_of(out, cell, label)
            path.parent.mkdir(exist_ok=True)
            cells.write(path, rows)
            for row in rows:
                yield f"{cell.name}: {_line(row)}"


def _line(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{row['method']}: {row['failed']}"
    proof = f", proof {rate(row['proof'])}" if "proof" in row else ""
    spent = f", {row['seconds']:.0f} s" if "seconds" in row else ""
    return f"{row['method']}: ACC {rate(row['acc'])}, ASR {rate(row['asr'])}{proof}{spent}"


def collected(out: Path, planned: Sequence[Cell]) -> list[dict[str, Any]]:
    """What is kept of each cell that has an upload: its row, and those of the methods of now."""
    found = []
    for cell in planned:
        path = out / cell.name / "upload.json"
        if not path.exists():
            continue
        row = json.loads(path.read_text())
        files = [place_of(out, cell, label) for label in METHODS]
        rows = [one for file in files if file.exists() for one in json.loads(file.read_text())]
        found.append({**row, "methods": {one["method"]: one for one in rows}})
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is missing, for so long, and write the record if asked."""
    parser = argparse.ArgumentParser(description="Repairs by a sift, and retrainers.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--part", choices=(EXAM, DEVELOPMENT), default=EXAM)
    parser.add_argument("--only", nargs="*", default=[], help="cells with one of these in the name")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--while-absent", type=Path, metavar="FILE")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--note", default="", help="a sentence for the record")
    options = parser.parse_args(arguments)
    if options.record and options.part != EXAM:
        parser.error("cells that parameters were chosen on are no record")
    torch.set_num_threads(1)
    planned = cells.plan(options.part)
    chosen = [
        cell
        for cell in planned
        if not options.only or any(text in cell.name for text in options.only)
    ]
    end = time.monotonic() + 60 * options.minutes
    for line in work(
        options.out, chosen, options.methods, end=end, wait=waiting(options.while_absent)
    ):
        print(line, flush=True)
    rows = collected(options.out, planned)
    result = summary(rows, len(planned)) | {"note": options.note}
    print(page(result))
    if options.record:
        folder = record.write(
            "retrain", result, f"# Repairs by a sift, and retrainers\n\n{__doc__}\n{page(result)}\n"
        )
        record.write_bulk(folder, record.ROWS, rows)


if __name__ == "__main__":
    main()
