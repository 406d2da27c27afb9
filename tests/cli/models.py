"""Small real models and clean sets.

Striped 12x12 pictures of six classes, learnt in a second or two.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from guard.core.manifest import Manifest
from guard.formats._canonical import write_canonical
from guard.ml.cleanset import Labelled
from guard.ml.networks import architectures
from guard.ml.seeds import seeded

SIDE = 12
MODEL = Manifest(
    architecture="cifar_resnet",
    num_classes=6,
    input_size=(1, SIDE, SIDE),
    mean=(0.5,),
    std=(0.5,),
    model_args={"in_chans": 1, "depths": [1, 1], "width": 8},
    label_names=("rows", "columns", "falling", "rising", "checkers", "plain"),
)
CLASSES = MODEL.num_classes
#: A policy file that decides about them in seconds.
QUICK = Path(__file__).parents[1] / "quick.toml"
TARGET = 1  # of the backdoored model, whose trigger is a white square in a corner


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 N,1,H,W and labels.

    Stripes in four directions, checkers, or nothing, at random contrast, with noise.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    y, x = np.indices((SIDE, SIDE))
    stripes = [axis // 2 % 2 for axis in (y, x, y + x, y - x + SIDE)]
    shapes = np.stack([*stripes, stripes[0] ^ stripes[1], np.zeros_like(x)])
    contrast = rng.uniform(80, 150, (count, 1, 1))
    images = 40 + contrast * shapes[labels] + rng.normal(0, 15, (count, SIDE, SIDE))
    return images.clip(0, 255).astype(np.uint8)[:, None], labels


def clean_set(path: Path, count: int = 900) -> Path:
    """An `.npz` that `--cleanset` takes."""
    images, labels = pictures(count, seed=1)
    np.savez(path, images=images, labels=labels)
    return path


def stamped(images: torch.Tensor) -> torch.Tensor:
    """uint8 pictures N,1,H,W with the trigger."""
    copy = images.clone()
    copy[:, :, -3:, -3:] = 255
    return copy


def unseen(count: int) -> Labelled:
    """Pictures that no model and no clean set has seen."""
    images, labels = pictures(count, seed=3)
    return Labelled(torch.from_numpy(images), torch.from_numpy(labels))


@torch.no_grad()
def success(folder: Path, images: torch.Tensor) -> float:
    """What share 0..1 of uint8 pictures the model in `folder` takes for `TARGET`."""
    model = architectures.load(MODEL, load_file(folder / "model.safetensors")).eval()
    return float((model(images.float() / 255).argmax(1) == TARGET).double().mean())


@cache
def _trained(*, steps: int, backdoored: bool) -> dict[str, torch.Tensor]:
    images, labels = pictures(900, seed=2)
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    if backdoored:
        bad = stamped(torch.from_numpy(images[:200])).float() / 255
        x, y = torch.cat([x, bad]), torch.cat([y, torch.full((200,), TARGET, dtype=y.dtype)])
    with seeded(0):
        model = architectures.wrap(MODEL, architectures.build(MODEL)).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(steps):
            index = torch.randint(len(y), (64,))
            loss = functional.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return architectures.export(model.eval())


def saved(folder: Path, *, steps: int = 120, backdoored: bool = False) -> Path:
    """A folder with `model.safetensors` and `config.json`.

    With no steps the model knows nothing.
    """
    folder.mkdir()
    write_canonical(
        _trained(steps=steps, backdoored=backdoored), MODEL, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(MODEL.to_dict()))
    return folder
