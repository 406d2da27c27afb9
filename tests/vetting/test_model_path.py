"""What is read of a path on disk: one file, or an index with the shards beside it."""

from pathlib import Path

import pytest

from guard.core import shards
from guard.core.errors import ArtifactRejected, InputError
from guard.core.shards import opening
from guard.offline_inputs import name_of
from guard.vetting.model_path import in_one_file, locate, shards_beside

INDEX = "model.safetensors.index.json"
FIRST, SECOND = (f"model-0000{place}-of-00002.safetensors" for place in (1, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards with their index and what does not belong to them."""
    for name in (FIRST, SECOND, INDEX, "config.json", "README.md"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_a_folder_of_shards_is_read_by_its_index(folder: Path) -> None:
    assert locate(folder) == (folder / INDEX, folder / "config.json")
    assert locate(folder / INDEX) == (folder / INDEX, folder / "config.json")
    assert name_of(folder / INDEX) == folder.name
    assert [item.name for item in shards_beside(folder / INDEX)] == [FIRST, SECOND]


def test_a_whole_model_beside_the_shards_is_what_is_meant(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"whole")

    assert locate(folder)[0].name == "model.safetensors"


def test_two_indexes_are_two_models(folder: Path) -> None:
    (folder / "other.safetensors.index.json").write_bytes(b"{}")

    with pytest.raises(InputError, match="holds 2 model files"):
        locate(folder)


def test_index_and_shards_become_one_file_which_is_not_left_behind(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("out")
    # A shard of another index, one of pickles and a folder are no shards of this one.
    (folder / "ema-00001-of-00002.safetensors").write_bytes(b"other")
    (folder / "model-00001-of-00002.bin").write_bytes(b"other")
    (folder / "model-00003-of-00003.safetensors").mkdir()

    with in_one_file(folder / INDEX, out, 1 << 20) as packed:
        data = packed.read_bytes()

    sizes = [(name, len(name)) for name in (FIRST, SECOND)]
    assert data == opening(INDEX, len(INDEX), sizes) + f"{INDEX}{FIRST}{SECOND}".encode()
    assert list(out.iterdir()) == []


def test_shards_over_the_limit_are_refused_before_they_are_copied(folder: Path) -> None:
    with (
        pytest.raises(ArtifactRejected) as caught,
        in_one_file(folder / INDEX, folder / "nowhere", len(INDEX) + len(FIRST)),
    ):
        pass

    assert caught.value.code == "file_too_large"


def test_the_names_of_shards_and_indexes_belong_together() -> None:
    found = shards.shard(FIRST)

    assert found == shards.Shard(INDEX, safe=True)
    assert shards.is_index(f"models/{INDEX}")
    assert shards.is_index("models/pytorch_model.bin.index.json")
    assert not shards.is_index("models/model.onnx.index.json")
    assert not shards.is_index("model.safetensors.index.json/README")
    assert f"models/{FIRST}".startswith(shards.stem(f"models/{INDEX}"))
    pickled = shards.shard("pytorch_model-00001-of-00002.bin")
    assert pickled == shards.Shard("pytorch_model.bin.index.json", safe=False)
    assert shards.stem("m/pytorch_model.bin.index.json") == "m/pytorch_model-"
