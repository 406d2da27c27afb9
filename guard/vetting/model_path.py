"""Find the weights file and the manifest that belong to a path on disk."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from guard.core.companions import is_companion
from guard.core.errors import ArtifactRejected, InputError
from guard.core.manifest import MANIFEST_FILE
from guard.core.preprocessor import MAX_PREPROCESSOR_BYTES, PREPROCESSOR_FILE, joined
from guard.core.shards import MAX_SHARDS, is_index, opening, shard
from guard.core.transformers_configs import lacks_preprocessor

_SHOWN = 5


def locate(path: Path) -> tuple[Path, Path | None]:
    """The weights file, or the index of its shards, and the manifest that belong to a path on disk.

    Raises:
        InputError: there is no such file, or the folder holds no single model.
    """
    if path.is_file():
        manifest = path.with_name(MANIFEST_FILE)
        return path, (manifest if manifest.is_file() else None)
    if not path.is_dir():
        raise InputError(
            f"{path} does not exist; give a model file or a folder with model.safetensors and "
            f"{MANIFEST_FILE}."
        )
    usual = path / "model.safetensors"
    found = [usual] if usual.is_file() else _models(path)
    if len(found) != 1:
        names = ", ".join(item.name for item in found[:_SHOWN])
        raise InputError(
            f"{path} holds {len(found)} model files{f' ({names})' if names else ''}; it should "
            f"hold model.safetensors and {MANIFEST_FILE}, or give the one file that is meant."
        )
    manifest = path / MANIFEST_FILE
    return found[0], manifest if manifest.is_file() else None


def _models(folder: Path) -> list[Path]:
    """What may be a model in a folder: of shards their index, or the first where it is missing."""
    files = sorted(item for item in folder.iterdir() if item.is_file())
    found: dict[str, Path] = {}
    for item in files:
        part = shard(item.name)
        if is_index(item.name):
            found[item.name] = item
        elif part is not None:
            found.setdefault(part.index, item)
        elif not is_companion(item.name):
            found[item.name] = item
    return list(found.values())


def manifest_bytes(manifest: Path) -> bytes:
    """The bytes of a `config.json`, with the preprocessor's file beside it that belongs to it.

    Raises:
        ArtifactRejected: the preprocessor's file is too large; code `object_too_large`.
    """
    data, other = manifest.read_bytes(), manifest.with_name(PREPROCESSOR_FILE)
    if not lacks_preprocessor(data) or not other.is_file():
        return data
    if other.stat().st_size > MAX_PREPROCESSOR_BYTES:
        raise ArtifactRejected(
            f"{other.name} is larger than {MAX_PREPROCESSOR_BYTES} bytes.", code="object_too_large"
        )
    return joined(data, other.read_bytes())


def shards_beside(index: Path) -> list[Path]:
    """The shards beside an index, whether it names them or not; sorted by name."""
    found = []
    for item in sorted(index.parent.iterdir()):
        part = shard(item.name)
        if part is not None and part.index == index.name and item.is_file():
            found.append(item)
    return found


@contextmanager
def in_one_file(weights: Path, out: Path, limit: int) -> Iterator[Path]:
    """The file to read for `weights`: itself, or of an index one with its shards, made in `out`.

    Args:
        limit: the most bytes that an index and its shards may have together.

    Raises:
        ArtifactRejected: there are too many shards, or they are too large.
    """
    if not is_index(weights.name):
        yield weights
        return
    shards = shards_beside(weights)
    listed = [(item.name, item.stat().st_size) for item in shards]
    index_bytes = weights.stat().st_size
    if len(shards) > MAX_SHARDS or index_bytes + sum(size for _, size in listed) > limit:
        raise ArtifactRejected(
            f"There are over {MAX_SHARDS} shards, or they have over {limit} bytes together.",
            code="file_too_large",
        )
    with TemporaryDirectory(dir=out) as folder:
        packed = Path(folder) / "packed"
        with packed.open("wb") as target:
            target.write(opening(weights.name, index_bytes, listed))
            for item in (weights, *shards):
                with item.open("rb") as source:
                    shutil.copyfileobj(source, target)
        yield packed


def refuse_part(name: str) -> None:
    """Refuse a file that is one of several by its name.

    Raises:
        ArtifactRejected: `shard_alone`.
    """
    part = shard(name)
    if part is not None:
        raise ArtifactRejected(
            f"{name} is one of several shards; {part.index} must lie beside them, and the model is "
            "read by it.",
            code="shard_alone",
        )
