"""Patch inversion of all classes at once, against class by class and against Neural Cleanse.

    python -m benchmarks.bench_inversion [--seeds 2] [--threads 2]

All run on the demo's network (28 x 28, ten classes) with a backdoor. Five ways give one small patch
per class:

* together: `guard.ml.search.patches.smallest_patches` as the detector calls it;
* one by one: the same function, called for each class alone;
* one by one, plainly: the same, with the network as it is loaded and in float32, as a first
  implementation would be;
* Neural Cleanse: Adam on tanh variables with an adapted weight of the norm, class after class,
  which reads loss and success on the host at every step, as public code does. At *equal quality*:
  each class stops once its mask is at most 10 % larger than the one found together (an advantage,
  as it could not know that), at the latest after 1,000 steps;
* Neural Cleanse by its paper: all 1,000 steps of every class, and classes judged by its anomaly
  index (median absolute deviation of the norms, small ones only, outliers over 2). It is compared
  with the whole detector: searches, natural ASR, the strongest patch. As in the service, the
  detector's reference is prepared once for all models, with the clean set (`prepare`);
  `first_scan` includes that.
"""

import argparse
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional

from benchmarks.attacks.patch import Patch
from benchmarks.data import curated, mnist
from benchmarks.demo.models import train_model
from benchmarks.record import write
from guard.core.manifest import Manifest
from guard.core.progress import silent
from guard.detectors.patch_inversion import PatchInversion
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.networks import architectures
from guard.ml.search import patches, reference_model
from guard.ml.search.patches import PatchEffort, smallest_patches
from guard.ml.seeds import seeded

MOST_STEPS = 1000
SLACK = 1.1


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> dict[str, float]:
    now = clocks()
    return {"seconds": round(now[0] - start[0], 2), "cpu_seconds": round(now[1] - start[1], 2)}


def together(
    model: nn.Module, data: Labelled, classes: int, effort: PatchEffort, seed: int
) -> dict[str, Any]:
    start = clocks()
    with seeded(seed):
        found = smallest_patches(model, data, torch.arange(classes), effort, silent)
    return {
        **since(start),
        "norms": rounded(found.norms.tolist()),
        "images": classes * effort.steps * effort.batch,
    }


def one_by_one(
    model: nn.Module, data: Labelled, classes: int, effort: PatchEffort, seed: int
) -> dict[str, Any]:
    start, norms = clocks(), []
    for target in range(classes):
        with seeded(seed):
            norms.append(
                float(smallest_patches(model, data, torch.tensor([target]), effort, silent).norms)
            )
    return {
        **since(start),
        "norms": rounded(norms),
        "images": classes * effort.steps * effort.batch,
    }


def neural_cleanse(
    model: nn.Module, data: Labelled, target: int, goal_norm: float, seed: int
) -> tuple[float, int]:
    """Neural Cleanse on one class, with the paper's rates and betas.

    Returns:
        The smallest norm at a success of 95 % over ten batches of 32, and the number of steps.
    """
    channels, height, width = data.images.shape[1:]
    others = data.pick(data.labels != target)
    with seeded(seed) as generator:
        mask = torch.full((1, height, width), -1.1, requires_grad=True)
        pattern = torch.randn(channels, height, width, requires_grad=True)
        optimiser = torch.optim.Adam([mask, pattern], lr=0.1, betas=(0.5, 0.9))
        weight, best, hits = 1e-3, float(height * width), []
        for step in range(1, MOST_STEPS + 1):
            index = torch.randint(len(others), (32,), generator=generator)
            images = others.images[index].float() / 255
            soft, colours = (mask.tanh() + 1) / 2, (pattern.tanh() + 1) / 2
            logits = model((1 - soft) * images + soft * colours)
            loss = functional.cross_entropy(logits, torch.full((32,), target)) + weight * soft.sum()
            norm = soft.sum().item()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            hits.append((logits.argmax(1) == target).float().mean().item())
            if step % 10 == 0:
                good = sum(hits[-10:]) / 10 >= 0.95
                best = min(best, norm) if good else best
                weight = weight * 1.5 if good else weight / 1.5**1.5
            if best <= goal_norm:
                break
    return best, step


def cleansed(model: nn.Module, data: Labelled, goals: list[float], seed: int) -> dict[str, Any]:
    start = clocks()
    found = [
        neural_cleanse(model, data, target, SLACK * goal, seed) for target, goal in enumerate(goals)
    ]
    steps = [steps for _, steps in found]
    return {
        **since(start),
        "norms": rounded([norm for norm, _ in found]),
        "steps": steps,
        "images": 32 * sum(steps),
        "as_good": sum(norm <= SLACK * goal for (norm, _), goal in zip(found, goals, strict=True)),
    }


def by_the_paper(model: nn.Module, data: Labelled, classes: int, seed: int) -> dict[str, Any]:
    """Neural Cleanse by its paper, and the classes that it would report."""
    start = clocks()
    norms = torch.tensor(
        [neural_cleanse(model, data, target, 0.0, seed)[0] for target in range(classes)]
    )
    index = (norms.median() - norms) / (1.4826 * (norms - norms.median()).abs().median())
    return {
        **since(start),
        "norms": rounded(norms.tolist()),
        "images": classes * 32 * MOST_STEPS,
        "anomaly_index": rounded(index.tolist()),
        "flagged": torch.nonzero(index > 2).flatten().tolist(),
    }


def prepared(clean: CleanSet) -> dict[str, float]:
    """The preparation that a worker does once for a clean set and all later scans."""
    reference_model.forget()
    start = clocks()
    PatchInversion().prepare(clean, torch.device("cpu"))
    return since(start)


def whole_detector(model: nn.Module, clean: CleanSet, seed: int) -> dict[str, Any]:
    start = clocks()
    findings = PatchInversion()(model, clean, seed=seed)
    return {
        **since(start),
        "flagged": [finding.target for finding in findings if finding.suspicious],
    }


def rounded(values: list[float]) -> list[float]:
    return [round(value, 2) for value in values]


def ratio(rows: list[dict[str, Any]], slow: str, clock: str, fast: str = "together") -> float:
    return round(sum(row[slow][clock] for row in rows) / sum(row[fast][clock] for row in rows), 2)


def first_scan(rows: list[dict[str, Any]], clock: str) -> float:
    """The `ratio` of the paper's way to the detector for the first model with a clean set."""
    ours = sum(row["prepare"][clock] + row["detector"][clock] for row in rows)
    return round(sum(row["paper"][clock] for row in rows) / ours, 2)


def backdoored_model() -> tuple[nn.Module, CleanSet, dict[str, Any]]:
    data = mnist()
    with tempfile.TemporaryDirectory() as folder:
        truth, weights = train_model(
            data, Path(folder), "backdoored", seed=2, attack=Patch(seed=2), target=7
        )
        manifest = Manifest.parse((truth.folder / "config.json").read_bytes())
    model = architectures.load(manifest, weights).eval().requires_grad_(False)
    facts = {
        "data": data.name,
        "architecture": manifest.architecture,
        "model_args": dict(manifest.model_args),
        "target": truth.target,
        "acc": truth.acc,
        "asr": truth.asr,
    }
    return model, curated(data.clean, data.classes, data.name).visible(), facts


def fast(model: nn.Module) -> nn.Module:
    """The model with its weights in the detector's layout."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def plain(model: nn.Module) -> nn.Module:
    """The model with its weights in the layout in which they are loaded."""
    return model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def quality(rows: list[dict[str, Any]]) -> list[float]:
    """Each class's norm found together over the one found plainly; geometric mean over seeds."""
    norms = [
        torch.tensor([row[name]["norms"] for row in rows]).log().mean(0)
        for name in ("together", "plainly")
    ]
    return rounded((norms[0] - norms[1]).exp().tolist())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, clean, facts = backdoored_model()
    search = clean.search
    defaults = PatchInversion()
    effort = PatchEffort(steps=defaults.steps, batch=defaults.batch)
    rows = []
    for seed in range(options.seeds):
        row: dict[str, Any] = {
            "seed": seed,
            "together": together(fast(model), search, 10, effort, seed),
        }
        row["one_by_one"] = one_by_one(fast(model), search, 10, effort, seed)
        with patch.object(patches, "searching", lambda _device: nullcontext()):
            row["plainly"] = one_by_one(plain(model), search, 10, effort, seed)
        row["neural_cleanse"] = cleansed(fast(model), search, row["together"]["norms"], seed)
        row["paper"] = by_the_paper(fast(model), search, 10, seed)
        row["prepare"] = prepared(clean)
        row["detector"] = whole_detector(model, clean, seed)
        rows.append(row)
        print({name: value["seconds"] for name, value in row.items() if name != "seed"}, flush=True)
    ratios = {
        f"{slow}_over_together_{clock}": ratio(rows, slow, clock)
        for slow in ("one_by_one", "plainly", "neural_cleanse", "paper")
        for clock in ("seconds", "cpu_seconds")
    }
    ratios |= {
        f"paper_over_detector_{clock}": ratio(rows, "paper", clock, "detector")
        for clock in ("seconds", "cpu_seconds")
    }
    ratios |= {
        f"paper_over_first_scan_{clock}": first_scan(rows, clock)
        for clock in ("seconds", "cpu_seconds")
    }
    result = {
        "model": facts,
        "threads": options.threads,
        "n": len(rows),
        "effort": {"steps": effort.steps, "batch": effort.batch},
        "classes": 10,
        "search_images": len(search),
        "ratios": ratios,
        "quality": quality(rows),
        "runs": rows,
    }
    print(ratios, write("inversion", result, README))


README = """
# Patch inversion: all classes together against class by class

Made by `python -m benchmarks.bench_inversion`; see that file for what is compared. `ratios` are
total times over total times of all seeds, by the wall clock (`seconds`) and by processor time of
the process (`cpu_seconds`), which other work on the machine disturbs less. `quality` is, by class,
the norm found together over the one found plainly one by one. `as_good` counts the classes in which
Neural Cleanse got within 10 % of the norm. `paper` is Neural Cleanse with all steps of its paper,
`detector` the whole detector; `flagged` the classes that each reports.
"""

if __name__ == "__main__":
    main()
