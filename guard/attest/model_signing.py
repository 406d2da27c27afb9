"""OpenSSF Model Signing: a signature over a model's files that its verifiers check without us.

Format: https://github.com/sigstore/model-transparency (docs of the 1.0 predicate), a DSSE envelope
in a Sigstore bundle. It knows EC keys only, so that it needs a key of its own beside the Ed25519
key of verdicts. Written here, since the library `model-signing` would bring Sigstore's clients into
the one process that holds the keys; its own command line verifies what this writes, in tests.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from guard.attest.dsse import PAYLOAD_TYPE, pae
from guard.attest.keys import create_private, read_private
from guard.attest.statement import STATEMENT_TYPE
from guard.core.digests import sha256
from guard.core.errors import InputError

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_CURVE = ec.SECP256R1


@dataclass(frozen=True)
class ModelSigner:
    """The EC private key that signs model files; its repr shows the key id only."""

    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    def __repr__(self) -> str:
        return f"ModelSigner(key_id={self.key_id!r})"

    @classmethod
    def make(cls, path: Path) -> "ModelSigner":
        """Make a key on P-256 in a new PEM file with mode 0600.

        Raises:
            InputError: the file cannot be written.
        """
        key = ec.generate_private_key(_CURVE())
        create_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> "ModelSigner":
        """The key in a PEM file.

        Raises:
            InputError: there is none, others may read it, or it is no private key on P-256.
        """
        data = read_private(path)
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InputError(f"{path} holds no usable private key.", code="bad_key") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _CURVE.name:
            raise InputError(
                f"{path} holds no private key on P-256, which model signatures need; "
                "`guard keys make --model-signing` makes one.",
                code="bad_key",
            )
        return cls(key)

    @property
    def public_pem(self) -> bytes:
        """The public key as PEM, which verifiers need."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> str:
        """SHA-256 of the public key's PEM; bundles name it as their hint."""
        return sha256(self.public_pem)

    def bundle(self, name: str, files: Mapping[str, str]) -> dict[str, Any]:
        """The signed bundle over files.

        Args:
            name: of the model.
            files: SHA-256 of each file by its path in the model's folder.
        """
        body = json.dumps(_statement(name, files)).encode()
        signature = self._key.sign(pae(PAYLOAD_TYPE, body), ec.ECDSA(hashes.SHA256()))
        return {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": self.key_id}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(body).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }


def is_model_key(path: Path) -> bool:
    """Whether a file holds an EC private key, the kind that model signatures need.

    Raises:
        InputError: as `ModelSigner.load`, where the file cannot be read.
    """
    try:
        key = load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return isinstance(key, ec.EllipticCurvePrivateKey)


def _statement(name: str, files: Mapping[str, str]) -> dict[str, Any]:
    ordered = sorted(files.items())
    whole = sha256(b"".join(bytes.fromhex(digest) for _, digest in ordered))
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": whole}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": [
                {"name": path, "algorithm": "sha256", "digest": digest} for path, digest in ordered
            ],
        },
    }
