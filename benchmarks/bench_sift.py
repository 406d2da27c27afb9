"""How well a sift of the training set finds poison: sets and models that chose no parameter.

    python -m benchmarks.bench_sift --out DIR [--minutes N] [--record] [--pause-while FILE]
        [--speed] [--note TEXT]

A cell is a training set (`benchmarks.sift.exam`), poisoned or honest, and the network that it
teaches. Its folder keeps both, and which images are poisoned in a sidecar that only the evaluator
reads. Cells are done in a random order and kept, so that a part of them is a sample, and the next
run goes on. Each is sifted with the default methods and rules; its seeds and images do not occur in
development. The published statistics are run on about half of the poisoned ones.

What the tables say:
    * found: what the sift judges: poisoned, review (for a person), nothing, could not look
    * precision and recall: of the accused images, at an estimated false discovery rate of 10 %,
      pooled over cells, with Wilson's 95 % interval. Images of one cell are not independent; so the
      number of cells that meet an aim stands beside them
    * cells whose true ASR is under 50 % are reported apart: there is hardly a backdoor in them
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import record
from benchmarks.sift import plots
from benchmarks.sift.exam import Exam, plan, sifts
from benchmarks.sift.folder import build
from benchmarks.sift.measuring import compared, sifted
from benchmarks.sift.speed import speed
from benchmarks.sift.splits import split
from benchmarks.sift.tables import page, summary

COMPARED, SPEED = "compared.json", "speed.json"


def done(exam: Exam, out: Path) -> bool:
    """Whether nothing of this cell is missing."""
    place = out / exam.name
    needed = [place / f"sift-{size}.json" for size in exam.sizes]
    if exam.compare:
        needed.append(place / COMPARED)
    return all(file.exists() for file in needed)


def do(exam: Exam, out: Path) -> None:
    """Whatever of this cell is missing."""
    place, cell = out / exam.name, exam.cell
    if not place.exists():
        build(cell, split(cell.data, cell.seed, cell.train, cell.clean, cell.test), place)
    for size in exam.sizes:
        file = place / f"sift-{size}.json"
        if not file.exists():
            _write(file, sifted(exam, place, size))
    if exam.compare and not (place / COMPARED).exists():
        rows, scores = compared(exam, place)
        np.savez_compressed(place / "scores.npz", **scores)  # type: ignore[arg-type]
        _write(place / COMPARED, rows)


def rows_of(plans: Sequence[Exam], out: Path) -> list[dict[str, Any]]:
    """The rows of all sifts that are done, each with its cell's published statistics, or None."""
    found = []
    for exam in plans:
        place = out / exam.name
        others = _read(place / COMPARED)
        for size in exam.sizes:
            row = _read(place / f"sift-{size}.json")
            if row is not None:
                facts = json.loads((place / "truth.json").read_text())
                seconds = facts["train_seconds"]
                found.append(row | {"published": others, "train_seconds": seconds})
    return found


def _write(file: Path, content: Any) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, allow_nan=False) + "\n")
    part.rename(file)


def _read(file: Path) -> Any:
    return json.loads(file.read_text()) if file.exists() else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is missing, for so long, and write the record if asked."""
    options = _options().parse_args(arguments)
    torch.set_num_threads(1)
    end, plans = time.monotonic() + 60 * options.minutes, plan()
    options.out.mkdir(parents=True, exist_ok=True)
    for exam in plans:
        if done(exam, options.out):
            continue
        while options.pause_while is not None and options.pause_while.exists():
            time.sleep(5)
        if time.monotonic() > end:
            break
        begun = time.process_time(), time.perf_counter()
        do(exam, options.out)
        spent = time.process_time() - begun[0], time.perf_counter() - begun[1]
        row = _read(options.out / exam.name / f"sift-{exam.sizes[0]}.json")
        print(_line(exam.name, row, *spent), flush=True)
    if options.speed:
        _write(options.out / SPEED, speed())
    result = summary(rows_of(plans, options.out), len(plans), sifts(plans), options.note)
    result["speed"] = _read(options.out / SPEED)
    print(page(result))
    if options.record:
        write(result, rows_of(plans, options.out))


def write(result: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    """The record: summary.json, README.md, two plots; its rows are kept from git."""
    folder = record.write("sift", result, f"# Sifting training sets\n\n{__doc__}\n{page(result)}")
    record.write_bulk(folder, record.ROWS, rows)
    record.write_plots(folder, plots.draw(folder, rows))
    print(folder)
    return folder


def _line(name: str, row: dict[str, Any], cpu: float, wall: float) -> str:
    shown = {
        key: "-" if row[key] is None else f"{row[key]:.2f}"
        for key in ("acc", "asr", "joined_auroc", "precision", "recall", "replay")
    }
    return (
        f"{name}: {row['verdict']} {shown} flagged {row['flagged']}; {cpu:.0f} CPU s, {wall:.0f} s"
    )


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--record", action="store_true")
    parser.add_argument(
        "--pause-while", type=Path, help="between cells, wait as long as this file exists"
    )
    parser.add_argument(
        "--speed", action="store_true", help="also time one sift of 10,000 images on two threads"
    )
    parser.add_argument("--note", default="", help="a sentence for the record")
    return parser


if __name__ == "__main__":
    main()
