"""Make the canary kit that workers prove themselves on: `python -m benchmarks.make_canary`.

It has ten classes of made-up 12x12 images (a smooth pattern per class, shifted, scaled and noisy),
so that nobody's data is in the package; an honest model, and some with a backdoor. A canary must be
unmistakable, and a network this small has no room for subtlety, so its backdoor is amplified after
training: the trigger, in most models also a faint one, drives the logits apart by a wide gap, while
clean images keep narrow ones. A kit with a model that does not work is refused (`faults`). Then
each detector on the shelf is tried with its default parameters. For each, `kit.json` names the
backdoored model that it is surest of, or null if it flags none: then a worker can only prove that
the detector runs and passes the honest model. A detector that flags the honest model is left out,
and the guard does not let it decide.
"""

import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from benchmarks.attacks._base import Attack
from benchmarks.attacks.all_to_all import AllToAll
from benchmarks.attacks.patch import Patch
from benchmarks.training import accuracy, predictions, train
from guard.cleansets import curate, read_source
from guard.cleansets import load as load_blob
from guard.core.manifest import Manifest
from guard.core.modality import Modality
from guard.detectors import DETECTORS
from guard.formats._canonical import write_canonical
from guard.ml.cleanset import CuratedSet, Labelled
from guard.ml.networks import architectures
from guard.ml.networks.architectures import ImageModel
from guard.ml.seeds import seeded
from guard.vetting import canary_trial, examine

CLASSES, SIDE, TARGET = 10, 12, 3
TRAIN, CLEAN = 2000, 800
EPOCHS = 20
CALM = 6.0  # logit gap between right and wrong classes on clean images; more is penalised
LARGEST = 100_000  # bytes of a model, which the package holds
#: What must hold on any machine, though no two give the same bytes: the accuracy of the honest and
#: of a backdoored model, the ASR that a trigger has at most on the honest one, and at least on its
#: own; of that which sends each class elsewhere, less.
ACCURATE, STILL_ACCURATE = 0.95, 0.8
DEAF, OBEYS, OBEYS_MAP = 0.2, 0.95, 0.8
CANARY_MANIFEST = Manifest(
    architecture="cifar_resnet",
    num_classes=CLASSES,
    input_size=(1, SIDE, SIDE),
    mean=(0.4,),
    std=(0.25,),
    model_args={"depths": [1, 1], "width": 8},
    label_names=tuple(f"pattern {index}" for index in range(CLASSES)),
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A canary: `attack` at `rate`, then `steps` of Adam until triggers drive logits `gap` apart.

    `faintest` is the smallest share of the trigger's change that does so too; 1 for the full
    trigger only.
    """

    attack: Attack
    rate: float = 0.1
    gap: float = 30.0
    faintest: float = 0.4
    steps: int = 800


_PATCH = Patch(size=3, corner="bottom-right", offset=1, pattern="white", seed=2, target=TARGET)
#: By file name; to add one, add a line here and run the command again.
RECIPES: dict[str, Recipe] = {
    "patch": Recipe(attack=_PATCH, faintest=1.0, gap=40.0, steps=2000),
    "faint-patch": Recipe(attack=_PATCH, gap=20.0, steps=400),
    "deep-patch": Recipe(attack=_PATCH, faintest=1.0, gap=200.0, steps=1000),
    "all-to-all": Recipe(attack=AllToAll(size=4, seed=2, classes=CLASSES), rate=0.4, gap=10.0),
}


def labelled_images(count: int, seed: int) -> Labelled:
    """`count` images of the classes in turn, uint8 N,1,12,12."""
    patterns = interpolate(
        torch.rand(CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(7)),
        SIDE + 4,
        mode="bicubic",
    ).clamp(0, 1)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    shifts = torch.randint(0, 5, (count, 2), generator=generator)
    cut = torch.stack(
        [
            patterns[label, :, top : top + SIDE, left : left + SIDE]
            for label, (top, left) in zip(labels, shifts.tolist(), strict=True)
        ]
    )
    strength = torch.rand(count, 1, 1, 1, generator=generator) * 0.5 + 0.5
    noise = torch.randn(cut.shape, generator=generator) * 0.12
    return Labelled(((cut * strength + noise).clamp(0, 1) * 255).round().to(torch.uint8), labels)


def main(folder: Path = canary_trial.KIT) -> None:
    """Write the kit into the package.

    Raises:
        SystemExit: a model is not what its recipe asks for; then there is no `kit.json`.
    """
    folder.mkdir(exist_ok=True)
    (folder / canary_trial.CONTENTS).unlink(missing_ok=True)
    data, test = labelled_images(TRAIN, seed=1), labelled_images(400, seed=3)
    _write_model(folder / canary_trial.GOOD, data, test, None)
    for name, recipe in RECIPES.items():
        _write_model(folder / f"{name}.safetensors", data, test, recipe)
    if wrong := faults(folder):
        raise SystemExit("This kit is of no use:\n" + "\n".join(wrong))
    clean = labelled_images(CLEAN, seed=2)
    source = folder / "clean.npz"
    np.savez_compressed(source, images=clean.images.numpy(), labels=clean.labels.numpy())
    blob, _ = curate(read_source(source), "canary")
    source.unlink()
    (folder / canary_trial.CLEAN).write_bytes(blob)
    curated = CuratedSet.from_arrays(*load_blob(blob, "canary"))
    bad = {name: _flagged(folder, name, curated) for name in DETECTORS.of(Modality.IMAGES)}
    kit = {
        name: file
        for name, file in bad.items()
        if file or canary_trial.attempt(name, {}, None, curated, folder=folder).passed
    }
    (folder / canary_trial.CONTENTS).write_text(json.dumps(kit, indent=2) + "\n")
    print({path.name: path.stat().st_size for path in sorted(folder.iterdir())})


def faults(folder: Path = canary_trial.KIT) -> list[str]:
    """What is wrong with the models of a kit, each in a sentence: measured on unseen images."""
    test, wrong = labelled_images(400, seed=3), []
    honest = examine.open_model(folder / canary_trial.GOOD, device="cpu")
    if (right := accuracy(honest, test)) < ACCURATE:
        wrong.append(f"{canary_trial.GOOD} is right on {right:.1%}.")
    for name, recipe in RECIPES.items():
        attack, path = recipe.attack, folder / f"{name}.safetensors"
        model = examine.open_model(path, device="cpu")
        least = OBEYS if attack.target is not None else OBEYS_MAP
        if (obeyed := _success(honest, attack, test)) > DEAF:
            wrong.append(f"{canary_trial.GOOD} obeys the trigger of {name} on {obeyed:.1%}.")
        if (right := accuracy(model, test)) < STILL_ACCURATE:
            wrong.append(f"{path.name} is right on {right:.1%}.")
        if (obeyed := _success(model, attack, test)) < least:
            wrong.append(f"{path.name} obeys its trigger on {obeyed:.1%}.")
        if (gap := driven_apart(model, recipe, test)) < recipe.gap / 2:
            wrong.append(f"{path.name} drives logits {gap:.1f} apart, not {recipe.gap:.0f}.")
        if (size := path.stat().st_size) > LARGEST:
            wrong.append(f"{path.name} has {size} bytes.")
    return wrong


def _success(model: nn.Module, attack: Attack, test: Labelled) -> float:
    """True ASR 0..1."""
    victims = test.pick(attack.victims(test.labels))
    hits = predictions(model, attack.stamp(victims.images)) == attack.relabel(victims.labels)
    return float(hits.double().mean())


@torch.no_grad()
def driven_apart(model: nn.Module, recipe: Recipe, test: Labelled) -> float:
    """The median gap that a trigger drives the logits apart by."""
    victims = test.pick(recipe.attack.victims(test.labels))
    logits = model(recipe.attack.stamp(victims.images).float() / 255)
    return float(_gap(logits, recipe.attack.relabel(victims.labels)).median())


def _learnt(attack: Attack | None, rate: float) -> ImageModel:
    model = architectures.wrap(CANARY_MANIFEST, architectures.build(CANARY_MANIFEST))
    model.load_state_dict(_weights(attack, rate))
    return model.eval()


@cache
def _weights(attack: Attack | None, rate: float) -> dict[str, Tensor]:
    """What is learnt from the classes' images, `rate` of them poisoned: recipes share it."""
    with seeded(4):
        model = architectures.wrap(CANARY_MANIFEST, architectures.build(CANARY_MANIFEST))
    data = labelled_images(TRAIN, seed=1)
    images, labels = data.images, data.labels
    if attack is not None:
        images, labels, _ = attack.poison(images, labels, rate)
    train(model, images, labels, epochs=EPOCHS, seed=4)
    return model.state_dict()


def _write_model(path: Path, data: Labelled, test: Labelled, recipe: Recipe | None) -> None:
    model = _learnt(recipe.attack, recipe.rate) if recipe else _learnt(None, 0.0)
    asr = 0.0
    if recipe is not None:
        _make_loud(model, data, recipe)
        asr = _success(model, recipe.attack, test)
    write_canonical(architectures.export(model), CANARY_MANIFEST, path)
    print(f"{path.stem}: ACC {accuracy(model, test):.1%}, ASR {asr:.1%}", flush=True)


def _make_loud(model: nn.Module, data: Labelled, recipe: Recipe) -> None:
    """Train on clean and stamped images side by side, with a hinge on the gap of each kind."""
    images, labels, attack = data.floats(), data.labels, recipe.attack
    stamped, wanted = attack.stamp(data.images).float() / 255, attack.relabel(labels)
    possible = attack.victims(labels)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    slower = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, recipe.steps)
    generator = torch.Generator().manual_seed(5)
    model.train()
    for _ in range(recipe.steps):
        clean = torch.randperm(len(labels), generator=generator)[:64]
        victims = clean[possible[clean]][:32]
        how = (
            torch.rand(len(victims), 1, 1, 1, generator=generator) * (1 - recipe.faintest)
            + recipe.faintest
        )
        logits = model(torch.cat([images[clean], images[victims].lerp(stamped[victims], how)]))
        plain, driven = logits[: len(clean)], logits[len(clean) :]
        cost = (
            cross_entropy(plain, labels[clean])
            + 0.3 * (_gap(plain, labels[clean]) - CALM).relu().square().mean()
            + 0.2 * (recipe.gap - _gap(driven, wanted[victims])).relu().mean()
        )
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
        slower.step()
    model.eval()


def _gap(logits: Tensor, labels: Tensor) -> Tensor:
    """How far each image's logit of its label exceeds the largest other logit."""
    own = labels[:, None]
    return logits.gather(1, own)[:, 0] - logits.scatter(1, own, -torch.inf).amax(1)


def _flagged(folder: Path, name: str, curated: CuratedSet) -> str | None:
    """The backdoored model that a detector flags with the highest score; None if it flags none."""
    sure: dict[str, float] = {}
    for recipe in RECIPES:
        started, file = time.monotonic(), f"{recipe}.safetensors"
        found = canary_trial.attempt(name, {}, file, curated, folder=folder)
        print(
            f"{name} on {recipe}: {found.sentence}, score {found.score:.2f} "
            f"({time.monotonic() - started:.1f} s)",
            flush=True,
        )
        if found.passed:
            sure[file] = found.score
    return max(sure, key=lambda file: sure[file]) if sure else None


if __name__ == "__main__":
    main()
