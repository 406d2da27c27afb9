"""A plain folder as a place to serve from, for sites without a network.

The guard fills the folder, and people carry it over:

    ROOT/<name>/<version>/weights.safetensors, config.json, release.dsse.json, and model.sig
                          (OpenSSF Model Signing), where the guard has a key for it
    ROOT/<name>/default         the version in force, as text

Whoever loads from it verifies `release.dsse.json` first, with `guard verify` or
`guard.attest.gate.check_release`.
"""

import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

from guard.attest import dsse
from guard.attest.keys import TrustedKeys
from guard.core.contracts import AnySmoke, Publisher, Receipt, Served
from guard.core.digests import canonical_json, json_digest
from guard.core.errors import IntegrityMismatch, Unavailable
from guard.publishers import CONFIG, RELEASE, SIGNATURE, WEIGHTS
from guard.publishers._archive import check_names, payload_of, same_release
from guard.publishers._weights import Hashes, copy_verified, manifest_of, replace_durably

MEMBERS = (WEIGHTS, CONFIG, RELEASE)
DEFAULT = "default"
_DRAFT = ".incoming-"
_MAX_RELEASE_BYTES = 1 << 20


class Folder(Publisher):
    """Publishes into a folder; older versions of a name are removed, as every publisher does.

    A folder cannot make predictions, so smoke samples are not used; the files are read back
    instead.

    Args:
        root: created if it does not exist; this process is its only writer.
        trusted: file of public keys; if given, a release that none of them signed is reported too.
    """

    def __init__(self, root: Path, trusted: Path | None = None) -> None:
        self._root = root
        self._trusted = trusted
        self._hashes = Hashes()

    @classmethod
    def configured(cls, settings: Any) -> Self:
        return cls(settings.published_dir, settings.trusted_keys_file)

    def publish(self, approved: Any, weights: BinaryIO, smoke: AnySmoke) -> Receipt:  # noqa: ARG002 - see the class
        check_names(approved.name, approved.version)
        home = self._root / approved.name
        target = home / approved.version
        try:
            for draft in self._root.glob(f"{_DRAFT}*"):
                shutil.rmtree(draft)  # left by a publish that was killed
            if not self._holds(target, approved):
                self.withdraw(approved.name, approved.version)
                self._write(home, target, approved, weights)
            seen, problem = self._look(target)
            if problem or seen != approved.digest:
                self.withdraw(approved.name, approved.version)
                raise IntegrityMismatch(
                    f"{approved.name} {approved.version} was written but read back differently: "
                    f"{problem or seen}.",
                    code="served_other",
                )
            self._make_default(home, approved.version)
            for other in self._versions(home):
                if other.name != approved.version:
                    self.withdraw(approved.name, other.name)
            digests = {member: self._hashes.of(target / member) for member in MEMBERS}
        except OSError as error:
            raise Unavailable(
                f"{self._root.name} cannot be written ({error}); free space or fix its rights."
            ) from error
        return Receipt(
            publisher="folder",
            name=approved.name,
            version=approved.version,
            digest=approved.digest,
            archive_digest=json_digest(digests),
            detail={"members": digests},
        )

    def attach(self, name: str, version: str, signature: bytes) -> None:
        check_names(name, version)
        draft = self._root / f"{_DRAFT}{uuid.uuid4().hex}"
        try:
            draft.mkdir()
            (draft / SIGNATURE).write_bytes(signature)
            replace_durably(draft / SIGNATURE, self._root / name / version / SIGNATURE)
        except OSError as error:
            raise Unavailable(f"{self._root.name} cannot be written ({error}).") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def calling(self, name: str) -> str:
        return (
            f"Nothing answers: carry {self._root / name} to where it is served, and check its "
            f"{RELEASE} there."
        )

    def withdraw(self, name: str, version: str) -> None:
        home = self._root / name
        target = home / version if version else home
        if {name, version} & {".", ".."} or not name or "/" in name + version:
            raise IntegrityMismatch(
                f"{name!r} {version!r} names nothing in this folder.", code="cannot_withdraw"
            )
        try:
            if target.is_symlink() or target.is_file():
                target.unlink()
            elif target.is_dir() and version:
                # Moved away in one step before it is deleted, so that no reader sees half a model.
                draft = self._root / f"{_DRAFT}{uuid.uuid4().hex}"
                target.rename(draft)
                shutil.rmtree(draft)
            if version and self._default(home) == version:
                (home / DEFAULT).unlink()
            if home.is_dir() and not any(home.iterdir()):
                home.rmdir()
        except OSError as error:
            raise Unavailable(
                f"{name} {version} could not be deleted ({error}); fix the folder's rights."
            ) from error

    def state(self) -> list[Served]:
        found: list[Served] = []
        try:
            homes = [
                home for home in sorted(self._root.iterdir()) if not home.name.startswith(_DRAFT)
            ]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unavailable(f"{self._root.name} cannot be read ({error}).") from error
        for home in homes:
            default = self._default(home)
            for target in self._versions(home):
                digest, problem = self._look(target)
                version = "" if target == home else target.name
                found.append(
                    Served(
                        name=home.name,
                        version=version,
                        digest=digest,
                        ready=True,
                        default=version == default,
                        detail={"problem": problem} if problem else {},
                    )
                )
        return found

    def _write(self, home: Path, target: Path, approved: Any, weights: BinaryIO) -> None:
        config = canonical_json(manifest_of(weights))
        self._root.mkdir(parents=True, exist_ok=True)
        draft = self._root / f"{_DRAFT}{uuid.uuid4().hex}"
        draft.mkdir()
        try:
            with (draft / WEIGHTS).open("xb") as file:
                copy_verified(weights, file, approved.digest)
            (draft / CONFIG).write_bytes(config)
            (draft / RELEASE).write_bytes(canonical_json(approved.release_envelope))
            for member in MEMBERS:
                replace_durably(draft / member, draft / member)
            home.mkdir(exist_ok=True)
            replace_durably(draft, target, mode=0o755)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _holds(self, target: Path, approved: Any) -> bool:
        digest, problem = self._look(target)
        return (
            digest == approved.digest
            and not problem
            and same_release(self._release(target), payload_of(approved.release_envelope))
        )

    def _look(self, target: Path) -> tuple[str | None, str]:
        """The digest of a version's weights, and what is wrong.

        The digest is None if only other files are wrong.
        """
        try:
            digest = self._hashes.of(target / WEIGHTS)
            with (target / WEIGHTS).open("rb") as weights:
                config = canonical_json(manifest_of(weights))
            present = {entry.name for entry in os.scandir(target)}
            if present - {SIGNATURE} != set(MEMBERS) or (target / CONFIG).read_bytes() != config:
                return None, "its files are not the ones that were published"
        except OSError as error:
            return None, f"its files cannot be read ({error.strerror or error})"
        except IntegrityMismatch as error:
            return None, error.sentence
        released = self._release(target)
        if released is None:
            return (
                None,
                "its release statement is missing, unreadable or not signed by a trusted key",
            )
        subjects = released.get("subject")
        listed = subjects if isinstance(subjects, list) else []
        if not any(
            isinstance(item, dict) and item.get("digest") == {"sha256": digest} for item in listed
        ):
            return digest, "its weights are not the ones that were released"
        return digest, ""

    def _versions(self, home: Path) -> Iterator[Path]:
        if not stat.S_ISDIR(home.lstat().st_mode):
            yield home  # a stray file at the top is listed as a model without versions
            return
        for entry in sorted(home.iterdir()):
            if entry.name != DEFAULT and not entry.name.startswith(_DRAFT):
                yield entry

    def _default(self, home: Path) -> str:
        try:
            return (home / DEFAULT).read_text()
        except (OSError, UnicodeDecodeError):
            return ""

    def _make_default(self, home: Path, version: str) -> None:
        if self._default(home) != version:
            draft = home / f"{_DRAFT}{uuid.uuid4().hex}"
            draft.write_text(version)
            replace_durably(draft, home / DEFAULT)

    def _release(self, target: Path) -> dict[str, Any] | None:
        try:
            with (target / RELEASE).open("rb") as file:
                envelope = json.loads(file.read(_MAX_RELEASE_BYTES))
            if self._trusted is None:
                return payload_of(envelope)
            return (
                dsse.verify(envelope, TrustedKeys.load(self._trusted))
                if isinstance(envelope, dict)
                else None
            )
        except (OSError, ValueError, IntegrityMismatch):
            return None
