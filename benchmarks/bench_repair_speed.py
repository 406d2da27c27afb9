"""What repairs cost in one run: time over straightforward loops, and each defense's memory.

    python -m benchmarks.bench_repair_speed [--images N] [--rounds N] [--memory-images N] [--device
        cuda] [--width N] [--zoo DIR --sample N]

All run on the same network (the depth of PreAct-ResNet18, and a quarter of its width unless
`--width` is given) with the same images, batches and steps, in turns. Processor time is measured;
on a GPU it is wall time, without memory. The straightforward loops:
    - SAU: the paper's algorithm without the guard's savings: both networks see the clean images in
      every inner step, all images take part in every step, gradients of all weights are computed
      although only that of the perturbation is used, and weights have torch's default layout
    - Neural Polarizer: a pass of the whole network for each answer, where the guard runs the half
      before the polarizer once for each change of a batch; both steps of the search are made
    - TSBD's last stage: as in the authors' code, two passes of a copy, and a third of the model for
      its statistics

Memory is the peak growth of a process after network and images are loaded. Each defense on the
shelf runs in its own process (median of three), at its defaults but with few steps of the same
batch (a search sees as many images, all classes together), and is compared with plain steps of
fine-tuning (median of nine). The network is fresh and images are noise, so hardly any image leaves
SAU's search early; conditions that would end a defense before its work are switched off. With a
zoo, SAU's pass is also timed on backdoored models of it, drawn at random, with clean images.
"""

import argparse
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import guard
from benchmarks import record, zoo
from benchmarks.bench_purify import drawn
from benchmarks.memory import Peak
from benchmarks.repair_ways import (
    BATCH,
    CLASSES,
    SIDE,
    WIDTH,
    by_turns,
    descending,
    network,
    npd_ways,
    sau_ways,
    tsbd_ways,
)
from benchmarks.speed_tables import repairs
from guard.core.errors import MethodFailed
from guard.core.modality import Modality
from guard.defenses import DEFENSES
from guard.defenses._base import Defense
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.samples import spread
from guard.vetting import population

PLAIN = "plain fine-tuning"  # in the record, beside the names of the shelf
SAU_AIM, MEMORY_AIM = 0.5, 2.2  # of the straightforward loop's time; of plain fine-tuning's memory
RUNS, BASES = (
    3,
    9,
)  # processes whose median counts, of a defense and of plain fine-tuning: every ratio depends on it
MEMORY_AIMS = {"i_bau": 3.0}  # other than that of the rest


def noise_images(count: int) -> CleanSet:
    """Noise images, since time and memory do not depend on their content."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    data = Labelled(images, torch.arange(count) % CLASSES)
    return CleanSet(
        "noise", "0" * 64, CLASSES, data, data.pick(torch.arange(min(count, 10 * CLASSES)))
    )


def few_steps(name: str) -> Defense:
    """The defense of that name as it is measured: few steps, its gates open."""
    defense = DEFENSES.get(name)
    return defense(**defense.quick(untrained=True))


def memory(name: str, images: int) -> float | None:
    """MiB by which the process grew; None if the defense gave up."""
    torch.set_num_threads(1)
    model, clean = network(), noise_images(images)
    with torch.no_grad():
        model(clean.search.pick(torch.arange(2)).floats())
    with Peak() as peak:
        if name == PLAIN:
            fine_tuned(model, clean.search)
        else:
            try:
                few_steps(name)(model, clean, seed=0)
            except MethodFailed as error:
                if error.code not in (
                    "accuracy_collapsed",
                    "not_unlearnt",
                ):  # these come after the work was done
                    return None
    return peak.mib


def apart(name: str, images: int) -> float | None:
    """The same as `memory`, in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(memory, (name, images))


def fine_tuned(model: nn.Module, data: Labelled) -> None:
    """Take plain fine-tuning steps, in place."""
    model.requires_grad_().train()
    step = descending(
        lambda images, labels: cross_entropy(model(images), labels),
        torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9),
    )
    by_turns({PLAIN: step}, data, 1)


def aims(sau: Mapping[str, float], over: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Each aim with its measured value; an aim that was not measured is not reached.

    Args:
        sau: ratios of SAU's pass, by the models that it was timed on.
        over: each defense's memory over that of plain fine-tuning.
    """
    rows: list[dict[str, Any]] = [
        {
            "aim": f"SAU's pass over a straightforward one, {what}",
            "limit": SAU_AIM,
            "value": ratio,
            "reached": ratio <= SAU_AIM,
        }
        for what, ratio in sau.items()
    ]
    for name, value in over.items():
        limit = MEMORY_AIMS.get(name, MEMORY_AIM)
        rows.append(
            {
                "aim": f"memory of {name} over plain fine-tuning",
                "limit": limit,
                "value": value,
                "reached": value is not None and value <= limit,
            }
        )
    return rows


def page(result: dict[str, Any]) -> str:
    """The record's page: ratios, and whether each aim is reached."""
    lines = [
        f"| {row['aim']} | {'–' if row['value'] is None else format(row['value'], '.2f')} | "
        f"{row['limit']:g} | "
        f"{'yes' if row['reached'] else 'no'} |"
        for row in result["aims"]
    ]
    return (
        f"{repairs(result)}\n\n| aim | measured | at most | reached |\n|---|---|---|---|\n"
        + "\n".join(lines)
    )


def timed(images: int, rounds: int, width: int, device: str) -> dict[str, dict[str, float]]:
    """Seconds of each way of each defense."""
    clean, build = noise_images(images), partial(network, width, device)
    numbered = Labelled(clean.search.images, torch.arange(len(clean.search)))
    seconds = {"sau": by_turns(sau_ways(clean.search, build), numbered, rounds, device)}
    for name, ways in (
        ("neural_polarizer", npd_ways(clean, build, conditional=False)),
        ("conditional_polarizer", npd_ways(clean, build, conditional=True)),
        ("tsbd", tsbd_ways(build)),
    ):
        seconds[name] = by_turns(ways, clean.search, rounds, device)
        print(json.dumps({name: seconds[name]}), flush=True)
    return seconds


def on_trained(
    models: Sequence[zoo.ZooModel], images: int, rounds: int, device: str
) -> dict[str, dict[str, float]]:
    """Seconds of SAU's two implementations on each model, with so many of its clean images."""
    seconds = {}
    for model in models:
        shown = spread(population.read_cleanset(model.cleanset).visible().search, images)
        numbered = Labelled(shown.images, torch.arange(len(shown)))
        ways = sau_ways(shown, partial(_loaded, model.folder, device))
        seconds[model.name] = by_turns(ways, numbered, rounds, device)
        print(json.dumps({model.name: seconds[model.name]}), flush=True)
    return seconds


def _loaded(folder: Path, device: str) -> nn.Module:
    return guard.load_model(folder).eval().to(device)


def held(images: int) -> tuple[float, dict[str, float | None]]:
    """MiB of plain fine-tuning, and of each defense; equal processes differ by a tenth."""
    grown: dict[str, float | None] = {}
    for name in DEFENSES.of(Modality.IMAGES):
        runs = [apart(name, images) for _ in range(RUNS)]
        measured = [mib for mib in runs if mib is not None]
        grown[name] = median(measured) if len(measured) == RUNS else None
        print(json.dumps({name: runs}), flush=True)
    return median(apart(PLAIN, images) or 0.0 for _ in range(BASES)), grown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=2 * BATCH, help="images of a timed pass")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory-images", type=int, default=2 * BATCH, help="0: times alone")
    parser.add_argument(
        "--width", type=int, default=WIDTH, help="channels of the timed network's first layers"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--zoo", type=Path, help="time SAU's pass on backdoored models of it too")
    parser.add_argument("--sample", type=int, default=6, help="how many of them")
    parser.add_argument("--name", default="repair-speed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = timed(options.images, options.rounds, options.width, options.device)
    ratios = {name: spent["ours"] / spent["plain"] for name, spent in seconds.items()}
    sau = {"fresh network and noise": ratios["sau"]}
    models = (
        [
            model
            for model in zoo.load(options.zoo)
            if model.truth["backdoored"] and model.truth["works"]
        ]
        if options.zoo
        else []
    )
    models = drawn(models, options.sample)
    trained = on_trained(models, options.images, options.rounds, options.device)
    if trained:
        sau[f"trained networks (median of {len(trained)})"] = median(
            spent["ours"] / spent["plain"] for spent in trained.values()
        )
    looked = options.device == "cpu" and options.memory_images > 0
    base, grown = held(options.memory_images) if looked else (0.0, {})
    over = {
        name: None if value is None or not base else value / base for name, value in grown.items()
    }
    result = {
        "images": options.images,
        "rounds": options.rounds,
        "batch": BATCH,
        "width": options.width,
        "device": options.device,
        "seconds": seconds,
        "ratios": ratios,
        "sau_ratio": ratios["sau"],
        "trained": trained,
        "zoo": options.zoo and options.zoo.name,
        "peak_over_fine_tuning": over,
        "aims": aims(sau, over),
    }
    if looked:
        result |= {"memory_images": options.memory_images, "peak_mib": {PLAIN: base, **grown}}
    if options.device != "cpu":
        result["named"] = torch.cuda.get_device_name()
    print(record.write(options.name, result, f"# What repairs cost\n\n{__doc__}\n{page(result)}\n"))


if __name__ == "__main__":
    main()
