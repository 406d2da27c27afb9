"""One model out of the store, checked against its signed release before a byte of it is used."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.attest import dsse
from guard.attest.gate import check_release
from guard.attest.keys import TrustedKeys
from guard.attest.views import ReleaseView, read_release
from guard.core.errors import IntegrityMismatch, NotServable
from guard.core.manifest import Manifest
from guard.core.manifests import parse_manifest
from guard.inference.runtime import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL, RELEASE = "model.onnx", "release.dsse.json"
FORMAT = "onnx"
_MAX_MODEL_BYTES = 2 << 30  # a protocol buffer cannot be larger
_MAX_RELEASE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """One model that may be asked until its release expires.

    `digest` and `release_digest` are SHA-256 of the bytes that were loaded and of their release.
    """

    digest: str
    release_digest: str
    release: ReleaseView
    manifest: Manifest
    session: Session = field(repr=False)

    def check_current(self, now: datetime) -> None:
        """Refuse a release that has expired; called for every request.

        Raises:
            NotServable: it has expired.
        """
        if not now < self.release.expires_at:
            raise NotServable(
                f"The release of {self.release.name} {self.release.version} expired on "
                f"{self.release.expires_at.isoformat()}; ask for a new scan.",
                code="release_expired",
            )

    def run(self, images: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Probabilities float32 N,K of images float32 N,C,H,W in [0, 1].

        Raises:
            IntegrityMismatch: they are not finite, or of another shape.
        """
        found = self.session.run(images)
        if found.shape != (len(images), self.manifest.num_classes) or not np.isfinite(found).all():
            raise IntegrityMismatch("The model's output is not finite.", code="non_finite")
        return found

    @property
    def headers(self) -> dict[str, str]:
        """What every answer of this model says about it."""
        gate = self.release.gate
        stated = (
            {} if gate is None else {"X-Guard-Gate": gate.mode, "X-Guard-Would-Be": gate.would_be}
        )
        return {"X-Guard-Digest": self.release.digest} | {
            name: str(value) for name, value in stated.items()
        }


def load(
    folder: Path, trusted: Path, *, name: str, version: str, now: datetime, threads: int
) -> Loaded:
    """Verify the release in a folder of the store, then load the file that it names, and warm up.

    Args:
        trusted: the file of public keys.
        threads: how many one request may use.

    Raises:
        GuardError: a check failed; nothing was loaded.
        OSError, ValueError, RuntimeError: a file cannot be read, or ONNX Runtime refuses it.
    """
    signed = _read(folder / RELEASE, _MAX_RELEASE_BYTES)
    envelope = json.loads(signed)
    if not isinstance(envelope, dict):
        raise IntegrityMismatch("The release statement is not an envelope.", code="bad_signature")
    # The bytes that are hashed are the ones that are loaded, whatever the file holds later.
    data = _read(folder / MODEL, _MAX_MODEL_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    release = _checked(envelope, TrustedKeys.load(trusted), name, version, now)
    if release.served is None or (release.served.format, release.served.digest) != (FORMAT, digest):
        raise IntegrityMismatch(
            "The signed release does not name this file as what is served.", code="served_other"
        )
    session = Session(data, threads)
    manifest = parse_manifest(session.manifest)
    if not isinstance(manifest, Manifest):
        raise NotServable("Only image classifiers are served here.", code="not_exportable")
    loaded = Loaded(
        digest=digest,
        release_digest=hashlib.sha256(signed).hexdigest(),
        release=release,
        manifest=manifest,
        session=session,
    )
    # The first request of a model is slower than the others; it is not to be a client's.
    loaded.run(np.zeros((1, *manifest.input_size), np.float32))
    return loaded


def _checked(
    envelope: Mapping[str, Any], trusted: TrustedKeys, name: str, version: str, now: datetime
) -> ReleaseView:
    stated = read_release(dsse.verify(envelope, trusted)).digest
    return check_release(envelope, trusted, digest=stated, name=name, version=version, now=now)


def _read(path: Path, most: int) -> bytes:
    """The content of a plain file that is no link."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > most:
            raise IntegrityMismatch(
                f"{path.name} is no plain file of at most {most} bytes.", code="served_other"
            )
        return file.read(most + 1)
