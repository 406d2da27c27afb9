"""Ed25519 keys: one private key that signs, and any number of trusted public keys."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from guard.core.digests import sha256
from guard.core.errors import InputError

RAW_BYTES = 32  # of an Ed25519 public key
_OTHERS = 0o077
_OTHERS_WRITE = 0o022


@dataclass(frozen=True)
class Signer:
    """The private key that signs; its repr shows the key id only."""

    _key: Ed25519PrivateKey = field(repr=False)

    def __repr__(self) -> str:
        return f"Signer(key_id={self.key_id!r})"

    @classmethod
    def load_or_create(cls, path: Path) -> "Signer":
        """Load the key from a PEM file; create it with mode 0600 where there is none yet.

        Two processes that create it at the same time end up with the same key.

        Raises:
            InputError: the file cannot be read or written, holds no Ed25519 key, or others may read
                it.
        """
        with _readable(path):
            if not path.exists():
                cls(Ed25519PrivateKey.generate()).save(path)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """The key in a PEM file. Raises as `load_or_create`; also where there is no file."""
        data = read_private(path)
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InputError(f"{path} holds no usable private key.", code="bad_key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError(f"{path} holds a private key that is not Ed25519.", code="bad_key")
        return cls(key)

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def key_id(self) -> str:
        """SHA-256 of the raw public key."""
        return sha256(self.public)

    def save(self, path: Path) -> None:
        """Write the key to a new file of mode 0600; a file that exists stays.

        Raises:
            InputError: it cannot be written.
        """
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with _readable(path):
            _create(path, pem)

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes."""
        return self._key.sign(data)


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys by key id; without any, no signature counts."""

    keys: Mapping[str, bytes]

    @classmethod
    def load(cls, path: Path) -> "TrustedKeys":
        """Read `{"keys": [{"key_id": ..., "public": hex}]}`; a missing file means no trusted key.

        Raises:
            InputError: the file is malformed, an id is not its key's, or others may write it.
        """
        with _readable(path):
            if not path.exists():
                return cls({})
            if path.stat().st_mode & _OTHERS_WRITE:
                raise InputError(
                    f"Others may write the trusted keys {path}; "
                    "check what is in it and run chmod 644.",
                    code="key_mode",
                )
            data = path.read_bytes()
        try:
            entries = [
                (str(entry["key_id"]), bytes.fromhex(entry["public"]))
                for entry in json.loads(data)["keys"]
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a list of trusted keys.", code="bad_trust") from error
        for key_id, raw in entries:
            if len(raw) != RAW_BYTES or sha256(raw) != key_id:
                raise InputError(
                    f"In {path}, {key_id!r} is not the id of its key.", code="bad_trust"
                )
        return cls(dict(entries))

    def trust(self, signer: Signer, path: Path) -> "TrustedKeys":
        """Add a signer's public key and replace the file in one step.

        A reader sees either the old file or the new one.
        """
        return TrustedKeys({**self.keys, signer.key_id: signer.public}).save(path)

    def save(self, path: Path) -> "TrustedKeys":
        """Write these keys to a file, whole; returns them.

        Raises:
            InputError: it cannot be written.
        """
        keys = self.keys
        entries = [{"key_id": key_id, "public": raw.hex()} for key_id, raw in sorted(keys.items())]
        with _readable(path):
            _draft(path, json.dumps({"keys": entries}, indent=2).encode() + b"\n", 0o644).replace(
                path
            )
        return self

    def verify(self, key_id: str, signature: bytes, data: bytes) -> bool:
        """Whether a trusted key with this id signed `data`."""
        raw = self.keys.get(key_id)
        if raw is None:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(raw).verify(signature, data)
        except InvalidSignature:
            return False
        return True


def read_private(path: Path) -> bytes:
    """The bytes of a private key's file.

    Raises:
        InputError: it cannot be read, or others may read it.
    """
    with _readable(path):
        if path.stat().st_mode & _OTHERS:
            raise InputError(
                f"Others may read the signing key {path}; run chmod 600 on it, or make a new key.",
                code="key_mode",
            )
        return path.read_bytes()


def create_private(path: Path, data: bytes) -> None:
    """Write a private key with mode 0600 where there is no file yet; an existing one stays.

    Raises:
        InputError: it cannot be written.
    """
    with _readable(path):
        _create(path, data)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The key file {path} cannot be used: {error.strerror}.", code="key_file"
        ) from error


def _create(path: Path, data: bytes) -> None:
    draft = _draft(path, data, 0o600)
    # A link, unlike a rename, never replaces a file: a second process keeps the first one's key.
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()


def _draft(path: Path, data: bytes, mode: int) -> Path:
    """A complete new file beside `path`, synced to disk, for the caller to rename or link."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, mode)  # whatever the umask
        file.write(data)
        file.flush()
        os.fsync(handle)
    return draft
