"""How well a sift of the training set finds poison: sets and models that chose no parameter.

    python -m benchmarks.bench_sift --out DIR [--minutes N] [--record] [--pause-while FILE]
        [--speed] [--note TEXT]

A cell is a training set (`benchmarks.sift.exam`), poisoned or honest, and the network that it
teaches. Its folder keeps both, and which images are poisoned in a sidecar that only the evaluator
reads. Cells are done in a random order and kept, so that a part of them is a sample, and the next
run goes on. Each is sifted with the default methods and rules; its seeds do not occur in
development, nor do its images of Fashion-MNIST. Its images of MNIST do since decision 0047, in
other splits: only cells of Fashion-MNIST hold images that chose nothing. The published statistics
are run on poisoned ones, too.

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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from benchmarks.sift import plots
from benchmarks.sift.exam import CLEAN, Exam, plan, sifts
from benchmarks.sift.folder import build
from benchmarks.sift.measuring import compared, sifted
from benchmarks.sift.speed import speed
from benchmarks.sift.splits import split
from benchmarks.sift.tables import page, summary

Step = Callable[[], dict[str, Any]]
COMPARED, SPEED = "compared.json", "speed.json"
TURNS = {f"sift-{CLEAN}.json": 0, COMPARED: 1}  # all cells' first, then the second; the rest last


def steps(exam: Exam, out: Path) -> list[tuple[Path, Step]]:
    """The files of a cell with what makes them."""
    place = out / exam.name
    made: list[tuple[Path, Step]] = [
        (place / f"sift-{size}.json", partial(sifted, exam, place, size)) for size in exam.sizes
    ]
    if exam.compare:
        made.append((place / COMPARED, partial(compared, exam, place)))
    return made


def do(exam: Exam, file: Path, step: Step) -> None:
    """Make one file of a cell; the cell itself, if it is missing."""
    cell = exam.cell
    if not file.parent.exists():
        build(cell, split(cell.data, cell.seed, cell.train, cell.clean, cell.test), file.parent)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(step(), allow_nan=False) + "\n")
    part.rename(file)


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


def _read(file: Path) -> Any:
    return json.loads(file.read_text()) if file.exists() else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is missing, for so long, and write the record if asked."""
    options = _options().parse_args(arguments)
    torch.set_num_threads(1)
    end, plans = time.monotonic() + 60 * options.minutes, plan()
    options.out.mkdir(parents=True, exist_ok=True)
    every = [(exam, file, step) for exam in plans for file, step in steps(exam, options.out)]
    for exam, file, step in sorted(every, key=lambda one: TURNS.get(one[1].name, len(TURNS))):
        if file.exists():
            continue
        while options.pause_while is not None and options.pause_while.exists():
            time.sleep(5)
        if time.monotonic() > end:
            break
        begun = time.process_time(), time.perf_counter()
        do(exam, file, step)
        spent = time.process_time() - begun[0], time.perf_counter() - begun[1]
        print(_line(file, *spent), flush=True)
    if options.speed:
        (options.out / SPEED).write_text(json.dumps(speed()) + "\n")
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


def _line(file: Path, cpu: float, wall: float) -> str:
    row = _read(file)
    shown = {
        key: f"{row[key]:.2f}"
        for key in ("acc", "asr", "joined_auroc", "precision", "recall", "replay")
        if row.get(key) is not None
    }
    name = f"{file.parent.name} {file.stem} {row.get('verdict', '')}"
    return f"{name} {shown}; {cpu:.0f} processor s, {wall:.0f} s"


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--record", action="store_true")
    parser.add_argument(
        "--pause-while", type=Path, help="between cells, wait as long as this file exists"
    )
    parser.add_argument(
        "--speed",
        action="store_true",
        help="then time a sift of 10,000 images on one thread",
    )
    parser.add_argument("--note", default="", help="a sentence for the record")
    return parser


if __name__ == "__main__":
    main()
