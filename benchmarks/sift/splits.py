"""Data of the sift's exam: images that no parameter was chosen on, split anew by each seed.

Sources are "mnist", "fashion" and "mnist-colour". Sifters were developed on the images of
Fashion-MNIST that `benchmarks.data.fashion_mnist` gives out by default; the exam takes others.
MNIST has 5,000 images in all, which chose nothing. Images are averaged to 14x14 pixels, so that one
slow core can train and sift dozens of networks in an hour.
"""

from functools import cache

import torch
from torch.nn.functional import avg_pool2d

from benchmarks.data import Dataset, fashion_mnist, mnist
from benchmarks.zoo.sets import coloured
from guard.ml.cleanset import Labelled

DEVELOPMENT, FASHION, MNIST = 14_000, 70_000, 5_000  # images
COLOUR, POOL = "-colour", 2  # pixels a side that become one


@cache
def _pool(source: str) -> Dataset:
    """All images that an exam may take, as the `train` part."""
    if source == "mnist":
        return mnist(MNIST, 0, 0)
    if source == "fashion":
        data = fashion_mnist(DEVELOPMENT, FASHION - DEVELOPMENT, 0)
        return Dataset(data.name, data.classes, data.class_names, data.clean, data.train, data.test)
    raise ValueError(f"{source!r} is not a source of the exam; use mnist, fashion or mnist-colour.")


def split(name: str, seed: int, train: int, clean: int, test: int) -> Dataset:
    """Parts of a source, drawn by the seed; sizes are totals over the ten classes.

    Clean and test images of a seed are the same for every number of training images.

    Raises:
        FileNotFoundError: Fashion-MNIST is not installed.
        ValueError: another source, or too few images.
    """
    pool = _pool(name.removesuffix(COLOUR))
    generator = torch.Generator().manual_seed(seed)
    sizes = [size // pool.classes for size in (clean, test, train)]
    parts: list[list[torch.Tensor]] = [[], [], []]
    for label in range(pool.classes):
        own = torch.nonzero(pool.train.labels == label).flatten()
        if sum(sizes) > len(own):
            raise ValueError(f"{name}: class {label} has only {len(own)} images.")
        own = own[torch.randperm(len(own), generator=generator)]
        for part, chosen in zip(parts, own[: sum(sizes)].split(sizes), strict=True):
            part.append(chosen)
    made: list[Labelled] = []
    for part in parts:
        index = torch.cat(part)
        drawn = pool.train.pick(index[torch.randperm(len(index), generator=generator)])
        drawn = Labelled(smaller(drawn.images), drawn.labels)
        if name.endswith(COLOUR):
            drawn = Labelled(coloured(drawn.images, seed + len(made)), drawn.labels)
        made.append(drawn)
    return Dataset(f"{name}-{seed}", pool.classes, pool.class_names, made[2], made[0], made[1])


def smaller(images: torch.Tensor) -> torch.Tensor:
    """uint8 images N,C,H,W with squares of `POOL` pixels averaged to one."""
    return avg_pool2d(images.float(), POOL).round().to(torch.uint8)


def first(data: Labelled, classes: int, count: int) -> Labelled:
    """The first `count` // `classes` images of every class, in their order."""
    keep = [
        torch.nonzero(data.labels == label).flatten()[: count // classes]
        for label in range(classes)
    ]
    return data.pick(torch.cat(keep).sort().values)
