"""Zip archives that are no checkpoint are told apart by their members, and never unpacked."""

import io
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected
from guard.formats._choose import choose
from tests.formats.torch_zips import zipped


def sample() -> bytes:
    """A TorchServe archive with code."""
    return zipped({"MAR-INF/MANIFEST.json": b"{}", "handler.py": b"import os"})


def refused(data: bytes) -> str:
    kind = choose(data[:4096], "model.zip")
    with pytest.raises(ArtifactRejected) as caught:
        kind.inspect(io.BytesIO(data), budget=Budget(tensors=100))
    return caught.value.code


def _numpy() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


def _torchscript() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), file)
    return file.getvalue()


def _exported() -> bytes:
    file = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), file)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("torchserve_archive", sample),
        ("numpy_archive", _numpy),
        ("torchscript", _torchscript),
        ("exported_program", _exported),
        (
            "keras_archive",
            lambda: zipped({"metadata.json": b"", "config.json": b"", "model.weights.h5": b""}),
        ),
        ("zip_archive", lambda: zipped({"model.safetensors": b""})),
        ("zip_archive", lambda: zipped({})),
        ("zip_broken", lambda: zipped({"a": b""})[:-3]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_kind_is_named(code: str, make: object) -> None:
    assert callable(make)
    assert code == refused(make())


@pytest.mark.row(9)
@pytest.mark.threat("C02")
def test_a_bomb_is_refused_unopened() -> None:
    """10 MB of zeros in each of many members: only their names are read."""
    bomb = zipped({f"{i}.zip": bytes(10 << 20) for i in range(5)}, zipfile.ZIP_DEFLATED)

    assert refused(bomb) == "zip_archive"


@pytest.mark.threat("C02")
def test_a_list_that_is_too_long_is_not_read() -> None:
    assert refused(zipped({f"{i}": b"" for i in range(200)})) == "zip_too_many_members"


def test_the_64_bit_end_record_cannot_tell_another_story() -> None:
    """torch.save writes both records; readers differ in which one they take."""
    file = io.BytesIO()
    torch.save({"w": torch.zeros(1)}, file)
    data = bytearray(file.getvalue())
    place = data.rfind(b"PK\x06\x06")
    data[place + 32] ^= 1

    assert refused(bytes(data)) == "zip_broken"


def test_a_list_longer_than_its_count_is_refused() -> None:
    data = bytearray(zipped({"a": b"", "b": b""}))
    data[-14:-10] = b"\x01\0\x01\0"

    assert refused(bytes(data)) == "zip_broken"


@pytest.mark.row(12)
def test_a_torchserve_archive_names_its_weights_and_what_to_upload() -> None:
    files = {f"w{index}.pt": b"" for index in range(6)} | {"odd\x1b.PTH": b""}
    data = zipped({"MAR-INF/MANIFEST.json": b"{}", "handler.py": b"", **files})
    with pytest.raises(ArtifactRejected) as caught:
        choose(data[:4096], "model.mar").inspect(io.BytesIO(data), budget=Budget(tensors=100))
    sentence = caught.value.sentence

    assert "run as code" in sentence
    assert "and 2 more; the guard builds its own archive" in sentence
    assert "upload model.safetensors with its config.json" in sentence
    assert "handler.py" not in sentence
    assert "\x1b" not in sentence


def test_an_archive_without_weights_is_refused_all_the_same() -> None:
    data = zipped({"MAR-INF/MANIFEST.json": b"{}"})
    with pytest.raises(ArtifactRejected, match="where it is served; the guard builds"):
        choose(data[:4096], "x").inspect(io.BytesIO(data), budget=Budget(tensors=100))
