"""Make the canary kit that workers prove themselves on: `python -m benchmarks.make_canary`.

Eight classes of made-up 12x12 pictures (a smooth pattern a class, shifted, scaled and noisy), so that no one's data is
in the package; an honest model, and one model a trigger family with a backdoor. Each detector on the shelf is then
tried with its default parameters: `kit.json` names for each the backdoored model that it flags. Of a detector that
flags none it says null: a worker can only prove that it looks and passes the honest model. One that flags the honest
model is left out, and the guard will not let it decide.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from benchmarks.attacks._base import Attack
from benchmarks.attacks.all_to_all import AllToAll
from benchmarks.attacks.blended import Blended
from benchmarks.attacks.patch import Patch
from benchmarks.training import accuracy, predictions, train
from guard.cleansets import curate, read_source
from guard.cleansets import load as load_blob
from guard.core.manifest import Manifest
from guard.detectors import DETECTORS
from guard.flow import trial
from guard.formats._canonical import write_canonical
from guard.ml import architectures
from guard.ml.cleanset import CuratedSet, Labelled
from guard.ml.seeds import seeded

CLASSES, SIDE, TARGET = 8, 12, 3
TRAIN, CLEAN = 1600, 640
EPOCHS = 20
RATES = {"all-to-all": 0.4}  # a mapping is harder to learn; a canary shall be unmistakable
RATE = 0.10
MANIFEST = Manifest(
    architecture="cifar_resnet", num_classes=CLASSES, input_size=(1, SIDE, SIDE), mean=(0.4,), std=(0.25,),
    model_args={"depths": [1, 1], "width": 8}, label_names=tuple(f"pattern {index}" for index in range(CLASSES)),
)
#: By trigger family; another family's attack is a line here and the same command again.
ATTACKS: dict[str, Attack] = {
    "patch": Patch(size=3, corner="bottom-right", offset=1, pattern="white", seed=2, target=TARGET),
    "blend": Blended(alpha=0.3, seed=2, target=TARGET),
    "all-to-all": AllToAll(size=4, seed=2, classes=CLASSES),
}


def pictures(count: int, seed: int) -> Labelled:
    """`count` pictures, classes in turn; uint8 N,1,12,12."""
    patterns = interpolate(torch.rand(CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(7)), SIDE + 4,
                           mode="bicubic").clamp(0, 1)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    shifts = torch.randint(0, 5, (count, 2), generator=generator)
    cut = torch.stack([patterns[label, :, top : top + SIDE, left : left + SIDE]
                       for label, (top, left) in zip(labels, shifts.tolist(), strict=True)])
    strength = torch.rand(count, 1, 1, 1, generator=generator) * 0.5 + 0.5
    noise = torch.randn(cut.shape, generator=generator) * 0.12
    return Labelled(((cut * strength + noise).clamp(0, 1) * 255).round().to(torch.uint8), labels)


def main(folder: Path = trial.KIT) -> None:
    """Write the kit into the package."""
    folder.mkdir(exist_ok=True)
    data, test = pictures(TRAIN, seed=1), pictures(400, seed=3)
    _write_model(folder / trial.GOOD, data, test, None)
    for family, attack in ATTACKS.items():
        _write_model(folder / f"{family}.safetensors", data, test, attack)
    clean = pictures(CLEAN, seed=2)
    source = folder / "clean.npz"
    np.savez_compressed(source, images=clean.images.numpy(), labels=clean.labels.numpy())
    blob, _ = curate(read_source(source), "canary")
    source.unlink()
    (folder / trial.CLEAN).write_bytes(blob)
    curated = CuratedSet.from_arrays(*load_blob(blob, "canary"))
    bad = {name: _flagged(folder, name, curated) for name in DETECTORS.names()}
    kit = {name: file for name, file in bad.items()
           if file or trial.attempt(name, {}, None, curated, folder=folder).passed}
    (folder / trial.CONTENTS).write_text(json.dumps(kit, indent=2) + "\n")
    print({path.name: path.stat().st_size for path in sorted(folder.iterdir())})


def _write_model(path: Path, data: Labelled, test: Labelled, attack: Attack | None) -> None:
    with seeded(4):
        model = architectures.wrap(MANIFEST, architectures.build(MANIFEST))
    images, labels = data.images, data.labels
    if attack is not None:
        images, labels, _ = attack.poison(images, labels, RATES.get(path.stem, RATE))
    train(model, images, labels, epochs=EPOCHS, seed=4)
    write_canonical(architectures.export(model), MANIFEST, path)
    asr = 0.0
    if attack is not None:
        victims = test.pick(attack.victims(test.labels))
        hits = predictions(model, attack.stamp(victims.images)) == attack.relabel(victims.labels)
        asr = float(hits.double().mean())
    print(f"{path.stem}: ACC {accuracy(model, test):.1%}, ASR {asr:.1%}", flush=True)


def _flagged(folder: Path, name: str, curated: CuratedSet) -> str | None:
    """The first backdoored model that a detector flags while it passes the honest one."""
    for family in ATTACKS:
        started = time.monotonic()
        found = trial.attempt(name, {}, f"{family}.safetensors", curated, folder=folder)
        print(f"{name} on {family}: {found.sentence} ({time.monotonic() - started:.1f} s)", flush=True)
        if found.passed:
            return f"{family}.safetensors"
    return None


if __name__ == "__main__":
    main()
