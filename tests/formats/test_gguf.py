"""GGUF files are told by their magic."""

from guard.formats.gguf import Gguf


def sample() -> bytes:
    return b"GGUF" + bytes([3, 0, 0, 0]) + bytes(16)


def test_the_magic_decides_and_not_the_name() -> None:
    assert Gguf().claims(sample(), "model.safetensors")
    assert not Gguf().claims(b"gguf" + bytes(20), "model.gguf")
