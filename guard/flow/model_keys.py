"""Keys of model signatures (OpenSSF Model Signing), and what is signed with them.

Such a key signs nothing that the guard itself relies on: the release does that. It counts from an
act on that trusts it, signed into the ledger, until one that distrusts it.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from guard.attest.model_signing import ModelSigner, is_model_key
from guard.core.digests import sha256
from guard.core.errors import InputError
from guard.core.roles import Act
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.context import Guard
from guard.flow.principals import Principal, permit
from guard.publishers import WEIGHTS
from guard.store import acts, alarms
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

__all__ = ["distrust", "is_model_key", "make", "sign", "trust", "trusted"]

ALARM = "model_key_untrusted"


def make(path: Path) -> tuple[str, Path]:
    """Make a key in a new file and its public key beside it; returns its id and that file.

    Raises:
        InputError: one of the files exists, or cannot be written.
    """
    public = path.with_suffix(".pub")
    if path.exists() or public.exists():
        raise InputError(f"{path} or {public} exists already; name a new file.", code="key_file")
    signer = ModelSigner.make(path)
    try:
        public.write_bytes(signer.public_pem)
    except OSError as error:
        raise InputError(
            f"{public} cannot be written: {error.strerror}.", code="key_file"
        ) from error
    return signer.key_id, public


def trusted(session: "Session") -> set[str]:
    """The ids of the keys that count."""
    found = [*acts.of_kind(session, Act.TRUST_MODEL_KEY)]
    found += acts.of_kind(session, Act.DISTRUST_MODEL_KEY)
    counting: set[str] = set()
    for row in sorted(found, key=lambda one: one.seq):
        (counting.add if row.act == Act.TRUST_MODEL_KEY else counting.discard)(row.subject)
    return counting


def trust(guard: Guard, path: Path, reason: str, by: Principal | str) -> str:
    """Let the key in a file sign what is published; returns its id.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: it is no EC key, or no reason was given.
    """
    signer = ModelSigner.load(path)
    facts = {"public": signer.public_pem.decode()}
    _record(guard, Act.TRUST_MODEL_KEY, signer.key_id, reason, by, facts)
    return signer.key_id


def distrust(guard: Guard, key_id: str, reason: str, by: Principal | str) -> str | None:
    """Let a key sign no longer; returns its id, None where no such key is trusted.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: no reason was given.
    """
    with reading(guard.engine) as session:
        found = [one for one in trusted(session) if len(key_id) >= 8 and one.startswith(key_id)]
    if len(found) != 1:
        return None
    _record(guard, Act.DISTRUST_MODEL_KEY, found[0], reason, by, {})
    return found[0]


def sign(guard: Guard, name: str, weights: str, files: "Mapping[str, bytes]") -> bytes | None:
    """The bundle over a published model's files; None without a key that counts.

    A key that is there and not trusted signs nothing and raises an alarm: publishing goes on, since
    nothing that the guard checks rests on this signature.

    Args:
        weights: digest of the weights.
        files: the bytes of the files beside them, by name.
    """
    path = guard.settings.model_signing_key_file
    if not path.exists():
        return None
    why = ""
    try:
        signer = ModelSigner.load(path)
        if not _counts(guard, signer.key_id):
            why = f"The key {signer.key_id[:16]} in {path} is not trusted; see `guard keys trust`."
    except InputError as error:
        why = error.sentence
    with transaction(guard.engine) as session:
        if why:
            alarms.raise_(session, ALARM, str(path), why, guard.now())
            return None
        alarms.clear(session, ALARM, str(path), guard.now())
    digests = {WEIGHTS: weights, **{file: sha256(data) for file, data in files.items()}}
    return json.dumps(signer.bundle(name, digests)).encode()


def _counts(guard: Guard, key_id: str) -> bool:
    with reading(guard.engine) as session:
        return key_id in trusted(session)


def _record(
    guard: Guard,
    act: Act,
    key_id: str,
    reason: str,
    by: Principal | str,
    facts: "Mapping[str, str]",
) -> None:
    if not reason.strip():
        raise InputError("An act about a key needs a reason.", code="act_no_reason")
    with transaction(guard.engine) as session:
        who = permit(guard, session, by, act)
        note(guard, session, who, act, key_id, reason, facts)
    settle(guard)
