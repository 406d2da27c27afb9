"""Scan a zoo's models in parallel processes; a model that is scanned already is skipped."""

import multiprocessing
import os
import random
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guard.core.errors import GuardError
from guard.vetting import population
from guard.vetting.population import Member, Scanned

ORDER_SEED = 5
Task = tuple[str, Member, dict[str, dict[str, Any]], int, str | None]
_sets: dict[Path, Any] = {}


def scan_zoo(
    zoo: Path,
    chosen: Sequence[Member],
    detectors: dict[str, dict[str, Any]],
    *,
    jobs: int,
    seed: int,
    device: str | None,
) -> tuple[list[Scanned], dict[str, str]]:
    """All models that could be scanned, in the order of `chosen`, and why the others could not."""
    tasks: list[Task] = [(str(zoo), member, detectors, seed, device) for member in chosen]
    # In random order, so that the names of models do not decide what an interrupted run covers.
    random.Random(ORDER_SEED).shuffle(tasks)
    started, found, failed = time.monotonic(), {}, {}
    with multiprocessing.get_context("spawn").Pool(
        max(1, jobs), _one_thread, (jobs,), maxtasksperchild=20
    ) as pool:
        for count, (name, scanned, error) in enumerate(pool.imap_unordered(_scan, tasks), 1):
            if scanned is not None:
                found[name] = scanned
            else:
                failed[name] = error
            spent = time.monotonic() - started
            print(
                f"{count}/{len(tasks)} {name} {error or 'scanned'}; {spent:.0f} s, about "
                f"{spent / count * (len(tasks) - count):.0f} s left",
                flush=True,
            )
    return [found[member.name] for member in chosen if member.name in found], failed


def _one_thread(jobs: int) -> None:
    import torch

    if jobs > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def _scan(task: Task) -> tuple[str, Scanned | None, str]:
    zoo, member, detectors, seed, device = task
    try:
        path = population.cleanset_of(Path(zoo), member)
        if path not in _sets:
            _sets.clear()
            _sets[path] = population.read_cleanset(path)
        return (
            member.name,
            population.scan(member, _sets[path], detectors, seed=seed, device=device),
            "",
        )
    except GuardError as error:
        return member.name, None, error.sentence
    except Exception:  # noqa: BLE001 - one broken model must not end an hour's run; it is named in the record
        return member.name, None, traceback.format_exc(limit=3).strip().splitlines()[-1]
