"""Build a zoo's missing models in parallel processes, each written completely or not at all."""

import functools
import json
import multiprocessing
import platform
import shutil
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks import zoo
from benchmarks.data import Dataset
from benchmarks.zoo import make, sets
from benchmarks.zoo.sets import SetSpec
from benchmarks.zoo.show import Watch
from benchmarks.zoo.spec import Job, Spec

#: The fields of each model in zoo.json; all of them are in truth.json.
SUMMARY = (
    "name",
    "part",
    "data",
    "architecture",
    "seed",
    "backdoored",
    "attack",
    "family",
    "target",
    "rate",
    "hardness",
    "acc",
    "asr",
    "ra",
    "works",
    "seconds",
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a build reads and writes, and on which device it trains."""

    out: Path
    data_dir: Path | None = None
    device: str = "cpu"
    threads: int = 1


def build(spec: Spec, place: Place, *, jobs: int, watch: Watch) -> list[str]:
    """Train what is missing below `place.out`; an interrupted build continues when run again.

    Returns:
        A sentence for each model that could not be built. Models that train but do not work are
        built and marked.
    """
    place.out.mkdir(parents=True, exist_ok=True)
    for half in place.out.glob("*.part"):
        shutil.rmtree(half)
    for needed in {job.data.key for job in spec.jobs}:
        found = sets.load(spec.sets[needed], place.data_dir)
        sets.write_cleanset(found.clean, place.out / "cleansets" / f"{needed}.npz")
    done = {model.name for model in zoo.load(place.out)}
    missing = [job for job in spec.jobs if job.name not in done]
    write_summary(spec, place)  # first: whoever reads a zoo needs it, built to its end or not
    problems = []
    with watch.building(len(spec.jobs), len(spec.jobs) - len(missing)):
        for job, answer in _answers(missing, place, jobs):
            if isinstance(answer, str):
                problems.append(f"{job.name}: {answer}")
            watch.built(job.name, answer)
    write_summary(spec, place)
    return problems


def write_summary(spec: Spec, place: Place) -> None:
    """Write `zoo.json`: the spec, the environment, and a line about each model that exists."""
    models = [{key: model.truth[key] for key in SUMMARY} for model in zoo.load(place.out)]
    document = {
        "name": spec.name,
        "surroundings": _surroundings(place.device),
        "spec": spec.source,
        "models": models,
    }
    part = place.out / "zoo.json.part"
    part.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    part.rename(place.out / "zoo.json")


def _answers(
    jobs: list[Job], place: Place, processes: int
) -> Iterator[tuple[Job, Mapping[str, Any] | str]]:
    """Each job with its truth, or with its error, as they finish."""
    if processes <= 1:
        for job in jobs:
            yield job, _attempt(job, place)
        return
    # spawn: a forked child cannot use CUDA, and one that inherits OpenMP threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=torch.set_num_threads, initargs=(place.threads,)
    )
    try:
        waiting = {pool.submit(_attempt, job, place): job for job in _longest_first(jobs)}
        for future in as_completed(waiting):
            try:
                answer = future.result()
            except BrokenProcessPool:
                answer = (
                    "a process died, perhaps for want of memory; run the build again, with "
                    "fewer --jobs"
                )
            yield waiting[future], answer
    finally:  # also on an interrupt: jobs that have not begun are cancelled
        pool.shutdown(wait=True, cancel_futures=True)


def _longest_first(jobs: list[Job]) -> list[Job]:
    """Put controlled training first: it takes two to three times as long and would end last."""
    slow = {
        "detector_aware": 3.0,
        "input_aware": 2.5,
        "lira": 2.5,
        "ssba": 2.0,
        "label_consistent": 1.5,
    }
    return sorted(
        jobs,
        key=lambda job: -job.training.epochs * job.data.train * slow.get(job.attack or "", 1.0),
    )


def _attempt(job: Job, place: Place) -> Mapping[str, Any] | str:
    """One job in its process; an error becomes text, because the other jobs go on."""
    report = place.out / f"{job.name}.error.txt"
    report.unlink(missing_ok=True)
    try:
        return make.make(
            job, _loaded(job.data, place.data_dir), place.out, torch.device(place.device)
        )
    except Exception as error:  # noqa: BLE001 - any error is reported, and the build goes on
        report.write_text(traceback.format_exc())
        return f"{type(error).__name__}: {error}"


@functools.cache
def _loaded(spec: SetSpec, folder: Path | None) -> Dataset:
    return sets.load(spec, folder)


def _surroundings(device: str) -> dict[str, Any]:
    packages = {}
    for name in ("torch", "timm", "numpy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "none"
    named = torch.cuda.get_device_name(0) if device.startswith("cuda") else platform.processor()
    return {
        "device": device,
        "named": named,
        "python": platform.python_version(),
        "packages": packages,
    }
