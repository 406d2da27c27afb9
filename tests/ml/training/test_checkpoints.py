"""A checkpoint is whole or not there, belongs to one request, and notices damage."""

from pathlib import Path

import pytest
import torch

from guard.core.digests import sha256
from guard.core.errors import IntegrityMismatch, Unavailable
from guard.ml.training.checkpoints import FolderCheckpoint

ONE, TWO = sha256(b"one"), sha256(b"two")


def test_it_gives_back_tensors_and_values_of_every_kind(tmp_path: Path) -> None:
    checkpoint = FolderCheckpoint(tmp_path / "new", ONE)
    shared = torch.randn(3, 4)
    tensors = {
        "a/weight": shared,
        "b/weight": shared,
        "turned": shared.T,
        "scalar": torch.tensor(3),
        "flags": torch.tensor([True, False]),
        "state": torch.get_rng_state(),
        "empty": torch.empty(0, 2),
        "half": torch.randn(2).bfloat16(),
    }
    plain = {"rate": 0.1 + 0.2, "none": None, "list": [1, "ä"], "big": 2**62 + 1}

    checkpoint.save(tensors, plain)
    found = FolderCheckpoint(tmp_path / "new", ONE).load()

    assert found is not None
    assert found[1] == plain
    assert found[0].keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[0][name], tensor)
        assert found[0][name].dtype == tensor.dtype


def test_nothing_was_saved_for_another_request(tmp_path: Path) -> None:
    FolderCheckpoint(tmp_path, ONE).save({"a": torch.ones(2)}, {"n": 1})

    assert FolderCheckpoint(tmp_path, TWO).load() is None


def test_the_newest_state_counts(tmp_path: Path) -> None:
    checkpoint = FolderCheckpoint(tmp_path, ONE)
    for number in range(3):
        checkpoint.save({"a": torch.full((2,), float(number))}, {"n": number})
    found = checkpoint.load()

    assert found is not None
    assert found[1] == {"n": 2}
    assert [file.name for file in tmp_path.iterdir()] == [checkpoint.path.name]


@pytest.mark.parametrize("place", [20, -1])
def test_a_changed_byte_is_noticed(tmp_path: Path, place: int) -> None:
    checkpoint = FolderCheckpoint(tmp_path, ONE)
    checkpoint.save({"a": torch.ones(2)}, {"n": 1})
    data = bytearray(checkpoint.path.read_bytes())
    data[place] ^= 1
    checkpoint.path.write_bytes(data)

    with pytest.raises(IntegrityMismatch, match="is damaged") as refused:
        checkpoint.load()
    assert refused.value.code == "training_checkpoint_damaged"


def test_a_cut_off_file_is_noticed(tmp_path: Path) -> None:
    checkpoint = FolderCheckpoint(tmp_path, ONE)
    checkpoint.save({"a": torch.ones(200)}, {"n": 1})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-100])

    with pytest.raises(IntegrityMismatch):
        checkpoint.load()


def test_a_write_that_fails_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = FolderCheckpoint(tmp_path, ONE)
    checkpoint.save({"a": torch.ones(2)}, {"n": 1})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Unavailable, match="No space left") as failed:
        checkpoint.save({"a": torch.zeros(2)}, {"n": 2})
    found = checkpoint.load()

    assert failed.value.code == "training_checkpoint"
    assert found is not None
    assert found[1] == {"n": 1}


def test_it_can_be_forgotten(tmp_path: Path) -> None:
    checkpoint = FolderCheckpoint(tmp_path, ONE)
    checkpoint.save({"a": torch.ones(2)}, {"n": 1})
    checkpoint.forget()
    checkpoint.forget()

    assert checkpoint.load() is None
    assert not list(tmp_path.iterdir())


def test_a_request_is_named_by_its_digest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        FolderCheckpoint(tmp_path, "../../etc/passwd")
