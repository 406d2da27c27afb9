"""Bare pickles are told by their opcodes; safetensors whose length starts like one are not."""

import pickle
import struct
from collections import OrderedDict
from typing import Any

import pytest

from guard.core.errors import ArtifactRejected
from guard.formats._choose import choose
from guard.formats.pickle_file import PickleFile


def sample() -> bytes:
    return pickle.dumps(OrderedDict(a=[1.0] * 3), protocol=2)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", [{}, 7, "text", [1] * 5000, b"x" * 10_000, print])
def test_pickles_of_each_protocol_are_told(protocol: int, value: Any) -> None:
    assert PickleFile().claims(pickle.dumps(value, protocol=protocol)[:4096], "model.safetensors")


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_a_safetensors_length_that_starts_alike_is_not_claimed(length: int) -> None:
    head = (
        struct.pack("<Q", length)
        + b'{"conv1.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
    )

    assert not PickleFile().claims(head, "model.pkl")
    assert type(choose(head, "model.pkl")).__name__ == "Safetensors"


@pytest.mark.row(10)
@pytest.mark.threat("C06")
def test_a_file_that_is_pickle_and_safetensors_is_refused() -> None:
    """The opcode G swallows the rest of the length and the brace.

    What follows are opcodes in a tensor's name.
    """
    head = b"\x80\x02G" + bytes(5) + b'{"a0000.":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'

    with pytest.raises(ArtifactRejected) as caught:
        choose(head, "model.safetensors")

    assert caught.value.code == "polyglot"
