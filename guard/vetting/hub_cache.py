"""Find a model in the local cache of the Hugging Face Hub; nothing is ever fetched.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache

    <cache>/models--ORG--NAME/refs/main                a commit, as text
    <cache>/models--ORG--NAME/snapshots/<commit>/...   links into the next folder, or files
    <cache>/models--ORG--NAME/blobs/<etag>             the bytes; a large file's etag is its SHA-256

A cache is filled by other programs from a stranger's repository. Whatever leads out of the model's
own folder is refused, and large files are hashed.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from guard.core.digests import is_digest
from guard.core.errors import InputError, IntegrityMismatch
from guard.core.shards import is_index
from guard.vetting.model_path import locate, shards_beside

SCHEME = "hf://"
MAX_ENTRIES = 10_000
_REFERENCE = re.compile(
    r"hf://(?P<name>[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?)(@(?P<revision>[\w][\w./-]*))?",
    re.ASCII,
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One revision of a model in the cache: its folder, and the reference that pins it."""

    name: str
    folder: Path
    source: str


def find(reference: str, cache: Path) -> Snapshot:
    """The revision that a reference such as `hf://org/name@main` names, checked.

    Without a revision it is `main`. The `source` of the result names the commit.

    Args:
        cache: the folder that holds `models--...`.

    Raises:
        InputError: the reference cannot be read, or the cache does not hold that revision.
        IntegrityMismatch: a file of it lies elsewhere, or is not the one that its name says.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None or ".." in reference or "--" in found["name"]:
        raise InputError(
            f"{reference!r} names no model; write hf://ORG/NAME or hf://ORG/NAME@REVISION.",
            code="hub_reference",
        )
    home = cache / f"models--{found['name'].replace('/', '--')}"
    commit = _commit(home, found["revision"] or "main", reference)
    folder = home / "snapshots" / commit
    if not folder.is_dir() or folder.is_symlink():
        raise _missing(reference, home)
    _check_inside(folder, home)
    _check_blobs(folder)
    return Snapshot(name=found["name"], folder=folder, source=f"{SCHEME}{found['name']}@{commit}")


def _commit(home: Path, revision: str, reference: str) -> str:
    if _COMMIT.fullmatch(revision):
        return revision
    ref = home / "refs" / revision
    if not ref.exists():
        raise _missing(reference, home)
    try:
        if not _inside(ref, home / "refs"):
            raise _outside(ref)
        with ref.open("rb") as file:
            text = file.read(128).decode("ascii", "replace").strip()
    except OSError as error:
        raise _missing(reference, home) from error
    if _COMMIT.fullmatch(text) is None:
        raise InputError(f"{ref} holds no commit; download the model again.", code="hub_missing")
    return text


def _check_inside(folder: Path, home: Path) -> None:
    """Refuse a snapshot with a file that leads out of the model's folder of blobs."""
    for count, entry in enumerate(folder.iterdir()):
        if count >= MAX_ENTRIES:
            raise InputError(f"{folder} holds over {MAX_ENTRIES} entries.", code="hub_missing")
        if entry.is_symlink() and not _inside(entry, home / "blobs"):
            raise _outside(entry)


def _check_blobs(folder: Path) -> None:
    """Compare each weights file that is named by its SHA-256 with its bytes."""
    weights, _ = locate(folder)
    for file in shards_beside(weights) if is_index(weights.name) else [weights]:
        blob = file.resolve()
        if not is_digest(blob.name):
            continue
        with blob.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        if digest != blob.name:
            raise IntegrityMismatch(
                f"{file.name} in the cache is not the file that was downloaded: its SHA-256 is "
                f"{digest[:12]}, not {blob.name[:12]}; download the model again.",
                code="hub_blob",
            )


def _inside(path: Path, folder: Path) -> bool:
    """Whether what a path leads to is a file in a folder, with all links followed."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return real.is_file() and real.is_relative_to(folder.resolve())


def _missing(reference: str, home: Path) -> InputError:
    return InputError(
        f"The cache holds no {reference} ({home}); download it first, such as with `hf download`, "
        "or set GUARD_HF_HOME. The guard downloads nothing.",
        code="hub_missing",
    )


def _outside(path: Path) -> IntegrityMismatch:
    return IntegrityMismatch(
        f"{path.name} in the cache leads out of the model's own folder, or nowhere.",
        code="hub_outside",
    )
