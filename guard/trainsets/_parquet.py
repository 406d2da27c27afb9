"""One Parquet file with encoded images and labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from guard.cleansets.reading import columns_of, encoded_in, names_in
from guard.core.errors import CleanSetError
from guard.trainsets._source import Item, refuse, unreadable

_ROWS = 8  # in memory at a time, encoded: one repeated large value takes no room in the file
#: Read from the file at a time; without it, Arrow reads whole columns of a row group.
_BUFFER = 1 << 20
#: Encoded images hardly shrink, so a page that unpacks to far more is meant to fill memory.
MAX_RATIO, _SMALL = 200, 1 << 20


class ParquetFile:
    """The columns `image` (bytes, or a struct with `bytes`) and `label` of one file.

    Raises:
        TrainingSetError: it is no such file, or unpacks to far more than its size.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.name = name
        with _opened(path) as file:
            self.total = int(file.metadata.num_rows)
            self._image, self._label = _columns(file)
            _check_bomb(file, self._image, path.name)
            features = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
            self.names = names_in(features, self._label)

    def items(self, keep: np.ndarray | None) -> Iterator[Item]:
        """As `Source.items`."""
        import pyarrow as pa

        row = 0
        try:
            with _opened(self.path) as file:
                for batch in file.iter_batches(
                    batch_size=_ROWS, columns=[self._image, self._label]
                ):
                    yield from self._batch(batch, row, keep)
                    row += batch.num_rows
        except (pa.ArrowException, OSError, MemoryError) as error:
            raise unreadable(self.path.name, error) from error

    def _batch(self, batch: Any, row: int, keep: np.ndarray | None) -> Iterator[Item]:
        images, labels = batch.column(self._image), batch.column(self._label).to_pylist()
        for index, label in enumerate(labels):
            if keep is not None and not keep[row + index]:
                continue
            source = f"{self.name} row {row + index}".strip()
            if type(label) not in (int, str):
                raise refuse(
                    "bad_labels",
                    f"{source} has no label that is an integer or text; correct the column "
                    f"{self._label}.",
                )
            try:
                data = encoded_in(images[index].as_py(), source, self._image)
            except CleanSetError as error:
                yield Item(source, 0, label, None, error.sentence)
                continue
            yield Item(source, len(data), label, data)


def _opened(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path, page_checksum_verification=True, buffer_size=_BUFFER)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path.name, error) from error


def _columns(file: Any) -> tuple[str, str]:
    try:
        return columns_of(file)
    except CleanSetError as error:
        raise refuse("bad_columns", error.sentence) from error


def _check_bomb(file: Any, image: str, name: str) -> None:
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            unpacked, packed = column.total_uncompressed_size, column.total_compressed_size
            mine = column.path_in_schema.split(".")[0] == image
            if mine and unpacked > _SMALL and unpacked > MAX_RATIO * max(1, packed):
                raise refuse(
                    "bomb",
                    f"The images of {name} unpack to over {MAX_RATIO} times their size; write the "
                    "file without compression.",
                )
