"""HDF5 files are told by their magic."""

from guard.formats.hdf5 import Hdf5


def sample() -> bytes:
    return b"\x89HDF\r\n\x1a\n" + bytes(88)


def test_the_magic_decides_and_not_the_name() -> None:
    assert Hdf5().claims(sample(), "model.safetensors")
    assert not Hdf5().claims(b"\x89PNG\r\n\x1a\n" + bytes(88), "model.h5")
