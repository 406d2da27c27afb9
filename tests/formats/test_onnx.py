"""ONNX files are told by the first fields of their protobuf."""

import struct

import pytest

from guard.formats.onnx import Onnx


def sample() -> bytes:
    """IR version 8, producer 'pytorch', an empty graph."""
    return b"\x08\x08\x12\x07pytorch\x3a\x00\x42\x02\x10\x11"


@pytest.mark.threat("C07")
def test_a_graph_without_a_producer_is_told_too() -> None:
    assert Onnx().claims(b"\x08\x0a\x3a\x02\x12\x00", "x")


@pytest.mark.parametrize("length", [0x0308, 0x1208, 0x0808])
def test_a_safetensors_length_that_starts_alike_is_not_claimed(length: int) -> None:
    assert not Onnx().claims(struct.pack("<Q", length) + b'{"w":', "model.onnx")
