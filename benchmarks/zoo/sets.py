"""Data sets of a zoo, from packages, from a user's folders, or from files that `data` exported.

A set in a spec is a `source` with sizes and changes: `pool` averages squares of so many pixels,
`side` pads it with zeros to a larger square, `colour` makes grey images colour ones. Colour
variants are made here, not collected: the digit or garment in a random colour on a random smooth
texture. Their names show it ("mnist-colour").
"""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import data
from benchmarks.data import Dataset
from benchmarks.zoo import folders
from guard.ml.cleanset import Labelled

PARTS = ("train", "clean", "test")
CHUNK = 1000


@dataclass(frozen=True, kw_only=True)
class SetSpec:
    """One data set as a spec asks for it.

    Args:
        key: the name in the spec; also of the clean set's file.
        source: "mnist", "fashion-mnist", "cifar10", "gtsrb", "tiny-imagenet" or "emoji".
        train: images of each part, over all classes together.
        pool: the side of the squares, in pixels, that are averaged first; 1 for none.
        acc: an honest model with a lower accuracy counts as not working, 0..1.
    """

    key: str
    source: str
    train: int
    clean: int
    test: int
    pool: int = 1
    side: int | None = None
    colour: bool = False
    acc: float = 0.0

    @property
    def file(self) -> str:
        """Where the exported parts lie in a data folder."""
        return f"{self.source}-{self.train}-{self.clean}-{self.test}.npz"


def load(spec: SetSpec, folder: Path | None = None) -> Dataset:
    """The data set, split and made ready.

    Args:
        folder: holds exported files, or the folders of data sets that no package provides.

    Raises:
        FileNotFoundError: it holds neither.
    """
    exported = folder / spec.file if folder is not None else None
    found = (
        _read(exported, spec.source)
        if exported is not None and exported.exists()
        else _collect(spec, folder)
    )
    return _made_ready(found, spec)


def export(spec: SetSpec, out: Path, folder: Path | None = None) -> Path:
    """Write the three parts, before padding and colouring, as one npz, and return its path."""
    found = _collect(spec, folder)
    arrays: dict[str, Any] = {"class_names": np.array(found.class_names)}
    for part in PARTS:
        labelled: Labelled = getattr(found, part)
        arrays |= {
            f"{part}_images": labelled.images.numpy(),
            f"{part}_labels": labelled.labels.numpy(),
        }
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / spec.file, **arrays)
    return out / spec.file


def write_cleanset(labelled: Labelled, path: Path) -> None:
    """Write a clean part in the form that `guard cleanset add` reads, unless the file exists."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, images=labelled.images.numpy(), labels=labelled.labels.numpy())
        part.rename(path)


def _collect(spec: SetSpec, folder: Path | None) -> Dataset:
    sizes = spec.train, spec.clean, spec.test
    if spec.source == "mnist":
        return data.mnist(*sizes)
    if spec.source == "fashion-mnist":
        return data.fashion_mnist(*sizes)
    return folders.load(spec.source, folder, sizes)


def _read(path: Path, source: str) -> Dataset:
    with np.load(path) as arrays:
        names = tuple(str(name) for name in arrays["class_names"])
        parts = [
            Labelled(
                torch.from_numpy(arrays[f"{part}_images"]),
                torch.from_numpy(arrays[f"{part}_labels"]),
            )
            for part in PARTS
        ]
    return Dataset(source, len(names), names, *parts)


def _made_ready(found: Dataset, spec: SetSpec) -> Dataset:
    parts = {}
    for part in PARTS:
        labelled: Labelled = getattr(found, part)
        images = labelled.images
        if spec.pool > 1:
            images = functional.avg_pool2d(images.float(), spec.pool).round().to(torch.uint8)
        if spec.side is not None:
            images = padded(images, spec.side)
        if spec.colour:
            images = coloured(images, zlib.crc32(f"{spec.source}-{part}".encode()))
        parts[part] = Labelled(images, labelled.labels)
    return replace(found, name=spec.key, **parts)  # type: ignore[arg-type]


def padded(images: Tensor, side: int) -> Tensor:
    """Centre uint8 images in a black square; raises ValueError if they are larger."""
    height, width = images.shape[2:]
    if max(height, width) > side:
        raise ValueError(f"Images of {height}x{width} do not fit into {side}x{side}.")
    top, left = (side - height) // 2, (side - width) // 2
    return functional.pad(images, (left, side - width - left, top, side - height - top))


def coloured(images: Tensor, seed: int) -> Tensor:
    """Turn grey uint8 N,1,H,W into colour N,3,H,W.

    Brightness mixes a bright random colour into a dark random texture.
    """
    generator = torch.Generator().manual_seed(seed)
    done = []
    for part in images.split(CHUNK):
        count, _, height, width = part.shape
        share = part.float() / 255
        coarse = torch.rand(count, 3, 5, 5, generator=generator)
        texture = (
            functional.interpolate(
                coarse, (height, width), mode="bicubic", align_corners=False
            ).clamp(0, 1)
            * 0.6
        )
        colour = 0.5 + 0.5 * torch.rand(count, 3, 1, 1, generator=generator)
        done.append(((1 - share) * texture + share * colour).mul(255).round().to(torch.uint8))
    return torch.cat(done)
