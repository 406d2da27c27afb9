"""Small training sets on disk, in each form that the guard reads."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

NAMES = ("ant", "bee", "cow")


def images_of(count: int, *, seed: int = 0, shape: tuple[int, int, int] = (1, 6, 5)) -> np.ndarray:
    """Distinct random images, uint8 N,C,H,W."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def labels_of(count: int, classes: int = 3) -> np.ndarray:
    """Labels that take turns, int64 N."""
    return np.arange(count) % classes


def png(image: np.ndarray) -> bytes:
    """An image uint8 C,H,W as the bytes of a PNG."""
    out = io.BytesIO()
    plain = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(plain).save(out, "PNG")
    return out.getvalue()


def folder(
    root: Path, images: np.ndarray, labels: np.ndarray, names: Sequence[str] = NAMES
) -> Path:
    """An image folder."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = root / names[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{index:04}.png").write_bytes(png(image))
    return root


def parquet_file(
    path: Path, cells: Sequence[Any], labels: Sequence[Any], names: Sequence[str] = ()
) -> Path:
    """A Parquet file as the Hugging Face Hub has them; `cells` are encoded images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": [{"bytes": cell} for cell in cells], "label": list(labels)})
    if names:
        features = {"info": {"features": {"label": {"names": list(names)}}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(features).encode()})
    parquet.write_table(table, path, row_group_size=7)
    return path


def npz(path: Path, images: np.ndarray, labels: np.ndarray, names: Sequence[str] = ()) -> Path:
    """A NumPy archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if names:
        np.savez(path, images=images, labels=labels, class_names=np.array(names))
    else:
        np.savez(path, images=images, labels=labels)
    return path
