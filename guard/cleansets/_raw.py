"""What every reader returns, the limits it keeps, and how images become one array."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from guard.core.errors import CleanSetError
from guard.core.manifest import MAX_CLASSES

#: Images in one set; ImageNet's training part has 1.3 million, and no clean set needs that many.
MAX_IMAGES = 1_000_000
#: All decoded pixels together, because every scan that uses a set holds it in memory.
MAX_PIXEL_BYTES = 4 << 30


@dataclass(frozen=True)
class RawSet:
    """Labelled images as read, not yet checked.

    Attributes:
        images: uint8 N,C,H,W.
        labels: int64 N.
        class_names: one name per class.
        sources: where each image came from (a file, a row), for error messages; may be empty.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    sources: tuple[str, ...] = ()

    def source(self, index: int) -> str:
        """The name of image `index` in an error message."""
        return self.sources[index] if self.sources else f"image {index}"


def refuse(code: str, sentence: str) -> CleanSetError:
    """The error for a broken rule that `code` names."""
    return CleanSetError(sentence, code=f"cleanset_{code}")


def check_size(count: int, pixels: int) -> None:
    """Refuse a set before it is allocated.

    Args:
        count: number of images.
        pixels: bytes of one decoded image.

    Raises:
        CleanSetError: the set is empty, or larger than the guard would hold in memory.
    """
    if count < 1 or pixels < 1:
        raise refuse("empty", "The clean set holds no images; give at least a few of each class.")
    if count > MAX_IMAGES:
        raise refuse(
            "too_large",
            f"The clean set has {count:,} images; the limit is {MAX_IMAGES:,}, so take a sample.",
        )
    if count * pixels > MAX_PIXEL_BYTES:
        raise refuse(
            "too_large",
            f"The clean set is {count * pixels / 2**30:.1f} GiB of pixels; the limit is "
            f"{MAX_PIXEL_BYTES >> 30} GiB, so take a sample of it.",
        )


def stack(
    decoded: Iterable[tuple[str, np.ndarray]], count: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """`count` decoded images (source, uint8 C,H,W) as one array N,C,H,W, and their sources.

    Raises:
        CleanSetError: there are no images or too many pixels, or an image's size or channels differ
            from the first one's.
    """
    images: np.ndarray | None = None
    sources: list[str] = []
    for index, (source, image) in enumerate(decoded):
        if images is None:
            check_size(count, image.size)
            images = np.empty((count, *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise refuse(
                "mixed_sizes",
                f"{source} is {_size(image.shape)}, but {sources[0]} is {_size(images.shape[1:])}; "
                "bring all images to the model's input size and to one colour mode.",
            )
        images[index] = image
        sources.append(source)
    if images is None or len(sources) != count:
        raise refuse("empty", "The clean set holds no images; give at least a few of each class.")
    return images, tuple(sources)


def order_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in class order: sorted as numbers where all are integers, otherwise as text.

    Raises:
        CleanSetError: numbers that start at 0 or 1 leave a gap (a class is missing), or a number
            occurs twice.
    """
    found = sorted(set(names))
    # Numbers are sorted as numbers. torchvision's ImageFolder would put "10" before "2", and labels
    # would change without notice.
    if not found or not all(name.isascii() and name.isdigit() for name in found):
        return tuple(found)
    numbers = sorted((int(name), name) for name in found)
    values = [value for value, _ in numbers]
    if len(set(values)) != len(values):
        raise refuse(
            "bad_names", "Two classes have the same number (such as 1 and 01); rename one of them."
        )
    if values[0] <= 1 and values[-1] - values[0] + 1 != len(values):
        gap = next(value for value in range(values[0], values[-1]) if value not in values)
        raise refuse(
            "missing_class",
            f"There is no class {gap} between {values[0]} and {values[-1]}; add its images.",
        )
    return tuple(name for _, name in numbers)


def as_labels(values: Sequence[int] | np.ndarray, where: str) -> np.ndarray:
    """Integer labels as int64 N.

    Raises:
        CleanSetError: a label is negative or above the largest number of classes.
    """
    low, high = int(min(values)), int(max(values))
    if low < 0 or high >= MAX_CLASSES:
        raise refuse(
            "bad_labels", f"{where}: labels run from {low} to {high}; number the classes from 0."
        )
    return np.asarray(values).astype(np.int64)


def numbered(labels: np.ndarray) -> tuple[str, ...]:
    """The classes' numbers, as names for classes that have none."""
    return tuple(str(index) for index in range(int(labels.max()) + 1))


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names that can be shown: unique, printable, 1 to 200 characters.

    Raises:
        CleanSetError: a name breaks this rule, or there are too few or too many names.
    """
    checked = tuple(names)
    if len(checked) < 2 or len(checked) > MAX_CLASSES:
        raise refuse(
            "bad_names",
            f"The clean set names {len(checked)} class(es); it needs 2 to {MAX_CLASSES:,}.",
        )
    for name in checked:
        if not 0 < len(name) <= 200 or not name.isprintable():
            raise refuse(
                "bad_names",
                f"The class name {name!r:.100} is not 1 to 200 printable characters; rename it.",
            )
    if len(set(checked)) != len(checked):
        raise refuse("bad_names", "Two classes have the same name; give each its own.")
    return checked


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    return f"{width}x{height} {colour}"
