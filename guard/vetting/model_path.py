"""Find the weights file and the manifest that belong to a path on disk."""

from pathlib import Path

from guard.core.companions import is_companion
from guard.core.errors import InputError
from guard.core.manifest import MANIFEST_FILE

_SHOWN = 5


def locate(path: Path) -> tuple[Path, Path | None]:
    """The weights file and the manifest that belong to a path on disk.

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
    found = (
        [usual]
        if usual.is_file()
        else sorted(
            item for item in path.iterdir() if item.is_file() and not is_companion(item.name)
        )
    )
    if len(found) != 1:
        names = ", ".join(item.name for item in found[:_SHOWN])
        raise InputError(
            f"{path} holds {len(found)} model files{f' ({names})' if names else ''}; it should "
            f"hold model.safetensors and {MANIFEST_FILE}, or give the one file that is meant."
        )
    manifest = path / MANIFEST_FILE
    return found[0], manifest if manifest.is_file() else None
