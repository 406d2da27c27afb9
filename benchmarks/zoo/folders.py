"""Read CIFAR-10, GTSRB, Tiny-ImageNet and emoji from folders that a user has.

Nothing is downloaded, and no pickle is opened. Layouts below the data folder:

* cifar-10-batches-bin/: the *binary* version, with data_batch_1..5.bin, test_batch.bin and
  batches.meta.txt
* GTSRB/Final_Training/Images/: class folders of .ppm; GTSRB/Final_Test/Images/ with
  GT-final_test.csv
* tiny-imagenet-200/: wnids.txt, train/<wnid>/images/, val/images/ with val_annotations.txt
* emoji-datasource-google/, emoji-datasource-twitter/: npm packages, see `benchmarks.zoo.emoji`

The training part comes from the training split; the clean and test parts share the test split (of
Tiny-ImageNet, the validation split).
"""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import SPLIT_SEED, Dataset
from benchmarks.zoo import emoji
from guard.ml.cleanset import Labelled

if TYPE_CHECKING:
    from collections.abc import Callable

GTSRB_SIDE = 32
_RECORD = 1 + 3 * 32 * 32  # of the binary CIFAR-10: label, then red, green and blue planes
Files = list[tuple[Path, int]]


def load(source: str, folder: Path | None, sizes: tuple[int, int, int]) -> Dataset:
    """The data set `source` below `folder`.

    Args:
        sizes: images of train, clean and test, over all classes together.

    Raises:
        FileNotFoundError: no folder, or not in a known layout.
        ValueError: unknown source, or too few images of a class.
    """
    readers: dict[str, Callable[[Path, tuple[int, int, int]], Dataset]] = {
        "cifar10": _cifar10,
        "gtsrb": _gtsrb,
        "tiny-imagenet": _tiny_imagenet,
        "emoji": emoji.load,
    }
    if source not in readers:
        raise ValueError(
            f"{source!r} is no data set; use mnist, fashion-mnist, {', '.join(readers)}."
        )
    if folder is None:
        raise FileNotFoundError(f"{source} comes from a folder; name it with --data-dir.")
    return readers[source](folder, sizes)


def _cifar10(folder: Path, sizes: tuple[int, int, int]) -> Dataset:
    place = _there(
        folder / "cifar-10-batches-bin",
        "CIFAR-10's binary version (the Python version holds pickles)",
    )
    names = tuple((place / "batches.meta.txt").read_text().split())
    known = [_records(place / f"data_batch_{number}.bin") for number in range(1, 6)]
    images, labels = (torch.cat(parts) for parts in zip(*known, strict=True))
    train, other = _pick(labels, len(names), sizes[:1])[0], _records(place / "test_batch.bin")
    clean, test = _pick(other[1], len(names), sizes[1:])
    return Dataset(
        "cifar10",
        len(names),
        names,
        Labelled(images[train], labels[train]),
        Labelled(other[0][clean], other[1][clean]),
        Labelled(other[0][test], other[1][test]),
    )


def _records(path: Path) -> tuple[Tensor, Tensor]:
    rows = torch.from_numpy(np.fromfile(path, np.uint8).reshape(-1, _RECORD))
    return rows[:, 1:].reshape(-1, 3, 32, 32).clone(), rows[:, 0].long()


def _gtsrb(folder: Path, sizes: tuple[int, int, int]) -> Dataset:
    training = _there(folder / "GTSRB/Final_Training/Images", "GTSRB's training images")
    classes = sorted(place.name for place in training.iterdir() if place.is_dir())
    seen = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((training / name).glob("*.ppm"))
    ]
    testing = _there(folder / "GTSRB/Final_Test/Images", "GTSRB's test images")
    with _there(testing / "GT-final_test.csv", "the labels of GTSRB's test images").open(
        newline=""
    ) as lines:
        unseen = [
            (testing / row["Filename"], int(row["ClassId"]))
            for row in csv.DictReader(lines, delimiter=";")
        ]
    return _from_files("gtsrb", tuple(classes), seen, unseen, sizes, GTSRB_SIDE)


def _tiny_imagenet(folder: Path, sizes: tuple[int, int, int]) -> Dataset:
    place = _there(folder / "tiny-imagenet-200", "Tiny-ImageNet")
    names = tuple((place / "wnids.txt").read_text().split())
    number = {name: label for label, name in enumerate(names)}
    seen = [
        (file, number[name])
        for name in names
        for file in sorted((place / "train" / name / "images").iterdir())
    ]
    rows = [
        line.split("\t") for line in (place / "val/val_annotations.txt").read_text().splitlines()
    ]
    unseen = [(place / "val/images" / row[0], number[row[1]]) for row in rows]
    return _from_files("tiny-imagenet", names, seen, unseen, sizes, 64)


def _from_files(
    source: str,
    names: tuple[str, ...],
    seen: Files,
    unseen: Files,
    sizes: tuple[int, int, int],
    side: int,
) -> Dataset:
    train = _pick(torch.tensor([label for _, label in seen]), len(names), sizes[:1])[0]
    clean, test = _pick(torch.tensor([label for _, label in unseen]), len(names), sizes[1:])
    return Dataset(
        source,
        len(names),
        names,
        _opened(seen, train, side),
        _opened(unseen, clean, side),
        _opened(unseen, test, side),
    )


def _opened(files: Files, index: Tensor, side: int) -> Labelled:
    chosen = [files[position] for position in index.tolist()]
    images = np.stack([_image(file, side) for file, _ in chosen])
    return Labelled(torch.from_numpy(images), torch.tensor([label for _, label in chosen]))


def _image(file: Path, side: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    from PIL import Image  # not on every machine that only trains

    with Image.open(file) as opened:
        colour = opened.convert("RGB")
        if colour.size != (side, side):
            colour = colour.resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(colour, dtype=np.uint8).transpose(2, 0, 1)


def _pick(labels: Tensor, classes: int, sizes: tuple[int, ...]) -> list[Tensor]:
    """Disjoint positions for each size, equally many of every class, in seeded random order."""
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    chosen: list[list[Tensor]] = [[] for _ in sizes]
    for label in range(classes):
        own = torch.nonzero(labels == label).flatten()
        own = own[torch.randperm(len(own), generator=generator)]
        if sum(size // classes for size in sizes) > len(own):
            raise ValueError(f"Class {label} has only {len(own)} images; ask for smaller parts.")
        start = 0
        for part, size in zip(chosen, sizes, strict=True):
            part.append(own[start : start + size // classes])
            start += size // classes
    whole = [torch.cat(part) for part in chosen]
    return [index[torch.randperm(len(index), generator=generator)] for index in whole]


def _there(path: Path, what: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {what} must lie there.")
    return path
