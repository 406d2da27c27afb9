"""Small pictures in the three forms that the guard reads."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guard.cleansets import RawSet

Maker = Callable[..., RawSet]
Writer = Callable[[RawSet], Path]


def png(picture: np.ndarray) -> bytes:
    """uint8 C,H,W as the bytes of a PNG."""
    out = io.BytesIO()
    plain = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
    Image.fromarray(plain).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def pictures() -> Maker:
    """A maker of distinct random pictures, `each` per class."""

    def make(classes: int = 3, each: int = 10, channels: int = 1, seed: int = 0) -> RawSet:
        draw = np.random.default_rng(seed)
        images = draw.integers(0, 256, (classes * each, channels, 6, 5)).astype(np.uint8)
        labels = np.tile(np.arange(classes), each)
        return RawSet(images, labels, tuple(str(label) for label in range(classes)))

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Writer:
    """A writer of image folders."""

    def write(raw: RawSet) -> Path:
        root = tmp_path / "pictures"
        for index, (image, label) in enumerate(zip(raw.images, raw.labels, strict=True)):
            place = root / raw.class_names[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index:04}.png").write_bytes(png(image))
        return root

    return write
