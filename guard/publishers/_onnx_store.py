"""The model store of the inference server: `NAME/VERSION/` with one ONNX file and its release.

What lies here counts only together with the signature: a release that a trusted key signed names
the SHA-256 of the file beside it.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from guard.attest import dsse
from guard.attest.keys import TrustedKeys
from guard.attest.views import ReleaseView, read_release
from guard.core.contracts import ServedForm
from guard.core.digests import canonical_json
from guard.core.errors import IntegrityMismatch, Unavailable
from guard.publishers._archive import payload_of, same_release
from guard.publishers._export import Exporter, export
from guard.publishers._weights import Hashes, copy_verified, replace_durably

MODEL, RELEASE = "model.onnx", "release.dsse.json"
MEMBERS = (MODEL, RELEASE)
FORMAT = "onnx"
_DRAFT = ".incoming-"
_MADE = ".made-"
_STALE_SECONDS = 3600.0
_MAX_RELEASE_BYTES = 1 << 20


class OnnxStore:
    """The folder that the server reads; the guard is its only writer.

    Args:
        root: created if it does not exist.
        trusted: file of the public keys that sign releases.
        seconds: how long one export may take.
        exporter: what makes the file, in another process than this one.
    """

    def __init__(
        self, root: Path, trusted: Path, *, seconds: float, exporter: Exporter = export
    ) -> None:
        self._root, self._trusted = root, trusted
        self._seconds, self._exporter = seconds, exporter
        self._hashes = Hashes()

    def make(self, digest: str, weights: BinaryIO) -> ServedForm:
        """The ONNX file of some weights: one that lies here under a signed release, or a new one.

        Raises:
            NotServable, IntegrityMismatch, Unavailable: as `guard.publishers._export.export`.
        """
        for name, version in self.entries():
            view, problem = self.look(name, version)
            if view is not None and not problem and view.digest == digest:
                return ServedForm(format=FORMAT, digest=self._hashes.of(self._file(name, version)))
        with self._draft() as draft:
            with (draft / "weights").open("xb") as file:
                copy_verified(weights, file, digest)
            made = self._exporter(draft / "weights", digest, draft / MODEL, seconds=self._seconds)
            replace_durably(draft / MODEL, self._made(digest))
        return ServedForm(format=FORMAT, digest=made)

    def write(self, approved: Any) -> None:
        """Put an approved model in its place, with its release; nobody sees half of it.

        Raises:
            IntegrityMismatch: the release names no ONNX file.
            Unavailable: the file that it names is not here any more.
        """
        wanted = served_digest(approved)
        name, version = approved.name, approved.version
        target, made = self._root / name / version, self._made(approved.digest)
        with self._draft() as draft:
            if self._hash(made) == wanted:
                made.rename(draft / MODEL)
            elif self._hash(target / MODEL) == wanted:
                shutil.copyfile(target / MODEL, draft / MODEL, follow_symlinks=False)
            else:
                raise Unavailable(
                    f"The exported file of {approved.digest[:12]} is gone; try again.",
                    code="export_failed",
                )
            (draft / RELEASE).write_bytes(canonical_json(approved.release_envelope))
            for member in MEMBERS:
                replace_durably(draft / member, draft / member)
            target.parent.mkdir(exist_ok=True)
            (draft / "new").mkdir()
            for member in MEMBERS:
                (draft / member).rename(draft / "new" / member)
            if target.exists() or target.is_symlink():
                target.rename(draft / "old")
            replace_durably(draft / "new", target, mode=0o755)

    def holds(self, approved: Any) -> bool:
        """Whether this very release lies here, with the file that it names."""
        view, problem = self.look(approved.name, approved.version)
        return (
            view is not None
            and not problem
            and same_release(
                payload_of(self._envelope(approved.name, approved.version)),
                payload_of(approved.release_envelope),
            )
        )

    def look(self, name: str, version: str) -> tuple[ReleaseView | None, str]:
        """The verified release of an entry, and what is wrong with the entry; "" where nothing."""
        folder = self._root / name / version
        try:
            present = {one.name for one in os.scandir(folder)} if _is_folder(folder) else set()
            if present != set(MEMBERS):
                return None, "its files are not the ones that were published"
            view = read_release(
                dsse.verify(self._envelope(name, version), TrustedKeys.load(self._trusted))
            )
            digest = self._hashes.of(folder / MODEL)
        except OSError as error:
            return None, f"its files cannot be read ({error.strerror or error})"
        except (IntegrityMismatch, ValueError):
            return None, "its release is missing, unreadable or not signed by a trusted key"
        if (view.name, view.version) != (name, version):
            return None, "its release is of another name or version"
        if view.served is None or (view.served.format, view.served.digest) != (FORMAT, digest):
            return None, "its file is not the one that was released"
        return view, ""

    def release_digest(self, name: str, version: str) -> str | None:
        """SHA-256 of the release's file."""
        return self._hash(self._root / name / version / RELEASE)

    def digests(self, name: str, version: str) -> dict[str, str]:
        """SHA-256 of each file of an entry."""
        return {one: self._hashes.of(self._root / name / version / one) for one in MEMBERS}

    def entries(self) -> list[tuple[str, str]]:
        """Name and version of all that lies here but drafts; a stray file's version is ""."""
        try:
            homes = sorted(self._root.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unavailable(f"The model store cannot be read ({error}).") from error
        found: list[tuple[str, str]] = []
        for home in homes:
            if home.name.startswith((_DRAFT, _MADE)):
                continue
            inside = sorted(one.name for one in home.iterdir()) if _is_folder(home) else []
            found += [(home.name, one) for one in inside] or [(home.name, "")]
        return found

    def remove(self, name: str, version: str) -> None:
        """Delete an entry, or all of a name where the version is ""; twice is harmless.

        Raises:
            IntegrityMismatch: the name or the version leads elsewhere.
            OSError: it could not be deleted.
        """
        if {name, version} & {".", ".."} or not name or "/" in name + version:
            raise IntegrityMismatch(
                f"{name!r} {version!r} names nothing in the model store.", code="cannot_withdraw"
            )
        home = self._root / name
        target = home / version if version else home
        if not _is_folder(home):
            home.unlink(missing_ok=True)
            return
        if _is_folder(target):
            # Moved away in one step before it is deleted, so that no reader sees half a model.
            with self._draft() as draft:
                target.rename(draft / "old")
        else:
            target.unlink(missing_ok=True)
        if home.is_dir() and not any(home.iterdir()):
            home.rmdir()

    def sweep(self) -> None:
        """Delete what publishes that were killed have left."""
        for pattern in (f"{_DRAFT}*", f"{_MADE}*"):
            for one in self._root.glob(pattern):
                if time.time() - one.lstat().st_mtime > _STALE_SECONDS:
                    if _is_folder(one):
                        shutil.rmtree(one, ignore_errors=True)
                    else:
                        one.unlink(missing_ok=True)

    def forget(self, digest: str) -> None:
        """Delete an exported file that was not published; what cannot be deleted is swept later."""
        with suppress(OSError):
            self._made(digest).unlink(missing_ok=True)

    def _file(self, name: str, version: str) -> Path:
        return self._root / name / version / MODEL

    def _made(self, digest: str) -> Path:
        return self._root / f"{_MADE}{digest}.onnx"

    def _hash(self, path: Path) -> str | None:
        try:
            return self._hashes.of(path)
        except OSError:
            return None

    def _envelope(self, name: str, version: str) -> dict[str, Any]:
        with (self._root / name / version / RELEASE).open("rb") as file:
            value = json.loads(file.read(_MAX_RELEASE_BYTES))
        return value if isinstance(value, dict) else {}

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        draft = self._root / f"{_DRAFT}{uuid.uuid4().hex}"
        draft.mkdir(parents=True)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def served_digest(approved: Any) -> str:
    """The digest of the file that an approved release names.

    Raises:
        IntegrityMismatch: it names none.
    """
    statement = payload_of(approved.release_envelope)
    served = None if statement is None else read_release(statement).served
    if served is None or served.format != FORMAT:
        raise IntegrityMismatch(
            f"The release of {approved.name} names no ONNX file; have it published again.",
            code="served_other",
        )
    return served.digest


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
