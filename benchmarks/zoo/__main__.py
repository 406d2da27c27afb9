"""Build and look at model zoos.

    python -m benchmarks.zoo build SPEC --out DIR [--jobs N] [--device cpu|cuda] [--data-dir DIR]
                                     [--only TEXT] [--later-seeds N] [--shuffled]
    python -m benchmarks.zoo data SPEC --out DIR
    python -m benchmarks.zoo show DIR

`build` trains the models that are missing, `data` exports the images that a spec needs so that they
can be carried to another machine, and `show` lists the models of a zoo.

SPEC is a TOML file, or the name of one in benchmarks/specs. Exit codes: 0 built, 1 a model could
not be built.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import zoo
from benchmarks.zoo import build as building
from benchmarks.zoo import sets
from benchmarks.zoo.build import Place
from benchmarks.zoo.show import Watch, table
from benchmarks.zoo.spec import SpecError, read

SPECS = Path(__file__).parents[1] / "specs"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.command == "show":
        print(table(zoo.load(options.folder)))
        return 0
    try:
        spec = read(
            options.spec if options.spec.exists() else SPECS / f"{options.spec}.toml",
            later_seeds=options.later_seeds,
        )
    except (SpecError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.command == "data":
        for key in sorted({job.data.key for job in spec.jobs}):
            written = sets.export(spec.sets[key], options.out, options.data_dir)
            print(f"{written} {written.stat().st_size / 2**20:.1f} MiB")
        return 0
    torch.set_num_threads(options.threads)
    chosen = tuple(job for job in spec.jobs if options.only in job.name)
    if options.shuffled:
        chosen = tuple(sorted(chosen, key=lambda job: zoo.place_in_random_order(job.name)))
    place = Place(
        out=options.out, data_dir=options.data_dir, device=options.device, threads=options.threads
    )
    problems = building.build(replace(spec, jobs=chosen), place, jobs=options.jobs, watch=Watch())
    print(table(zoo.load(options.out)))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.zoo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="train what is missing")
    build.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)"
    )
    build.add_argument("--device", default="cpu")
    build.add_argument("--threads", type=int, default=1, help="of each process, on the CPU")
    build.add_argument("--only", default="", help="build only models with this text in their name")
    build.add_argument(
        "--shuffled",
        action="store_true",
        help="in the random order in which bench_served vets them; with --jobs 1",
    )
    data = commands.add_parser("data", help="export the images a spec needs")
    for command in (build, data):
        command.add_argument("spec", type=Path)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--data-dir", type=Path)
        command.add_argument(
            "--later-seeds",
            type=int,
            default=0,
            metavar="N",
            help="add N to every seed: the next examination, when a zoo has been looked at",
        )
    show = commands.add_parser("show", help="a table of a zoo")
    show.add_argument("folder", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
