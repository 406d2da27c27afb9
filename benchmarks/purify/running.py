"""Run one defense on one model of a zoo in its own process, unless that was done before."""

import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attacks._base import Attack
from benchmarks.data import Dataset
from benchmarks.memory import Peak
from benchmarks.training import predictions
from benchmarks.zoo import ZooModel, make, sets, spec
from guard.core.digests import json_digest
from guard.core.errors import GuardError
from guard.core.plain import from_plain, to_plain
from guard.core.purification import PurificationFacts, summary
from guard.defenses import DEFENSES
from guard.defenses._base import Defense
from guard.detectors import DETECTORS
from guard.ml.cleanset import CuratedSet, Labelled
from guard.policy import Policy
from guard.vetting import population

# `STEP` is followed by a number from 1, which selects a defense as the policy sets it.
TOURNAMENT, STEP = "tournament", "policy-"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A `defense` on one model.

    `defense` is a name on the shelf (with its defaults), the `policy`'s `STEP`, or its
    `TOURNAMENT`. `fraction` is the number of clean images that it may see, as a share of the
    training set; the hold-out is additional, since the guard measures on it and no defense sees it.
    """

    folder: Path
    defense: str
    fraction: float
    seed: int
    policy: Policy
    data_dir: Path | None = None
    device: str | None = None

    @property
    def key(self) -> str:
        """A key of everything that the result depends on, except the model."""
        if self.defense == TOURNAMENT:
            what: Any = [
                self.policy.digest,
                {name: DETECTORS.get(name)().version for name in self.policy.detectors},
                [DEFENSES.get(rule.name)().version for rule in self.policy.defenses],
            ]
        else:
            what = [
                item for method in self.methods() for item in (method.version, method.parameters())
            ]
        return json_digest(
            [self.defense, self.fraction, self.seed, what, *filter(None, [self.device])]
        )

    def methods(self) -> list[Defense]:
        """The defense, if it is a single one, after those that it builds on in the policy."""
        if not self.defense.startswith(STEP):
            return [DEFENSES.get(self.defense)()]
        place = int(self.defense.removeprefix(STEP)) - 1
        methods: list[Defense] = []
        while True:
            rule = self.policy.defenses[place]
            methods.insert(0, DEFENSES.get(rule.name)(**rule.params))
            if not rule.after:
                return methods
            place = max(
                index for index in range(place) if self.policy.defenses[index].name == rule.after
            )

    @property
    def file(self) -> Path:
        return self.folder / f"purify-{self.defense}-{self.fraction:g}-{self.seed}.json"


def rows(tasks: Sequence[Task], jobs: int) -> Iterator[dict[str, Any]]:
    """A row for each task, as they finish; each runs in a new process with its own memory peak."""
    with multiprocessing.get_context("spawn").Pool(
        max(1, jobs), one_thread, (jobs,), maxtasksperchild=1
    ) as pool:
        yield from pool.imap_unordered(_row, tasks)


def one_thread(jobs: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // max(1, jobs)))


def done(task: Task) -> dict[str, Any] | None:
    """The row of a task that is finished, if nothing that it depends on has changed."""
    try:
        row = json.loads(task.file.read_text())
        return dict(row) if row["key"] == task.key else None
    except (OSError, ValueError, KeyError):
        return None


def _row(task: Task) -> dict[str, Any]:
    if (known := done(task)) is not None:
        return known
    model = ZooModel(task.folder, json.loads((task.folder / "truth.json").read_text()))
    row = {
        "key": task.key,
        "model": model.name,
        "defense": task.defense,
        "fraction": task.fraction,
        "seed": task.seed,
    }
    row |= {
        name: model.truth[name]
        for name in ("attack", "rate", "data", "architecture", "backdoored", "target")
    }
    try:
        _fill(row, task, model)
    except GuardError as error:
        row |= {"failed": error.code, "why": error.sentence}
    except Exception:  # noqa: BLE001 - a crash is a result of this defense, and the other tasks go on
        row |= {"failed": "crashed", "why": traceback.format_exc(limit=2).strip().splitlines()[-1]}
    partial = task.file.with_suffix(f".partial-{os.getpid()}")
    partial.write_text(json.dumps(row, indent=1, allow_nan=False) + "\n")
    partial.replace(task.file)
    return row


def _fill(row: dict[str, Any], task: Task, model: ZooModel) -> None:
    """Add each number once it is measured, so that a failed defense leaves those from before it."""
    import guard

    zoo, attack, device = task.folder.parent, model.attack(), torch.device(task.device or "cpu")
    data = images_of(zoo, str(model.truth["data"]), task.data_dir)
    curated = fraction_of(
        population.read_cleanset(model.cleanset), round(task.fraction * len(data.train)), task.seed
    )
    network = guard.load_model(task.folder).to(device)
    row["before"] = measured(network, attack, data.test)
    held = _device_memory(device)
    started = time.perf_counter()
    child: nn.Module | None
    with Peak() as peak:
        if task.defense == TOURNAMENT:
            child, more = _tournament(task, curated)
        else:
            child, more = network, {}
            for method in task.methods():
                child = method(child, curated.visible(), seed=task.seed)
    row |= more | {
        "seconds": round(time.perf_counter() - started, 1),
        "images": len(curated.search) + len(curated.calibration),
        "peak_mib": round(peak.mib),
    }
    if held is not None:
        row["peak_device_mib"] = round((torch.cuda.max_memory_allocated(device) - held) / 2**20)
    row["after"] = None if child is None else measured(child.to(device), attack, data.test)
    if row["after"] is not None:
        row |= compared(row["before"], row["after"])


def _device_memory(device: torch.device) -> int | None:
    """Bytes allocated on a CUDA device, whose high-water mark is reset; None for other devices."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return int(torch.cuda.memory_allocated(device))


def _tournament(task: Task, curated: CuratedSet) -> tuple[nn.Module | None, dict[str, Any]]:
    """The model that would be served (None if nothing would be), and the guard's report on it."""
    import guard

    with TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        report = guard.purify(
            task.folder,
            cleanset=curated,
            out=out,
            policy=task.policy,
            seed=task.seed,
            device=task.device,
        )
        served = guard.load_model(out) if out.exists() else None
    return served, {
        "verdict": str(report.verdict),
        "winner": report.purification.defense if report.purification else None,
        "reasons": list(report.reasons),
        "candidates": [_outcome(item) for item in report.to_dict().get("candidates", ())],
    }


def _outcome(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """A candidate's outcome with its reasons, and what a signed verdict states about the repair."""
    outcome = {
        key: candidate.get(key) for key in ("defense", "verdict", "failed", "seconds", "reasons")
    }
    outcome |= {"after": list(candidate["after"])} if candidate.get("after") else {}
    if not candidate.get("facts"):
        return outcome
    facts = from_plain(PurificationFacts, candidate["facts"])
    return outcome | {"proof": to_plain(summary(facts))}


@torch.no_grad()
def measured(model: nn.Module, attack: Attack | None, test: Labelled) -> dict[str, Any]:
    """True ACC, recall by class, ASR and RA (None for honest models)."""
    predicted = predictions(model, test.images)
    recall = [
        float((predicted[test.labels == label] == label).double().mean())
        for label in test.labels.unique().tolist()
    ]
    asr, ra, _ = make.measure(model, attack, test) if attack is not None else (None, None, 0)
    return {
        "acc": float((predicted == test.labels).double().mean()),
        "recall": recall,
        "asr": asr,
        "ra": ra,
    }


def compared(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Loss of accuracy (may be negative), the worst class's loss of recall, and DER.

    DER is that of BackdoorBench; see `guard.ml.metrics`.
    """
    loss = before["acc"] - after["acc"]
    worst = max(one - two for one, two in zip(before["recall"], after["recall"], strict=True))
    fall = None if before["asr"] is None else max(0.0, before["asr"] - after["asr"])
    return {
        "loss": loss,
        "worst_class_loss": worst,
        "der": None if fall is None else (fall - max(0.0, loss) + 1) / 2,
    }


def fraction_of(curated: CuratedSet, images: int, seed: int) -> CuratedSet:
    """The set with only `images` of the images that methods see, drawn by the seed.

    Classes and parts keep their shares.

    Raises:
        ValueError: it holds fewer.
    """
    whole = len(curated.search) + len(curated.calibration)
    if images > whole:
        raise ValueError(f"The clean set shows {whole} images to methods; {images} were asked for.")
    generator = torch.Generator().manual_seed(seed)

    def some(part: Labelled) -> Labelled:
        chosen: list[Tensor] = []
        for label in part.labels.unique():
            own = torch.nonzero(part.labels == label).flatten()
            count = max(1, round(len(own) * images / whole))
            chosen.append(own[torch.randperm(len(own), generator=generator)[:count]])
        return part.pick(torch.cat(chosen).sort().values)

    search, calibration = some(curated.search), some(curated.calibration)
    counts = torch.bincount(torch.cat([search.labels, calibration.labels, curated.holdout.labels]))
    facts = replace(
        curated.facts, search=len(search), calibration=len(calibration), per_class=int(counts.min())
    )
    return CuratedSet(facts, search, calibration, curated.holdout)


def images_of(zoo: Path, name: str, data_dir: Path | None) -> Dataset:
    """The images of a zoo's data set `name`; some lie below `data_dir`."""
    source = json.loads((zoo / "zoo.json").read_text())["spec"]
    return sets.load(spec.parse(source).sets[name], data_dir)
