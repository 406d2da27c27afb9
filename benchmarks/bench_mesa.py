"""Whether a learnt distribution of triggers repairs better than one recovered trigger.

    python -m benchmarks.bench_mesa --models DIR... [--data-dir DIR] [--patterns N] [--stamped
    SHARE]

This is the claim of MESA (Qiao et al., NeurIPS 2019), tested at our scale. Each honest network of a
zoo is fine-tuned with some of its images under a 3x3 patch of random colours at a random place.
Then (a) samples of the ensemble of generators (success levels 0.9, 0.8, 0.5) or (b) one patch found
by descent on its pixels are put on clean images with their true labels, and training goes on. Both
know only the size of 3x3 and the target class, and use the same clean images, rate, passes and
share of stamped images. The claim is about the worst ASR over the patterns. Deviations: 10 % of the
training images are poisoned, not 1 %, in 20 passes (5 % in 6 passes reached half the images with
one of six patterns) at a rate of 5e-3 (1e-3 sufficed on a VGG only), and 20 % of the clean images
are stamped (`--stamped`), not 1 %, since there are a tenth as many; batch-norm statistics are
frozen. Only the evaluator knows the true patch.
"""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import cross_entropy

import guard
from benchmarks import record
from benchmarks.attacks.patch_anywhere import PatchAnywhere
from benchmarks.data import Dataset
from benchmarks.fitting import Training
from benchmarks.fitting import fit as train
from benchmarks.purify.mesa_report import page, summary
from benchmarks.training import accuracy
from benchmarks.zoo import ZooModel, make, sets, spec
from guard.core.progress import silent
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.search.fresh_patches import Region, learn_sets, paint
from guard.ml.search.patch_distribution import LEVELS, DistributionEffort
from guard.ml.seeds import seeded
from guard.ml.training.fit import fit
from guard.vetting import population

SIDE = 3  # side of the patch, which the repairs know, as they know the target class
# Share of poisoned images, passes over them, and their learning rate.
RATE, EPOCHS, SPEED = 0.1, 20, 5e-3
STAMPED, PASSES, BATCH, LEARNING_RATE = 0.2, 10, 64, 1e-3
STEPS = 600  # of the generators, and of the descent
Stamp = Callable[[Tensor], Tensor]


def attacked(model: nn.Module, data: Dataset, attack: PatchAnywhere) -> nn.Module:
    """A copy, fine-tuned on the poisoned set."""
    images, labels, _ = attack.poison(data.train.images, data.train.labels, RATE)
    return train(
        copy.deepcopy(model), images, labels, Training(epochs=EPOCHS, rate=SPEED), seed=attack.seed
    )


def point(model: nn.Module, data: Labelled, target: int) -> Stamp:
    """Repair (b): one patch by descent on its pixels, at a place drawn anew for each image."""
    frozen, region = frozen_copy(model), anywhere(data)
    others = data.pick(data.labels != target)
    pixels = torch.rand(1, data.images.shape[1], SIDE * SIDE).requires_grad_()
    mover = torch.optim.SGD([pixels], lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        images = others.pick(torch.randint(len(others), (16,))).floats()
        logits = frozen(
            paint(
                images,
                pixels.clamp(0, 1).expand(len(images), -1, -1),
                region.positions(len(images)),
            )
        )
        mover.zero_grad()
        cross_entropy(logits, torch.full((len(images),), target)).backward()
        mover.step()
    found = pixels.detach().clamp(0, 1)
    return lambda images: paint(
        images, found.expand(len(images), -1, -1), region.positions(len(images))
    )


def distribution(model: nn.Module, data: Labelled, target: int) -> Stamp:
    """Repair (a): samples of the ensemble."""
    return learn_sets(
        frozen_copy(model),
        data,
        [target],
        [anywhere(data)],
        DistributionEffort(steps=STEPS),
        lambda _done: None,
    )[0].stamp


def anywhere(data: Labelled) -> Region:
    """A square of the known size; its place does not matter, since it is drawn for each image."""
    return Region.square(torch.ones(1, *data.images.shape[2:]), SIDE)


def frozen_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval().requires_grad_(requires_grad=False)


def repaired(model: nn.Module, clean: CleanSet, stamp: Stamp | None, stamped: float) -> nn.Module:
    """The training of both repairs; without a stamp it is plain fine-tuning."""
    child = copy.deepcopy(model).eval().requires_grad_()

    def objective(images: Tensor, labels: Tensor) -> Tensor:
        if stamp is not None:
            some = round(stamped * len(images))  # the batch was shuffled
            with torch.no_grad():
                images = torch.cat([stamp(images[:some]), images[some:]])
        return functional.cross_entropy(child(images), labels)

    fit(
        child,
        clean.search,
        objective,
        torch.optim.SGD(child.parameters(), lr=LEARNING_RATE, momentum=0.9),
        rounds=PASSES,
        batch=BATCH,
        progress=silent,
    )
    return child.eval()


def one_pattern(
    model: nn.Module, data: Dataset, clean: CleanSet, seed: int, stamped: float
) -> dict[str, Any]:
    """ACC and ASR of one attacked network and of its repairs."""
    attack = PatchAnywhere(target=seed % data.classes, seed=seed, size=SIDE, pattern="random")
    bad = attacked(model, data, attack)
    row: dict[str, Any] = {
        "seed": seed,
        "target": attack.target,
        "before": both(bad, attack, data.test),
    }
    with seeded(seed):
        stamps = {
            "fine-tuning": None,
            "point": point(bad, clean.search, seed % data.classes),
            "ensemble": distribution(bad, clean.search, seed % data.classes),
        }
        for name, stamp in stamps.items():
            row[name] = both(repaired(bad, clean, stamp, stamped), attack, data.test)
    return row


def both(model: nn.Module, attack: PatchAnywhere, test: Labelled) -> dict[str, float]:
    asr, _, _ = make.measure(model, attack, test)
    return {"acc": accuracy(model, test), "asr": asr}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--patterns", type=int, default=6)
    parser.add_argument(
        "--stamped", type=float, default=STAMPED, help="share of the clean images under a trigger"
    )
    parser.add_argument("--name", default="mesa-claim")
    options = parser.parse_args()
    rows, accs, clean = [], [], []
    for folder in options.models:
        member = ZooModel(folder, json.loads((folder / "truth.json").read_text()))
        source = json.loads((folder.parent / "zoo.json").read_text())["spec"]
        data = sets.load(spec.parse(source).sets[str(member.truth["data"])], options.data_dir)
        shown, model = population.read_cleanset(member.cleanset).visible(), guard.load_model(folder)
        accs.append(accuracy(model, data.test))
        clean.append(len(shown.search))
        for seed in range(1, options.patterns + 1):
            rows.append(
                {"model": member.name, **one_pattern(model, data, shown, seed, options.stamped)}
            )
            print(json.dumps(rows[-1]), flush=True)
    names = sorted({row["model"] for row in rows})
    result = {
        "model": ", ".join(names),
        "acc": fmean(accs),
        "clean": " or ".join(map(str, sorted(set(clean)))),
        "poisoning_rate": RATE,
        "levels": list(LEVELS),
        "stamped": options.stamped,
        "passes": PASSES,
        "summary": summary(rows),
        "models": {name: summary([row for row in rows if row["model"] == name]) for name in names},
        "rows": rows,
    }
    print(record.write(options.name, result, f"# MESA's claim\n\n{__doc__}\n{page(result)}\n"))


if __name__ == "__main__":
    main()
