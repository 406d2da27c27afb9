"""Parquet files as the Hugging Face Hub stores image data sets."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from guard.cleansets import RawSet, _parquet, read_source
from guard.core.errors import CleanSetError
from tests.cleansets.conftest import Maker, png

Encoded = tuple[RawSet, list[bytes], list[int]]


def write(
    path: Path,
    images: Sequence[Any],
    labels: Sequence[Any],
    *,
    image: str = "image",
    label: str = "label",
    struct: bool = True,
    metadata: dict[str, str] | None = None,
) -> Path:
    cells = [{"bytes": data, "path": None} for data in images] if struct else images
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    table = pa.table({image: pa.array(cells, kind), label: pa.array(labels)})
    parquet.write_table(table.replace_schema_metadata(metadata), path)
    return path


def refusal(path: Path) -> CleanSetError:
    with pytest.raises(CleanSetError) as caught:
        read_source(path)
    return caught.value


@pytest.fixture
def encoded(pictures: Maker) -> Encoded:
    raw = pictures(channels=3)
    return raw, [png(image) for image in raw.images], raw.labels.tolist()


@pytest.mark.parametrize(
    ("struct", "image", "label"),
    [(True, "image", "label"), (True, "img", "labels"), (False, "bytes", "label")],
)
def test_rows_give_the_pictures_that_were_written(
    tmp_path: Path, encoded: Encoded, struct: bool, image: str, label: str
) -> None:
    raw, images, labels = encoded

    read = read_source(
        write(tmp_path / "a.parquet", images, labels, struct=struct, image=image, label=label)
    )

    assert np.array_equal(read.images, raw.images)
    assert np.array_equal(read.labels, raw.labels)
    assert read.class_names == ("0", "1", "2")
    assert read.source(4) == "row 4"


def test_class_names_come_from_the_hub_s_features(tmp_path: Path, encoded: Encoded) -> None:
    _, images, labels = encoded
    features = {
        "info": {"features": {"label": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"}}}
    }

    read = read_source(
        write(
            tmp_path / "a.parquet", images, labels, metadata={"huggingface": json.dumps(features)}
        )
    )

    assert read.class_names == ("ant", "bee", "cat")


def test_text_labels_are_classes_in_sorted_order(tmp_path: Path, encoded: Encoded) -> None:
    raw, images, labels = encoded

    read = read_source(
        write(tmp_path / "a.parquet", images, [("c", "b", "a")[label] for label in labels])
    )

    assert read.class_names == ("a", "b", "c")
    assert np.array_equal(read.labels, 2 - raw.labels)


def test_columns_that_are_missing_or_double_are_named(tmp_path: Path, encoded: Encoded) -> None:
    _, images, labels = encoded

    error = refusal(write(tmp_path / "a.parquet", images, labels, image="picture"))

    assert error.code == "cleanset_bad_columns"
    assert "picture" in error.sentence


@pytest.mark.parametrize("bad", [0.5, True])
def test_labels_of_another_type_are_refused(tmp_path: Path, encoded: Encoded, bad: Any) -> None:
    _, images, labels = encoded

    assert (
        refusal(write(tmp_path / "a.parquet", images, [bad] * len(labels))).code
        == "cleanset_bad_labels"
    )


@pytest.mark.parametrize("bad", [-1, 10**9, 2**63])
def test_labels_out_of_range_are_refused(tmp_path: Path, encoded: Encoded, bad: Any) -> None:
    _, images, labels = encoded
    column = pa.array([bad, *labels[1:]], pa.uint64() if bad > 0 else pa.int64())

    assert refusal(write(tmp_path / "a.parquet", images, column)).code == "cleanset_bad_labels"


def test_empty_cells_are_named_by_row(tmp_path: Path, encoded: Encoded) -> None:
    _, images, labels = encoded

    without_image = refusal(write(tmp_path / "a.parquet", [*images[:7], None, *images[8:]], labels))
    without_label = refusal(write(tmp_path / "b.parquet", images, [*labels[:7], None, *labels[8:]]))

    assert without_image.code == "cleanset_unreadable_image"
    assert "row 7" in without_image.sentence
    assert without_label.code == "cleanset_bad_labels"
    assert "row 7" in without_label.sentence


def test_no_rows_is_empty(tmp_path: Path) -> None:
    assert (
        refusal(write(tmp_path / "a.parquet", [], pa.array([], pa.int64()))).code
        == "cleanset_empty"
    )


def test_what_is_no_parquet_is_refused(tmp_path: Path, encoded: Encoded) -> None:
    _, images, labels = encoded
    whole = write(tmp_path / "a.parquet", images, labels).read_bytes()
    for damage in (b"", b"PAR1", whole[: len(whole) // 2], b"\0" * 500):
        (tmp_path / "b.parquet").write_bytes(damage)

        assert refusal(tmp_path / "b.parquet").code == "cleanset_bad_archive"


def test_too_many_rows_are_refused_by_the_footer(
    tmp_path: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, images, labels = encoded
    path = write(tmp_path / "a.parquet", images, labels)
    monkeypatch.setattr(_parquet, "MAX_IMAGES", 29)

    assert refusal(path).code == "cleanset_too_large"
