"""NumPy archives: layouts, and the limits that hold before anything is unpacked or unpickled."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.cleansets import _npz, read_source
from guard.core.errors import CleanSetError
from tests.cleansets.conftest import Maker


def write(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def refusal(path: Path) -> CleanSetError:
    with pytest.raises(CleanSetError) as caught:
        read_source(path)
    return caught.value


def pack(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array)
    return out.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_both_layouts_give_channels_first(
    tmp_path: Path, pictures: Maker, channels: int, layout: tuple[int, ...]
) -> None:
    raw = pictures(channels=channels)

    read = read_source(
        write(tmp_path / "a.npz", images=raw.images.transpose(layout), labels=raw.labels)
    )

    assert np.array_equal(read.images, raw.images)
    assert np.array_equal(read.labels, raw.labels)
    assert read.labels.dtype == np.int64


def test_grey_pictures_need_no_channel_axis_and_labels_may_be_a_column(
    tmp_path: Path, pictures: Maker
) -> None:
    raw = pictures()

    read = read_source(
        write(
            tmp_path / "a.npz", images=raw.images[:, 0], labels=raw.labels[:, None].astype(np.uint8)
        )
    )

    assert np.array_equal(read.images, raw.images)
    assert np.array_equal(read.labels, raw.labels)


def test_class_names_are_read(tmp_path: Path, pictures: Maker) -> None:
    raw = pictures()
    names = np.array(["ant", "bee", "cat"])

    read = read_source(
        write(tmp_path / "a.npz", images=raw.images, labels=raw.labels, class_names=names)
    )

    assert read.class_names == ("ant", "bee", "cat")


def test_pickled_arrays_are_never_loaded(tmp_path: Path, pictures: Maker) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("unpickled",)

    raw = pictures()
    path = tmp_path / "a.npz"
    np.savez(path, images=raw.images, labels=raw.labels, class_names=np.array([Bomb()], object))

    assert refusal(path).code == "cleanset_bad_archive"


@pytest.mark.parametrize("shape", [(30, 4, 5, 3), (30, 6, 5, 7), (30, 30), ()])
def test_layouts_that_cannot_be_told_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write(tmp_path / "a.npz", images=np.zeros(shape, np.uint8), labels=np.zeros(30, int))

    assert refusal(path).code == "cleanset_bad_archive"


def test_floats_are_no_pictures(tmp_path: Path, pictures: Maker) -> None:
    raw = pictures()

    error = refusal(write(tmp_path / "a.npz", images=raw.images / 255, labels=raw.labels))

    assert error.code == "cleanset_bad_archive"
    assert "uint8" in error.sentence


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros(29, int),
        np.zeros((30, 2), int),
        np.full(30, -1),
        np.full(30, 2**63, np.uint64),
        np.array(1),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, pictures: Maker, labels: np.ndarray
) -> None:
    assert (
        refusal(write(tmp_path / "a.npz", images=pictures().images, labels=labels)).code
        == "cleanset_bad_labels"
    )


def test_no_images_is_empty(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.npz", images=np.zeros((0, 1, 6, 5), np.uint8), labels=np.zeros(0, int)
    )

    assert refusal(path).code == "cleanset_empty"


def test_missing_and_surplus_arrays_are_refused(tmp_path: Path, pictures: Maker) -> None:
    raw = pictures()

    for arrays in (
        {"images": raw.images},
        {"labels": raw.labels},
        {"images": raw.images, "labels": raw.labels, "more": raw.labels},
    ):
        assert refusal(write(tmp_path / "a.npz", **arrays)).code == "cleanset_bad_archive"


def test_a_zip_bomb_is_refused_by_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        tmp_path / "a.npz", images=np.zeros((4000, 1, 28, 28), np.uint8), labels=np.zeros(4000, int)
    )
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *a, **k: pytest.fail("unpacked"))

    assert refusal(path).code == "cleanset_too_large"


def test_the_size_limit_holds_before_unpacking(
    tmp_path: Path, pictures: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = pictures()
    path = write(tmp_path / "a.npz", images=raw.images, labels=raw.labels)
    monkeypatch.setattr(_npz, "MAX_PIXEL_BYTES", 500)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *a, **k: pytest.fail("unpacked"))

    assert refusal(path).code == "cleanset_too_large"


def test_a_header_that_promises_more_than_the_member_holds_is_refused(
    tmp_path: Path, pictures: Maker
) -> None:
    raw = pictures()
    lying = npy(raw.images).replace(b"(30, 1, 6, 5)", b"(10**9,1,6,5)")
    longer = npy(raw.images).replace(b"(30, 1, 6, 5)", b"(99, 9, 9, 9)")

    for data in (lying, longer, b"\x93NUMPY", b"", b"nonsense" * 9):
        path = pack(tmp_path / "a.npz", {"images.npy": data, "labels.npy": npy(raw.labels)})
        assert refusal(path).code == "cleanset_bad_archive"


def test_damaged_archives_are_refused(tmp_path: Path, pictures: Maker) -> None:
    raw = pictures()
    path = write(tmp_path / "a.npz", images=raw.images, labels=raw.labels)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF  # inside the compressed images: the checksum must catch it

    for damage in (b"", b"PK", whole[:-30], bytes(flipped)):
        path.write_bytes(damage)
        assert refusal(path).code == "cleanset_bad_archive"
