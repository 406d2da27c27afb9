"""Exactly one format claims a file, by its bytes."""

import pytest

from guard.core.errors import ArtifactRejected
from guard.formats._choose import choose
from tests.formats import test_safetensors


@pytest.mark.row(8)
@pytest.mark.parametrize(
    ("code", "head"),
    [
        ("empty_file", b""),
        ("unknown_format", b"#!/bin/sh\n"),
        ("unknown_format", b"\0" * 4096),
        ("unknown_format", b"\x7fELF"),
        ("polyglot", b"GGUF\0\0\0\0{}"),
        ("polyglot", b"PK\x03\x04\0\0\0\0{" + bytes(30)),
    ],
)
def test_what_no_single_format_claims_is_refused(code: str, head: bytes) -> None:
    with pytest.raises(ArtifactRejected) as caught:
        choose(head, "model.safetensors\x1b[0m")

    assert code == caught.value.code
    assert caught.value.sentence.isprintable()


@pytest.mark.row(10)
def test_the_name_does_not_matter() -> None:
    assert type(choose(test_safetensors.sample(), "model.pkl")).__name__ == "Safetensors"
