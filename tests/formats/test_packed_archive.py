"""Packed archives are told by their magic and never opened."""

import bz2
import gzip
import io
import lzma
import tarfile

import pytest

from guard.formats._choose import choose


def sample() -> bytes:
    return gzip.compress(bytes(1 << 20))


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"))
    return file.getvalue()


@pytest.mark.threat("A07")
@pytest.mark.parametrize(
    "data",
    [
        sample(),
        _tar(),
        bz2.compress(b"x"),
        lzma.compress(b"x"),
        b"7z\xbc\xaf\x27\x1c" + bytes(26),
        b"\x28\xb5\x2f\xfd" + bytes(9),
        b"Rar!\x1a\x07\x01\x00",
    ],
)
def test_each_kind_is_told(data: bytes) -> None:
    assert type(choose(data[:4096], "model.safetensors")).__name__ == "PackedArchive"
