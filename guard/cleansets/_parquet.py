"""A Parquet file with encoded images and labels, as the Hugging Face Hub stores image data sets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from guard.cleansets._decode import decode
from guard.cleansets._raw import (
    MAX_IMAGES,
    MAX_PIXEL_BYTES,
    RawSet,
    as_labels,
    numbered,
    order_names,
    refuse,
    stack,
)

IMAGE_COLUMNS = ("image", "img", "bytes")
LABEL_COLUMNS = ("label", "labels")
_ROWS = 64  # decoded at a time, so that the encoded bytes of the whole file are never in memory


def claims(path: Path) -> bool:
    """Whether this reader accepts `path`."""
    return path.is_file() and path.suffix.lower() == ".parquet"


def read(path: Path) -> RawSet:
    """Read the columns `image` (bytes, or a struct with `bytes`) and `label` (integers, or text).

    Integer labels take their names from the Hugging Face features in the file's metadata, where
    there are some.

    Raises:
        CleanSetError: not a Parquet file, a column is missing or of another type, a row is empty,
            an image is broken.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            image, label = columns_of(file)
            rows = file.metadata.num_rows
            _check_size(file)
            labels: list[Any] = []
            images, sources = stack(_images(file, image, label, labels), rows)
            features = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    except (pa.ArrowException, OSError) as error:
        raise refuse(
            "bad_archive", f"{path.name} cannot be read as Parquet ({type(error).__name__})."
        ) from error
    if all(isinstance(value, str) for value in labels):
        names = order_names(labels)
        place = {name: index for index, name in enumerate(names)}
        return RawSet(
            images, np.array([place[value] for value in labels], np.int64), names, sources
        )
    if not all(type(value) is int for value in labels):
        raise refuse(
            "bad_labels", f"The column {label} of {path.name} must hold integers or text only."
        )
    numbers = as_labels(labels, path.name)
    return RawSet(images, numbers, names_in(features, label) or numbered(numbers), sources)


def columns_of(file: Any) -> tuple[str, str]:
    """The columns of images and of labels in an open `ParquetFile`.

    Raises:
        CleanSetError: there is not exactly one of each.
    """
    found = file.schema_arrow.names
    chosen = []
    for meaning, known in (("images", IMAGE_COLUMNS), ("labels", LABEL_COLUMNS)):
        mine = [name for name in known if name in found]
        if len(mine) != 1:
            raise refuse(
                "bad_columns",
                f"The Parquet file must hold its {meaning} in exactly one column called "
                f"{' or '.join(known)}; it has: {', '.join(found)[:200]}.",
            )
        chosen.append(mine[0])
    return chosen[0], chosen[1]


def _check_size(file: Any) -> None:
    metadata = file.metadata
    total = sum(
        metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)
    )
    if metadata.num_rows > MAX_IMAGES or total > MAX_PIXEL_BYTES:
        raise refuse(
            "too_large",
            f"The file has {metadata.num_rows:,} rows and {total:,} bytes; take a sample of it.",
        )


def _images(
    file: Any, image: str, label: str, labels: list[Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """Decode row by row; the labels are appended to `labels` on the way."""
    row = 0
    for batch in file.iter_batches(batch_size=_ROWS, columns=[image, label]):
        for cell, value in zip(
            batch.column(image).to_pylist(), batch.column(label).to_pylist(), strict=True
        ):
            source = f"row {row}"
            data = encoded_in(cell, source, image)
            if value is None:
                raise refuse("bad_labels", f"{source} has no label; give it one or remove it.")
            labels.append(value)
            yield source, decode(data, source)
            row += 1


def encoded_in(cell: Any, source: str, column: str) -> bytes:
    """The encoded image in one cell of the column of images.

    Raises:
        CleanSetError: there are no bytes in it.
    """
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise refuse(
            "unreadable_image",
            f"{source} has no image bytes in the column {column}; embed them.",
        )
    return data


def names_in(features: bytes, label: str) -> tuple[str, ...] | None:
    """The class names in the metadata `huggingface` of a file, None where there are none."""
    try:
        names = json.loads(features)["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    good = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if good else None
