"""What TorchServe really serves: its unpacked copies, compared with their archives byte by byte."""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from guard.publishers._archive import ARCHIVE_MANIFEST, MEMBERS, RELEASE, WEIGHTS, payload_of
from guard.publishers._weights import CHUNK, Hashes

#: The handler writes here why it refused to start; it is the only file that it ever writes.
REFUSAL = "refused.txt"
_MAX_REFUSAL_BYTES = 2000
_MAX_SMALL_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Found:
    """One unpacked copy: the digest of its weights, and what is wrong with it.

    `digest` is None if the copy is not what was released; `problem` is "" if nothing is wrong.
    """

    digest: str | None
    problem: str


class Extracts:
    """The folder where TorchServe unpacks archives.

    Args:
        root: `<java.io.tmpdir>/models` of the server.
        store: its model store.
    """

    def __init__(self, root: Path, store: Path) -> None:
        self._root = root
        self._store = store
        self._hashes = Hashes()
        # Digest of an archive -> digests of its members.
        self._members: dict[str, dict[str, str]] = {}

    def of(self, name: str, version: str) -> list[Path]:
        """The folders whose manifest names this model; links are never followed."""
        return [folder for folder in self._folders() if _named(folder) == (name, version)]

    def refusal(self, name: str, version: str) -> str:
        """The handler's own reason for refusing to serve; "" if it gave none."""
        for folder in self.of(name, version):
            text = _small(folder / REFUSAL)
            if text:
                return text[:_MAX_REFUSAL_BYTES].decode(errors="replace")
        return ""

    def look(self, folder: Path, file: str) -> Found:
        """Compare one unpacked copy with its archive and with the statement inside.

        If something is wrong although the weights are the released ones, the digest is None, so
        that nobody who compares digests alone mistakes such a model for the vetted one.
        """
        try:
            digest = self._hashes.of(folder / WEIGHTS)
            present = _files(folder)
            archive = self._hashes.of(self._store / file)
            if file[-len(".mar") - 16 : -len(".mar")] != archive[:16]:
                return Found(digest=None, problem=f"the archive {file} in the store was changed")
            published = self._digests(file, archive)
            if digest != published.get(WEIGHTS) or digest not in _subjects(
                payload_of(_json(folder / RELEASE))
            ):
                return Found(
                    digest=digest,
                    problem="its unpacked weights are not the ones that were released",
                )
            if extra := sorted(present - MEMBERS - {REFUSAL}):
                return Found(
                    digest=None,
                    problem=f"its unpacked copy holds {extra[0]!r}, which was not published",
                )
            for member in MEMBERS:
                if self._hashes.of(folder / member) != published.get(member):
                    return Found(digest=None, problem=f"{member} of its unpacked copy was changed")
        except (OSError, zipfile.BadZipFile) as error:
            return Found(
                digest=None, problem=f"its unpacked copy or its archive cannot be read ({error})"
            )
        return Found(digest=digest, problem="")

    def purge(self, name: str, version: str) -> None:
        """Delete the copies that TorchServe left behind.

        Raises:
            OSError: one could not be deleted.
        """
        for folder in self.of(name, version):
            shutil.rmtree(folder)

    def _folders(self) -> Iterator[Path]:
        try:
            entries = sorted(os.scandir(self._root), key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)

    def _digests(self, file: str, archive: str) -> dict[str, str]:
        if archive not in self._members:
            with zipfile.ZipFile(self._store / file) as members:
                self._members[archive] = {
                    name: _member_digest(members, name) for name in members.namelist()
                }
        return self._members[archive]


def _member_digest(archive: zipfile.ZipFile, name: str) -> str:
    hasher = hashlib.sha256()
    with archive.open(name) as member:
        while block := member.read(CHUNK):
            hasher.update(block)
    return hasher.hexdigest()


def _files(folder: Path) -> set[str]:
    """All files below `folder`, links among them, as names relative to it."""
    return {
        str((Path(parent) / name).relative_to(folder))
        for parent, folders, names in os.walk(folder)
        for name in [*names, *(name for name in folders if (Path(parent) / name).is_symlink())]
    }


def _named(folder: Path) -> tuple[str, str] | None:
    value = _json(folder / ARCHIVE_MANIFEST)
    model = value.get("model") if isinstance(value, dict) else None
    return (
        (str(model.get("modelName")), str(model.get("modelVersion")))
        if isinstance(model, dict)
        else None
    )


def _json(path: Path) -> object:
    try:
        return json.loads(_small(path))
    except (ValueError, RecursionError):
        return None


def _small(path: Path) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read(_MAX_SMALL_BYTES)
    except OSError:
        return b""


def _subjects(statement: dict[str, object] | None) -> list[str]:
    subjects = (statement or {}).get("subject")
    if not isinstance(subjects, list):
        return []
    return [
        str(item["digest"].get("sha256"))
        for item in subjects
        if isinstance(item, dict) and isinstance(item.get("digest"), dict)
    ]
