"""One model, one byte string; and nothing but what the guard wrote is read as canonical."""

import hashlib
import io
import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch

from guard.core.errors import ArtifactRejected
from guard.core.manifest import Manifest
from guard.formats._canonical import read_canonical, read_manifest, write_canonical

MANIFEST = Manifest(
    architecture="cifar_resnet",
    num_classes=2,
    input_size=(3, 8, 8),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    model_args={"width": 4},
    label_names=("Kätzchen", 'quo"te'),
)


def tensors() -> dict[str, torch.Tensor]:
    return {
        "b.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "a.bias": torch.ones(3, dtype=torch.bfloat16),
        "steps": torch.tensor(5),
        "flag": torch.tensor([True, False, True]),
        "half": torch.ones(1, dtype=torch.float16),
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "canonical"

    digest = write_canonical(tensors(), MANIFEST, path)
    manifest, found = read_canonical(path)

    assert manifest == MANIFEST
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert tensors().keys() == found.keys()
    for name, tensor in tensors().items():
        assert tensor.dtype == found[name].dtype
        assert torch.equal(tensor, found[name])


def test_the_digest_does_not_depend_on_order_or_memory_layout(tmp_path: Path) -> None:
    again = dict(reversed(tensors().items()))
    again["b.weight"] = again["b.weight"].t().contiguous().t()

    assert write_canonical(tensors(), MANIFEST, tmp_path / "a") == write_canonical(
        again, MANIFEST, tmp_path / "b"
    )


@pytest.mark.threat("A21")
def test_the_digest_covers_the_manifest(tmp_path: Path) -> None:
    other = Manifest.from_dict({**MANIFEST.to_dict(), "label_names": ["dog", "cat"]})

    assert write_canonical(tensors(), MANIFEST, tmp_path / "a") != write_canonical(
        tensors(), other, tmp_path / "b"
    )


def test_the_reference_library_reads_it_and_tensors_are_aligned(tmp_path: Path) -> None:
    write_canonical(tensors(), MANIFEST, tmp_path / "a")

    with safetensors.safe_open(tmp_path / "a", "pt") as file:
        assert sorted(tensors()) == sorted(file.keys())
        assert torch.equal(tensors()["b.weight"], file.get_tensor("b.weight"))
    length = struct.unpack("<Q", (tmp_path / "a").read_bytes()[:8])[0]
    assert length % 8 == 0


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(ArtifactRejected):
        write_canonical({"w": torch.zeros(1, dtype=torch.complex64)}, MANIFEST, tmp_path / "a")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../w", "", "w\n"])
def test_a_bad_name_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactRejected) as caught:
        write_canonical({name: torch.zeros(1)}, MANIFEST, tmp_path / "a")

    assert caught.value.code == "name_bad"


def test_an_ordinary_safetensors_file_is_not_canonical() -> None:
    file = io.BytesIO(safetensors.torch.save(tensors()))

    with pytest.raises(ArtifactRejected) as caught:
        read_canonical(file)

    assert caught.value.code == "not_canonical"


@pytest.mark.threat("C05")
@pytest.mark.parametrize("change", ["spaces", "manifest", "version", "more"])
def test_the_same_content_written_otherwise_is_not_canonical(tmp_path: Path, change: str) -> None:
    write_canonical(tensors(), MANIFEST, tmp_path / "a")
    data = (tmp_path / "a").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    metadata = header["__metadata__"]
    if change == "manifest":
        metadata["guard.manifest"] = metadata["guard.manifest"].replace(":", ": ")
    elif change == "version":
        metadata["guard.format"] = "2"
    elif change == "more":
        metadata["note"] = "x"
    separators = (", ", ": ") if change == "spaces" else (",", ":")
    text = json.dumps(header, sort_keys=True, separators=separators, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)

    with pytest.raises(ArtifactRejected) as caught:
        read_manifest(io.BytesIO(struct.pack("<Q", len(text)) + text + data[8 + length :]))

    assert caught.value.code == "not_canonical"


@pytest.mark.threat("A23")
def test_one_changed_weight_is_another_digest_but_still_readable(tmp_path: Path) -> None:
    changed = tensors()
    changed["b.weight"][0, 0] += 1e-6

    assert write_canonical(tensors(), MANIFEST, tmp_path / "a") != write_canonical(
        changed, MANIFEST, tmp_path / "b"
    )
    assert torch.equal(changed["b.weight"], read_canonical(tmp_path / "b")[1]["b.weight"])
