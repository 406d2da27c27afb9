"""A destination's address and secret, encrypted for the database.

A copy of the database then lets nobody post as the guard. The key lies in a file beside the signing
key, readable by its owner only; the API needs it to add destinations, the worker of the queue
`notify` to reach them, and no other process does.
"""

import base64
import binascii
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from guard.core.errors import InputError, IntegrityMismatch

_BYTES, _NONCE = 32, 12


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a destination is, and the secret that it knows; neither is ever shown."""

    address: str = field(repr=False)
    secret: str = field(repr=False, default="")


def seal(file: Path, hook_id: str, target: Target) -> str:
    """Encrypt a target for one destination; makes the key where there is none.

    Raises:
        InputError: the key cannot be read or made.
    """
    key = AESGCM(_key(file, make=True))
    nonce = os.urandom(_NONCE)
    text = json.dumps([target.address, target.secret]).encode()
    return base64.b64encode(nonce + key.encrypt(nonce, text, hook_id.encode())).decode()


def unseal(file: Path, hook_id: str, sealed: str) -> Target:
    """The target of a destination.

    Raises:
        InputError: the key cannot be read.
        IntegrityMismatch: it is another key, or the row was changed or is another destination's.
    """
    key = AESGCM(_key(file, make=False))
    try:
        data = base64.b64decode(sealed, validate=True)
        address, secret = json.loads(key.decrypt(data[:_NONCE], data[_NONCE:], hook_id.encode()))
    except (binascii.Error, InvalidTag, ValueError) as error:
        raise IntegrityMismatch(
            "The destination's address does not open with this key; add the destination again.",
            code="hook_sealed_otherwise",
        ) from error
    return Target(address=address, secret=secret)


def bring_back(file: Path, key: bytes) -> None:
    """Write the key that a back-up kept, where there is none.

    Raises:
        InputError: it cannot be written.
    """
    try:
        if not file.exists():
            _write(file, key)
    except OSError as error:
        raise InputError(
            f"The key of destinations cannot be written to {file}; see GUARD_HOOKS_KEY_FILE.",
            code="no_hooks_key",
        ) from error


def _key(file: Path, *, make: bool) -> bytes:
    try:
        if make and not file.exists():
            _make(file)
        key = base64.b64decode(file.read_bytes(), validate=True)
    except (OSError, binascii.Error) as error:
        raise InputError(
            f"The key of destinations in {file.name} cannot be read; see GUARD_HOOKS_KEY_FILE.",
            code="no_hooks_key",
        ) from error
    if len(key) != _BYTES:
        raise InputError(f"{file.name} holds no key of {_BYTES} bytes.", code="no_hooks_key")
    return key


def _make(file: Path) -> None:
    _write(file, base64.b64encode(AESGCM.generate_key(_BYTES * 8)))


def _write(file: Path, key: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Whole or not at all, and whoever is first: two processes may make it at once.
    own = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(key)
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(own, file)
    except FileExistsError:
        pass
    finally:
        own.unlink()
