"""The two bearer tokens of a server, made anew at each start and written for the guard to read.

The file has TorchServe's form, so that whoever reads `inference.key` there reads it here too.
"""

import hmac
import json
import os
import secrets
from pathlib import Path

from guard.core.secret import Secret

FILE = "key_file.json"
KINDS = ("management", "inference")
_BYTES = 32


def make_keys(folder: Path) -> dict[str, Secret]:
    """Fresh tokens by kind, written to `folder` for this user alone."""
    keys = {kind: Secret(secrets.token_urlsafe(_BYTES)) for kind in KINDS}
    draft = folder / f".{FILE}"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({kind: {"key": key.reveal()} for kind, key in keys.items()}, file)
    draft.replace(folder / FILE)
    return keys


def admits(key: Secret, header: str) -> bool:
    """Whether an `Authorization` header carries the token; compared in constant time."""
    scheme, _, token = header.partition(" ")
    known = hmac.compare_digest(token.strip().encode(), key.reveal().encode())
    return scheme.lower() == "bearer" and known
