"""Signing keys: made, trusted and distrusted by an explicit act that the ledger records."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from guard.attest import acts
from guard.attest.keys import Signer, TrustedKeys
from guard.core.digests import is_digest, sha256
from guard.core.errors import InputError
from guard.core.roles import Act
from guard.flow._acts import append
from guard.flow._checkpoints import store_of
from guard.flow._seal import checkpoint, open_ledger, record, recorded_keys, seal
from guard.flow._standing import NO_KEYS, compare, standing
from guard.flow._trust import change, complete, gone, in_force
from guard.flow.context import Guard
from guard.flow.principals import Principal, name_of
from guard.store.session import transaction

if TYPE_CHECKING:
    from sqlalchemy import Engine


def signer_of(guard: Guard) -> Signer:
    """The private key that this guard signs with.

    The first one is made and trusted here, and only where there has never been a ledger.

    Raises:
        InputError: there is a ledger, and no key file or no trust in its key.
    """
    settings = guard.settings
    path, trusted = settings.signing_key_file, guard.trusted
    # Asked only where it matters: it reads the database.
    new = not (path.exists() and trusted.keys) and _never_used(guard, trusted)
    if not trusted.keys and not new:
        raise InputError(NO_KEYS, code="no_trusted_keys")
    if not path.exists() and not new:
        raise InputError(
            f"There is no signing key at {path}, but the ledger is not empty; put the key back, or "
            "make one with `guard keys make` and name it with `guard keys trust`.",
            code="no_signing_key",
        )
    signer = Signer.load_or_create(path)
    if not trusted.keys:
        trusted = trusted.trust(signer, settings.trusted_keys_file)
    if signer.key_id not in trusted.keys:
        raise InputError(
            f"The signing key {signer.key_id[:16]} is not trusted; name it with "
            "`guard keys trust`.",
            code="untrusted_signer",
        )
    return signer


def trusted_of(engine: "Engine", path: Path) -> TrustedKeys:
    """The public keys that count: those of the file at `path` that no act distrusts.

    Raises as `guard.flow._trust.in_force`.
    """
    return in_force(engine, path)


def make_key(path: Path) -> str:
    """Make a private key in a new file; returns its key id. Nothing trusts it yet.

    Raises:
        InputError: the file exists, or cannot be written.
    """
    if path.exists():
        raise InputError(f"{path} exists already; name a new file.", code="key_file")
    return Signer.load_or_create(path).key_id


def trust(guard: Guard, key: str, reason: str, by: Principal | str) -> str:
    """Let signatures of a key count; returns its key id.

    Args:
        key: the file of a private key, or the id of a key that the ledger's acts name.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: there is no such key, no reason, or this guard's own key would not be trusted.
    """
    _need(reason)
    name = name_of(guard, by, Act.CHANGE_KEYS)
    settings = guard.settings
    key_id, raw = _public(guard, key)
    signer = Signer.load(settings.signing_key_file)
    counted = guard.trusted.keys
    if signer.key_id not in {*counted, key_id}:
        raise InputError(
            f"This guard signs with {signer.key_id[:16]}, which is not trusted; name that key "
            "first.",
            code="untrusted_signer",
        )
    if signer.key_id not in counted and signer.key_id in gone(guard):
        raise InputError(
            f"{signer.key_id[:16]} was distrusted, and its own signature does not bring it back; "
            "sign with another key (`guard keys make`).",
            code="untrusted_signer",
        )
    if signer.key_id not in counted and not standing(guard, patient=True).opened:
        change(guard, lambda keys: {**keys, key_id: raw})  # the act that opens the ledger names it
    act = _act(guard, "trust", key_id, reason, name, {key_id: raw.hex()})
    if signer.key_id in guard.trusted.keys:
        open_ledger(guard)
        record(guard, act)
    else:
        # Where no key is left that could, it signs for itself; only the file makes that count.
        with transaction(guard.engine) as session:
            append(guard, session, act, signer)
    # Behind the act: a process that dies in between leaves an act without effect, and no key that
    # is trusted though no act says so. Trusting it once more completes it.
    change(guard, lambda keys: {**keys, key_id: raw})
    seal(guard)
    return key_id


def distrust(guard: Guard, key_id: str, reason: str, by: Principal | str) -> str:
    """Let signatures of a key count no longer; returns its key id.

    Args:
        key_id: the id, or its first 8 characters or more.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: it is not trusted, it is the key that signs, or no reason was given.
    """
    _need(reason)
    name = name_of(guard, by, Act.CHANGE_KEYS)
    file = TrustedKeys.load(guard.settings.trusted_keys_file)
    found = [known for known in file.keys if known.startswith(key_id)]
    if len(key_id) < 8 or len(found) != 1:
        raise InputError(
            f"{key_id!r} names no single trusted key; `guard keys list` shows them.",
            code="unknown_key",
        )
    if found[0] == guard.signer.key_id:
        raise InputError(
            "This guard signs with that key; make another one, trust it and set "
            "GUARD_SIGNING_KEY_FILE first.",
            code="own_key",
        )
    if found[0] in guard.trusted.keys:  # otherwise a process died behind the act
        open_ledger(guard)
        # From the act on the key's checkpoints count no more: the newest must be another key's.
        checkpoint(guard)
        record(guard, _act(guard, "distrust", found[0], reason, name, {}))
    complete(guard)
    seal(guard)
    return found[0]


def _never_used(guard: Guard, trusted: TrustedKeys) -> bool:
    return compare(guard, store_of(guard), trusted).empty


def _public(guard: Guard, key: str) -> tuple[str, bytes]:
    if is_digest(key):
        known = recorded_keys(compare(guard, store_of(guard), guard.trusted))
        raw = bytes.fromhex(known.get(key, ""))
        if sha256(raw) != key:
            raise InputError(f"The ledger knows no key {key}; name its file.", code="unknown_key")
        return key, raw
    signer = Signer.load(Path(key))
    return signer.key_id, signer.public


def _act(
    guard: Guard, kind: str, key_id: str, reason: str, by: str, keys: dict[str, str]
) -> acts.Act:
    return acts.Act(
        act_id=uuid.uuid4().hex,
        kind=kind,
        subject=key_id,
        reason=reason,
        by=by,
        at=guard.now(),
        keys=keys,
    )


def _need(reason: str) -> None:
    if not reason.strip():
        raise InputError("An act about a key needs a reason.", code="act_no_reason")
